"""The innermost loops over words of residues, which numba compiles when they are first called.

A band is one number: the best segment that ends at this residue of the target. 32
neighbouring bands are one value of the processor, of bytes that stop at 255 instead of starting
again at 0; or 16 bands, of numbers that stop at 65,535. Numba has no such values, so these two
loops, ``best_of_bands`` and ``best_of_wide_bands``, are written in LLVM's instructions.

The loops are in a file of their own, because numba compiles them anew if it has changed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from protalign.core.arrays import Int64
from protalign.residues.kernels.loops import compiled

#: Bands of one value, and of one that holds larger numbers.
LANES, WIDE_LANES = 32, 16

Int32 = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]

_INT = ir.IntType(64)
_BYTE = ir.IntType(8)

_compiled = partial(compiled, no_nan=False)


def _signature(words: Any, profile: Any, result: Any) -> Any:
    arguments = (words, types.intp, types.intp, types.intp, profile)
    return result(*arguments, types.intp, types.intp, types.intp, types.uint8)


@intrinsic  # type: ignore[untyped-decorator]
def best_of_bands(
    typing_context: Any,
    words: Any,
    begin: Any,
    first: Any,
    last: Any,
    profile: Any,
    stride: Any,
    column: Any,
    shift: Any,
    bias: Any,
) -> Any:
    """Return the best segment of 32 neighbouring bands, at most 255 - bias, as uint8.

    In a compiled function the arguments are the words; where the target begins among them; its
    residues from ``first`` to ``last - 1``; the profile, and the bytes of one of its rows; the
    row's byte that residue 0 of the target adds to the first band; the logarithm of the residues in
    a block; and what was added to each score. For each band d, and residue j:

        place = words[begin + j] * stride + column + d - (j >> shift)
        ending[d] = max(min(ending[d] + profile[place], 255) - bias, 0)
        best = max(best, ending[d])
    """
    return _signature(words, profile, types.uint8), partial(_best_of_bands, LANES, _BYTE)


@intrinsic  # type: ignore[untyped-decorator]
def best_of_wide_bands(
    typing_context: Any,
    words: Any,
    begin: Any,
    first: Any,
    last: Any,
    profile: Any,
    stride: Any,
    column: Any,
    shift: Any,
    bias: Any,
) -> Any:
    """Return the best segment of 16 neighbouring bands, at most 65,535 - bias, as uint16.

    See ``best_of_bands``.
    """
    return _signature(words, profile, types.uint16), partial(
        _best_of_bands, WIDE_LANES, ir.IntType(16)
    )


def _best_of_bands(
    lanes: int, kind: Any, context: Any, builder: Any, signature: Any, arguments: Any
) -> Any:
    """Write the instructions of ``best_of_bands`` for so many lanes of integers of a kind."""
    words, profile = (
        context.make_array(signature.args[place])(context, builder, arguments[place]).data
        for place in (0, 4)
    )
    begin, first, last = arguments[1:4]
    stride, column, shift, bias = arguments[5:]
    vector, loaded = ir.VectorType(kind, lanes), ir.VectorType(_BYTE, lanes)
    one, nothing = ir.Constant(_INT, 1), ir.Constant(vector, [0] * lanes)
    if kind is not _BYTE:
        bias = builder.zext(bias, kind)
    single = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(single, bias, ir.Constant(ir.IntType(32), 0))
    same_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    all_bias = builder.shuffle_vector(single, single, same_lane)
    words = builder.gep(words, [begin])

    def call(name: str, *values: Any, result: Any = vector) -> Any:
        """Call one of LLVM's functions for vectors."""
        function = f"llvm.{name}.v{lanes}i{kind.width}"
        found = builder.module.globals.get(function)
        if found is None:
            arguments = ir.FunctionType(result, [value.type for value in values])
            found = ir.Function(builder.module, arguments, function)
        return builder.call(found, values)

    before = builder.block
    loop = builder.append_basic_block("residue")
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", first, last), loop, after)
    builder.position_at_end(loop)
    residue, ending, best = builder.phi(_INT), builder.phi(vector), builder.phi(vector)
    word = builder.zext(builder.load(builder.gep(words, [residue]), align=2), _INT)
    place = builder.sub(column, builder.lshr(residue, shift))
    place = builder.add(builder.mul(word, stride), place)
    pointer = builder.bitcast(builder.gep(profile, [place]), loaded.as_pointer())
    scores = builder.load(pointer, align=1)
    if kind is not _BYTE:
        scores = builder.zext(scores, vector)
    now = call("usub.sat", call("uadd.sat", ending, scores), all_bias)
    better = call("umax", best, now)
    following = builder.add(residue, one)
    for value, start, later in (
        (residue, first, following),
        (ending, nothing, now),
        (best, nothing, better),
    ):
        value.add_incoming(start, before)
        value.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", following, last), loop, after)
    builder.position_at_end(after)
    result = builder.phi(vector)
    result.add_incoming(nothing, before)
    result.add_incoming(better, loop)
    return call("vector.reduce.umax", result, result=kind)


@_compiled
def best_segments(
    words: Words,
    offsets: Int64,
    targets: Int64,
    profile: Bytes,
    bands: int,
    shift: int,
    bias: int,
    best: Int32,
) -> None:
    """Find the best segment of some targets, at most 255 - bias.

    Parameters
    ----------
    words : (R,) uint16
        Words of all targets, one after another.
    offsets : (n + 1,) int64
        Where each target begins, and the end of all.
    targets : (m,) int64
        The targets to score.
    profile : (K * (bands + LANES) + LANES,) uint8
        See ``protalign.residues.kernels.word_scores``.
    bands : int
        Bands that one residue of a target is in.
    shift : int
        Logarithm of the residues in a block.
    bias : int
        Added to each score of the profile.
    best : (n,) int32
        The results.
    """
    stride = bands + LANES
    for target in targets:
        begin = offsets[target]
        length = offsets[target + 1] - begin
        found = np.uint8(0)
        for band in range(0, ((length - 1) >> shift) + bands, LANES):
            first = max(0, (band - bands + 1) << shift)
            last = min(length, (band + LANES) << shift)
            place = LANES + band
            found = max(
                found,
                best_of_bands(
                    words, begin, first, last, profile, stride, place, shift, np.uint8(bias)
                ),
            )
        best[target] = found


@_compiled
def best_wide_segments(
    words: Words,
    offsets: Int64,
    targets: Int64,
    profile: Bytes,
    bands: int,
    shift: int,
    bias: int,
    best: Int32,
) -> None:
    """Find the best segment of some targets, at most 65,535 - bias; see ``best_segments``."""
    stride = bands + LANES
    for target in targets:
        begin = offsets[target]
        length = offsets[target + 1] - begin
        found = np.uint16(0)
        for band in range(0, ((length - 1) >> shift) + bands, WIDE_LANES):
            first = max(0, (band - bands + 1) << shift)
            last = min(length, (band + WIDE_LANES) << shift)
            place = LANES + band
            found = max(
                found,
                best_of_wide_bands(
                    words, begin, first, last, profile, stride, place, shift, np.uint8(bias)
                ),
            )
        best[target] = found
