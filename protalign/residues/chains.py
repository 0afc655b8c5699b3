"""Proteins of several chains: the best diagonals of chains on chains, in their order.

The global score of two proteins of one chain each is the sum of their best diagonal. Several chains
have no diagonal: a residue that one protein lacks would break it at the next chain. So if either
protein has several, each chain of one has its best diagonal with each chain of the other. Pairs of
chains are chosen so that both chains rise from pair to pair, and that the sum of their scores is as
high as it can be. If no pair's score is above 0, it is the best of them, as for single chains.

A residue that a chain lacks in its middle counts 0 and keeps its place, so that a diagonal goes on
behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from protalign.core.arrays import Bool, Float32, Float64, Int64
from protalign.core.ragged import Ragged
from protalign.core.words import AlignMode
from protalign.residues.alignment import Alignment, align
from protalign.residues.kernels.packed import PackedTargets, pack
from protalign.residues.kernels.scores import (
    both_scores,
    diagonal_scores,
    joined_scores,
    local_scores,
)
from protalign.residues.proteins import PackedRows, ProteinRows


class ProteinTargets:
    """n proteins, laid out once to be scored with many queries.

    Parameters
    ----------
    rows : PackedRows
        Their rows.

    Examples
    --------
    >>> rows = np.eye(5, dtype=np.float32)
    >>> dimer = ProteinRows(rows, rows, np.array([3, 2]))
    >>> lacking = ProteinRows(rows[1:], rows[1:], np.array([2, 2]))  # its first residue
    >>> targets = ProteinTargets(PackedRows.of([dimer, lacking]))
    >>> best, local = targets.scores(PackedRows.of([dimer]))
    >>> best.tolist()
    [[5.0, 4.0]]
    """

    def __init__(self, rows: PackedRows) -> None:
        self._rows = rows
        self._several = np.flatnonzero(_by_chain(rows))
        self._one = rows.local is rows.diagonal

    @cached_property
    def _local(self) -> PackedTargets:
        return pack(self._rows.local)

    @cached_property
    def _diagonal(self) -> PackedTargets:
        return self._local if self._one else pack(self._rows.diagonal)

    @cached_property
    def _chains(self) -> _Chains:
        """The chains of all."""
        return _Chains(self._rows)

    @cached_property
    def _chains_of_several(self) -> _Chains:
        """The chains of those that have several, or lack a residue."""
        return _Chains(self._rows.take(self._several))

    def scores(self, queries: PackedRows, *, floor: float | None = None) -> tuple[Float32, Float32]:
        """Score the targets with some queries.

        Parameters
        ----------
        queries : PackedRows
            Rows of m proteins of the other modality, each of at least one residue.
        floor : float, optional
            The least that a pair of residues counts on a diagonal, in nats. Default: no floor.

        Returns
        -------
        best : (m, n) float32
            The global scores, in nats; minus infinity for a target without rows.
        local : (m, n) float32
            Scores of the best local alignments, in which all chains are one, with the usual gaps.
        """
        best, local = (np.empty((len(queries), len(self._rows)), np.float32) for _ in range(2))
        several = _by_chain(queries)
        for score, some in ((self._of_one_chain, ~several), (self._of_several, several)):
            places = np.flatnonzero(some)
            if len(places):
                best[places], local[places] = score(queries.take(places), floor)
        return best, local

    def global_scores(self, queries: PackedRows) -> Float32:
        """Return the global scores alone, (m, n) float32; parameters as of ``scores``."""
        best = np.empty((len(queries), len(self._rows)), np.float32)
        several = _by_chain(queries)
        for score, some in ((self._diagonals_of_one, ~several), (self._of_chains, several)):
            places = np.flatnonzero(some)
            if len(places):
                best[places] = score(queries.take(places), None)
        return best

    def _diagonals_of_one(self, queries: PackedRows, floor: float | None) -> Float32:
        """Return the global scores of queries of one chain."""
        best, _ = diagonal_scores(queries.diagonal, self._diagonal, floor=floor)
        if len(self._several):
            best[:, self._several] = self._chains_of_several.scores(queries, floor)
        return best

    def _of_one_chain(self, queries: PackedRows, floor: float | None) -> tuple[Float32, Float32]:
        # All as if they had one chain, together: so those that have get the same last bits as ever.
        if not self._one:
            local, _, _ = local_scores(queries.local, self._local)
            return self._diagonals_of_one(queries, floor), local
        (best, _), (local, _, _) = both_scores(queries.local, self._local, floor=floor)
        if len(self._several):
            best[:, self._several] = self._chains_of_several.scores(queries, floor)
        return best, local

    def _of_several(self, queries: PackedRows, floor: float | None) -> tuple[Float32, Float32]:
        return self._of_chains(queries, floor), local_scores(queries.local, self._local)[0]

    def _of_chains(self, queries: PackedRows, floor: float | None) -> Float32:
        return self._chains.scores(queries, floor)


def _by_chain(rows: PackedRows) -> Bool:
    """Return (n,) bool: the proteins whose diagonals are not those of their packed rows."""
    by_chain: Bool = (np.diff(rows.first_chain) > 1) | rows.lacking
    return by_chain


class _Chains:
    """The chains of some proteins, laid out to be scored."""

    def __init__(self, rows: PackedRows) -> None:
        self._packed, self._first = pack(rows.by_chain), rows.first_chain

    def scores(self, queries: PackedRows, floor: float | None) -> Float32:
        """Return (m, n) float32: the highest sums of the chains' diagonals."""
        by_chain, _ = diagonal_scores(queries.by_chain, self._packed, floor=floor)
        return joined_scores(by_chain, queries.first_chain, self._first)


