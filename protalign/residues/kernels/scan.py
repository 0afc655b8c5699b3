"""Search of a whole database by best diagonals: every target is scored, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_whole
from protalign.core.errors import InputError
from protalign.core.ragged import Ragged
from protalign.residues.kernels.correlation import Correlation
from protalign.residues.kernels.diagonals import DeviceDiagonals
from protalign.residues.kernels.scores import check_query, diagonal_scores

#: Rows of a block: 50 MB of float32 rows of 50 numbers.
BLOCK_ROWS = 1 << 18
#: Queries from which Fourier transforms are quicker than products of residues.
TRANSFORMED_QUERIES = 2
#: Queries that are searched together.
QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class DiagonalHits:
    """The best k targets of each of m queries, best first; of equal ones the first.

    Attributes
    ----------
    targets : (m, k) int64
        Indices of targets.
    scores : (m, k) float32
        See ``diagonal_scores``.
    offsets : (m, k) int64
        The best diagonals' offsets.
    """

    targets: Int64
    scores: Float32
    offsets: Int64


class DiagonalScan:
    """The residue rows of a database, searched by best diagonals.

    Each search of up to 64 queries reads all rows once, a block at a time. A target or a query is
    one chain: those of a complex are targets of their own, and ``protalign.residues.chains`` joins
    scores of chains.

    Parameters
    ----------
    rows : (R, K) array
        Rows of n targets, one after another: float16, float32 or int8, also memory-mapped.
    offsets : (n + 1,) int64
        Rows before each target, and of all.
    scale : (K,) float32, optional
        By which the numbers of int8 rows are multiplied.
    device : torch.device, optional
        A GPU to which each block is moved, and scored by a Triton kernel. Default: the processor.
    block_rows : int
        Rows of a block, about.

    Raises
    ------
    InputError
        The scale does not fit the rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> proteins = [rng.normal(size=(length, 50)).astype(np.float16) for length in (30, 40, 50)]
    >>> database = Ragged.pack(proteins)
    >>> scan = DiagonalScan(database.values, database.offsets)
    >>> hits = scan.nearest(Ragged.pack([proteins[1][5:35]]), k=2)
    >>> hits.targets[0, 0].item(), hits.offsets[0, 0].item()
    (1, 5)
    """

    def __init__(
        self,
        rows: npt.NDArray[np.generic],
        offsets: Int64,
        *,
        scale: Float32 | None = None,
        device: torch.device | None = None,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        check_whole("block_rows", block_rows, 1)
        if scale is not None and np.shape(scale) != (rows.shape[1],):
            raise InputError(
                f"scale: its shape is {np.shape(scale)}", f"give {rows.shape[1]} numbers"
            )
        self._targets = Ragged(rows, offsets)
        self._scale = np.float32(1) if scale is None else np.asarray(scale, dtype=np.float32)
        self._device = device
        self._block_rows = block_rows

    def __len__(self) -> int:
        return len(self._targets)

    def nearest(self, queries: Ragged, k: int, *, floor: float | None = None) -> DiagonalHits:
        """Find the k targets with the best diagonals for each query.

        Parameters
        ----------
        queries : Ragged
            Rows (Q, K) of m queries, each of at least one residue.
        k : int
            Hits per query; all targets if there are fewer.
        floor : float, optional
            Score of a residue pair at least. Default: no floor, which is many times faster for
            several queries.

        Returns
        -------
        DiagonalHits
            With the scores and offsets of ``diagonal_scores``.

        Raises
        ------
        InputError
            See ``diagonal_scores``.
        """
        check_whole("k", k, 1)
        k = min(k, len(self))
        ready = [check_query(query, self._targets.dim) * self._scale for query in queries]
        hits = DiagonalHits(
            np.empty((len(ready), k), dtype=np.int64),
            np.empty((len(ready), k), dtype=np.float32),
            np.empty((len(ready), k), dtype=np.int64),
        )
        for first in range(0, len(ready), QUERIES_AT_ONCE):
            together = ready[first : first + QUERIES_AT_ONCE]
            candidates = self._candidates(together, k, floor)
            for place, query in enumerate(together):
                targets = candidates.of(place)
                scores, offsets = diagonal_scores(query, self._rows_of(targets), floor=floor)
                best = np.lexsort((targets, -scores))[:k]
                hits.targets[first + place] = targets[best]
                hits.scores[first + place] = scores[best]
                hits.offsets[first + place] = offsets[best]
        return hits

    def _candidates(self, queries: list[Float32], k: int, floor: float | None) -> _Candidates:
        """Return what can be among the best k of each query."""
        scorer: _Scorer
        if self._device is not None:
            scorer = DeviceDiagonals(queries, self._device, floor)
        elif floor is None and len(queries) >= TRANSFORMED_QUERIES:
            scorer = Correlation(queries)
        else:
            scorer = _Exact(queries, floor)
        candidates = _Candidates(len(queries), k)
        for first, block in self._blocks():
            scores, error = scorer.scores(block)
            candidates.add(first, scores - error, scores + error)
        return candidates

    def _blocks(self) -> Iterator[tuple[int, Ragged]]:
        """Yield (first target, its block's rows)."""
        offsets = self._targets.offsets
        first = 0
        while first < len(self):
            end = int(np.searchsorted(offsets, offsets[first] + self._block_rows, side="right"))
            last = max(first + 1, end - 1)
            begin, stop = offsets[first], offsets[last]
            yield (
                first,
                Ragged(self._targets.values[begin:stop], offsets[first : last + 1] - begin),
            )
            first = last

    def _rows_of(self, targets: Int64) -> Ragged:
        """Return a copy of some targets' rows, one after another."""
        none = self._targets.values[:0]
        offsets = np.concatenate([[0], np.cumsum(self._targets.lengths[targets])])
        rows = [none, *(self._targets[target] for target in targets.tolist())]
        return Ragged(np.concatenate(rows), offsets)


class _Scorer(Protocol):
    """Some queries, to be scored against blocks of targets."""

    def scores(self, targets: Ragged) -> tuple[Float32, Float32]:
        """Return (m, n) scores, and how far they may be from those of ``diagonal_scores``."""


class _Exact:
    def __init__(self, queries: list[Float32], floor: float | None) -> None:
        self._queries, self._floor = Ragged.pack(queries), floor

    def scores(self, targets: Ragged) -> tuple[Float32, Float32]:
        scores, _ = diagonal_scores(self._queries, targets, floor=self._floor)
        return scores, np.zeros_like(scores)


class _Candidates:
    """Targets whose score may be among the k best of a query, as intervals become known."""

    def __init__(self, n_queries: int, k: int) -> None:
        self._k = k
        self._kept = [_Intervals.none() for _ in range(n_queries)]

    def add(self, first: int, low: Float32, high: Float32) -> None:
        """Add targets ``first``, ``first + 1``, …, whose scores are between (m, b) numbers."""
        for place, kept in enumerate(self._kept):
            self._kept[place] = kept.with_block(first, low[place], high[place], self._k)

    def of(self, place: int) -> Int64:
        """Return the targets of a query, ascending."""
        return np.sort(self._kept[place].targets)


@dataclass(frozen=True, slots=True, eq=False)
class _Intervals:
    """Targets of one query, and between which numbers their scores are."""

    targets: Int64
    low: Float32
    high: Float32

    @classmethod
    def none(cls) -> _Intervals:
        number = np.empty(0, dtype=np.float32)
        return cls(np.empty(0, dtype=np.int64), number, number)

    def with_block(self, first: int, low: Float32, high: Float32, k: int) -> _Intervals:
        """Return what remains if a block is added: what reaches the k-th largest lower end."""
        lows = np.concatenate([self.low, low])
        reach = np.partition(lows, -k)[-k] if len(lows) >= k else -np.inf
        before, after = self.high >= reach, np.flatnonzero(high >= reach)
        return _Intervals(
            np.concatenate([self.targets[before], after + first]),
            np.concatenate([self.low[before], low[after]]),
            np.concatenate([self.high[before], high[after]]),
        )
