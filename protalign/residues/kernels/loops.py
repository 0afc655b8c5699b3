"""The innermost loops, which numba compiles when they are first called.

A tile of scores is (rows, columns): some residues of one query against all columns of a group (see
``packed``). Every loop runs over neighbouring columns, so that one instruction serves several.

Numba has no vectors of its own, and cannot know that the arrays of local alignments do not overlap:
it would handle one lane at a time, three times slower. So the row of these, ``local_row``, is
written in LLVM's instructions, for which ``LANES`` numbers are one value.

All loops are in this file, because numba compiles them anew if it has changed, whatever else has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from protalign.core.arrays import Float32, Int32, Int64
from protalign.core.collector import collector_off
from protalign.residues.kernels.packed import LANES

with collector_off():
    import numba
    import numba.core.config
    from llvmlite import ir
    from numba.core import types
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target
    from numba.extending import intrinsic

_INT = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_SAME_LANE = ir.Constant(_INTS, [0] * LANES)

Loop = TypeVar("Loop", bound=Callable[..., object])


def _ignore_settings_of_current_folder() -> None:
    """Let numba take its settings from the environment alone.

    It would also read .numba_config.yaml of the current folder, which anybody may have made: that
    could name a folder of compiled loops, and numba keeps those as pickles, or instructions that
    the processor does not have.
    """
    numba.core.config._config_fname = os.devnull  # no such file
    numba.core.config.reload_config()
    for option in ("CACHE_DIR", "CACHE_LOCATOR_CLASSES"):  # whatever a later numba calls the file
        setattr(numba.config, option, os.environ.get(f"NUMBA_{option}", ""))


_ignore_settings_of_current_folder()
# What numba knows of numpy, which the first call would read with the collector on.
with collector_off(), global_compiler_lock:
    cpu_target.target_context.refresh()


def compiled(loop: Loop, *, no_nan: bool = True) -> Loop:
    """Compile a loop on its first call, and keep the result for later processes if possible.

    Numba keeps it beside the loop's file, or in the user's cache folder if that is read-only. If
    both are, each process compiles anew.

    Parameters
    ----------
    loop : callable
        The function.
    no_nan : bool
        Whether it never meets NaN, and need not tell 0 from -0: some loops are quicker then.
    """
    fastmath = {"nnan", "nsz"} if no_nan else False
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        result: Loop = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder that can be written
        result = numba.njit(**options)(loop)
    return result


@compiled
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


@compiled
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


@compiled
def best_ascending(scores: Float32, first_query: Int64, first_target: Int64, best: Float32) -> None:
    """Find the highest sum of chains' scores of each two proteins, if both rise from pair to pair.

    Parameters
    ----------
    scores : (C, D) float32
        Each chain of m proteins with each chain of n others.
    first_query, first_target : (m + 1,) and (n + 1,) int64
        Chains before each protein, and of all.
    best : (m, n) float32
        The sums; if no score is above 0, the highest.
    """
    sums = np.empty(scores.shape[1] + 1)
    for q in range(len(first_query) - 1):
        for t in range(len(first_target) - 1):
            first, count = first_target[t], first_target[t + 1] - first_target[t]
            sums[: count + 1] = 0
            highest = -np.inf
            for i in range(first_query[q], first_query[q + 1]):
                before = 0.0  # the sum of the chains before both
                for j in range(count):
                    above = sums[j + 1]
                    score = scores[i, first + j]
                    sums[j + 1] = max(before + score, above, sums[j])
                    highest = max(highest, score)
                    before = above
            best[q, t] = sums[count] if highest > 0 else highest


class _Vectors:
    """What LLVM's builder does with ``LANES`` numbers at once."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def load(self, array: Any, index: Any, kind: Any = _FLOATS) -> Any:
        """Read ``LANES`` numbers of an array."""
        return self.builder.load(self._place(array, index, kind), align=4)

    def store(self, value: Any, array: Any, index: Any) -> None:
        """Write ``LANES`` numbers of an array."""
        self.builder.store(value, self._place(array, index, value.type), align=4)

    def _place(self, array: Any, index: Any, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(array, [index]), kind.as_pointer())

    def all_lanes(self, number: Any) -> Any:
        """Repeat a number in every lane."""
        kind = ir.VectorType(number.type, LANES)
        nothing = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(one, nothing, _SAME_LANE)

    def larger(self, one: Any, other: Any) -> Any:
        """Take the larger number of each lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", one, other), one, other)


@intrinsic  # type: ignore[untyped-decorator]
def local_row(
    typing_context: Any,
    scores: Any,
    above: Any,
    here: Any,
    vertical: Any,
    best: Any,
    target_end: Any,
    positions: Any,
    gap_open: Any,
    gap_extend: Any,
) -> Any:
    """Go on with the local alignments of all lanes by one residue of the query.

    In a compiled function the arguments are those of ``add_local``: rows of its arrays, the
    number of positions, and the costs as float32. In each lane, and for each position j:

        match = max(above[j] + scores[j], 0)
        here[j + 1] = max(match, vertical[j], horizontal)
        vertical[j] = max(vertical[j] - gap_extend, match - gap_open)
        horizontal = max(horizontal - gap_extend, match - gap_open)
        if match > best: best, target_end = match, j
    """
    arrays = (scores, above, here, vertical, best, target_end)
    signature = types.void(*arrays, types.intp, types.float32, types.float32)
    return signature, _local_row


def _local_row(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of ``local_row``."""
    vectors = _Vectors(builder)
    scores, above, here, vertical, best_array, end_array = (
        context.make_array(kind)(context, builder, argument).data
        for kind, argument in zip(signature.args[:6], arguments[:6], strict=True)
    )
    positions = arguments[6]
    gap_open, gap_extend = map(vectors.all_lanes, arguments[7:])
    zero, one, lanes = (ir.Constant(_INT, number) for number in (0, 1, LANES))
    nothing = ir.Constant(_FLOATS, [0.0] * LANES)
    first = (
        zero,
        builder.fsub(nothing, gap_open),
        vectors.load(best_array, zero),
        vectors.load(end_array, zero, _INTS),
    )
    before = builder.block
    loop = builder.append_basic_block("position")
    builder.branch(loop)  # a group has a position at least
    builder.position_at_end(loop)

    state = [builder.phi(value.type) for value in first]
    position, horizontal, best, end = state
    column = builder.mul(position, lanes)
    score = builder.fadd(vectors.load(above, column), vectors.load(scores, column))
    match = vectors.larger(score, nothing)
    opened = builder.fsub(match, gap_open)
    down = vectors.load(vertical, column)
    joined = vectors.larger(vectors.larger(match, down), horizontal)
    vectors.store(joined, here, builder.add(column, lanes))
    vectors.store(vectors.larger(builder.fsub(down, gap_extend), opened), vertical, column)
    better = builder.fcmp_ordered(">", match, best)
    now = vectors.all_lanes(builder.trunc(position, ir.IntType(32)))
    following = (
        builder.add(position, one),
        vectors.larger(builder.fsub(horizontal, gap_extend), opened),
        builder.select(better, match, best),
        builder.select(better, now, end),
    )
    for value, initial, later in zip(state, first, following, strict=True):
        value.add_incoming(initial, before)
        value.add_incoming(later, loop)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", following[0], positions), loop, after)
    builder.position_at_end(after)

    vectors.store(following[2], best_array, zero)
    vectors.store(following[3], end_array, zero)
    return context.get_dummy_value()


@compiled
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
