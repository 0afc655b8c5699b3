"""`protalign reproduce` as a user runs it: training, resuming, the folder, the page in a browser.

All of it is in one file, so that parallel test processes make the report once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign import EmbeddingStore, ProtAlignEstimator
from protalign.cli.console import ConsoleReporter
from protalign.core.errors import InputError
from protalign.evaluation.summary import retrieval_report
from protalign.report.families import compute_families, read_families
from protalign.report.pictures import joined
from protalign.report.plan import ReportPlan, ReproduceOptions
from protalign.report.reproduce import reproduce
from protalign.splits import Split, read_split
from tests.helpers.commands import run
from tests.helpers.report_files import ODD_ID, TEST, Files, Interrupted
from tests.helpers.report_page import Opened

FIGURES = ("attention", "figure2_tsne", "figure3_loss", "figure4_heatmap")
RUNS = 8  # four configurations, two seeds


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file's object."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def test_the_folder_holds_page_numbers_and_pictures(report: Path) -> None:
    """index.html, results.json, config.json, PNG and SVG of each figure, a file for each run."""
    for name in FIGURES:
        assert (report / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (report / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert len(list((report / "runs").glob("*[0-9a-f].json"))) == RUNS + 1  # and the evaluation
    config = read(report / "config.json")
    assert config["split"] == {
        "how": "two families to test on",
        "train": 21,
        "validation": 11,
        "test": 10,
    }
    assert config["command"].startswith("protalign reproduce ")
    assert config["estimator"].items() >= config["main"].items()
    assert config["estimator"]["early_stopping"] is True
    assert set(config["fingerprints"]) == {"split", "sequence", "structure"}


def test_figures_are_those_of_the_saved_models(files: Files, report: Path) -> None:
    """Each run's figures, and each table's mean and deviation, come out again from the models."""
    parts = read_split(files.split).of(EmbeddingStore.open(files.store))
    results = read(report / "results.json")
    assert len(results["runs"]) == RUNS
    for key, record in results["runs"].items():
        model = ProtAlignEstimator.load(report / "runs" / key)
        for part in ("test", "validation"):
            found = retrieval_report(model, parts[part])
            for way in ("sequence_to_structure", "structure_to_sequence"):
                assert record[part][way] == pytest.approx(found[way])
        assert record["best_epoch"] == 1 + int(np.argmax(record["validation_curve"]))
    for table in results["tables"]:
        for row in table["rows"]:
            values = [
                results["runs"][key]["test"]["sequence_to_structure"]["mrr"] for key in row["runs"]
            ]
            shown = row["test"]["sequence_to_structure"]["mrr"]
            assert shown["mean"] == pytest.approx(np.mean(values))
            assert shown["sd"] == pytest.approx(np.std(values, ddof=1))
            assert len(values) == 2


def test_the_residues_stand_beside_the_vectors(report: Path) -> None:
    """The page has a row of figures for each score of the residue stage, and for MMseqs2."""
    page = (report / "index.html").read_text(encoding="utf-8")
    evaluation = read(report / "results.json")["evaluation"]
    assert {"residues_global", "residues_local"} <= evaluation["scorers"].keys()
    protein = evaluation["sequence_to_structure"]["tasks"]["protein"]
    for name, label in (
        ("residues_global", "residues, best diagonal"),
        ("residues_local", "residues, local alignment"),
    ):
        row = page.split(f"<th>{label}<small>")[1].split("</tr>")[0]
        assert f"{100 * protein[name]['recall_at_5']['value']:.1f}" in row
    assert "of a backbone without one" in page or "mmseqs" not in evaluation["baselines"]


def test_remote_relatives_stand_on_the_page(report: Path) -> None:
    """Given SCOPe codes: each scorer's sensitivity, and the residues that are placed right."""
    page = (report / "index.html").read_text(encoding="utf-8")
    evaluation = read(report / "results.json")["evaluation"]
    found = evaluation["sequence_to_structure"]["remote"]["scop"]["superfamily"]
    part = page.split('<h3 id="relatives">')[1].split("<h3")[0]
    (rows,) = [
        each for each in part.split("<tbody>") if "SCOPe superfamily, another family" in each
    ]
    assert f"{found['n_queries']} queries" in rows
    for name, label in (("model", "main model"), ("residues_local", "residues, local alignment")):
        row = rows.split(f"<th>{label}</th>")[1].split("</tr>")[0]
        assert row.count("<td>") == 3
        assert f"{100 * found[name]['sensitivity']['value']:.1f}" in row
    part = page.split('<h3 id="register">')[1].split("<h3")[0]
    register = evaluation["register"]["scop"]["superfamily"]
    assert f"{register['n_pairs']} pairs of {register['n_superposed']}" in part
    row = part.split("<th>BLOSUM62</th>")[1].split("</tr>")[0]
    assert f"{100 * register['blosum']['exact']['value']:.1f}" in row


