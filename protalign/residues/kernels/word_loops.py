"""The innermost loops over words of residues, which numba compiles when they are first called.

A band is one number: the best segment that ends at this residue of the target. 32 bands are one
value of the processor. Sums of its numbers stop at the smallest and the largest number that there
are: the smallest, -128 in a byte, stands for a score of 0, below which no segment falls, so that
one instruction adds a score and begins anew. A byte is quickest. A target for which a sum may have
stopped at a byte's largest number is scored again in 16 bits.

Up to eight values are a tile: the bands of this residue and of neighbouring blocks of the query.
They stay in registers, their scores lie side by side, and the processor works on one while the next
step of another has to wait. From a block of the target to the next, all bands move by one block of
the query. So that most move without an instruction, neighbours lie in different values: lane l of
value v has column l * values + v, a value takes the place of the one before, and only the first is
made anew, of the last one's lanes (Farrar 2007, doi:10.1093/bioinformatics/btl582). Numba has no
such values, so the loops over a tile, ``best_of_tile`` and ``bests_of_shared_tile``, are written in
LLVM's instructions.

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

from protalign.core.arrays import Bytes, Int8, Int64, Words
from protalign.residues.kernels.loops import compiled

#: Bands of one value.
LANES = 32
#: Values that a tile may have: each takes time to compile, and more than eight leave the registers.
VALUES = (1, 2, 3, 4, 6, 8)
#: Words of a target's block, and those that a rough look reads.
BLOCK, ROUGH_BLOCK = 4, 2
#: A rough look reads one word of as many.
ONE_OF = 4
#: Stands for a score of 0 in a byte, and the largest score that a byte holds.
EMPTY, MOST = -(1 << 7), 255

Int32 = npt.NDArray[np.int32]
Int16 = npt.NDArray[np.int16]

#: The same in 16 bits.
_EMPTY_16 = -(1 << 15)
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
    leaving: Any,
) -> Any:
    """Return the best segment of a target in a tile.

    In a compiled function the arguments are the words; where the target begins among them, and its
    residues; the profile, and the bytes of one of its rows; the tile's first byte there, and its
    values, one of ``VALUES``; and for each block of the target the band that comes into the tile,
    int8 or int16, which decides the numbers of the bands. Those that come in are the smallest
    number that there is for a query's first blocks. They become the bands that leave the tile,
    which the next tile takes. For each residue j, and column c of the tile, from the last to the
    first:

        if j is the first of its block: ending[c] = ending[c - 1], or what comes in for the first
        score = profile[words[begin + j] * width + column + place of c]
        ending[c] = max(min(ending[c] + score, largest), smallest)
        if j is the last of its block: best = max(best, ending[c])

    The result is best - smallest.
    """
    whole = types.intp
    arguments = (words, whole, whole, profile, whole, whole, whole, leaving)
    return types.intp(*arguments), _best_of_tile


def _best_of_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of ``best_of_tile``: a loop for each number of values."""
    words, profile, leaving = (
        context.make_array(signature.args[place])(context, builder, arguments[place]).data
        for place in (0, 3, 7)
    )
    begin, length, _, width, column, values = arguments[1:7]
    kind = _BYTE if signature.args[7].dtype == types.int8 else _HALF
    words, profile = builder.gep(words, [begin]), builder.gep(profile, [column])
    coming_in = partial(_from_before, builder, leaving)
    tile = _Tile(builder, kind, words, length, profile, width, BLOCK, coming_in)

    def best(count: int) -> Any:
        found = tile.call("vector.reduce.smax", tile.loop(count), result=kind)
        return builder.sub(builder.sext(found, _INT), ir.Constant(_INT, tile.smallest))

    results = _by_count(builder, values, best)
    result = builder.phi(_INT)
    for value, block in results:
        result.add_incoming(value, block)
    return result


