"""Similarities in bfloat16, for processors that multiply such matrices in hardware.

With such hardware (AMX, AVX-512) the product is much faster than in float32, and its error is
bounded: whatever may be among the best by it is computed again in float32, so that the result is
exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from protalign.core.arrays import Bool, Float32, Int64
from protalign.search.kernels.sizes import GROUP, Bfloat16Sizes

#: Rows converted at a time.
_ROWS = 1 << 13
#: (query, row) pairs whose similarity is computed at a time.
_PAIRS = 1 << 13
#: Largest relative error of rounding to bfloat16, whose significand has 8 bits.
_ROUNDING = 2.0**-8
#: Lengths of vectors for which nothing overflows, or is so small that it is rounded to 0.
_LENGTHS = (1e-6, 1e6)
#: Rows and queries of the products that are timed.
_TIMED = (8192, 64)


def is_quick(vectors: Float32) -> bool:
    """Return whether products with (n, dim) vectors are quicker than in float32, by trying.

    The vectors that it tries have the same shape, and numbers that are known to be sound.
    """
    rows, queries = _TIMED
    exact = np.ones((min(rows, len(vectors)), vectors.shape[1]), dtype=np.float32)
    rounded = torch.from_numpy(exact).bfloat16()
    across = torch.ones(exact.shape[1], queries, dtype=torch.bfloat16)
    exactly = across.float().numpy()
    block, exact_block = torch.empty(len(rounded), queries).bfloat16(), exact @ exactly
    half = _seconds(lambda: torch.mm(rounded, across, out=block))
    return half < _seconds(lambda: np.matmul(exact, exactly, out=exact_block))


class Bfloat16Vectors:
    """(n, dim) vectors in bfloat16, and their distance from float32.

    Parameters
    ----------
    vectors : (n, dim) float32
        The vectors.
    present : (n,) bool
        Rows that count; the others become zeros.
    sizes : Bfloat16Sizes
        Sizes for speed.

    Attributes
    ----------
    length, error : float
        Largest length of a vector, and of the difference that rounding makes.
    """

    def __init__(self, vectors: Float32, present: Bool, sizes: Bfloat16Sizes) -> None:
        self.exact = vectors
        self.sizes = sizes
        self.present = present
        self.rounded = torch.empty(vectors.shape, dtype=torch.bfloat16)
        lengths, errors = [], []
        for start in range(0, len(vectors), _ROWS):
            rows = slice(start, start + _ROWS)
            exact = torch.from_numpy(np.where(present[rows, None], vectors[rows], 0))
            rounded = self.rounded[rows].copy_(exact)
            lengths.append(exact.norm(dim=1).max())
            errors.append((exact - rounded.float()).norm(dim=1).max())
        # torch's maximum of something and NaN is NaN, which no comparison finds in order.
        self.length, self.error = (float(torch.stack(each).max()) for each in (lengths, errors))

    def serve(self, queries: Float32) -> bool:
        """Return whether the bound on the error holds for these queries."""
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        shortest, longest = _LENGTHS
        both = (self.length, float(lengths.min()), float(lengths.max()))
        return all(shortest < length < longest for length in both)


class Product(Protocol):
    """Similarities of some queries, a block of vectors at a time."""

    block_rows: int

    def above(self, start: int, stop: int, threshold: Float32) -> tuple[Int64, Int64, Float32]:
        """Return (rows, queries, similarities) over ``threshold``, from ``start`` to ``stop``.

        ``threshold`` is (q,) float32. Rows count from ``start``.
        """


class Bfloat16Product:
    """Similarities of some queries, estimated a block of vectors at a time.

    Parameters
    ----------
    queries : (q, dim) float32
        Queries that the vectors ``serve``.
    vectors : Bfloat16Vectors
        The vectors to compare them with.
    in_float32 : Product
        The same similarities, not estimated.
    """

    def __init__(self, queries: Float32, vectors: Bfloat16Vectors, in_float32: Product) -> None:
        exact = torch.tensor(queries)  # a copy: the array may be read-only
        rounded = exact.bfloat16()
        self._queries, self._vectors, self._exact = queries, vectors, in_float32
        self._across = rounded.T.contiguous()
        self.block_rows = max(GROUP, vectors.sizes.block_elements // len(queries) // GROUP * GROUP)
        self._buffer = torch.empty((self.block_rows, len(queries)), dtype=torch.bfloat16)
        # |q c - q' c'| <= |q - q'| |c| + |q'| |c - c'|, and sums of products in float32.
        length, change = exact.norm(dim=1), (exact - rounded.float()).norm(dim=1)
        accumulated = 2.0**-22 * queries.shape[1] * length * vectors.length
        error = change * vectors.length + (length + change) * vectors.error + accumulated
        self._error: Float32 = error.numpy()
        self._crowded = 0

    def above(self, start: int, stop: int, threshold: Float32) -> tuple[Int64, Int64, Float32]:
        """See ``Product``: estimated, then computed if it may be over ``threshold``."""
        if self._crowded >= self._vectors.sizes.crowded:
            return self._exactly_above(start, stop, threshold)
        block = self._buffer[: stop - start]
        torch.mm(self._vectors.rounded[start:stop], self._across, out=block)
        lowest = threshold - self._error
        lowest -= _ROUNDING * np.abs(lowest)  # the product itself was rounded
        reaching = _reaching(block, lowest, self._vectors.sizes)
        if reaching is None:  # no k-th best yet that excludes most, or vectors nearly all alike
            self._crowded += 1
            return self._exactly_above(start, stop, threshold)
        self._crowded = 0
        row, query = reaching
        present = self._vectors.present[start:stop][row]
        row, query = row[present], query[present]
        value = self._similarity(row + start, query)
        above = value > threshold[query]
        return row[above], query[above], value[above]

    def _exactly_above(
        self, start: int, stop: int, threshold: Float32
    ) -> tuple[Int64, Int64, Float32]:
        """Return the same by the product in float32."""
        size = self._exact.block_rows
        parts = []
        for begin in range(start, stop, size):
            row, query, value = self._exact.above(begin, min(begin + size, stop), threshold)
            parts.append((row + (begin - start), query, value))
        rows, queries, values = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(queries), np.concatenate(values)

    def _similarity(self, row: Int64, query: Int64) -> Float32:
        """Return the (m,) float32 inner products of rows and queries."""
        similarity = np.empty(len(row), dtype=np.float32)
        for begin in range(0, len(row), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            pairs = self._vectors.exact[row[part]], self._queries[query[part]]
            np.einsum("ij,ij->i", *pairs, out=similarity[part])
        return similarity


def _reaching(
    block: torch.Tensor, lowest: Float32, sizes: Bfloat16Sizes
) -> tuple[Int64, Int64] | None:
    """Return (rows, queries) of estimates (m, q) that reach ``lowest``; None if they are many."""
    n_rows, n_queries = block.shape
    per_group = n_rows // GROUP
    whole = per_group * GROUP
    # Group j has the rows j, j + per_group, …: their maximum is one of whole vectors.
    groups = block[:whole].view(GROUP, per_group * n_queries)
    if (lowest > 0).all():
        # Positive floats are ordered as their bits are, and above negative ones, whose order
        # does not matter here: maxima of integers are much quicker.
        groups = groups.view(torch.int16)
    maxima = groups.amax(dim=0).view(torch.bfloat16).float().numpy()
    group, query = np.nonzero(maxima.reshape(per_group, n_queries) >= lowest)
    if len(group) > sizes.groups * maxima.size:
        return None
    rows = (group[:, None] + np.arange(GROUP) * per_group).reshape(-1)
    queries = np.repeat(query, GROUP)
    reach = _floats(block, rows, queries) >= lowest[queries]
    if np.count_nonzero(reach) > sizes.again * block.numel():
        return None
    last_row, last_query = np.nonzero(block[whole:].float().numpy() >= lowest)
    return (
        np.concatenate([rows[reach], last_row + whole]),
        np.concatenate([queries[reach], last_query]),
    )


def _floats(block: torch.Tensor, row: Int64, column: Int64) -> Float32:
    """Return (m,) float32 elements of a bfloat16 matrix; its bits are a float32's upper half."""
    bits = block.view(torch.int16).numpy()[row, column].astype(np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _seconds(run: Callable[[], object]) -> float:
    """Return the shortest of three runs, after a first one that warms up."""
    run()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)
