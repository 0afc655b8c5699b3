"""The innermost loops over words of residues, which numba compiles when they are first called.

``list_groups`` makes inverted lists, ``most_hits`` counts hits in them, ``largest`` chooses by
those, and ``best_segments`` scores what was chosen, by bands.

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
such values, so the loop over a tile, ``best_of_tile``, is written in LLVM's instructions.

The loops are in a file of their own, because numba compiles them anew if it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int8, Int32, Int64, UInt16, UInt32, Words
from protalign.core.collector import collector_off
from protalign.residues.kernels.loops import compiled

with collector_off():
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

#: Bands of one value.
LANES = 32
#: Values that a tile may have: each takes time to compile, and more than eight leave the registers.
VALUES = (1, 2, 3, 4, 6, 8)
#: Words of a target's block.
BLOCK = 4
#: Stands for a score of 0 in a byte, and the largest score that a byte holds.
EMPTY, MOST = -(1 << 7), 255

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
    tile = _Tile(builder, kind, words, length, profile, width, leaving)

    def best(count: int) -> Any:
        found = tile.call("vector.reduce.smax", tile.loop(count), result=kind)
        return builder.sub(builder.sext(found, _INT), ir.Constant(_INT, tile.smallest))

    results = _by_count(builder, values, best)
    result = builder.phi(_INT)
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


@dataclass
class _Tile:
    """What is known of a tile, of which a loop is written."""

    builder: Any
    kind: Any
    words: Any
    length: Any
    profile: Any
    width: Any
    leaving: Any

    def loop(self, count: int) -> Any:
        """Write the loop for some values; return the best of each lane."""
        builder, zero, one = self.builder, ir.Constant(_INT, 0), ir.Constant(_INT, 1)
        begin = builder.block
        block, left, rest, residue, ended, done = (
            builder.append_basic_block(name)
            for name in ("block", "left", "rest", "residue", "ended", "done")
        )
        whole = builder.udiv(self.length, ir.Constant(_INT, BLOCK))
        builder.cbranch(builder.icmp_signed(">", whole, zero), block, left)

        builder.position_at_end(block)  # the whole blocks
        number, before = builder.phi(_INT), self._phis(count + 1)
        *now, best = before
        now = self._moved(number, now)
        first = builder.mul(number, ir.Constant(_INT, BLOCK))
        for place in range(BLOCK):
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
        first = builder.mul(whole, ir.Constant(_INT, BLOCK))
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
        """Move all bands by a column: one comes in from the tile before, and one leaves."""
        builder, last = self.builder, ending[-1]
        lane, place = ir.Constant(_SHORT_INT, LANES - 1), builder.gep(self.leaving, [block])
        coming = builder.load(place)
        builder.store(builder.extract_element(last, lane), place)
        before = builder.insert_element(ir.Constant(last.type, ir.Undefined), coming, lane)
        lanes = ir.Constant(ir.VectorType(_SHORT_INT, LANES), list(range(LANES - 1, 2 * LANES - 1)))
        return [builder.shuffle_vector(before, last, lanes), *ending[:-1]]

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
def list_groups(
    words: Words,
    offsets: Int64,
    columns: Int64,
    ranks: Words,
    order: Words,
    size: int,
    starts: UInt32,
    places: UInt16,
) -> None:
    """List where each word is the one of a group that tells most.

    Parameters
    ----------
    words : (R,) uint16
        Words of all targets, one after another, each below K.
    offsets : (n + 1,) int64
        Where each target begins, and the end of all.
    columns : (n,) int64
        The column of each target's first group.
    ranks, order : (K,) uint16
        Each word's rank by what it tells, and the word of each rank.
    size : int
        Residues of a group.
    starts : (K + 1,) uint32
        Zeros. The result: where each word's list begins, and the end of all.
    places : (G,) uint16
        The result: the columns of the groups that have each word, ascending.
    """
    listed = np.empty(len(places), dtype=np.uint16)
    group = 0
    for target in range(len(columns)):
        for first in range(offsets[target], offsets[target + 1], size):
            most = np.uint16(0)
            for residue in range(first, min(first + size, offsets[target + 1])):
                most = max(most, ranks[words[residue]])
            listed[group] = order[most]
            starts[listed[group] + 1] += np.uint32(1)
            group += 1
    for word in range(1, len(starts)):
        starts[word] += starts[word - 1]
    following = starts.copy()  # the place of each word's next column
    group = 0
    for target in range(len(columns)):
        n_groups = (offsets[target + 1] - offsets[target] + size - 1) // size
        for number in range(n_groups):
            word = listed[group]
            places[following[word]] = columns[target] + number
            following[word] += np.uint32(1)
            group += 1


@_compiled
def most_hits(
    starts: UInt32,
    places: UInt16,
    begins: Int64,
    targets: Int64,
    columns: Int64,
    n_groups: Int64,
    groups: Int64,
    words: Words,
    weights: Int64,
    queries: Int64,
    sizes: Int64,
    ends: Int64,
    hits: UInt16,
    most: Int32,
) -> None:
    """Count the hits on each diagonal of blocks of targets, for each of several queries.

    A hit is a group of a query, and a group of a target whose word it has.

    Parameters
    ----------
    starts : (b, K + 1) uint32
        Where the list of each word begins in each block's places, and the end of all.
    places : (G,) uint16
        The lists, one after another: the columns of the block's groups that have the word.
    begins : (b + 1,) int64
        Where each block's lists begin in ``places``, and the end of the last.
    targets : (b + 1,) int64
        The first target of each block, and the one after the last.
    columns : (n + 1,) int64
        Columns of all targets before each, and of all: a target has more than its groups, so that
        each diagonal of it and of a part of a query is a column of its own.
    n_groups : (n,) int64
        Groups of each target.
    groups, words, weights : (P,) int64, uint16 and int64
        Pairs of a query's group and a word, and what a hit of them counts for, of all parts.
    queries, sizes : (parts,) int64
        The query of each part of one, and its groups.
    ends : (parts + 1,) int64
        Pairs before each part, and of all.
    hits : (most columns of a block,) uint16
        Memory.
    most : (q, n) int32
        The most that a diagonal of each target has: 0 before, and a larger number stays.
    """
    for block in range(len(starts)):
        first_target, last_target = targets[block], targets[block + 1]
        begin, lists = columns[first_target], starts[block]
        of_block = places[begins[block] : begins[block + 1]]
        end = columns[last_target] - begin
        for part in range(len(queries)):
            query, size = queries[part], sizes[part]
            hits[:end] = 0
            for pair in range(ends[part], ends[part + 1]):
                word, weight = words[pair], weights[pair]
                shift = np.uint64(size - 1 - groups[pair])  # of diagonals: none is below 0
                for number in range(lists[word], lists[word + np.uint16(1)]):
                    hits[np.uint64(of_block[number]) + shift] += weight
            for target in range(first_target, last_target):
                if n_groups[target] > 0:
                    first = columns[target] - begin
                    last = first + n_groups[target] + size - 1
                    found = np.uint16(0)
                    for diagonal in range(np.uint64(first), np.uint64(last)):
                        count = hits[diagonal]
                        found = count if count > found else found
                    most[query, target] = max(most[query, target], np.int32(found))


@_compiled
def largest(scores: Int32, count: int) -> Int64:
    """Return the places of the largest scores: ``count``, and all that equal the last of them.

    Parameters
    ----------
    scores : (n,) int32
        The scores. There is a number in memory for each between the smallest and the largest.
    count : int
        How many, at least 1; there are as many.

    Returns
    -------
    (m,) int64
        The places, ascending.
    """
    smallest = scores.min()
    how_often = np.zeros(scores.max() - smallest + 1, dtype=np.int64)
    for score in scores:
        how_often[score - smallest] += 1
    above, n_found = len(how_often), 0
    while n_found < count:
        above -= 1
        n_found += how_often[above]
    least = above + smallest
    places = np.empty(n_found + 1, dtype=np.int64)  # one more: what is not found is written too
    found = 0
    for place in range(len(scores)):
        places[found] = place
        found += scores[place] >= least
    return places[:n_found]