def test_the_main_model_is_chosen_by_validation(report: Path) -> None:
    """The main model is the main configuration's seed of the best validation MRR, not test MRR."""
    results, config = read(report / "results.json"), read(report / "config.json")
    main = [
        record
        for record in results["runs"].values()
        if config["main"].items() <= record["parameters"].items()
    ]
    best = max(main, key=lambda record: max(record["validation_curve"]))
    assert results["main"]["run"] == best["key"]
    protein = results["evaluation"]["sequence_to_structure"]["tasks"]["protein"]
    ours = best["test"]["sequence_to_structure"]
    assert protein["model"]["recall_at_1"]["value"] == pytest.approx(ours["recall_at_1"])


def test_the_cluster_is_of_the_test_part_and_aligned(files: Files, report: Path) -> None:
    """Table 1: four or more test proteins; their rows without gaps are their sequences."""
    store = EmbeddingStore.open(files.store)
    cluster = read(report / "results.json")["cluster"]
    assert len(cluster["members"]) >= 4
    for member in cluster["members"]:
        assert member["id"] in TEST
        assert member["aligned"].replace("-", "") == joined(store.sequence(member["id"]))


def test_a_second_call_does_what_is_missing(files: Files, interrupted: Interrupted) -> None:
    """Interrupted after its first run it ends with 130 and one line, and all runs are whole.

    Called again, it keeps them but for one whose file was cut off, which comes out the very same.
    """
    assert interrupted.code == 130, interrupted.error
    assert "Traceback" not in interrupted.error, interrupted.error
    assert "run the same command again to continue" in interrupted.error
    kept = {name: json.loads(text) for name, text in interrupted.kept.items()}
    assert 1 <= len(kept) < RUNS
    assert all(f"{record['key']}.json" == name for name, record in kept.items())
    summary = interrupted.summary
    assert summary["kept"] == len(kept) - 1
    assert summary["trained"] == RUNS - summary["kept"]
    runs = files.out / "runs"
    assert {name: (runs / name).stat().st_mtime_ns for name in interrupted.times} == (
        interrupted.times
    )
    again = read(runs / interrupted.damaged)
    times = {name: again[name] for name in ("seconds", "sha256")}
    assert again == {**kept[interrupted.damaged], **times}


@pytest.mark.parametrize("is_file", [False, True], ids=["another page", "a file"])
def test_what_is_not_a_report_is_left_alone(files: Files, tmp_path: Path, is_file: bool) -> None:
    """A folder with another index.html, or a file: InputError before any training."""
    out, table = tmp_path / "site", tmp_path / "families.csv"
    table.write_text("id,family\n107l_A,lysozyme\n", encoding="utf-8")
    other = out if is_file else out / "index.html"
    other.parent.mkdir(exist_ok=True)
    other.write_text("mine", encoding="utf-8")
    store, split = EmbeddingStore.open(files.store), read_split(files.split)
    options = ReproduceOptions(quick=True, families=table)
    with pytest.raises(InputError, match="name another folder"):
        reproduce(store, split, out, options, ConsoleReporter(quiet=True))
    assert other.read_text(encoding="utf-8") == "mine"


def test_a_test_part_of_too_few_proteins_is_refused_before_training(
    files: Files,
) -> None:
    """Three unique proteins: InputError that says how many there are and how many it needs."""
    split = read_split(files.split)
    few = Split(split.train, split.validation, split.test[:3])
    with pytest.raises(InputError, match=r"test part: 3 unique proteins.*needs 4 or more"):
        ReportPlan.of(EmbeddingStore.open(files.store), few, ReproduceOptions())


def test_a_missing_library_is_one_line_before_any_training(files: Files, tmp_path: Path) -> None:
    """Without jinja2 nothing is trained; the line says what to install."""
    out = tmp_path / "report"
    code = (
        "import sys\nsys.modules['jinja2'] = None\nfrom protalign.cli import main\n"
        f"sys.argv = {['protalign', *files.words(out)]!r}\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'protalign: the report needs jinja2: pip install "protalign[report]"'
    ]
    assert not out.exists()