def align_rows(
    query: ProteinRows, target: ProteinRows, mode: AlignMode, *, floor: float | None = None
) -> Alignment:
    """Align two proteins' residue rows, of one chain or of several.

    Parameters
    ----------
    query, target : ProteinRows
        Rows of one modality and of the other.
    mode : "local" or "global"
        The best part of both with the usual gap costs, in which all chains are one; or the best
        diagonal, of several chains their best diagonals (``joined``). A residue without a row is
        not aligned, but a diagonal goes on behind it.
    floor : float, optional
        The least that a pair of residues counts on a diagonal, in nats. Default: no floor.

    Raises
    ------
    InputError
        A protein has no row, and so no diagonal (global).

    Examples
    --------
    >>> rows = np.eye(5, dtype=np.float32)
    >>> dimer, lacking = np.array([3, 2]), np.array([2, 2])
    >>> query, target = ProteinRows(rows, rows, dimer), ProteinRows(rows[1:], rows[1:], lacking)
    >>> align_rows(query, target, "global").query_rows.tolist()
    [1, 2, 3, 4]
    """
    if mode == "local":
        return align(query.local, target.local)
    counts = len(query.chains), len(target.chains)
    complete = query.skipped is None and target.skipped is None
    if min(counts) < 1 or (max(counts) < 2 and complete):
        return align(query.diagonal, target.diagonal, mode, floor=floor)
    of_query, of_target = query.by_chain, target.by_chain
    pairs = ascending(_chain_scores(of_query, of_target, floor))
    query_places, target_places = query.places, target.places
    parts = {
        (i, j): _of_rows(
            align(of_query[i], of_target[j], mode, floor=floor), query_places[i], target_places[j]
        )
        for i, j in pairs
    }
    return joined(parts, query.chains, target.chains)


def _of_rows(found: Alignment, query_places: Int64, target_places: Int64) -> Alignment:
    """Return a diagonal without the residues that have no row, which count 0."""
    inside = np.isin(found.query_rows, query_places) & np.isin(found.target_rows, target_places)
    return replace(
        found,
        query_rows=np.searchsorted(query_places, found.query_rows[inside]),
        target_rows=np.searchsorted(target_places, found.target_rows[inside]),
        residue_scores=found.residue_scores[inside],
        query_length=len(query_places),
        target_length=len(target_places),
    )


def _chain_scores(query: Ragged, target: Ragged, floor: float | None) -> Float64:
    """Return (c, d) float64: the best diagonal of each chain with each of another protein.

    Copies of a chain are scored once: no rounding decides which of them a chain is put on.
    """
    (queries, of_query), (targets, of_target) = _distinct(query), _distinct(target)
    scores, _ = diagonal_scores(queries, targets, floor=floor)
    return scores[np.ix_(of_query, of_target)].astype(np.float64)


def _distinct(chains: Ragged) -> tuple[Ragged, Int64]:
    """Return the chains without their copies, and the place of each chain among these."""
    place: dict[bytes, int] = {}
    places = np.array([place.setdefault(rows.tobytes(), len(place)) for rows in chains])
    return chains.take(np.unique(places, return_index=True)[1]), places


def joined(
    parts: Mapping[tuple[int, int], Alignment], query_lengths: Int64, target_lengths: Int64
) -> Alignment:
    """Return the alignment of two proteins that consists of diagonals of their chains, in order.

    Parameters
    ----------
    parts : mapping
        Query chain and target chain -> their alignment, of ``ascending`` pairs in this order.
    query_lengths, target_lengths : (c,) and (d,) int64
        Rows of each chain.
    """
    score, none = 0.0, np.empty(0, dtype=np.int64)
    query_rows, target_rows, ratios = [none], [none], [np.empty(0, dtype=np.float32)]
    query_ends, target_ends = (np.cumsum([0, *each]) for each in (query_lengths, target_lengths))
    for (i, j), part in parts.items():
        score += part.score
        query_rows.append(part.query_rows + query_ends[i])
        target_rows.append(part.target_rows + target_ends[j])
        ratios.append(part.residue_scores)
    return Alignment(
        "global",
        score,
        np.concatenate(query_rows),
        np.concatenate(target_rows),
        np.concatenate(ratios),
        int(query_ends[-1]),
        int(target_ends[-1]),
    )


def ascending(scores: Float64) -> list[tuple[int, int]]:
    """Return the pairs with the highest sum of scores, if both rise from pair to pair.

    At least one pair, if there are chains; others have scores above 0. ``joined_scores`` has the
    sum alone, for many proteins.

    Examples
    --------
    >>> ascending(np.array([[1.0, 9.0], [8.0, 7.0]]))
    [(0, 1)]
    >>> ascending(np.array([[3.0, 9.0], [8.0, 7.0], [-1.0, -1.0]]))
    [(0, 0), (1, 1)]
    >>> ascending(np.array([[-3.0, -1.0]]))
    [(0, 1)]
    """
    n, m = scores.shape
    best = np.zeros((n + 1, m + 1))
    for i in range(n):
        for j in range(m):
            best[i + 1, j + 1] = max(best[i, j] + scores[i, j], best[i, j + 1], best[i + 1, j])
    pairs: list[tuple[int, int]] = []
    i, j = n, m
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    if not pairs and scores.size:
        pairs.append(divmod(int(np.argmax(scores)), m))
    return pairs[::-1]
