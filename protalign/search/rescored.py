"""Candidates of a graph of rounded vectors, rescored by the vectors themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.search.kernels.exact import ExactIndex, check_finite
from protalign.search.kernels.sizes import ExactSizes
from protalign.search.vector_graphs import VectorGraph

#: Candidates of a query: so many times the hits that are wanted, and at least so many.
OVERSAMPLING, CANDIDATES = 4, 64
#: How many candidates a search may keep, from quick to slow; and the Recall@10 to reach.
EXPANSIONS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
RECALL, HITS = 0.99, 10
#: Queries whose recall is measured, the seed of their choice, and how far each is moved.
_SAMPLE, _SEED, _MOVED = 512, 0, (0.2, 1.2)
#: Cosines that differ by less are equal: two ways to sum give that much.
_ROUNDING = 1e-6
#: Numbers of candidates' vectors that are rescored at once.
_NUMBERS = 1 << 25


class RescoredGraph:
    """A graph with its vectors. Cosines are exact; which rows are found is approximate.

    Parameters
    ----------
    path : Path
        The index, for errors.
    graph : VectorGraph
        The graph; its keys are rows of the vectors.
    vectors : (n, dim) float32
        The vectors, which may be mapped: some rows are read for each query.
    present : (n,) bool
        The rows that are in the graph.
    """

    def __init__(self, path: Path, graph: VectorGraph, vectors: Float32, present: Bool) -> None:
        self._path, self.graph = path, graph
        self._vectors, self._present = vectors, present

    def nearest(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """Return (rows, cosines), (q, k) each, best first; -1 and -inf if fewer are found."""
        check_finite(queries)
        k = min(k, self.graph.count)
        wanted = min(max(OVERSAMPLING * k, CANDIDATES), self.graph.count)
        at_once = max(1, _NUMBERS // (wanted * self._vectors.shape[1]))
        parts = [
            self._best(queries[start : start + at_once], wanted, k)
            for start in range(0, len(queries), at_once)
        ]
        if not parts:
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        rows, cosines = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(cosines)

    def _best(self, queries: Float32, wanted: int, k: int) -> tuple[Int64, Float32]:
        rows = self.graph.nearest(queries, wanted)
        found = rows >= 0
        if rows.max(initial=-1) >= len(self._vectors) or not self._present[rows[found]].all():
            raise InputError(
                f"{self._path}: it is damaged (a graph names entries that the vectors lack)",
                "build it again with `protalign index`",
            )
        candidates = self._vectors[np.where(found, rows, 0)]
        cosines: Float32 = np.matmul(candidates, queries[:, :, None])[:, :, 0]
        cosines[~found] = -np.inf
        order = np.lexsort((rows, -cosines), axis=-1)[:, :k]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def fitting_expansion(
    rescored: RescoredGraph, exact: ExactIndex, others: Float32 | None = None
) -> tuple[int, float]:
    """Return how many candidates a graph's searches must keep, and the Recall@10 that this gives.

    Queries near some of the vectors, and vectors of the other modality, are searched exactly and by
    the graph, with more and more candidates, until 99 % of the ten nearest to each are found for
    either kind of query; or with the most, if that is not enough. The recall is the lower one.

    Parameters
    ----------
    rescored : RescoredGraph
        The graph, whose expansion is set.
    exact : ExactIndex
        The same vectors.
    others : (q, dim) float32, optional
        Vectors of the other modality: what most searches ask with.
    """
    kinds = [_moved(exact)] if others is None else [_moved(exact), others]
    least = [exact.nearest(queries, HITS)[1][:, -1:] - np.float32(_ROUNDING) for queries in kinds]
    recall = 0.0
    for expansion in EXPANSIONS:
        rescored.graph.expansion = expansion
        recall = min(
            float((rescored.nearest(queries, HITS)[1] >= worst).mean())
            for queries, worst in zip(kinds, least, strict=True)
        )
        if recall >= RECALL:
            break
    return rescored.graph.expansion, recall


def some_vectors(vectors: Float32, present: Bool) -> Float32 | None:
    """Return (q, dim) float32: some of the present vectors, drawn by chance; None if none is."""
    rows = np.flatnonzero(present)
    if not len(rows):
        return None
    drawn = np.random.default_rng(_SEED).choice(rows, min(_SAMPLE, len(rows)), replace=False)
    return np.asarray(vectors[np.sort(drawn)])


def _moved(exact: ExactIndex) -> Float32:
    """Return queries near some of the vectors, which are not in the graph as those are.

    A vector that is in it is found too easily: its links lead to its neighbours. Each is moved in
    the direction in which two others differ, as far as relatives differ.
    """
    rng = np.random.default_rng(_SEED)
    present = np.flatnonzero(exact.present)
    first, second, third = exact.vectors[rng.choice(present, (3, _SAMPLE))]
    difference = second - third
    difference /= np.maximum(np.linalg.norm(difference, axis=1, keepdims=True), 1e-6)
    moved = first + np.linspace(*_MOVED, _SAMPLE, dtype=np.float32)[:, None] * difference
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    queries: Float32 = np.where(length > 1e-6, moved / np.maximum(length, 1e-6), first)
    return queries


def exact_of(vectors: Float32, present: Bool) -> ExactIndex:
    """Return an exact index that makes no copy of the vectors."""
    return ExactIndex(vectors, present, ExactSizes(rounded=None))
