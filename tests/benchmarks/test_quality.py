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
