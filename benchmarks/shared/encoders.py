"""Comparison of an encoder's speed and results with those of its reference code."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.shared.measuring import Summary, matrix_peak, take_turns, times_faster
from protalign.core.arrays import Float32

Embeddings = list[Float32]
Run = Callable[[], Embeddings]


def compare(
    sides: Mapping[str, Run], residues: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run the sides in turn and return a row for each; the first side is the reference."""
    reference = next(iter(sides))
    outputs = {name: np.concatenate(run()) for name, run in sides.items()}
    seconds = take_turns(sides, options.turns, threads=options.threads, warm=False)
    expected = outputs[reference]
    rows = []
    for name, values in outputs.items():
        norms = np.linalg.norm(values, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = (values * expected).sum(1) / norms
        rows.append(
            {
                "side": name,
                "residues_per_second": residues / statistics.median(seconds[name]),
                "ratio": times_faster(seconds, reference, name),
                "largest_difference": float(np.abs(values - expected).max()),
                "median_cosine": float(np.median(cosines)),
                "smallest_cosine": float(cosines.min()),
            }
        )
    return rows


def summary(
    rows: list[dict[str, Any]],
    threads: int,
    *,
    part: str,
    peer: str,
    operations: int,
    targets: Mapping[str, float],
) -> list[Summary]:
    """Return a line for each of our sides, which are named "protalign DTYPE".

    Parameters
    ----------
    operations : of the linear layers, per residue.
    targets : dtype -> the ratio to reach.
    """
    lines: list[Summary] = []
    for row in rows[1:]:
        dtype = row["side"].split()[1]
        peak = matrix_peak(getattr(torch, dtype), threads=threads)
        share = row["residues_per_second"] * operations / peak
        lines.append(
            {
                "part": f"{part}, {dtype}",
                "peer": peer,
                "ratio": row["ratio"],
                "target": targets.get(dtype),
                "figure": f"{row['residues_per_second']:,.0f} residues/s",
                "limit": f"matrix product {peak / 1e9:,.0f} GFLOP/s; linear layers reach "
                f"{share:.0%} of it",
                "equal": f"differs by {row['largest_difference']:.0e}"
                if dtype == "float32"
                else f"cosine {row['median_cosine']:.5f} in the median of residues, "
                f"{row['smallest_cosine']:.5f} in the worst",
            }
        )
    return lines


def print_table(title: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print a line for each side."""
    print(f"{title},\n{options.threads} thread(s), median of {options.turns} turns")
    print(f"{'':20} {'residues/s':>10} {'ratio':>6} {'max. diff.':>10} {'min. cosine':>11}")
    for row in rows:
        print(
            f"{row['side']:20} {row['residues_per_second']:10.0f} {row['ratio']:6.2f} "
            f"{row['largest_difference']:10.1e} {row['smallest_cosine']:11.6f}"
        )
