"""The benchmarks of speed run to their end at small sizes, and write a line for the page."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.programs import ROOT, program

SPEED = program("benchmarks/speed")

SMALL = {
    "esm2": "--residues 200 --turns 1",
    "proteinmpnn": "--residues 100 --turns 1",
    "residue_fit": "--proteins 60 --turns 1",
    "residues": "--residues 30 --candidates 5 --length 40 --scanned 9 --queries 5 --turns 1 "
    "--no-first-call",
    "scaling": "--sizes 5 10",
    "serve": "--vectors 30 --requests 2 --clients 1 2 --different 4 --long 2 --proteins "
    + " ".join(
        str(ROOT / "examples" / "sample" / name) for name in ("1bpi_A.cif", "1vqb_A.pdb.gz")
    ),
    "shuffling": "--sizes 40 80 --window-mb 0.01 --seeds 1 --epochs 1",
    "search": "--vectors 500 --batches 2 --turns 1",
    "store": "--proteins 20 --median 20 --batch 10 --turns 1",
    "vectors": "--rows 2000 --queries 20 --turns 1 --peers hnsw ivf",
    "words": "--sizes 20 --chains 4 --queries 1 --turns 1",
}
#: Programs that start others, or need a library that is not in the test extra.
LARGE = ("embed", "larger_than_memory", "many_entries", "pooling", "reading")
REQUIRED = {
    "embed": "Bio",
    "reading": "Bio",
    "search": "faiss",
    "vectors": "faiss",
    "proteinmpnn": "protein_mpnn_utils",
    "serve": "uvicorn",
}


def run(name: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run a program in this process, and put back the torch threads that it sets."""
    pytest.importorskip(REQUIRED.get(name, "torch"))
    threads = torch.get_num_threads()
    patch.setattr(sys, "argv", [name, *arguments])
    try:
        runpy.run_path(str(SPEED / f"{name}.py"), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_measures_and_writes_its_lines(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds the machine, the versions and a summary, of which the page is made."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # search sets it
    plot = ["--plot", str(tmp_path / "plot.svg")] if name == "scaling" else []
    file = tmp_path / "result.json"
    run(name, [*SMALL[name].split(), *plot, "--json", str(file)], monkeypatch)
    report = json.loads(file.read_text())
    assert report["benchmark"] == name
    assert report["machine"]["processor"]
    assert report["versions"]["torch"] == torch.__version__
    assert report["summary"]
    assert all(line["figure"] for line in report["summary"])


@pytest.mark.parametrize("name", LARGE)
def test_its_options_can_be_listed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help imports all that the program needs."""
    with pytest.raises(SystemExit):
        run(name, ["--help"], monkeypatch)
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("shards", range(3, 24))
def test_two_smaller_numbers_of_stores_predict_all(shards: int) -> None:
    """From three stores on, for the quick check and for the measurement."""
    few, more, every = runpy.run_path(str(SPEED / "many_entries.py"))["sizes"](shards)
    assert 1 <= few < more < every == shards


def test_the_page_names_the_steps_that_were_not_predicted() -> None:
    """A third more or less than the line says is named, for seconds and for memory."""
    lines = [
        {"step": step, "seconds": seconds, "predicted_seconds": 10, "gb": gb, "predicted_gb": 1}
        for step, seconds, gb in (("open", 10, 1.31), ("info", 6.9, 1.29), ("verify", 13.1, 0.71))
    ]
    verdict = runpy.run_path(str(ROOT / "benchmarks" / "scale.py"))["verdict"]
    assert verdict(lines) == (
        "**Seconds hold within 30 % for all but `info` and `verify`; "
        "memory holds within 30 % for all but `open`.**"
    )
    assert verdict(lines[:0]) == "**Seconds hold within 30 %; memory holds within 30 %.**"


@pytest.mark.parametrize(("program", "page"), [("report", "performance"), ("scale", "scale")])
def test_the_page_is_written_from_the_results(program: str, page: str) -> None:
    """docs/performance.md and docs/scale.md are exactly what their programs write."""
    written = runpy.run_path(str(ROOT / "benchmarks" / f"{program}.py"))["page"]()
    assert (ROOT / "docs" / f"{page}.md").read_text() == written
