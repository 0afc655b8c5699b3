"""Scores of queries against many targets: the best diagonal, and the best local alignment.

The score of two residues is the product of their rows. A tile of such products, some residues of a
query against a group of targets, is made by one matrix product that stays in the processor's cache,
and is used up before the next one is made. Threads share the groups, each on one core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_between
from protalign.core.errors import InputError
from protalign.core.machine import threads_here
from protalign.core.ragged import Ragged
from protalign.residues.alignment import GAP_EXTEND, GAP_OPEN, no_rows
from protalign.residues.kernels.packed import LANES, Group, PackedTargets, check_finite, pack, share

#: Scores of a tile, about: 512 KB of float32, which a usual second-level cache holds.
TILE = 1 << 17
#: Fewest residues of a tile: a matrix product of fewer is slow.
TILE_ROWS = 8
#: Pairs of residues for a thread, at least: fewer are not worth a second thread.
THREAD_PAIRS = 1 << 18

Queries: TypeAlias = Float32 | Ragged
Targets: TypeAlias = Ragged | PackedTargets
Diagonals: TypeAlias = tuple[Float32, Int64]
Locals: TypeAlias = tuple[Float32, Int64, Int64]
Columns: TypeAlias = tuple[tuple[type[np.generic], float], ...]


def diagonal_scores(queries: Queries, targets: Targets, *, floor: float | None = None) -> Diagonals:
    """Score each target by its best diagonal: an alignment without gaps.

    Parameters
    ----------
    queries : (Lq, K) array or Ragged
        Rows of one query, or of m of them, each of at least one residue.
    targets : Ragged or PackedTargets
        Rows (R, K) of n proteins, of any dtype that float32 holds; ``pack`` them if they serve
        again. For int8 rows with a scale multiply the queries by it.
    floor : float, optional
        Score of a residue pair at least: 0 or below. Default: no floor.

    Returns
    -------
    scores : (n,) or (m, n) float32
        The maximum over offsets d of ``sum_i max(query[i] . target[i + d], floor)``; minus infinity
        for a target without rows.
    offsets : (n,) or (m, n) int64
        The best d, a position in the target less one in the query. Of equal ones it is the one
        closest to 0, and the positive one of two that are equally close.

    Raises
    ------
    InputError
        A number is not finite, a query has no row, the widths differ, or the floor is positive.

    Notes
    -----
    Sums are float32. A score does not depend on threads, nor on the other targets and queries, but
    for the last bits: the matrix library rounds products of other sizes differently (by 1e-6 of
    the largest). Rows of whole numbers have exact scores.

    Examples
    --------
    >>> query = np.eye(3, 50, dtype=np.float32)
    >>> targets = Ragged.pack([np.eye(3, 50), np.eye(4, 50, k=-1), np.zeros((2, 50))])
    >>> scores, offsets = diagonal_scores(query, targets)
    >>> scores.tolist(), offsets.tolist()
    ([3.0, 3.0, 0.0], [0, 1, 0])
    """
    [result] = _score(queries, targets, [_Diagonals(floor)])
    return result[0], result[1]


def local_scores(
    queries: Queries,
    targets: Targets,
    *,
    gap_open: float = GAP_OPEN,
    gap_extend: float = GAP_EXTEND,
) -> Locals:
    """Score each target by its best local alignment with affine gaps (Smith-Waterman, Gotoh).

    Parameters
    ----------
    queries, targets
        As for ``diagonal_scores``.
    gap_open, gap_extend : float
        Cost of a gap's first residue, and of each further one: a gap of g residues costs
        ``gap_open + (g - 1) * gap_extend``. A gap is followed by a pair of residues, as in
        ``biotite.sequence.align.align_optimal``.

    Returns
    -------
    scores : (n,) or (m, n) float32
        The best alignment's score; 0 if no pair of residues is positive.
    query_end, target_end : (n,) or (m, n) int64
        The pair of residues that ends it: of equally good ones the first in the query, then the
        first in the target; -1 if the score is 0.

    Raises
    ------
    InputError
        A number is not finite, a query has no row, the widths differ, or a cost is negative.

    Notes
    -----
    As for ``diagonal_scores``.

    Examples
    --------
    >>> query = 5 * np.eye(6, 50, dtype=np.float32)
    >>> target = np.delete(np.eye(6, 50), 3, axis=0)  # one residue is missing
    >>> scores, query_end, target_end = local_scores(
    ...     query, Ragged.pack([target]), gap_open=4, gap_extend=1
    ... )
    >>> scores.tolist(), query_end.tolist(), target_end.tolist()
    ([21.0], [5], [4])
    """
    [result] = _score(queries, targets, [_Local(gap_open, gap_extend)])
    return result[0], result[1], result[2]


def both_scores(
    queries: Queries,
    targets: Targets,
    *,
    floor: float | None = None,
    gap_open: float = GAP_OPEN,
    gap_extend: float = GAP_EXTEND,
) -> tuple[Diagonals, Locals]:
    """Return what ``diagonal_scores`` and ``local_scores`` do, from the same products.

    Parameters
    ----------
    queries, targets, floor, gap_open, gap_extend
        As for these two.

    Returns
    -------
    diagonals : tuple
        (scores, offsets)
    local : tuple
        (scores, query_end, target_end)

    Raises
    ------
    InputError
        As for these two.

    Examples
    --------
    >>> rows = np.eye(3, 50, dtype=np.float32)
    >>> (best, offsets), (local, _, _) = both_scores(rows, Ragged.pack([rows]))
    >>> best.tolist(), offsets.tolist(), local.tolist()
    ([3.0], [0], [3.0])
    """
    diagonal, local = _score(queries, targets, [_Diagonals(floor), _Local(gap_open, gap_extend)])
    return (diagonal[0], diagonal[1]), (local[0], local[1], local[2])


def joined_scores(scores: Float32, first_query: Int64, first_target: Int64) -> Float32:
    """Return the scores of proteins that have several chains, from those of the chains.

    Parameters
    ----------
    scores : (C, D) float32
        Each chain of m queries, one after another, with each chain of n targets.
    first_query, first_target : (m + 1,) and (n + 1,) int64
        Chains before each protein, and of all.

    Returns
    -------
    (m, n) float32
        The highest sum of scores above 0 of pairs of chains, both of which rise from pair to pair;
        the highest score if none is above 0, and minus infinity if a protein has no chains.

    Examples
    --------
    >>> scores = np.array([[3, 9, -1], [8, 7, -1], [-1, -1, -1]], np.float32)
    >>> joined_scores(scores, np.array([0, 2, 3]), np.array([0, 2, 3, 3])).tolist()
    [[10.0, -1.0, -inf], [-1.0, -1.0, -inf]]
    """
    best = np.empty((len(first_query) - 1, len(first_target) - 1), dtype=np.float32)
    _loops().best_ascending(scores, first_query, first_target, best)
    return best


@cache
def _loops() -> Any:
    """Return the compiled loops; numba takes a second to import."""
    from protalign.residues.kernels import loops

    return loops


class _Alignments(Protocol):
    """The best alignments of one query with the targets of one group, tile by tile."""

    def add(self, scores: Float32, first: int) -> None:
        """Go on with a (rows, columns) tile that begins with the query's residue ``first``."""

    def finish(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the results of the group's members, in the order of the stage's columns."""


class _Stage(Protocol):
    """A way to align a query with targets."""

    @property
    def columns(self) -> Columns:
        """A dtype for each result, and its value for a target without rows."""

    def start(self, group: Group, n_query: int) -> _Alignments: ...


class _Diagonals:
    columns: Columns = ((np.float32, -np.inf), (np.int64, 0))

    def __init__(self, floor: float | None) -> None:
        if floor is not None:
            check_between("floor", floor, -np.inf, 0, closed=True)
        self.floor = np.float32(-np.inf if floor is None else floor)

    def start(self, group: Group, n_query: int) -> _Alignments:
        return _GroupDiagonals(self, group, n_query)


class _GroupDiagonals:
    def __init__(self, stage: _Diagonals, group: Group, n_query: int) -> None:
        self._stage, self._group, self._n_query = stage, group, n_query
        n_sums = len(group.rows) + (n_query - 1) * LANES
        self._sums = np.zeros(n_sums, dtype=np.float32)

    def add(self, scores: Float32, first: int) -> None:
        _loops().add_diagonals(scores, first, self._n_query, self._stage.floor, self._sums)

    def finish(self) -> tuple[npt.NDArray[Any], ...]:
        n = len(self._group.members)
        best, offsets = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.int64)
        _loops().best_diagonals(self._sums, self._group.lengths, self._n_query, best, offsets)
        return best, offsets


class _Local:
    columns: Columns = ((np.float32, 0), (np.int64, -1), (np.int64, -1))

    def __init__(self, gap_open: float, gap_extend: float) -> None:
        for name, value in (("gap_open", gap_open), ("gap_extend", gap_extend)):
            check_between(name, value, 0, np.inf, closed=True)
        self.gap_open, self.gap_extend = np.float32(gap_open), np.float32(gap_extend)

    def start(self, group: Group, n_query: int) -> _Alignments:
        return _GroupLocal(self, group)


class _GroupLocal:
    def __init__(self, stage: _Local, group: Group) -> None:
        self._stage, self._group = stage, group
        columns = len(group.rows)
        self._joined = np.zeros((2, LANES + columns), dtype=np.float32)
        self._vertical = np.full(columns, -stage.gap_open, dtype=np.float32)
        self._best = np.zeros(LANES, dtype=np.float32)
        self._ends = np.full((2, LANES), -1, dtype=np.int32)

    def add(self, scores: Float32, first: int) -> None:
        _loops().add_local(
            scores,
            first,
            self._stage.gap_open,
            self._stage.gap_extend,
            self._joined,
            self._vertical,
            self._best,
            self._ends[0],
            self._ends[1],
        )

    def finish(self) -> tuple[npt.NDArray[Any], ...]:
        n = len(self._group.members)
        return self._best[:n], self._ends[0, :n], self._ends[1, :n]


def _score(
    queries: Queries, targets: Targets, stages: Sequence[_Stage]
) -> list[tuple[npt.NDArray[Any], ...]]:
    """Return the results of each stage."""
    packed = pack(targets)
    several = list(queries) if isinstance(queries, Ragged) else [np.asarray(queries)]
    ready = [torch.from_numpy(check_query(each, packed.dim)) for each in several]
    results = [
        tuple(np.full((len(ready), len(packed)), empty, dtype) for dtype, empty in stage.columns)
        for stage in stages
    ]
    tasks = product(packed.groups, enumerate(ready))  # threads may share an iterator written in C
    pairs = sum(len(group.rows) for group in packed.groups) * sum(map(len, ready))
    n_threads = max(1, min(threads_here(), len(packed.groups) * len(ready), pairs // THREAD_PAIRS))

    def work(_: int) -> None:
        tile = torch.empty(0)
        for group, (place, query) in tasks:
            rows = _tile_rows(group, len(query))
            if len(tile) < rows * len(group.rows):
                tile = torch.empty(rows * len(group.rows))
            started = [stage.start(group, len(query)) for stage in stages]
            for first, scores in _tiles(query, group.rows, rows, tile):
                for each in started:
                    each.add(scores, first)
            for alignments, columns in zip(started, results, strict=True):
                for values, column in zip(alignments.finish(), columns, strict=True):
                    column[place, group.members] = values

    share(n_threads, work)
    if isinstance(queries, Ragged):
        return results
    return [tuple(column[0] for column in columns) for columns in results]


def check_query(query: npt.NDArray[np.generic], width: int) -> Float32:
    """Return a query's rows as contiguous float32; raise InputError if they cannot be scored."""
    if query.ndim != 2 or len(query) == 0:
        raise no_rows("query")
    if query.shape[1] != width:
        raise InputError(
            f"query: its rows have {query.shape[1]} numbers, and the targets' have {width}",
            "make both with the same model",
        )
    rows = np.array(query, dtype=np.float32, order="C")
    check_finite("query", rows)
    return rows


def _tile_rows(group: Group, n_query: int) -> int:
    return min(n_query, max(TILE_ROWS, TILE // len(group.rows)))


def _tiles(
    query: torch.Tensor, columns: Float32, at_once: int, buffer: torch.Tensor
) -> Iterable[tuple[int, Float32]]:
    """Yield (first residue, scores) of a query against a group; each is overwritten by the next."""
    across = torch.from_numpy(columns).T
    for first in range(0, len(query), at_once):
        part = query[first : first + at_once]
        tile = buffer[: len(part) * len(columns)].view(len(part), len(columns))
        torch.mm(part, across, out=tile)
        yield first, tile.numpy()
