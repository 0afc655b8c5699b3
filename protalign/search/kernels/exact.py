"""Exact nearest neighbours by inner product, in blocks that stay in the processor's cache.

A block of similarities is reduced to the maxima of groups of rows, by elementwise maxima of whole
vectors; only groups whose maximum beats a query's k-th best so far are looked into. After a few
blocks these are rare, so a search costs the matrix product and one pass over the cached block.
If bfloat16 is quicker on the processor, long searches take that product in it (see ``bfloat16``).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.machine import blas, threads_here
from protalign.search.kernels.sizes import GROUP, ExactSizes

if TYPE_CHECKING:
    from protalign.search.kernels.bfloat16 import Bfloat16Vectors, Product

#: The matrix library's threads are the process's: two searches that set them, each putting back
#: what it found, would leave them at one for good.
_LIMITED = Lock()


class ExactIndex:
    """Exact search among vectors, as often as wanted.

    Parameters
    ----------
    vectors : (n, dim) float32
        The vectors.
    present : (n,) bool, optional
        Rows that may be found; default: those that are not NaN.
    sizes : ExactSizes, optional
        Sizes for speed.
    """

    def __init__(
        self,
        vectors: Float32,
        present: Bool | None = None,
        sizes: ExactSizes | None = None,
    ) -> None:
        self._sizes = sizes or ExactSizes()
        self.vectors = vectors
        self.present = np.isfinite(vectors[:, 0]) if present is None else present
        self.n_present = int(np.count_nonzero(self.present))
        self._asked = 0
        self._rounded: Bfloat16Vectors | None = None
        self._undecided = True  # whether it is worth its memory
        self._preparing = Lock()

    def nearest(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """Find the k vectors with the largest inner product for each query.

        Parameters
        ----------
        queries : (q, dim) float32
            The queries.
        k : int
            Hits per query; all vectors if there are fewer.

        Returns
        -------
        rows : (q, k) int64
            Indices into ``vectors``, best first, equal ones in ascending order.
        similarity : (q, k) float32
            The inner products: cosines for vectors of unit length.

        Raises
        ------
        InputError
            A query has a number that is not finite.

        Notes
        -----
        Vectors should be finite. An inner product that is not finite, -inf too, counts as infinite,
        so that it comes first and the caller sees it.

        Inner products are summed in one order or another, as it is quicker: candidates whose
        similarities differ by rounding only (1e-7 for unit vectors) may come in either order.
        """
        check_finite(queries)
        k = min(k, self.n_present)
        at_once = min(self._sizes.queries_at_once, max(1, self._sizes.hits_at_once // max(1, k)))
        parts = [
            self._pass(queries[start : start + at_once], k)
            for start in range(0, len(queries), at_once)
        ]
        empty = np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        rows, similarity = zip(*parts, strict=True) if parts else ([empty[0]], [empty[1]])
        return np.concatenate(rows), np.concatenate(similarity)

    def _pass(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """Make one pass over the vectors, shared among threads of one core each."""
        n = len(self.vectors)
        n_threads = min(
            self._sizes.threads,
            threads_here(),
            max(1, len(queries) * n // self._sizes.thread_elements),
        )
        bounds = np.linspace(0, n, n_threads + 1).astype(np.int64)
        shares = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        rounded = self._in_bfloat16(queries)

        def search(share: tuple[int, int]) -> TopK:
            first_rows = self._sizes.first_rows
            return _search(self._product(queries, rounded), len(queries), k, *share, first_rows)

        if n_threads == 1:
            found = [search(shares[0])]
        else:
            with threads_of_one_core(n_threads, with_torch=rounded is not None) as pool:
                found = list(pool.map(search, shares))
        best = found[0]
        for other in found[1:]:
            best.add(other.query, other.row, other.value)
        best.settle()
        return best.sorted()

    @property
    def memory_bytes(self) -> int:
        """The bytes held beside the vectors: their copy in bfloat16, once it is made."""
        return 0 if self._rounded is None else self._rounded.rounded.nbytes

    def _in_bfloat16(self, queries: Float32) -> Bfloat16Vectors | None:
        """Return the vectors in bfloat16 if that is quicker for these queries."""
        n_queries = len(queries)
        sizes = self._sizes
        few = n_queries < sizes.rounded_batch or len(self.vectors) < sizes.rounded_vectors
        if sizes.rounded is None or few:
            return None
        with self._preparing:
            self._asked += n_queries
            if self._undecided and self._asked > sizes.rounded_queries:
                from protalign.search.kernels.bfloat16 import Bfloat16Vectors, is_quick

                self._undecided = False
                if not sizes.rounded.timed or is_quick(self.vectors):
                    self._rounded = Bfloat16Vectors(self.vectors, self.present, sizes.rounded)
            rounded = self._rounded
        return rounded if rounded is not None and rounded.serve(queries) else None

    def _product(self, queries: Float32, rounded: Bfloat16Vectors | None) -> Product:
        in_float32 = _Product(queries, self.vectors, self.present, self._sizes.block_elements)
        if rounded is None:
            return in_float32
        from protalign.search.kernels.bfloat16 import Bfloat16Product

        return Bfloat16Product(queries, rounded, in_float32)


def check_finite(queries: Float32) -> None:
    """Raise InputError if a query, a row of (q, dim), has a number that is not finite."""
    missing = np.flatnonzero(~np.isfinite(queries).all(axis=1))
    if len(missing):
        raise InputError(
            f"{len(missing):,} queries: they are not finite, the first in row {missing[0]:,}",
            "leave out entries with a missing modality",
        )


@contextmanager
def threads_of_one_core(count: int, *, with_torch: bool) -> Iterator[ThreadPoolExecutor]:
    """Give threads of one core each: no matrix library takes more."""
    with _LIMITED, blas().limit(limits=1, user_api="blas"):
        if not with_torch:
            with ThreadPoolExecutor(count) as pool:
                yield pool
            return
        from protalign.core.threads import torch_pool

        with torch_pool(count) as pool:
            yield pool


class TopK:
    """The best (query, row, value) triples so far, and each query's k-th best value."""

    def __init__(self, n_queries: int, k: int) -> None:
        self._k = k
        self._pending: list[tuple[Int64, Int64, Float32]] = []
        self._n_pending = 0
        self.query = np.empty(0, dtype=np.int64)
        self.row = np.empty(0, dtype=np.int64)
        self.value = np.empty(0, dtype=np.float32)
        self.threshold = np.full(n_queries, -np.inf, dtype=np.float32)

    def add(self, query: Int64, row: Int64, value: Float32) -> None:
        """Add some triples; ``threshold`` is updated when they are a good part of all."""
        self._pending.append((query, row, value))
        self._n_pending += len(query)
        if self._n_pending >= len(self.query) // 4:
            self.settle()

    def sorted(self) -> tuple[Int64, Float32]:
        """Return (rows, values), (q, k) each, best first, of settled triples."""
        shape = (len(self.threshold), self._k)
        return self.row.reshape(shape), self.value.reshape(shape)

    def settle(self) -> None:
        """Keep the k best of each query, in order, and nothing pending."""
        columns = zip((self.query, self.row, self.value), *self._pending, strict=True)
        query, row, value = (np.concatenate(column) for column in columns)
        order = np.lexsort((row, -value, query))
        counts = np.bincount(query, minlength=len(self.threshold))
        begins = np.cumsum(counts) - counts
        order = order[np.arange(len(order)) - begins[query[order]] < self._k]
        self.query, self.row, self.value = query[order], row[order], value[order]
        self._pending, self._n_pending = [], 0
        kept = np.minimum(counts, self._k)
        full = kept == self._k
        self.threshold[full] = self.value[np.cumsum(kept)[full] - 1] if self._k else np.inf


