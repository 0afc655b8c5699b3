"""The benchmarks of quality start, and that of words runs to its end at a small size."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from protalign.stores import EmbeddingStore
from tests.helpers.programs import program

QUALITY = program("benchmarks/quality")


def run(name: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run a program in this process."""
    patch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(QUALITY / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize("name", ["calibration", "downstream", "register", "remote", "words"])
def test_its_options_can_be_listed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help imports all that the program needs."""
    assert (QUALITY / f"{name}.py").exists()
    with pytest.raises(SystemExit) as ended:
        run(name, ["--help"], monkeypatch)
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.slow
def test_words_are_compared_with_all_residues(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every side has a share of queries for each number of first hits, and none falls with it."""
    labels = tmp_path / "labels.csv"
    rows = [f"{name},{place % 6}" for place, name in enumerate(store.ids.tolist())]
    labels.write_text("\n".join(["id,topology", *rows]))
    file = tmp_path / "figures.json"
    options = ["--labels", str(labels), "--json", str(file), "--made-up", "30", "--words", "40"]
    run("words", [str(store.path), *options, "--seeds", "1", "--queries", "3"], monkeypatch)
    [figures] = json.loads(file.read_text())["runs"]
    assert figures["queries"] == 3
    assert figures["targets"] == 30 + int((store.has_sequence & store.has_structure).sum())
    assert len(figures["shares"]) == 5 + 2 * 3
    for shares in figures["shares"].values():
        assert shares == sorted(shares)
        assert shares[-1] == 1  # fewer structures than the first 200


@pytest.mark.slow
@pytest.mark.parametrize("superposed", [True, False])
def test_relatives_are_superposed_and_aligned(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, superposed: bool
) -> None:
    """Mutants as members of several families: TM-align finds all, and residues are on themselves.

    Human and hen lysozyme are two superfamilies of one fold, whose members TM-align finds too. If
    it is no rival, its program is not needed.
    """
    if superposed:
        pytest.importorskip("tmtools", reason="tmtools (GPL-3), TM-align's program, is not here")
    else:
        monkeypatch.setitem(sys.modules, "tmtools", None)  # importing it fails
    classes = {"107l 108l 109l 110l": "a.1.1", "1b7s 1gay 1gb0": "b.1.1", "1flq 1flu 1flw": "b.1.2"}
    classes |= {"1ey4 1ey5 1ey6": "c.1.1", "1a2p 1ban 1bao 1bns": "d.1.1", "1gob 1kva": "e.1.1"}
    code = {
        pdb: f"{wide}.{number}"
        for pdbs, wide in classes.items()
        for number, pdb in enumerate(pdbs.split(), start=1)
    }
    rows, domains = ["id,split,c95,c30,scop40_hit"], ["id,topology,cath"]
    for name in store.ids[:40].tolist():
        of = code.get(name[:4], "")
        rows.append(f"{name},{'val' if of else 'train'},{name},{of[:5] or name},{of}")
        if of:
            topology = f"1.1.{ord(of[0])}"
            domains.append(f"{name},{topology},{topology}.{name[1] + str(ord(name[3]))}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.csv").write_text("\n".join(rows))
    (tmp_path / "data" / "cath.csv").write_text("\n".join(domains))
    stores = [f"--{name}={store.path}" for name in ("casf", "chains", "domains")]
    given = [
        "--tasks",
        "scop",
        "structures",
        "register",
        "--rivals",
        *["blosum", "tm-align"][: 1 + superposed],
        "--structures",
        "30",
        "--topologies",
        "0" if superposed else "1",
    ]
    given += ["--seeds", "1", "--epochs", "1", "--jobs", "1", "--shared", str(tmp_path)]
    run("remote", [*stores, *given, "--out", str(tmp_path / "figures.json")], monkeypatch)
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["topologies"] == 1 - superposed
    (figures,) = report["seeds"]
    found = {" ".join(task.split(" ")[:-2]): values for task, values in figures.items()}
    for level in ("superfamily", "fold"):
        of_level = found[f"scop, as written, structures, {level}"]
        assert ("TM-align" in of_level) == superposed
        if superposed:
            assert of_level["TM-align"]["recall_at_1"]["value"] == 1
            assert of_level["TM-align"]["sensitivity"]["value"] == 1
        assert {"sequence: residues_local", "structure: residues_local"} < set(of_level)
    assert found["scop, superfamily"]["residues_local"]["recall_at_1"]["value"] == 1
    # A whole superfamily is one cluster, so that only the two lysozymes' fold is left.
    assert [task for task in found if "30 %" in task] == ["scop, other clusters at 30 %, fold"]
    for aligner in ("residues_local", "blosum"):
        of_aligner = found["scop, as written, register, superfamily"][aligner]
        assert of_aligner["exact"]["value"] > 0.95
        assert found["scop, as written, register, fold"][aligner]["near"]["value"] > 0.5
    if superposed:
        assert found["cath, structures, topology"]["TM-align"]["recall_at_1"]["value"] == 1