def _from_before(builder: Any, leaving: Any, tile: _Tile, block: Any, last: Any) -> Any:
    """Move the last value by a lane: one comes in from the tile before, and one leaves."""
    lane, place = ir.Constant(_SHORT_INT, LANES - 1), builder.gep(leaving, [block])
    coming = builder.load(place)
    builder.store(builder.extract_element(last, lane), place)
    before = builder.insert_element(ir.Constant(last.type, ir.Undefined), coming, lane)
    return tile.moved_by_a_lane(before, last)


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
    most: Any,
    found: Any,
) -> Any:
    """Find the best segments of a target for the queries of a tile; return nothing.

    In a compiled function the arguments are the words; where the target begins among them, and how
    many it has; the profile; the tile's values, one of ``VALUES``; for each lane 127, or ``EMPTY``
    if it is a query's first; and memory for the results, an int8 for each lane. For each word j,
    and column c of the tile, from the last to the first:

        if j is the first of its block: ending[c] = ending[c - 1], or EMPTY for a query's first
        score = profile[words[begin + j] * values * LANES + place of c]
        ending[c] = max(min(ending[c] + score, 127), EMPTY)
        if j is the last of its block: best[lane of c] = max(best[lane of c], ending[c])

    Each result is the best of a lane, and ``EMPTY`` for a score of 0.
    """
    whole = types.intp
    arguments = (words, whole, whole, profile, whole, most, found)
    return types.void(*arguments), _bests_of_shared_tile