def _search(
    product: Product, n_queries: int, k: int, begin: int, end: int, first_rows: int
) -> TopK:
    """Return the best of the vectors from ``begin`` to ``end``."""
    best = TopK(n_queries, k)
    if k == 0:
        return best
    for start, stop in _blocks(begin, end, product.block_rows, first_rows):
        row, query, value = product.above(start, stop, best.threshold)
        if len(row):
            best.add(query, row + start, value)
    best.settle()
    return best


def _blocks(begin: int, end: int, size: int, first_rows: int) -> Iterator[tuple[int, int]]:
    start, step = begin, min(first_rows, size)
    while start < end:
        stop = min(start + step, end)
        yield start, stop
        start, step = stop, min(4 * step, size)


class _Product:
    """Similarities of some queries in float32, a block of candidates at a time."""

    def __init__(
        self, queries: Float32, candidates: Float32, present: Bool, block_elements: int
    ) -> None:
        self._candidates, self._present = candidates, present
        self._across = np.ascontiguousarray(queries.T)
        self.block_rows = max(GROUP, block_elements // len(queries) // GROUP * GROUP)
        self._buffer = np.empty((self.block_rows, len(queries)), dtype=np.float32)

    def above(self, start: int, stop: int, threshold: Float32) -> tuple[Int64, Int64, Float32]:
        """See ``Product``."""
        block = self._buffer[: stop - start]
        with np.errstate(invalid="ignore", over="ignore"):  # damaged vectors, which come out first
            similarity = np.matmul(self._candidates[start:stop], self._across, out=block)
        # A damaged vector is infinitely near some queries and infinitely far from others.
        if np.isneginf(np.fmin.reduce(similarity, axis=None)):
            similarity[np.isneginf(similarity)] = np.inf
        here = self._present[start:stop]
        if not here.all():
            similarity[~here] = -np.inf
        row, query = _above(similarity, threshold)
        value = similarity[row, query]
        value[np.isnan(value)] = np.inf
        return row, query, value


def _above(similarity: Float32, threshold: Float32) -> tuple[Int64, Int64]:
    """Return (rows, queries) of all similarities (m, q) above their query's ``threshold``.

    NaN counts as above: it would hide the other rows of its group.
    """
    n_rows, n_queries = similarity.shape
    per_group = n_rows // GROUP
    whole = per_group * GROUP
    # Group j has the rows j, j + per_group, …: their maximum is one of whole vectors.
    maxima = similarity[:whole].reshape(GROUP, per_group * n_queries).max(axis=0)
    maxima = maxima.reshape(per_group, n_queries)
    group, query = np.nonzero(~(maxima <= threshold))
    rows = (group[:, None] + np.arange(GROUP) * per_group).reshape(-1)
    queries = np.repeat(query, GROUP)
    above = ~(similarity[rows, queries] <= threshold[queries])
    last_row, last_query = np.nonzero(~(similarity[whole:] <= threshold))
    return (
        np.concatenate([rows[above], last_row + whole]),
        np.concatenate([queries[above], last_query]),
    )