def test_families_of_other_proteins_are_refused(files: Files, tmp_path: Path) -> None:
    """A table that names no test protein: one line, exit code 2, nothing trained."""
    table, out = tmp_path / "families.csv", tmp_path / "report"
    table.write_text("id,family\n1abc,globin\n", encoding="utf-8")
    done = run(*files.words(out), "--families", table, code=2)
    assert "names none of the test proteins" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()


def test_labels_without_a_code_are_refused(files: Files, tmp_path: Path) -> None:
    """A table of SCOPe or CATH whose labels are no codes: one line before anything is trained."""
    table, out = tmp_path / "labels.csv", tmp_path / "report"
    table.write_text("id,label\n107l_A,lysozyme\n", encoding="utf-8")
    for scheme in ("scop", "cath"):
        done = run(*files.words(out), f"--{scheme}", table, code=2)
        assert f"{scheme}: no label is " in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not out.exists()


def test_families_are_named_by_the_table_or_after_their_first_member(
    files: Files, tmp_path: Path
) -> None:
    """Given: as the table says; an id that is not in it is alone. Computed: by their sequences."""
    test = read_split(files.split).of(EmbeddingStore.open(files.store))["test"]
    computed = compute_families(test).of
    assert {computed[i] for i in TEST[:4]} == {"107l_A"}
    assert {computed[i] for i in TEST[4:8]} == {"1a2p_A"}
    assert computed[ODD_ID] == ODD_ID
    table = tmp_path / "families.csv"
    table.write_text("id,family\n107l_A,lysozyme\n108l_A,lysozyme\n", encoding="utf-8")
    given = read_families(table, test)
    assert [given.of[i] for i in TEST[:3]] == ["lysozyme", "lysozyme", "109l_A"]
    assert "proteins that are not in it (8)" in given.how


def test_the_map_ranks_as_the_tables_do(files: Files, report: Path) -> None:
    """The ranks on the map give the main model's figures; a list has the partner at its rank.

    108l_A and "shaken" share a sequence: it is one query, and both structures are its own.
    """
    page = (report / "index.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'id="map-data">(.*?)</script>', page)
    points = json.loads(data)
    assert sorted(points["ids"]) == sorted(TEST)
    results = read(report / "results.json")
    test = results["runs"][results["main"]["run"]]["test"]
    view = EmbeddingStore.open(files.store)[points["ids"]]
    for modality, other in (("sequence", "structure"), ("structure", "sequence")):
        items = view.items(modality)
        ranks = np.array(points[modality]["rank"])
        unique = ranks[np.unique(items, return_index=True)[1]]
        figures = test[f"{modality}_to_{other}"]
        assert figures["n_queries"] == len(unique) == (9 if modality == "sequence" else 10)
        assert figures["mrr"] == pytest.approx(np.mean(1 / unique))
        assert figures["median_rank"] == np.median(unique)
        for i, (near, own) in enumerate(
            zip(points[modality]["near"], points[modality]["own"], strict=True)
        ):
            assert own == [items[j] == items[i] for j in near]
            assert ranks[i] == 1 + own.index(True) if True in own else ranks[i] > len(near)


def test_the_page_says_what_is_true_of_this_split(report: Path) -> None:
    """A trial run, relatives of one test protein, and of most of the validation part."""
    page = " ".join((report / "index.html").read_text(encoding="utf-8").split())
    results = read(report / "results.json")
    test, validation = results["evaluation"]["leakage"], results["validation_leakage"]
    assert test["at_30"] == 1
    assert page.index("A trial run: its figures mean nothing") < page.index("Recall@1 of CLIP")
    assert "Some test proteins have relatives in training: of 9 test sequences" in page
    assert 2 * validation["at_30"] > validation["n_sequences"]
    assert "favours what holds for relatives of the training proteins" in page
    assert "most of its families are new" not in page


def test_an_odd_id_is_text_on_the_page(report: Path) -> None:
    """An id with markup in it is escaped wherever it stands."""
    page = (report / "index.html").read_text(encoding="utf-8")
    assert ODD_ID not in page
    assert "\\u003cb\\u003e\\u0026$_$1vqb" in page


def test_it_opens_without_an_error_or_a_request(opened: Opened, report: Path) -> None:
    """Nothing on the console; nothing asked for but the file itself and what is inside it."""
    assert opened.problems == []
    outside = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [(report / "index.html").as_uri()]
    broken = "[...document.images].filter(image => image.naturalWidth === 0).length"
    assert opened.page.evaluate(broken) == 0


def test_the_map_moves_zooms_and_shows_all_again(opened: Opened) -> None:
    """By its buttons, by keys, and by dragging; a point keeps its place in the data."""
    start = opened.place(0, 0)
    buttons = opened.page.locator("#map-buttons button").all_inner_texts()
    assert buttons == ["+", "\N{MINUS SIGN}", "Show all", "Save picture"]
    opened.page.click("#map-buttons button:first-child")
    assert opened.place(0, 0) != start
    opened.page.get_by_role("button", name="Show all points").click()
    assert opened.place(0, 0) == start
    opened.page.locator("#map canvas").focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.place(0, 0) == (start[0] - 40, start[1])
    opened.page.keyboard.press("0")
    assert opened.place(0, 0) == start
    box = opened.page.locator("#map canvas").bounding_box()
    opened.page.mouse.move(box["x"] + 5, box["y"] + 5)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 35, box["y"] + 25)
    opened.page.mouse.up()
    assert opened.place(0, 0) == (start[0] + 30, start[1] + 20)
    opened.page.get_by_role("button", name="Show all points").click()