def _bests_of_shared_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of ``bests_of_shared_tile``: a loop for each number of values."""
    words, profile, most, found = (
        context.make_array(signature.args[place])(context, builder, arguments[place]).data
        for place in (0, 3, 5, 6)
    )
    begin, length, _, values = arguments[1:5]
    words = builder.gep(words, [begin])

    def coming_in(tile: _Tile, _: Any, last: Any) -> Any:
        most_of_lanes = builder.load(tile.value_at(most, 0), align=1)
        return tile.call("smin", tile.moved_by_a_lane(tile.empty, last), most_of_lanes)

    def write(count: int) -> None:
        width = ir.Constant(_INT, count * LANES)
        tile = _Tile(builder, _BYTE, words, length, profile, width, ROUGH_BLOCK, coming_in)
        builder.store(tile.loop(count), tile.value_at(found, 0), align=1)

    _by_count(builder, values, write)
    return context.get_dummy_value()


@dataclass
class _Tile:
    """What is known of a tile, of which a loop is written.

    ``block`` is the words of a block of the target. ``coming_in`` writes what becomes the first
    value in a new one, of the tile, the block's number and the last value.
    """

    builder: Any
    kind: Any
    words: Any
    length: Any
    profile: Any
    width: Any
    block: int
    coming_in: Callable[[_Tile, Any, Any], Any]

    def loop(self, count: int) -> Any:
        """Write the loop for some values; return the best of each lane."""
        builder, zero, one = self.builder, ir.Constant(_INT, 0), ir.Constant(_INT, 1)
        begin = builder.block
        block, left, rest, residue, ended, done = (
            builder.append_basic_block(name)
            for name in ("block", "left", "rest", "residue", "ended", "done")
        )
        whole = builder.udiv(self.length, ir.Constant(_INT, self.block))
        builder.cbranch(builder.icmp_signed(">", whole, zero), block, left)

        builder.position_at_end(block)  # the whole blocks
        number, before = builder.phi(_INT), self._phis(count + 1)
        *now, best = before
        now = self._moved(number, now)
        first = builder.mul(number, ir.Constant(_INT, self.block))
        for place in range(self.block):
            now = self._added(now, builder.add(first, ir.Constant(_INT, place)))
        best = self._better(best, now)
        following = builder.add(number, one)
        _join(begin, [number, *before], [zero, *[self.empty] * (count + 1)])
        _join(block, [number, *before], [following, *now, best])
        builder.cbranch(builder.icmp_signed("<", following, whole), block, left)

        builder.position_at_end(left)  # what a block has that is not whole
        ending = self._phis(count + 1)
        _join(begin, ending, [self.empty] * (count + 1))
        _join(block, ending, [*now, best])
        first = builder.mul(whole, ir.Constant(_INT, self.block))
        builder.cbranch(builder.icmp_signed("<", first, self.length), rest, done)
        builder.position_at_end(rest)
        moved = self._moved(whole, ending[:-1])
        builder.branch(residue)
        builder.position_at_end(residue)
        position, bands = builder.phi(_INT), self._phis(count)
        now = self._added(bands, position)
        following = builder.add(position, one)
        _join(rest, [position, *bands], [first, *moved])
        _join(residue, [position, *bands], [following, *now])
        builder.cbranch(builder.icmp_signed("<", following, self.length), residue, ended)
        builder.position_at_end(ended)
        best = self._better(ending[-1], now)
        builder.branch(done)

        builder.position_at_end(done)
        [result] = self._phis(1)
        _join(left, [result], [ending[-1]])
        _join(ended, [result], [best])
        return result

    def _added(self, endings: Sequence[Any], residue: Any) -> list[Any]:
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

    def _moved(self, block: Any, ending: Sequence[Any]) -> list[Any]:
        """Move all bands by a column."""
        return [self.coming_in(self, block, ending[-1]), *ending[:-1]]

    def _better(self, best: Any, values: Sequence[Any]) -> Any:
        """Return the best of each lane: pairs first, since each step waits for the last one."""
        values = list(values)
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=False)
            values = [self.call("smax", *pair) for pair in pairs] + values[len(values) & ~1 :]
        return self.call("smax", best, *values)

    @property
    def vector(self) -> Any:
        """The type of one value."""
        return ir.VectorType(self.kind, LANES)

    @property
    def smallest(self) -> int:
        """What stands for a score of 0."""
        return EMPTY if self.kind is _BYTE else _EMPTY_16

    @property
    def empty(self) -> Any:
        """A value of scores of 0."""
        return ir.Constant(self.vector, [self.smallest] * LANES)

    def call(self, name: str, *values: Any, result: Any = None) -> Any:
        """Call one of LLVM's functions for vectors."""
        function = f"llvm.{name}.v{LANES}i{self.kind.width}"
        known = self.builder.module.globals.get(function)
        if known is None:
            arguments = [value.type for value in values]
            declared = ir.FunctionType(self.vector if result is None else result, arguments)
            known = ir.Function(self.builder.module, declared, function)
        return self.builder.call(known, values)

    def moved_by_a_lane(self, before: Any, value: Any) -> Any:
        """Return a value's lanes in the places of the next ones, after the last one of another."""
        lanes = ir.Constant(ir.VectorType(_SHORT_INT, LANES), list(range(LANES - 1, 2 * LANES - 1)))
        return self.builder.shuffle_vector(before, value, lanes)

    def value_at(self, bytes_: Any, number: int) -> Any:
        """Return the pointer to a value of bytes, by its number."""
        pointer = self.builder.gep(bytes_, [ir.Constant(_INT, number * LANES)])
        return self.builder.bitcast(pointer, ir.VectorType(_BYTE, LANES).as_pointer())

    def _phis(self, count: int) -> list[Any]:
        """Return variables for some values."""
        return [self.builder.phi(self.vector) for _ in range(count)]


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
    most: int,
    leaving: Int8,
    leaving_16: Int16,
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
        The targets to score.
    profile : (K * width,) int8
        See ``protalign.residues.kernels.word_scores``.
    width : int
        Bytes of a word's row: whole tiles.
    values : int
        Values of a tile, one of ``VALUES``.
    most : int
        If all bands end their blocks with less, none was more than ``MOST`` in one.
    leaving, leaving_16 : (blocks,) int8 and int16
        Memory for a number of each block of the longest target.
    best : (m,) int32
        The results, at most 65,535; 0 for a target without residues.
    """
    columns = values * LANES
    in_a_byte = True  # as the score of the target before: large ones often follow one another
    for place in range(len(targets)):
        begin = offsets[targets[place]]
        length = offsets[targets[place] + 1] - begin
        blocks = (length + BLOCK - 1) // BLOCK
        found = 0
        if in_a_byte:
            leaving[:blocks] = EMPTY
            for column in range(0, width, columns):
                tile = best_of_tile(words, begin, length, profile, width, column, values, leaving)
                found = max(found, tile)
        if not in_a_byte or found >= most:  # a sum may have stopped at the largest number
            leaving_16[:blocks] = _EMPTY_16
            for column in range(0, width, columns):
                tile = best_of_tile(
                    words, begin, length, profile, width, column, values, leaving_16
                )
                found = max(found, tile)
        in_a_byte = found < most
        best[place] = found


@_compiled
def shared_bests(
    words: Words,
    offsets: Int64,
    profile: Int8,
    values: int,
    most: Int8,
    queries: Int64,
    firsts: Int64,
    lasts: Int64,
    by_chance: Bytes,
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
    most : (LANES,) int8
        127, or ``EMPTY`` for a lane that is the first of its part.
    queries, firsts, lasts : (parts,) int64
        The query of each part, its first lane, and the one after its last.
    by_chance : (n,) uint8
        What each target's scores are reduced by.
    found : (LANES,) int8
        Memory.
    best : (q, n) uint8
        The results, 0 at first: what is more takes its place.
    """
    for target in range(len(offsets) - 1):
        begin = offsets[target]
        length = offsets[target + 1] - begin
        bests_of_shared_tile(words, begin, length, profile, values, most, found)
        for part in range(len(firsts)):
            highest = found[firsts[part]]
            for lane in range(firsts[part] + 1, lasts[part]):
                highest = max(highest, found[lane])
            query = queries[part]
            score = int(highest) - EMPTY - int(by_chance[target])
            best[query, target] = max(int(best[query, target]), score)


