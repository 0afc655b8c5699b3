"""The innermost loops over words of residues, which numba compiles when they are first called.

A band is one number: the best segment that ends at this residue of the target. 32 neighbouring
bands are one value of the processor. Sums of its numbers stop at the smallest and the largest
number that there are: the smallest, ``EMPTY`` for 16 bits and ``ROUGH_EMPTY`` for eight, stands for
a score of 0, below which no segment falls, so that one instruction adds a score and begins anew.
Up to eight values are a tile: the bands of this residue and of neighbouring blocks of the query.
They stay in registers, their scores lie side by side, and the processor works on one while the next
step of another has to wait. From a block of the target to the next, all bands move by one block of
the query. Numba has no such values, so the loops over a tile, ``best_of_tile`` and
``bests_of_shared_tile``, are written in LLVM's instructions.

The loops are in a file of their own, because numba compiles them anew if it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
#: The bands of a query in a tile that several share are a multiple of this.
QUERY_LANES = 8
#: Stand for a score of 0.
EMPTY, ROUGH_EMPTY = -(1 << 15), -(1 << 7)

Bytes = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint16]
Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]

_INT, _SHORT_INT, _HALF, _BYTE = (ir.IntType(bits) for bits in (64, 32, 16, 8))

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
    leaving: Any,
) -> Any:
    """Return the best segment of a target in a tile, and ``EMPTY``.

    In a compiled function the arguments are the words; where the target begins among them, and its
    residues, at least one; the profile, and the bytes of one of its rows; the tile's first column,
    and its values, one of ``VALUES``; the logarithm of the residues in a block; and for each block
    of the target the int16 band that comes into the tile. Those are ``EMPTY`` for a query's first
    blocks. They become the bands that leave the tile, which the next columns take. For each residue
    j, and column c of the tile, from the last to the first:

        if j is the first of its block: ending[c] = ending[c - 1], or what comes in for the first
        score = profile[words[begin + j] * width + column + c]
        ending[c] = max(min(ending[c] + score, 32,767), EMPTY)
        best = max(best, ending[c])
    """
    whole = types.intp
    arguments = (words, whole, whole, profile, whole, whole, whole, whole, leaving)
    return types.int16(*arguments), _best_of_tile


def _best_of_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of ``best_of_tile``: a loop for each number of values."""
    words, profile, leaving = (
        context.make_array(signature.args[place])(context, builder, arguments[place]).data
        for place in (0, 3, 8)
    )
    begin, length, _, width, column, values, shift = arguments[1:8]
    words, profile = builder.gep(words, [begin]), builder.gep(profile, [column])
    tile = _Tile(builder, _HALF, words, length, profile, width, shift, leaving)

    def best(count: int) -> Any:
        return tile.call("vector.reduce.smax", tile.loop(count), result=_HALF)

    results = _by_count(builder, values, best)
    result = builder.phi(_HALF)
    for value, block in results:
        result.add_incoming(value, block)
    return result


def _by_count(builder: Any, values: Any, write: Callable[[int], Any]) -> list[tuple[Any, Any]]:
    """Write a case for each number of values; return the result and the last block of each."""
    after = builder.append_basic_block("after")
    unreachable = builder.append_basic_block("other")
    choice = builder.switch(values, unreachable)
    results = []
    for count in VALUES:
        case = builder.append_basic_block(f"values_{count}")
        choice.add_case(ir.Constant(_INT, count), case)
        builder.position_at_end(case)
        results.append((write(count), builder.block))
        builder.branch(after)
    builder.position_at_end(unreachable)
    builder.unreachable()
    builder.position_at_end(after)
    return results


@intrinsic  # type: ignore[untyped-decorator]
def bests_of_shared_tile(
    typing_context: Any,
    words: Any,
    begin: Any,
    length: Any,
    profile: Any,
    values: Any,
    shift: Any,
    most: Any,
    found: Any,
) -> Any:
    """Find the best segments of a target for the queries of a tile; return nothing.

    In a compiled function the arguments are the words; where the target begins among them, and its
    residues, at least one; the profile; the tile's values, one of ``VALUES``; the logarithm of the
    residues in a block; for each column 127, or ``ROUGH_EMPTY`` if it is a query's first; and
    memory for the results, an int8 for each column. For each residue j, and column c of the tile,
    from the last to the first:

        if j is the first of its block: ending[c] = min(ending[c - 1], most[c])
        score = profile[words[begin + j] * values * LANES + c]
        ending[c] = max(min(ending[c] + score, 127), ROUGH_EMPTY)
        if j is the last of its block: best[c] = max(best[c], ending[c])

    Each result is the best of the ``QUERY_LANES`` columns that it is one of, and ``ROUGH_EMPTY``.
    """
    whole = types.intp
    arguments = (words, whole, whole, profile, whole, whole, most, found)
    return types.void(*arguments), _bests_of_shared_tile


