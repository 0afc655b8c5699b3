"""One row of local alignments in vector instructions, which the compiler does not find by itself.

Numba compiles loops over arrays. It has no vectors of its own, and cannot know that the arrays of
this loop do not overlap, so that it would handle one lane at a time: three times slower. Here the
loop is written in LLVM's instructions, for which ``LANES`` numbers are one value.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from protalign.residues.kernels.packed import LANES

_INT = ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_SAME_LANE = ir.Constant(_INTS, [0] * LANES)


class _Vectors:
    """Shorthands for an LLVM builder."""

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

    In a compiled function the arguments are those of ``loops.add_local``: its arrays' rows, the
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