@_compiled
def most_telling(
    words: Words, offsets: Int64, targets: Int64, ranks: Words, chosen: Words, ends: Int64
) -> None:
    """Choose the most telling one of each ``ONE_OF`` words of some targets.

    Parameters
    ----------
    words : (R,) uint16
        Words of all targets, one after another.
    offsets : (n + 1,) int64
        Where each target begins, and the end of all.
    targets : (m,) int64
        The targets.
    ranks : (K,) uint16
        Each word's place among the words, if those that tell more come later.
    chosen : (C,) uint16
        The ranks of the chosen words, one target after another: of its first ``ONE_OF`` words, of
        the next, and of what is left.
    ends : (m + 1,) int64
        Where each target begins in them, and the end of all; the first is 0 already.
    """
    end = 0
    for place in range(len(targets)):
        begin, last = offsets[targets[place]], offsets[targets[place] + 1]
        whole = (last - begin) // ONE_OF
        left = begin + whole * ONE_OF
        groups = words[begin:left].reshape(whole, ONE_OF)
        of_groups = chosen[end : end + whole]
        for group in range(whole):
            most = ranks[groups[group, 0]]
            for other in range(1, ONE_OF):
                most = max(most, ranks[groups[group, other]])
            of_groups[group] = most
        end += whole
        if left < last:
            most = ranks[words[left]]
            for other in range(left + 1, last):
                most = max(most, ranks[words[other]])
            chosen[end] = most
            end += 1
        ends[place + 1] = end


@_compiled
def largest(scores: Bytes, count: int) -> Int64:
    """Return the places of the largest scores: ``count``, and all that equal the last of them.

    Parameters
    ----------
    scores : (n,) uint8
        The scores.
    count : int
        How many, at least 1; there are as many.

    Returns
    -------
    (m,) int64
        The places, ascending.
    """
    how_often = np.zeros(256, dtype=np.int64)
    for score in scores:
        how_often[score] += 1
    least, n_found = 255, how_often[255]
    while n_found < count:
        least -= 1
        n_found += how_often[least]
    places = np.empty(n_found + 1, dtype=np.int64)  # one more: what is not found is written too
    found = 0
    for place in range(len(scores)):
        places[found] = place
        found += scores[place] >= least
    return places[:n_found]
