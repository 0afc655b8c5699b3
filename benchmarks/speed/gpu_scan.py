"""A database compared with queries by residues on a GPU, as ``search --rerank all`` does it.

gpu.py runs this. Rows of residues are made up; making them of embeddings is the processor's work
and is not timed.
"""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.shared.made_up import lengths
from benchmarks.shared.measuring import Summary
from benchmarks.speed.gpu_clock import Clock, Limits, median
from protalign.core.arrays import Int64
from protalign.core.ragged import Ragged, blocks
from protalign.residues import scan
from protalign.residues.proteins import PackedRows
from protalign.residues.scan import best_targets
from protalign.residues.targets import RESIDUES_AT_ONCE

#: Numbers of a row, and targets that are wanted for each query.
WIDTH, HITS = 50, 10


def measure_scan(
    clock: Clock, limits: Limits, queries: int, targets: int, residues: int
) -> tuple[dict[str, Any], Summary]:
    """Measure the search for the best global scores, against that of the processor's threads."""
    asked, database = proteins(queries, residues, 1), proteins(targets, residues, 2)
    parts = [
        (np.arange(part.start, part.stop), database.take(np.arange(part.start, part.stop)))
        for part in blocks(database.local.lengths, RESIDUES_AT_ONCE)
    ]

    def best(device: torch.device | None) -> list[Int64]:
        return best_targets(asked, parts, HITS, "global", device=device)

    expected = best(None)
    start = time.perf_counter()
    best(None)
    peer = time.perf_counter() - start
    with patch.object(scan, "runs_triton", lambda device: True):  # a CPU interprets the kernel
        found = best(clock.device)
        seconds = median(clock.turns({"scan": lambda: best(clock.device)})["scan"])
    same = np.mean([np.isin(one, other).mean() for one, other in zip(expected, found, strict=True)])
    pairs = len(asked.local.values) * len(database.local.values)
    share = 2 * WIDTH * pairs / seconds / limits.bfloat16_peak
    row = {"part": "scan", "queries": queries, "residues": len(database.local.values),
           "seconds": seconds, "processor_seconds": peer, "same": float(same)}  # fmt: skip
    return row, {
        "part": f"search of {targets:,} proteins by best diagonals, {queries} queries together",
        "peer": "the processor's transforms, once",
        "ratio": peer / seconds,
        "target": None,
        "figure": f"{1e3 * seconds / queries:.2f} ms a query, {pairs / seconds:.1e} pairs of "
        "residues/s",
        "limit": f"{share:.1%} of the bfloat16 matrix product's {limits.bfloat16_peak / 1e12:,.0f} "
        "TFLOP/s; the kernel multiplies in float32",
        "equal": f"{same:.0%} of hits the same",
    }


def proteins(count: int, residues: int, seed: int) -> PackedRows:
    """Make rows of proteins of one chain, about ``residues`` each."""
    drawn = lengths(count, residues, seed)
    rows = np.random.default_rng(seed).standard_normal((int(drawn.sum()), WIDTH), np.float32)
    packed = Ragged(rows, np.concatenate([[0], np.cumsum(drawn)]))
    return PackedRows(packed, packed, drawn)
