"""The innermost loop over words of residues, which numba compiles when it is first called.

A band is one number: the best segment that ends at this residue of the target. 32 neighbouring
bands are one value of the processor, of bytes that stop at 255 instead of starting again at 0, or
of numbers that stop at 65,535. Up to eight such values are a tile: the bands of this residue and of
neighbouring blocks of the query. They stay in registers, their scores lie side by side, and the
processor works on one while the next step of another has to wait. From a block of the target to the
next, all bands move by one block of the query. Numba has no such values, so the loop over a tile,
``best_of_tile``, is written in LLVM's instructions.

The loops are in a file of their own, because numba compiles them anew if it has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from protalign.core.arrays import Int64
from protalign.residues.kernels.loops import compiled

#: Bands of one value.
LANES = 32
#: Values that a tile may have: each takes time to compile, and more than eight leave the registers.
VALUES = (1, 2, 3, 4, 6, 8)

Int32 = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]
#: Bytes, or numbers of 16 bits.
Bands = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_INT, _SHORT_INT, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)

_compiled = partial(compiled, no_nan=False)


@intrinsic  # type: ignore[untyped-decorator]
def best_of_tile(
    typing_context: Any,
    words: Any,
    begin: Any,
    length: Any,
    profile: Any,
    width: Any,
    column: Any,
    values: Any,
    shift: Any,
    bias: Any,
    leaving: Any,
) -> Any:
    """Return the best segment of a target in a tile, at most 255 - bias or 65,535 - bias.

    In a compiled function the arguments are the words; where the target begins among them, and its
    residues, at least one; the profile, and the bytes of one of its rows; the tile's first column,
    and its values, one of ``VALUES``; the logarithm of the residues in a block; what was
    added to each score; and for each block of the target the band that comes into the tile. Those
    are zeros for a query's first blocks. They become the bands that leave the tile, which the next
    columns take. Their type, uint8 or uint16, is that of all bands. For each residue j, and column
    c of the tile, from the last to the first:

        if j is the first of its block: ending[c] = ending[c - 1], or what comes in for the first
        score = profile[words[begin + j] * width + column + c]
        ending[c] = max(min(ending[c] + score, most) - bias, 0)
        best = max(best, ending[c])
    """
    whole = types.intp
    arguments = (words, whole, whole, profile, whole, whole, whole, whole, types.uint8, leaving)
    return leaving.dtype(*arguments), _best_of_tile


def _best_of_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of ``best_of_tile``: a loop for each number of values."""
    words, profile, leaving = (
        context.make_array(signature.args[place])(context, builder, arguments[place]).data
        for place in (0, 3, 9)
    )
    begin, length, _, width, column, values, shift, bias = arguments[1:9]
    kind = ir.IntType(signature.return_type.bitwidth)
    tile = _Tile(
        builder,
        kind,
        builder.gep(words, [begin]),
        length,
        builder.gep(profile, [column]),
        width,
        shift,
        leaving,
    )
    all_bias = tile.repeated(bias if kind is _BYTE else builder.zext(bias, kind))
    after = builder.append_basic_block("after")
    unreachable = builder.append_basic_block("other")
    choice = builder.switch(values, unreachable)
    results = []
    for count in VALUES:
        case = builder.append_basic_block(f"values_{count}")
        choice.add_case(ir.Constant(_INT, count), case)
        builder.position_at_end(case)
        best = tile.loop(count, all_bias)
        results.append((tile.call("vector.reduce.umax", best, result=kind), builder.block))
        builder.branch(after)
    builder.position_at_end(unreachable)
    builder.unreachable()
    builder.position_at_end(after)
    result = builder.phi(kind)
    for value, block in results:
        result.add_incoming(value, block)
    return result


