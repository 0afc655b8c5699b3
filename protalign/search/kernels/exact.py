"""Exact nearest neighbours by inner product, in blocks that stay in the processor's cache.

A block of similarities is reduced to the maxima of groups of rows, by elementwise maxima of whole
vectors; only groups whose maximum beats a query's k-th best so far are looked into. After a few
blocks these are rare, so a search costs the matrix product and one pass over the cached block.
Where the processor has AMX, long searches take that product in bfloat16 (see ``half``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError

if TYPE_CHECKING:
    from protalign.search.kernels.bfloat16 import HalfVectors, Product

#: Similarities of a block, float32: 1 MB, which a usual second-level cache holds.
BLOCK_ELEMENTS = 1 << 18
#: Rows of a group, of which the maximum is taken.
GROUP = 32
#: Rows sorted outright, which give the first k-th best.
FIRST_ROWS = 256
#: Queries searched in one pass over the candidates.
QUERIES_AT_ONCE = 256
#: Hits kept in one pass, over all of its queries: fewer queries are in it where k is large.
HITS_AT_ONCE = 1 << 20
#: Fewer similarities than this are not worth a second thread.
THREAD_ELEMENTS = 1 << 20
#: Vectors are converted to bfloat16 for searches of that many queries or more, in that many
#: vectors or more, once that many queries were asked: fewer do not pay for it.
HALF_BATCH, HALF_VECTORS, HALF_QUERIES = 32, 1 << 17, 256
#: The matrix library's threads are the process's: two searches that set them, each putting back
#: what it found, would leave them at one for good.
_LIMITED = Lock()


class Candidates:
    """Vectors to search among, as often as wanted.

    Parameters
    ----------
    vectors : (n, dim) float32.
    present : (n,) bool, rows that may be found; default: those that are not NaN.
    """

    def __init__(self, vectors: Float32, present: Bool | None = None) -> None:
        self.vectors = vectors
        self.present = np.isfinite(vectors[:, 0]) if present is None else present
        self.n_present = int(np.count_nonzero(self.present))
        self._asked = 0
        self._half: HalfVectors | None = None
        self._preparing = Lock()

    def nearest(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """The k candidates with the largest inner product for each query.

        Parameters
        ----------
        queries : (q, dim) float32.
        k : how many; all of them where there are fewer.

        Returns
        -------
        rows : (q, k) int64 indices into ``vectors``, best first, equal ones in ascending order.
        similarity : (q, k) float32, the inner products (cosines, for vectors of unit length).

        Raises
        ------
        InputError : a query has a number that is not finite.

        Notes
        -----
        Inner products are summed in one order or another, as it is quicker: candidates whose
        similarities differ by rounding only (1e-7 for unit vectors) may come in either order.
        """
        missing = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(missing):
            raise InputError(
                f"{len(missing):,} queries are not finite, the first in row {missing[0]:,}",
                "leave out entries that lack the modality",
            )
        k = min(k, self.n_present)
        at_once = min(QUERIES_AT_ONCE, max(1, HITS_AT_ONCE // max(1, k)))
        parts = [
            self._pass(queries[start : start + at_once], k)
            for start in range(0, len(queries), at_once)
        ]
        empty = np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        rows, similarity = zip(*parts, strict=True) if parts else ([empty[0]], [empty[1]])
        return np.concatenate(rows), np.concatenate(similarity)

    def _pass(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """One pass over the candidates, shared out among threads that each compute alone."""
        n = len(self.vectors)
        n_threads = min(_cores(), max(1, len(queries) * n // THREAD_ELEMENTS))
        bounds = np.linspace(0, n, n_threads + 1).astype(np.int64)
        shares = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        half = self._in_half(queries)

        def search(share: tuple[int, int]) -> _Best:
            return _search(self._product(queries, half), len(queries), k, *share)

        if n_threads == 1:
            found = [search(shares[0])]
        else:
            with _threads(n_threads, with_torch=half is not None) as pool:
                found = list(pool.map(search, shares))
        best = found[0]
        for other in found[1:]:
            best.add(other.query, other.row, other.value)
        best.settle()
        return best.sorted()

    @property
    def memory_bytes(self) -> int:
        """What it holds beside the vectors: their copy in bfloat16, once there is one."""
        return 0 if self._half is None else self._half.rounded.nbytes

    def _in_half(self, queries: Float32) -> HalfVectors | None:
        """The vectors in bfloat16, where that is quicker for these queries."""
        n_queries = len(queries)
        if n_queries < HALF_BATCH or len(self.vectors) < HALF_VECTORS or not processor_has_amx():
            return None
        with self._preparing:
            self._asked += n_queries
            if self._half is None and self._asked > HALF_QUERIES:
                from protalign.search.kernels.bfloat16 import HalfVectors

                self._half = HalfVectors(self.vectors, self.present)
            half = self._half
        return half if half is not None and half.is_quick and half.serve(queries) else None

    def _product(self, queries: Float32, half: HalfVectors | None) -> Product:
        in_float32 = _Product(queries, self.vectors, self.present)
        if half is None:
            return in_float32
        from protalign.search.kernels.bfloat16 import HalfProduct

        return HalfProduct(queries, half, in_float32)


@contextmanager
def _threads(count: int, *, with_torch: bool) -> Iterator[ThreadPoolExecutor]:
    """Threads of which each computes by itself: no matrix library takes more."""
    with _LIMITED, _blas().limit(limits=1, user_api="blas"):
        if not with_torch:
            with ThreadPoolExecutor(count) as pool:
                yield pool
            return
        from protalign.core.threads import torch_pool

        with torch_pool(count) as pool:
            yield pool


class _Best:
    """The best (query, row, value) triples so far, and each query's k-th best value."""

    def __init__(self, n_queries: int, k: int) -> None:
        self._k = k
        self._pending: list[tuple[Int64, Int64, Float32]] = []
        self._n_pending = 0
        self.query = np.empty(0, dtype=np.int64)
        self.row = np.empty(0, dtype=np.int64)
        self.value = np.empty(0, dtype=np.float32)
        self.least = np.full(n_queries, -np.inf, dtype=np.float32)

    def add(self, query: Int64, row: Int64, value: Float32) -> None:
        """Take in some triples; ``least`` follows when they have become a good part of all."""
        self._pending.append((query, row, value))
        self._n_pending += len(query)
        if self._n_pending >= len(self.query) // 4:
            self.settle()

    def sorted(self) -> tuple[Int64, Float32]:
        """(rows, values), (q, k) each, best first, of settled triples."""
        shape = (len(self.least), self._k)
        return self.row.reshape(shape), self.value.reshape(shape)

    def settle(self) -> None:
        """Keep the k best of each query, in order, and nothing pending."""
        columns = zip((self.query, self.row, self.value), *self._pending, strict=True)
        query, row, value = (np.concatenate(column) for column in columns)
        order = np.lexsort((row, -value, query))
        counts = np.bincount(query, minlength=len(self.least))
        begins = np.cumsum(counts) - counts
        order = order[np.arange(len(order)) - begins[query[order]] < self._k]
        self.query, self.row, self.value = query[order], row[order], value[order]
        self._pending, self._n_pending = [], 0
        kept = np.minimum(counts, self._k)
        full = kept == self._k
        self.least[full] = self.value[np.cumsum(kept)[full] - 1] if self._k else np.inf