def _bests_of_shared_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of ``bests_of_shared_tile``: a loop for each number of values."""
    words, profile, most, found = (
        context.make_array(signature.args[place])(context, builder, arguments[place]).data
        for place in (0, 3, 6, 7)
    )
    begin, length, _, values, shift = arguments[1:6]
    words = builder.gep(words, [begin])

    def write(count: int) -> None:
        width = ir.Constant(_INT, count * LANES)
        tile = _SharedTile(builder, _BYTE, words, length, profile, width, shift, most)
        for number, best in enumerate(tile.loop(count)):
            for apart in (1, 2, 4):  # to the best of each eight
                other = tile.shuffled(best, best, [lane ^ apart for lane in range(LANES)])
                best = tile.call("smax", best, other)
            builder.store(best, tile.value_at(found, number), align=1)

    _by_count(builder, values, write)
    return context.get_dummy_value()


@dataclass
class _Lanes:
    """What is known of a tile, of which a loop is written."""

    builder: Any
    kind: Any
    words: Any
    length: Any
    profile: Any
    width: Any
    shift: Any

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

    def shuffled(self, one: Any, other: Any, lanes: Sequence[int]) -> Any:
        """Return a value of some lanes of two."""
        mask = ir.Constant(ir.VectorType(_SHORT_INT, LANES), list(lanes))
        return self.builder.shuffle_vector(one, other, mask)

    def value_at(self, bytes_: Any, number: Any) -> Any:
        """Return the pointer to a value of bytes, by its number."""
        pointer = self.builder.gep(bytes_, [ir.Constant(_INT, number * LANES)])
        return self.builder.bitcast(pointer, ir.VectorType(_BYTE, LANES).as_pointer())

    def added(self, endings: Sequence[Any], residue: Any) -> list[Any]:
        """Add the scores of a residue's word to what ends before."""
        builder, added = self.builder, []
        word = builder.load(builder.gep(self.words, [residue]), align=2)
        row = builder.gep(self.profile, [builder.mul(builder.zext(word, _INT), self.width)])
        for number, ending in enumerate(endings):
            scores = builder.load(self.value_at(row, number), align=1)
            if self.kind is not _BYTE:
                scores = builder.sext(scores, self.vector)
            added.append(self.call("sadd.sat", ending, scores))
        return added

    def phis(self, count: int) -> list[Any]:
        """Return variables for some values."""
        return [self.builder.phi(self.vector) for _ in range(count)]

    @property
    def empty(self) -> Any:
        """A value of scores of 0."""
        return ir.Constant(self.vector, [ROUGH_EMPTY if self.kind is _BYTE else EMPTY] * LANES)


class _Blocks:
    """The places of a loop over blocks, and in each over its residues."""

    def __init__(self, builder: Any, length: Any, shift: Any) -> None:
        self._builder, self._length, self._shift = builder, length, shift
        self.before = builder.block
        self.block, self.residue, self.ended, self.after = (
            builder.append_basic_block(name) for name in ("block", "residue", "ended", "done")
        )
        builder.branch(self.block)
        builder.position_at_end(self.block)
        self.number = builder.phi(_INT)

    def enter_residues(self) -> None:
        """End what is done before a block's residues."""
        builder, one = self._builder, ir.Constant(_INT, 1)
        self._first = builder.shl(self.number, self._shift)
        last = builder.add(self._first, builder.shl(one, self._shift))
        self._is_whole = builder.icmp_signed("<", last, self._length)
        self._last = builder.select(self._is_whole, last, self._length)
        builder.branch(self.residue)
        builder.position_at_end(self.residue)
        self.position = builder.phi(_INT)

    def leave_residues(self) -> None:
        """End what is done for a residue."""
        builder = self._builder
        following = builder.add(self.position, ir.Constant(_INT, 1))
        _join(self.block, [self.position], [self._first])
        _join(self.residue, [self.position], [following])
        go_on = builder.icmp_signed("<", following, self._last)
        builder.cbranch(go_on, self.residue, self.ended)
        builder.position_at_end(self.ended)

    def leave(self) -> None:
        """End what is done after a block's residues."""
        builder = self._builder
        following = builder.add(self.number, ir.Constant(_INT, 1))
        _join(self.before, [self.number], [ir.Constant(_INT, 0)])
        _join(self.ended, [self.number], [following])
        builder.cbranch(self._is_whole, self.block, self.after)
        builder.position_at_end(self.after)


