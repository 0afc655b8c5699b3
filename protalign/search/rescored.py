"""Candidates of cells of rounded vectors, rescored by the vectors themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.protein import Modality
from protalign.search.cell_building import Progress, drawn_rows
from protalign.search.cells import Cells, damaged
from protalign.search.kernels.exact import ExactIndex, check_finite
from protalign.search.kernels.sizes import ExactSizes
from protalign.stores import AlignedVectors

#: Candidates of a query: so many times the hits that are wanted, and at least so many.
OVERSAMPLING, CANDIDATES = 4, 64
#: The recall to reach, and by which part of them more cells may be read than that takes.
RECALL, FINENESS = 0.99, 1 / 16
#: The numbers of hits whose recall is measured: few, and what a second stage gets.
HITS = 10, 200
#: Queries whose recall is measured, the seed of their choice, and how far each is moved. Of many
#: hits, one query in so many is enough.
_SAMPLE, _SEED, _MOVED, _ONE_IN = 512, 0, (0.2, 1.2), 4
#: Cosines that differ by less are equal: two ways to sum give that much.
_ROUNDING = 1e-6
#: Numbers of candidates' vectors that are rescored at once.
_NUMBERS = 1 << 25


class RescoredCells:
    """Cells with their vectors. Cosines are exact; which rows are found is approximate.

    Parameters
    ----------
    path : Path
        The index, for errors.
    cells : Cells
        The cells; their rows are rows of the vectors.
    nprobe : (int, int)
        Cells that are read for a query of 10 hits, and of 200. More hits lie in more cells, and
        those of any other number are on the power law through these two.
    vectors : (n, dim) float32
        The vectors, which may be mapped: some rows are read for each query.
    present : (n,) bool
        The rows that are in the cells.
    """

    def __init__(
        self,
        path: Path,
        cells: Cells,
        nprobe: tuple[int, int],
        vectors: Float32,
        present: Bool,
    ) -> None:
        self._path, self.cells, self.nprobe = path, cells, nprobe
        self._vectors, self._present = vectors, present

    def nearest(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """Return (rows, cosines), (q, k) each, best first; fewer if there are fewer vectors."""
        check_finite(queries)
        k = min(k, len(self.cells.rows))
        wanted = min(max(OVERSAMPLING * k, CANDIDATES), len(self.cells.rows))
        nprobe = self.cells_for(k)
        at_once = max(1, _NUMBERS // (wanted * self._vectors.shape[1]))
        parts = [
            self._best(queries[start : start + at_once], nprobe, wanted, k)
            for start in range(0, len(queries), at_once)
        ]
        if not parts:
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        rows, cosines = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(cosines)

    def cells_for(self, k: int) -> int:
        """Return how many cells are read for a query of so many hits."""
        few, many = self.nprobe
        power = math.log(many / few) / math.log(HITS[1] / HITS[0])
        number = few * math.pow(max(k, HITS[0]) / HITS[0], power)
        return min(len(self.cells.centroids), round(number))

    def _best(self, queries: Float32, nprobe: int, wanted: int, k: int) -> tuple[Int64, Float32]:
        rows = np.sort(self.cells.nearest(queries, nprobe, wanted), axis=1)
        if rows[:, 0].min() < 0 or rows[:, -1].max() >= len(self._vectors):
            raise damaged(self._path, "its cells name entries that the vectors lack")
        if not self._present[rows].all() or (np.diff(rows) == 0).any():
            raise damaged(self._path, "its cells name entries twice, or without a vector")
        with np.errstate(invalid="ignore", over="ignore"):
            cosines: Float32 = np.matmul(self._vectors[rows], queries[:, :, None])[:, :, 0]
        cosines[~np.isfinite(cosines)] = np.inf  # a damaged vector comes first, and is seen
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def fitting_nprobe(
    rescored: RescoredCells,
    exact: ExactIndex,
    others: Float32 | None = None,
    on_progress: Progress | None = None,
) -> tuple[tuple[int, int], float]:
    """Return how many cells a search must read (``nprobe``), and the Recall@10 that this gives.

    Queries near some of the vectors, and vectors of the other modality, are searched exactly and in
    the cells, in more and more of them, until 99 % of the ten nearest to each are found for either
    kind of query; or in all of them, if that is not enough. The recall is the lower one. The same
    is done for the 200 nearest.

    Parameters
    ----------
    rescored : RescoredCells
        The cells, whose ``nprobe`` is set.
    exact : ExactIndex
        The same vectors.
    others : (q, dim) float32, optional
        Vectors of the other modality: what most searches ask with.
    on_progress : callable, optional
        Called around each exact search; a vector counts once for each kind of query.
    """
    kinds = [_moved(exact)] if others is None else [_moved(exact), others]
    least: list[Float32] = []
    for queries in kinds:
        if on_progress is not None:
            done, total = (n * exact.n_present for n in (len(least), len(kinds)))
            on_progress("measuring recall", done, total)
        least.append(exact.nearest(queries, HITS[1])[1] - np.float32(_ROUNDING))

    def recall(hits: int, one_in: int, nprobe: int) -> float:
        rescored.nprobe = nprobe, nprobe
        last = min(hits, least[0].shape[1]) - 1
        shares = []
        for queries, worst in zip(kinds, least, strict=True):
            cosines = rescored.nearest(np.ascontiguousarray(queries[::one_in]), hits)[1]
            shares.append(float((cosines >= worst[::one_in, last, None]).mean()))
        return min(shares)

    most = len(rescored.cells.centroids)
    few, reached = _least(partial(recall, HITS[0], 1), 1, most)
    many, _ = _least(partial(recall, HITS[1], _ONE_IN), few, most)
    rescored.nprobe = few, many
    return rescored.nprobe, reached


def _least(recall: Callable[[int], float], first: int, most: int) -> tuple[int, float]:
    """Return about the least number that reaches the recall, or the most, and its recall."""
    too_few, number = first - 1, first
    while (reached := recall(number)) < RECALL and number < most:
        too_few, number = number, min(2 * number, most)
    while reached >= RECALL and number - too_few > max(1, FINENESS * number):
        middle = (too_few + number) // 2
        if (here := recall(middle)) >= RECALL:
            number, reached = middle, here
        else:
            too_few = middle
    return number, reached


def some_vectors(vectors: AlignedVectors, modality: Modality) -> Float32 | None:
    """Return (q, dim) float32: some vectors of a modality, drawn by chance; None if none has it.

    Raise InputError if one of them is damaged.
    """
    rows = drawn_rows(vectors.present(modality), _SAMPLE)
    return vectors.vectors_at(modality, rows) if len(rows) else None


def _moved(exact: ExactIndex) -> Float32:
    """Return queries near some of the vectors, which are not in the cells as those are.

    A vector that is in a cell is found too easily. Each is moved in the direction in which two
    others differ, as far as relatives differ.
    """
    rng = np.random.default_rng(_SEED)
    drawn = [drawn_rows(exact.present, _SAMPLE, seed) for seed in range(_SEED, _SEED + 3)]
    first, second, third = (exact.vectors[rng.choice(rows, _SAMPLE)] for rows in drawn)
    difference = second - third
    difference /= np.maximum(np.linalg.norm(difference, axis=1, keepdims=True), 1e-6)
    moved = first + np.linspace(*_MOVED, _SAMPLE, dtype=np.float32)[:, None] * difference
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    queries: Float32 = np.where(length > 1e-6, moved / np.maximum(length, 1e-6), first)
    return queries


def exact_of(vectors: Float32, present: Bool) -> ExactIndex:
    """Return an exact index that makes no copy of the vectors."""
    return ExactIndex(vectors, present, ExactSizes(rounded=None))