def _search(product: Product, n_queries: int, k: int, begin: int, end: int) -> _Best:
    """The best of the candidates from ``begin`` to ``end``."""
    best = _Best(n_queries, k)
    if k == 0:
        return best
    for start, stop in _blocks(begin, end, product.block_rows):
        row, query, value = product.above(start, stop, best.least)
        if len(row):
            best.add(query, row + start, value)
    best.settle()
    return best


def _blocks(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    start, step = begin, min(FIRST_ROWS, size)
    while start < end:
        stop = min(start + step, end)
        yield start, stop
        start, step = stop, min(4 * step, size)


class _Product:
    """Similarities of some queries in float32, a block of candidates at a time."""

    def __init__(self, queries: Float32, candidates: Float32, present: Bool) -> None:
        self._candidates, self._present = candidates, present
        self._across = np.ascontiguousarray(queries.T)
        self.block_rows = max(GROUP, BLOCK_ELEMENTS // len(queries) // GROUP * GROUP)
        self._buffer = np.empty((self.block_rows, len(queries)), dtype=np.float32)

    def above(self, start: int, stop: int, least: Float32) -> tuple[Int64, Int64, Float32]:
        """As every ``Product``."""
        block = self._buffer[: stop - start]
        similarity = np.matmul(self._candidates[start:stop], self._across, out=block)
        here = self._present[start:stop]
        if not here.all():
            similarity[~here] = -np.inf
        row, query = _above(similarity, least)
        return row, query, similarity[row, query]


def _above(similarity: Float32, least: Float32) -> tuple[Int64, Int64]:
    """(rows, queries) of all similarities (m, q) above their query's ``least``."""
    n_rows, n_queries = similarity.shape
    per_group = n_rows // GROUP
    whole = per_group * GROUP
    # Group j has the rows j, j + per_group, …: their maximum is one of whole vectors.
    maxima = similarity[:whole].reshape(GROUP, per_group * n_queries).max(axis=0)
    maxima = maxima.reshape(per_group, n_queries)
    group, query = np.nonzero(maxima > least)
    rows = (group[:, None] + np.arange(GROUP) * per_group).reshape(-1)
    queries = np.repeat(query, GROUP)
    above = similarity[rows, queries] > least[queries]
    last_row, last_query = np.nonzero(similarity[whole:] > least)
    return (
        np.concatenate([rows[above], last_row + whole]),
        np.concatenate([queries[above], last_query]),
    )


@cache
def _blas() -> Any:
    """Sets the matrix library's own threads; looking for it takes a while, so once."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def _cores() -> int:
    """Cores to use: all that this process may, or as many as OMP_NUM_THREADS says."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return int(limit) if limit.isdigit() and int(limit) > 0 else allowed or 1


@cache
def processor_has_amx() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware (AMX; Linux tells)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any("amx_bf16" in line.split() for line in lines if line.startswith("flags"))
