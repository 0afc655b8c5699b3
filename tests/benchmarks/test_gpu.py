"""The GPU's benchmark runs to its end without a GPU, at toy sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "speed" / "gpu.py"

if not SCRIPT.is_file():
    pytest.skip("the benchmarks are not here", allow_module_level=True)


def run(*arguments: str | Path) -> str:
    """What it prints."""
    command = [sys.executable, SCRIPT, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def test_every_part_runs(tmp_path: Path) -> None:
    """On a CPU, with interpreted kernels: every part has a line, and the sides agree."""
    pytest.importorskip("triton", reason="Triton is not installed")
    run("--device", "cpu", "--tiny", "--turns", "1", "--json", tmp_path / "gpu.json")
    report = json.loads((tmp_path / "gpu.json").read_text())
    parts = [line["part"].split(",")[0] for line in report["summary"]]
    assert parts == [
        *["pooling kernels", "pooling head", "pooling head"] * 2,
        "training",
        "esm2_t6_8M_UR50D",
        "ProteinMPNN's encoder",
    ]
    by_part = {row["part"]: row for row in report["rows"][1:]}
    assert max(by_part["pooling"]["differences"].values()) < 1e-5
    training = by_part["training"]
    losses = zip(training["losses"], training["plain_losses"], strict=True)
    assert max(abs(fused - plain) for fused, plain in losses) < 1e-5
    assert by_part["esm2_t6_8M_UR50D"]["smallest_cosine"] > 0.999


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    """One line, and no figures."""
    assert run() == "no GPU: nothing is measured\n"