@dataclass
class _Tile(_Lanes):
    """A tile of one query, whose other columns may be in other tiles."""

    leaving: Any

    def loop(self, count: int) -> Any:
        """Write the loop for some values; return the best of each lane, of which one is wanted."""
        blocks = _Blocks(self.builder, self.length, self.shift)
        ending, [best] = self.phis(count), self.phis(1)
        moved = self._moved(blocks.number, ending)
        blocks.enter_residues()
        bands, [highest] = self.phis(count), self.phis(1)
        now = self.added(bands, blocks.position)
        higher = highest
        for each in now:
            higher = self.call("smax", higher, each)
        _join(blocks.block, [*bands, highest], [*moved, best])
        _join(blocks.residue, [*bands, highest], [*now, higher])
        blocks.leave_residues()
        _join(blocks.before, [*ending, best], [self.empty] * (count + 1))
        _join(blocks.ended, [*ending, best], [*now, higher])
        blocks.leave()
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
        return [self.shuffled(*pair, lanes) for pair in zip(before, ending, strict=True)]


@dataclass
class _SharedTile(_Lanes):
    """A tile of several queries."""

    most: Any

    def loop(self, count: int) -> list[Any]:
        """Write the loop for some values; return the best of each lane of each."""
        blocks = _Blocks(self.builder, self.length, self.shift)
        ending, best = self.phis(count), self.phis(count)
        moved = self._moved(ending)
        blocks.enter_residues()
        bands = self.phis(count)
        now = self.added(bands, blocks.position)
        _join(blocks.block, bands, moved)
        _join(blocks.residue, bands, now)
        blocks.leave_residues()
        better = [self.call("smax", *pair) for pair in zip(best, now, strict=True)]
        _join(blocks.before, [*ending, *best], [self.empty] * (2 * count))
        _join(blocks.ended, [*ending, *best], [*now, *better])
        blocks.leave()
        return better

    def _moved(self, ending: Sequence[Any]) -> list[Any]:
        """Move all bands by a lane; none comes in for a query's first."""
        lanes, moved = range(LANES - 1, 2 * LANES - 1), []
        for number, pair in enumerate(zip([self.empty, *ending[:-1]], ending, strict=True)):
            most = self.builder.load(self.value_at(self.most, number), align=1)
            moved.append(self.call("smin", self.shuffled(*pair, lanes), most))
        return moved


def _join(block: Any, phis: Sequence[Any], values: Sequence[Any]) -> None:
    """Let each phi have its value if a block came before."""
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(value, block)


@_compiled
def best_segments(
    words: Words,
    offsets: Int64,
    targets: Int64,
    profile: Int8,
    width: int,
    values: int,
    shift: int,
    leaving: Int16,
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
    profile : (K * width,) int8
        See ``protalign.residues.kernels.word_scores``.
    width : int
        Bytes of a word's row: whole tiles.
    values : int
        Values of a tile, one of ``VALUES``.
    shift : int
        Logarithm of the residues in a block.
    leaving : (blocks,) int16
        Memory for a number of each block of the longest target.
    best : (m,) int32
        The results, at most 65,535.
    """
    columns = values * LANES
    for place in range(len(targets)):
        begin = offsets[targets[place]]
        length = offsets[targets[place] + 1] - begin
        leaving[: ((length - 1) >> shift) + 1] = EMPTY
        found = EMPTY
        for column in range(0, width, columns):
            tile = best_of_tile(
                words, begin, length, profile, width, column, values, shift, leaving
            )
            found = max(found, int(tile))
        best[place] = found - EMPTY


@_compiled
def shared_bests(
    words: Words,
    offsets: Int64,
    profile: Int8,
    values: int,
    shift: int,
    most: Int8,
    firsts: Int64,
    lasts: Int64,
    found: Int8,
    best: Bytes,
) -> None:
    """Find the best segment of each target for each part of a query in a tile.

    Parameters
    ----------
    words : (R,) uint16
        Words of all targets, one after another.
    offsets : (n + 1,) int64
        Where each target begins, and the end of all.
    profile : (K * values * LANES,) int8
        See ``protalign.residues.kernels.rough_scores``.
    values : int
        Values of the tile, one of ``VALUES``.
    shift : int
        Logarithm of the residues in a block.
    most : (values * LANES,) int8
        127, or ``ROUGH_EMPTY`` for a column that is the first of its part.
    firsts, lasts : (parts,) int64
        The first column of each part, and the one after its last: multiples of ``QUERY_LANES``.
    found : (values * LANES,) int8
        Memory.
    best : (parts, n) uint8
        The results, 0 for a target without residues.
    """
    for target in range(len(offsets) - 1):
        begin = offsets[target]
        length = offsets[target + 1] - begin
        if length == 0:
            best[:, target] = 0
            continue
        bests_of_shared_tile(words, begin, length, profile, values, shift, most, found)
        for part in range(len(firsts)):
            highest = int(found[firsts[part]])
            for column in range(firsts[part] + QUERY_LANES, lasts[part], QUERY_LANES):
                highest = max(highest, int(found[column]))
            best[part, target] = highest - ROUGH_EMPTY