@dataclass
class _Tile:
    """The arguments of ``best_of_tile``, of which a loop is written."""

    builder: Any
    kind: Any
    words: Any
    length: Any
    profile: Any
    width: Any
    shift: Any
    leaving: Any

    @property
    def vector(self) -> Any:
        """The type of one value."""
        return ir.VectorType(self.kind, LANES)

    def call(self, name: str, *values: Any, result: Any = None) -> Any:
        """Call one of LLVM's functions for vectors."""
        function = f"llvm.{name}.v{LANES}i{self.kind.width}"
        known = self.builder.module.globals.get(function)
        if known is None:
            arguments = [value.type for value in values]
            declared = ir.FunctionType(self.vector if result is None else result, arguments)
            known = ir.Function(self.builder.module, declared, function)
        return self.builder.call(known, values)

    def repeated(self, number: Any) -> Any:
        """Return a value that has a number in every lane."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        single = self.builder.insert_element(nothing, number, ir.Constant(_SHORT_INT, 0))
        return self._shuffled(single, single, [0] * LANES)

    def loop(self, count: int, bias: Any) -> Any:
        """Write the loop for some values; return the best of each lane, of which one is wanted."""
        builder, one = self.builder, ir.Constant(_INT, 1)
        nothing = ir.Constant(self.vector, [0] * LANES)
        before = builder.block
        blocks, residues, ended, after = (
            builder.append_basic_block(name) for name in ("block", "residue", "ended", "done")
        )
        builder.branch(blocks)

        builder.position_at_end(blocks)
        block, ending, best = builder.phi(_INT), self._phis(count), builder.phi(self.vector)
        moved = self._moved(block, ending)
        first = builder.shl(block, self.shift)
        last = builder.add(first, builder.shl(one, self.shift))
        is_whole = builder.icmp_signed("<", last, self.length)
        last = builder.select(is_whole, last, self.length)
        builder.branch(residues)

        builder.position_at_end(residues)
        residue, bands, highest = builder.phi(_INT), self._phis(count), builder.phi(self.vector)
        now, higher = self._step(residue, bands, highest, bias)
        following = builder.add(residue, one)
        _join(blocks, [residue, *bands, highest], [first, *moved, best])
        _join(residues, [residue, *bands, highest], [following, *now, higher])
        builder.cbranch(builder.icmp_signed("<", following, last), residues, ended)

        builder.position_at_end(ended)
        _join(before, [block, *ending, best], [ir.Constant(_INT, 0), *[nothing] * (count + 1)])
        _join(ended, [block, *ending, best], [builder.add(block, one), *now, higher])
        builder.cbranch(is_whole, blocks, after)
        builder.position_at_end(after)
        return higher

    def _moved(self, block: Any, ending: Sequence[Any]) -> list[Any]:
        """Move all bands by a lane: one comes in from the tile before, and one leaves."""
        builder, last = self.builder, ir.Constant(_SHORT_INT, LANES - 1)
        place = builder.gep(self.leaving, [block])
        coming = builder.load(place)
        builder.store(builder.extract_element(ending[-1], last), place)
        nothing = ir.Constant(self.vector, ir.Undefined)
        before = [builder.insert_element(nothing, coming, last), *ending[:-1]]
        lanes = range(LANES - 1, 2 * LANES - 1)
        return [self._shuffled(*pair, lanes) for pair in zip(before, ending, strict=True)]

    def _step(
        self, residue: Any, bands: Sequence[Any], best: Any, bias: Any
    ) -> tuple[list[Any], Any]:
        """Add the scores of a residue."""
        builder, now = self.builder, []
        loaded = ir.VectorType(_BYTE, LANES)
        word = builder.load(builder.gep(self.words, [residue]), align=2)
        row = builder.mul(builder.zext(word, _INT), self.width)
        for number, ending in enumerate(bands):
            place = builder.add(row, ir.Constant(_INT, number * LANES))
            pointer = builder.bitcast(builder.gep(self.profile, [place]), loaded.as_pointer())
            scores = builder.load(pointer, align=1)
            if self.kind is not _BYTE:
                scores = builder.zext(scores, self.vector)
            now.append(self.call("usub.sat", self.call("uadd.sat", ending, scores), bias))
            best = self.call("umax", best, now[-1])
        return now, best

    def _phis(self, count: int) -> list[Any]:
        return [self.builder.phi(self.vector) for _ in range(count)]

    def _shuffled(self, one: Any, other: Any, lanes: Sequence[int]) -> Any:
        mask = ir.Constant(ir.VectorType(_SHORT_INT, LANES), list(lanes))
        return self.builder.shuffle_vector(one, other, mask)


def _join(block: Any, phis: Sequence[Any], values: Sequence[Any]) -> None:
    """Let each phi have its value if a block came before."""
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(value, block)


@_compiled
def best_segments(
    words: Words,
    offsets: Int64,
    targets: Int64,
    profile: Bytes,
    width: int,
    values: int,
    shift: int,
    bias: int,
    leaving: Bands,
    best: Int32,
) -> None:
    """Find the best segment of some targets.

    Parameters
    ----------
    words : (R,) uint16
        Words of all targets, one after another.
    offsets : (n + 1,) int64
        Where each target begins, and the end of all.
    targets : (m,) int64
        The targets to score, each of at least one residue.
    profile : (K * width,) uint8
        See ``protalign.residues.kernels.word_scores``.
    width : int
        Bytes of a word's row: whole tiles.
    values : int
        Values of a tile, one of ``VALUES``.
    shift : int
        Logarithm of the residues in a block.
    bias : int
        Added to each score of the profile.
    leaving : (blocks,) uint8 or uint16
        Memory for a number of each block of the longest target. Its type is that of the bands:
        segments have at most 255 - bias or 65,535 - bias.
    best : (n,) int32
        The results.
    """
    columns = values * LANES
    for target in targets:
        begin = offsets[target]
        length = offsets[target + 1] - begin
        leaving[: ((length - 1) >> shift) + 1] = 0
        found = 0
        for column in range(0, width, columns):
            tile = best_of_tile(
                *(words, begin, length, profile, width, column, values, shift),
                *(np.uint8(bias), leaving),
            )
            found = max(found, int(tile))
        best[target] = found
