"""Molecules of one file: chains that share a letter, told apart by TER, segment or numbering."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import InputError
from protalign.core.printing import printable
from protalign.core.words import counted

#: A molecule that repeats residues of another nearer than this, in Å, is the same one again.
_SAME_PLACE = 3.0
_COMPARED = 6
_FIRST, _LAST = 33, 126  # printable ASCII without the space
_BASE = _LAST - _FIRST + 1


class Geometry(Protocol):
    """Coordinates of residues, which are asked for only where the text leaves a doubt."""

    def bonded(self, before: int, after: int) -> bool:
        """Return whether a peptide bond joins the two residues."""

    def distance(self, one: int, other: int) -> float:
        """Return the distance of the two CA atoms in Å, NaN if one is missing."""

    def label(self, residue: int) -> str:
        """Return the residue's name in a message."""


def divide(
    chains: Int64,
    ends: Int64,
    segments: Int64,
    places: Int64,
    is_het: Bool,
    is_whole: Bool,
    geometry: Geometry,
) -> Int64:
    """Return (n,) int64, the molecule of each of n residues, numbered by their first residue.

    Residues of one chain letter are several molecules if TER or another segment stands between
    them, or if the numbering begins again with numbers that were used before; never if a peptide
    bond joins the two sides. HETATM residues after TER stay with their letter.

    Parameters
    ----------
    chains, ends, segments : (n,) int64
        The chain's letter as a code, the TER records so far, and the segment's name as a code.
    places : (n,) int64
        Residue number and insertion code in one number that grows with both.
    is_het : (n,) bool
    is_whole : (n,) bool
        The residue has a CA that is not an alternate location: it is not a part of another one
        with its number, which some programs write to the end of the chain.
    geometry : Geometry

    Raises
    ------
    InputError
        A molecule occurs twice at the same place.
    """
    molecules = np.zeros(len(chains), dtype=np.int64)
    order = np.argsort(chains, kind="stable")
    cuts = np.flatnonzero(np.diff(chains[order])) + 1
    count = 0
    for members in np.split(order, cuts):
        after, before = members[1:], members[:-1]
        by_end = (ends[after] != ends[before]) | (segments[after] != segments[before])
        breaks = np.flatnonzero(by_end | (places[after] < places[before]))
        if len(breaks) == 0:
            molecules[members] = count
            count += 1
            continue
        of_chain: list[list[Int64]] = [[]]
        of_segment: dict[int, int] = {}
        current = 0
        for piece in np.split(members, breaks + 1):
            first = int(piece[0])
            segment = int(segments[first])
            if piece[0] != members[0]:
                last = int(before[np.searchsorted(after, first)])
                marked = ends[first] != ends[last] or segments[first] != segments[last]
                if segment != segments[last] and segment in of_segment:
                    current = of_segment[segment]
                elif not (marked and is_het[piece].all()) and not geometry.bonded(last, first):
                    used = np.concatenate(of_chain[current])
                    again = np.isin(places[piece[is_whole[piece]]], places[used[is_whole[used]]])
                    if marked or again.any():
                        current = len(of_chain)
                        of_chain.append([])
                        for other in {0, current - 1}:  # models follow one another
                            _refuse_copy(np.concatenate(of_chain[other]), piece, places, geometry)
            of_chain[current].append(piece)
            of_segment.setdefault(segment, current)
        for pieces in of_chain:
            molecules[np.concatenate(pieces)] = count
            count += 1
    _, first_rows, inverse = np.unique(molecules, return_index=True, return_inverse=True)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(first_rows)] = np.arange(count)
    return rank[inverse.reshape(-1)]


def _refuse_copy(earlier: Int64, piece: Int64, places: Int64, geometry: Geometry) -> None:
    """Raise InputError if the piece repeats earlier residues at the same place in space."""
    _, one, other = np.intersect1d(places[earlier], places[piece], return_indices=True)
    pairs = list(zip(earlier[one].tolist(), piece[other].tolist(), strict=True))[:_COMPARED]
    distances = np.array([geometry.distance(*pair) for pair in pairs])
    if len(pairs) and np.count_nonzero(distances < _SAME_PLACE) > len(pairs) / 2:
        raise InputError(
            f"{geometry.label(pairs[0][0])} occurs twice",
            "give each molecule a chain name of its own, or each model its MODEL record",
        )


def molecule_names(chains: Sequence[str], segments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a name for each molecule that no other has, and a note for each divided chain.

    A molecule alone in its chain has the chain's name. Molecules of one chain have their
    segments' names, if these are unique; else the chain's name, and a number from the second on.

    Examples
    --------
    >>> molecule_names(["A", "A", "B"], ["", "", ""])[0]
    ['A', 'A2', 'B']
    >>> molecule_names(["", ""], ["PROA", "PROB"])[0]
    ['PROA', 'PROB']
    """
    names = list(chains)
    taken = set(chains)
    of_chain: dict[str, list[int]] = defaultdict(list)
    for index, chain in enumerate(chains):
        of_chain[chain].append(index)
    notes = []
    for chain, members in of_chain.items():
        if len(members) == 1:
            continue
        own = [segments[index] for index in members]
        if all(own) and len({*own}) == len(own) and (taken - {chain}).isdisjoint(own):
            made = own
        else:
            made = [chain]
            number = 2
            while len(made) < len(members):
                if f"{chain}{number}" not in taken:
                    made.append(f"{chain}{number}")
                number += 1
        taken.update(made)
        for index, name in zip(members, made, strict=True):
            names[index] = name
        shown = ", ".join(printable(name) or "(no name)" for name in made[:4])
        shown += ", …" if len(made) > 4 else ""
        letter = f"chain {printable(chain)}" if chain else "the chain without a name"
        notes.append(
            f"{letter} holds {counted(len(made), 'molecule')}, told apart by TER, segment or "
            f"numbering: read as chains {shown}"
        )
    return names, notes


def chain_code(index: int) -> bytes:
    """Return two bytes of printable ASCII for a molecule's number; raise InputError above 8,835.

    Examples
    --------
    >>> chain_code(0), chain_code(95)
    (b'!!', b'""')
    """
    if index >= _BASE**2:
        raise InputError(f"it has more than {_BASE**2:,} chains", "split the file")
    high, low = divmod(index, _BASE)
    return bytes([_FIRST + high, _FIRST + low])
