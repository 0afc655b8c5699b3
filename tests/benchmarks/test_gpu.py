"""The GPU's benchmark runs to its end without a GPU, at toy sizes."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.programs import program

GPU = program("benchmarks/speed/gpu.py")


def run(patch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the program in this process."""
    patch.setattr(sys, "argv", ["gpu.py", *arguments])
    runpy.run_path(str(GPU), run_name="__main__")


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, with interpreted kernels: every part has a line, and the sides agree."""
    pytest.importorskip("triton", reason="Triton is not installed")
    file = tmp_path / "gpu.json"
    run(monkeypatch, "--device", "cpu", "--tiny", "--turns", "1", "--json", str(file))
    report = json.loads(file.read_text())
    parts = [line["part"].split(",")[0] for line in report["summary"]]
    assert parts == [
        *("pooling kernels", "pooling head", "pooling head"),
        "training",
        "esm2_t6_8M_UR50D",
        "search of 3 proteins by best diagonals",
        "ProteinMPNN's encoder",
    ]
    by_part = {row["part"]: row for row in report["rows"][1:]}
    assert max(by_part["pooling"]["differences"].values()) < 1e-5
    training = by_part["training"]
    losses = zip(training["losses"], training["plain_losses"], strict=True)
    assert max(abs(fused - plain) for fused, plain in losses) < 1e-5
    assert by_part["scan"]["same"] == 1
    assert by_part["esm2_t6_8M_UR50D"]["smallest_cosine"] > 0.999


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is measured")
def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and no figures."""
    run(monkeypatch)
    assert capsys.readouterr().out == "no GPU: nothing is measured\n"