def test_the_map_shows_the_neighbours_of_the_point_under_the_mouse(opened: Opened) -> None:
    """Hovering over a sequence, then over another, changes the neighbours beside the map."""
    seen = [opened.panel]
    for index in (0, 5):
        opened.page.mouse.move(*opened.place(0, index))
        opened.page.wait_for_function(
            "before => document.getElementById('map-panel').innerText !== before", arg=seen[-1]
        )
        seen.append(opened.panel)
    assert "Nearest structures" in seen[1]
    assert len(set(seen)) == 3
    assert opened.problems == []


def test_a_click_keeps_a_point_until_escape(opened: Opened) -> None:
    """A clicked structure stays shown while the mouse is elsewhere; Escape lets go of it."""
    opened.page.mouse.click(*opened.place(1, 2))
    opened.page.wait_for_function("() => document.getElementById('map-message').innerText !== ''")
    kept = opened.panel
    assert "Nearest sequences" in kept
    opened.page.mouse.move(*opened.place(0, 5))
    assert opened.panel == kept
    opened.page.keyboard.press("Escape")
    assert opened.page.inner_text("#map-message") == ""


def test_search_finds_ids_and_names_the_one_that_is_missing(opened: Opened) -> None:
    """Whole ids, beginnings of ids, odd ids; a neighbour's button goes on to that neighbour."""
    box = opened.page.locator("#map-search")
    for wanted, found in (("110l_A", "110l_A"), ("1bns", "1bns_C"), (ODD_ID, ODD_ID)):
        box.fill(wanted)
        box.press("Enter")
        assert opened.page.inner_text("#map-panel h3") == found
    box.fill("nobody")
    box.press("Enter")
    assert "no protein here has the id “nobody”" in opened.page.inner_text("#map-message")
    neighbour = opened.page.locator("#map-panel li button").first
    name = neighbour.inner_text()
    neighbour.click()
    assert opened.page.inner_text("#map-panel h3") == name
    assert "Nearest sequences" in opened.panel
    assert opened.page.evaluate("document.activeElement.id") == "map-panel"
    assert opened.problems == []


def test_no_table_is_cut_off_on_a_small_screen(opened: Opened) -> None:
    """At 800 pixels every table is shown whole, the folded one too."""
    opened.page.set_viewport_size({"width": 800, "height": 900})
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    widths = opened.page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.querySelector('table'))"
        ".map(box => [box.scrollWidth, box.clientWidth])"
    )
    assert len(widths) >= 8
    assert all(needed <= shown for needed, shown in widths), widths


def test_the_whole_page_does_not_scroll_sideways_on_a_telephone(opened: Opened) -> None:
    """At 390 pixels wide tables scroll by themselves."""
    opened.page.set_viewport_size({"width": 390, "height": 844})
    opened.page.wait_for_function("() => document.documentElement.scrollWidth <= 390")
    assert opened.problems == []


def test_it_stays_light_if_the_browser_prefers_dark(opened: Opened) -> None:
    """Black on white."""
    opened.page.emulate_media(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(background) == "rgb(255, 255, 255)"
