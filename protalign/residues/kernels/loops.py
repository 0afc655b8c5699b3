"""The innermost loops, which numba compiles when they are first called.

A tile of scores is (rows, columns): some residues of one query against all columns of a group (see
``packed``). Every loop runs over neighbouring columns, so that one instruction serves several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.residues.kernels.packed import LANES
from protalign.residues.kernels.vectors import local_row

Int32 = npt.NDArray[np.int32]

Loop = TypeVar("Loop", bound=Callable[..., object])


def _compiled(loop: Loop) -> Loop:
    """Compile a loop on its first call, and keep the result for later processes if possible.

    Numba keeps it beside this file, or in the user's cache folder if that is read-only. If both
    are, each process compiles anew.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"nnan", "nsz"}}
    try:
        compiled: Loop = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder that can be written
        compiled = numba.njit(**options)(loop)
    return compiled


@_compiled
def add_diagonals(scores: Float32, first: int, n_query: int, floor: float, sums: Float32) -> None:
    """Add a tile to the sums of its diagonals.

    Parameters
    ----------
    scores : (rows, longest * LANES) float32
        Residues ``first``, ``first + 1``, … of the query.
    first, n_query : int
        The tile's first residue, and the query's residues.
    floor : float
        Lower scores count as this.
    sums : ((n_query - 1 + longest) * LANES,) float32
        The sum of diagonal d, position less residue, of a lane is number
        ``(d + n_query - 1) * LANES + lane``.
    """
    for r in range(len(scores)):
        row = scores[r]
        begin = (n_query - 1 - first - r) * LANES
        moved = sums[begin : begin + len(row)]
        for column in range(len(row)):
            moved[column] += max(row[column], floor)


@_compiled
def best_diagonals(
    sums: Float32, lengths: Int64, n_query: int, best: Float32, offsets: Int64
) -> None:
    """Find each lane's largest sum: the smallest offset of equal ones, positive before negative."""
    for lane in range(len(lengths)):
        middle = (n_query - 1) * LANES + lane
        highest, offset = sums[middle], 0
        for d in range(1, lengths[lane]):
            value = sums[middle + d * LANES]
            if value > highest:
                highest, offset = value, d
        for d in range(1, n_query):
            value = sums[middle - d * LANES]
            if value > highest or (value == highest and d < offset):
                highest, offset = value, -d
        best[lane] = highest
        offsets[lane] = offset


@_compiled
def add_local(
    scores: Float32,
    first: int,
    gap_open: float,
    gap_extend: float,
    joined: Float32,
    vertical: Float32,
    best: Float32,
    query_end: Int32,
    target_end: Int32,
) -> None:
    """Go on with the local alignments of all lanes by the residues of a tile.

    Gotoh's recursions, in which a gap follows a pair of residues, never another gap.

    Parameters
    ----------
    scores : (rows, longest * LANES) float32
        Residues ``first``, ``first + 1``, … of the query.
    first : int
        The tile's first residue.
    gap_open, gap_extend : float
        What a gap's first residue costs, and what each further one does.
    joined : (2, (1 + longest) * LANES) float32
        The best alignment that ends at a column, of the residue before and of this one; zeros
        before the first column.
    vertical : (longest * LANES,) float32
        The best alignment that ends at a column with a gap in the target.
    best : (LANES,) float32
        The best alignment so far.
    query_end, target_end : (LANES,) int32
        Where it ends: of equal ones the first in the query, then in the target.
    """
    for r in range(len(scores)):
        residue = first + r
        before = best.copy()
        local_row(
            scores[r],
            joined[(residue + 1) & 1],
            joined[residue & 1],
            vertical,
            best,
            target_end,
            len(vertical) // LANES,
            gap_open,
            gap_extend,
        )
        for lane in range(LANES):
            if best[lane] > before[lane]:
                query_end[lane] = residue
