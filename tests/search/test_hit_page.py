"""The page of hits in a browser: table, opened hits, saved files, and nothing that leaves it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

import protalign
from protalign import Model
from protalign.residues.calibration import Calibration
from protalign.search import Hits, hit_page
from protalign.search.hit_columns import HitTable
from protalign.search.hit_files import write_table
from tests.helpers.pages import Page

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def hits(finished: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Hits:
    """A structure file, and a sequence whose name and whose hits' names are markup."""
    model = Model.load(finished / "model", "cpu")
    known = Calibration(-10.0, 0.5, 5.0, scale=25.0, n_pairs=10_000)
    model.residue_stage = replace(model.residue_scorer(), calibration=known)
    fasta = tmp_path_factory.mktemp("fasta") / "query.fasta"
    fasta.write_text(f">{EVIL.split()[0]} {EVIL}\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDG\n")
    found = protalign.search(
        [sample / "1b5m_A.pdb.gz", fasta], finished / "vectors.parquet", model=model, rerank=30, k=6
    )
    named = tuple(replace(hit, description=f"{EVIL} {hit.rank}") for hit in found)
    return replace(found, hits=named)


@pytest.fixture(scope="module")
def table(hits: Hits) -> HitTable:
    """The usual columns."""
    return hits.table()


@pytest.fixture(scope="module")
def file(hits: Hits, table: HitTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page."""
    path = tmp_path_factory.mktemp("page") / "hits.html"
    write_table(table, path, view=hits.view)
    return path


@pytest.fixture(scope="module")
def loaded(browser: Any, file: Path) -> Iterator[Page]:
    """The page, loaded once."""
    page = Page(browser, file.as_uri(), accept_downloads=True)
    yield page
    page.context.close()


@pytest.fixture
def opened(loaded: Page) -> Iterator[Page]:
    """The page with its first query in order of rank; at the end, nothing went wrong or out."""
    loaded.page.set_viewport_size({"width": 1280, "height": 900})
    loaded.page.emulate_media(color_scheme="light")
    if loaded.page.locator("dialog[open]").count():
        loaded.page.keyboard.press("Escape")
        loaded.page.wait_for_function("() => location.hash === ''")
    loaded.page.fill("input[type=search]", "")
    loaded.page.evaluate("location.hash = ''")
    loaded.page.select_option("#query-choice", "0")
    if loaded.page.get_attribute("th.rank", "aria-sort") != "ascending":
        loaded.page.click("th.rank button")
    yield loaded
    assert loaded.problems == []
    assert loaded.elsewhere == []


def targets(page: Any) -> list[str]:
    """The entries of the table, in the order that is shown."""
    names: list[str] = page.locator("button.open").all_inner_texts()
    return names


def test_the_table_sorts_and_filters(opened: Page, table: HitTable) -> None:
    """By any column, best first and back; the filter looks at names; each query has its hits."""
    rows = [row for row in table.rows if row["query"] == "1b5m_A"]
    page = opened.page
    assert targets(page) == [row["target"] for row in rows]
    page.click("th.cosine button")
    by_cosine = [r["target"] for r in sorted(rows, key=lambda row: -row["cosine"])]
    assert targets(page) == by_cosine
    assert page.get_attribute("th.cosine", "aria-sort") == "descending"
    page.click("th.cosine button")
    assert targets(page) == by_cosine[::-1]
    page.fill("input[type=search]", rows[2]["target"].upper())
    assert targets(page) == [rows[2]["target"]]
    assert "1 of 6 hits match" in page.inner_text("#hits")
    page.fill("input[type=search]", "")
    page.select_option("#query-choice", "1")
    others = [row["target"] for row in table.rows if row["query"] != "1b5m_A"]
    assert sorted(targets(page)) == sorted(others)


def test_a_hit_opens_in_3d_linked_with_its_alignment(opened: Page, hits: Hits) -> None:
    """Keys lead to it; a residue is marked in both views, from either; Escape goes back."""
    page = opened.page
    page.locator("button.open").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".viewer[data-ready=yes]")
    view = hits.view(1)
    assert page.inner_text("#hit-title") == view["target"]["id"]
    assert page.evaluate("location.hash") == f"#hit={view['target']['id']}"
    before = opened.colours()
    assert before > 100
    q, t, _ = view["pairs"][0]
    letters = ["".join(c["letters"] for c in view[side]["chains"]) for side in ("query", "target")]
    page.hover(".line.target [data-column='0']")
    number = view["target"]["chains"][0]["numbers"][t]
    opened.says(".readout", f"Query {letters[0][q]} A:")
    opened.says(".readout", f"Entry {letters[1][t]} A:{number} ")
    picture = page.locator(".viewer canvas").screenshot()
    page.locator(".columns").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".line.target .current[data-column='1']")
    for _ in range(50):  # drawn in a later frame
        if page.locator(".viewer canvas").screenshot() != picture:
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the marked residue is not drawn")
    box = page.locator(".viewer canvas").bounding_box()
    seen = set()
    for step in range(40):  # the ribbons cross the middle of the picture somewhere
        x = box["x"] + box["width"] * (0.4 + 0.02 * (step % 10))
        page.mouse.click(x, box["y"] + box["height"] * (0.5 + 0.05 * (step // 10)))
        seen.add(page.inner_text(".readout"))
        if len(seen) == 3:
            break
    assert len(seen) == 3
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    page.wait_for_function("() => location.hash === ''")  # the dialog's event comes a task later
    assert page.evaluate("document.activeElement.textContent") == view["target"]["id"]


def test_a_url_names_a_hit(browser: Any, file: Path, hits: Hits) -> None:
    """The second query's second hit, by a sequence: coloured by how well its residues fit."""
    view = hits.view(7)
    page = Page(browser, f"{file.as_uri()}#query=2&hit={view['target']['id']}")
    page.page.wait_for_selector(".viewer[data-ready=yes]")
    assert page.page.inner_text("#hit-title") == view["target"]["id"]
    assert "residues fit:" in page.page.inner_text(".legend")
    assert page.colours() > 100
    assert page.problems == page.elsewhere == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(opened: Page, scheme: str) -> None:
    """axe-core finds nothing serious in the table or in a hit, and 400 pixels are wide enough."""
    page = opened.page
    page.emulate_media(color_scheme=scheme)
    assert opened.findings() == []
    page.locator("button.open").first.click()
    page.wait_for_selector(".viewer[data-ready=yes]")
    assert opened.findings() == []
    opened.fits(400, "html", "dialog .body")


def test_the_hits_are_saved_again(opened: Page, hits: Hits, table: HitTable) -> None:
    """TSV and JSON have the table's values, FASTA the sequences, the archive superposed atoms."""
    document = json.loads(opened.saved("JSON"))
    assert document == json.loads(json.dumps(table.as_dict()))
    lines = [line.split("\t") for line in opened.saved("TSV").decode().splitlines()]
    assert lines[0] == list(table.columns)
    column = lines[0].index("score")
    assert [float(line[column]) for line in lines[1:]] == [row["score"] for row in table.rows]
    records = re.findall(r">(\S+)[^\n]*\n([A-Z\n]+)", opened.saved("FASTA").decode())
    sequences = {name: text.replace("\n", "") for name, text in records}
    view = hits.view(1)  # the first is the query itself, which does not move
    assert set(sequences) == {row["target"] for row in table.rows}
    assert sequences[view["target"]["id"]] == view["target"]["chains"][0]["letters"]
    archive = zipfile.ZipFile(io.BytesIO(opened.saved("Structures (ZIP)")))
    assert archive.testzip() is None
    name = f"002_{view['target']['id']}.pdb"
    assert {"query_1b5m_A.pdb", name} <= set(archive.namelist())

    def atoms(text: str) -> Any:
        model = gemmi.read_pdb_string(text)[0]
        return np.array([a.pos.tolist() for chain in model for residue in chain for a in residue])

    placed = view["superposition"]
    rotation = np.reshape(placed["rotation"], (3, 3))
    expected = atoms(view["structures"]["target"]) @ rotation.T + placed["translation"]
    moved = atoms(archive.read(name).decode())
    np.testing.assert_allclose(moved, expected, atol=0.002)


def test_without_scripts_the_tables_are_there(browser: Any, file: Path, table: HitTable) -> None:
    """Both queries' tables, readable, with all hits."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("table").count() == 2
    assert page.locator("tbody tr").count() == len(table.rows)
    assert page.locator("td.target").first.is_visible()
    assert "Open a hit" not in page.inner_text("header")
    assert "Scripts are off" in page.inner_text("header")
    context.close()


def test_only_the_page_s_own_scripts_may_run(file: Path) -> None:
    """Each is named by its hash; names of proteins are text, and end no element."""
    text = file.read_text(encoding="utf-8")
    policy = re.search(r'Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "alert(1)<" not in text
    assert text.count("<script>") == len(hit_page._SCRIPTS)


def test_details_are_held_up_to_a_size(
    hits: Hits, table: HitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best ranks of all queries come first, and the page says which have none, and why."""
    monkeypatch.setattr(hit_page, "MOST_VIEWS", 3)
    text = hit_page.page(table, hits.view)
    assert re.findall(r'id="hit-(\d+)"', text) == ["0", "6", "1"]
    assert "3 hits of them can be opened" in text
    assert "The page holds the details of 3 hits at most" in text
    monkeypatch.setattr(hit_page, "MOST_BYTES", 10)
    text = hit_page.page(table, hits.view)
    assert 'id="hit-' not in text
    assert "too large" in text
    assert "This search compared vectors only" in hit_page.page(table)
