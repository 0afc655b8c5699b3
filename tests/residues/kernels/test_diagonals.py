"""The GPU's kernel of best diagonals equals the processor's; without a GPU, interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from protalign.core.errors import InputError
from protalign.core.ragged import Ragged
from protalign.residues.kernels import diagonals
from protalign.residues.kernels.diagonals import DeviceDiagonals, best_diagonals
from protalign.residues.kernels.scores import diagonal_scores
from tests.residues.kernels.test_scores import ragged, real_rows, whole_rows

pytest.importorskip("triton", reason="the kernel needs Triton, which is not installed")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 residues, so that short proteins have several."""
    monkeypatch.setattr(diagonals, "_TILE", 16)


def on_device(queries: Ragged, targets: Ragged, floor: float | None) -> tuple[np.ndarray, ...]:
    """Run the kernel."""
    tensors = [
        torch.from_numpy(array).to(DEVICE)
        for array in (queries.values, queries.offsets, targets.values, targets.offsets)
    ]
    return tuple(part.cpu().numpy() for part in best_diagonals(*tensors, floor))


@pytest.mark.parametrize("floor", [None, -2.5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_it_equals_the_processors_scores(dtype: type[np.generic], floor: float | None) -> None:
    """To the last bit for whole numbers, also of one residue and of none, and for equal sums."""
    rng = np.random.default_rng(0)
    queries = ragged([whole_rows(rng, n) for n in (1, 17)])
    targets = ragged([whole_rows(rng, n) for n in (1, 0, 16, 33)])
    expected = diagonal_scores(queries, targets, floor=floor)
    found = on_device(queries, Ragged(targets.values.astype(dtype), targets.offsets), floor)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 1e5])
def test_rounding_to_float16_touches_the_targets_alone(size: float) -> None:
    """The query keeps its bits, as two numbers, also beyond what float16 holds."""
    rng = np.random.default_rng(1)
    queries = ragged([size * rows for rows in real_rows(rng, [20])], 50)
    targets = ragged(real_rows(rng, [18]), 50)
    rounded = Ragged(targets.values.astype(np.float16), targets.offsets)
    expected = diagonal_scores(queries, rounded)
    found = on_device(queries, rounded, None)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scores_are_within_their_error(dtype: type[np.generic]) -> None:
    """Far within it, for real numbers; numbers that are not finite are refused."""
    rng = np.random.default_rng(2)
    queries, targets = real_rows(rng, [9, 20]), real_rows(rng, [1, 12, 5, 17])
    targets[1] *= 100
    packed = ragged(targets, 50)
    rows = Ragged(packed.values.astype(dtype), packed.offsets)
    scores, error = DeviceDiagonals(queries, DEVICE).scores(rows)
    exact, _ = diagonal_scores(ragged(queries, 50), rows)
    assert np.all(np.abs(scores - exact) <= error / 4)
    assert np.all(error < 1e-3 * np.abs(exact).max())
    rows.values[3, 1] = np.nan
    with pytest.raises(InputError, match=r"targets: .* not finite"):
        DeviceDiagonals(queries, DEVICE).scores(rows)


@pytest.mark.slow
def test_the_kernel_compiles_for_gpus() -> None:
    """For A100 and H100, within the memory that these have on chip."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compile_kernel.py"
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    assert len(lines) == 2
    assert max(int(line.split()[-1]) for line in lines) <= 160 * 1024
