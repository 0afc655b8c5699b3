"""The residue stage's fit: its sums over a store, and its calibration.

    python benchmarks/speed/residue_fit.py --threads 2                         # made-up proteins
    python benchmarks/speed/residue_fit.py pool.zarr domains.zarr --threads 2  # those of stores
    python benchmarks/speed/residue_fit.py --proteins 200 --turns 1            # a quick check

The sums grow with the number of residues; the context is trained on a bounded number. The
calibration aligns a fixed number of proteins,
whatever the store's size, but does less if a store has few. Made-up proteins take it longer: they
are all alike, so it looks for others in vain. The peer has the same embeddings in memory, as
float32 and side by side, and makes their covariance with numpy in one product: it reads nothing,
and knows nothing of pairs. Chunks are checked when they are first read, so the first turn does not
count.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from threadpoolctl import threadpool_limits

from benchmarks.shared.made_up import made_up_store
from benchmarks.shared.measuring import Summary, arguments, take_turns, times_faster, write
from protalign import EmbeddingStore
from protalign.core.arrays import Float32, Float64
from protalign.core.protein import MODALITIES
from protalign.heads.inputs import read_inputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.residues import PairSums


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("store", nargs="*", type=Path, help="stores with both modalities embedded")
    parser.add_argument("--proteins", type=int, default=10_000, help="that are made up")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        threadpool_limits(options.threads, user_api="blas"),
    ):
        stores = options.store or [
            made_up_store(Path(folder) / "s.zarr", options.proteins, median=300, dims=(320, 128))
        ]
        row = measure(stores, options.turns, options.threads)
    for name, value in row.items():
        print(f"{name:>20} {value:12,.3f}")
    write(options, "residue_fit", [row], [summary(row)], ["numpy"])


def measure(stores: Sequence[Path], turns: int, threads: int) -> dict[str, Any]:
    """Return the seconds of the sums, of the whole fit, and of one product of the same rows."""
    pairs = Pairs.of(read_inputs(EmbeddingStore.open(stores)))
    dims = [pairs.inputs.dims[modality] for modality in MODALITIES]
    rows = side_by_side(pairs)

    def sums() -> PairSums:
        made = PairSums(*dims)
        for block in pairs.inputs.paired_residues(pairs.positions):
            made.add_parts(block)
        return made

    def fit(*, with_context: bool) -> None:
        rng = np.random.default_rng(0)
        stage = fit_residue_stage(pairs, rng, with_context=with_context)
        if stage is None or stage.calibration is None:
            raise SystemExit("the stores: too few proteins to calibrate; name larger ones")

    def covariance() -> Float64:
        mean = rows.mean(axis=0, dtype=np.float64)
        return (rows.T @ rows) / len(rows) - np.outer(mean, mean)

    found = sums()
    assert found.n == len(rows)
    sides = {
        "sums": sums,
        "fit": lambda: fit(with_context=False),
        "context": lambda: fit(with_context=True),
        "covariance": covariance,
    }
    seconds = take_turns(sides, turns, threads=threads)
    return {
        "proteins": len(pairs),
        "residues": found.n,
        "dimensions": sum(dims),
        **{f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()},
        "ratio": times_faster(seconds, "covariance", "sums"),
    }


def side_by_side(pairs: Pairs) -> Float32:
    """Return (n, D_P + D_S) float32: the embeddings of all paired residues."""
    return np.concatenate(
        [
            np.concatenate([np.asarray(side, dtype=np.float32) for side in part], axis=1)
            for block in pairs.inputs.paired_residues(pairs.positions)
            for part in block
        ]
    )


def summary(row: dict[str, Any]) -> Summary:
    return {
        "part": f"fit of the residue stage, {row['proteins']:,} proteins of {row['residues']:,} "
        f"residues, {row['dimensions']} numbers each: the sums",
        "peer": "numpy's covariance of the same rows, held in memory as float32",
        "ratio": row["ratio"],
        "target": None,
        "figure": f"{row['sums_seconds']:.1f} s; the whole fit without a context, with its "
        f"calibration, {row['fit_seconds']:.1f} s, with one {row['context_seconds']:.1f} s",
        "limit": "",
        "equal": "tests: log ratios of two Gaussians",
    }


if __name__ == "__main__":
    main()
