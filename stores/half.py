"""Similarities in bfloat16, for processors that multiply such matrices in hardware.

Four times as fast as float32 where there is AMX, and off by a bounded error: what may be among the
best is told by them and then computed in float32, so that what is found stays exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Rows converted at a time.
_ROWS = 1 << 13
#: (query, row) pairs whose similarity is computed at a time.
_PAIRS = 1 << 13
#: Largest relative error of rounding to bfloat16, which has 8 significant bits.
_ROUNDING = 2.0**-9


class HalfVectors:
    """(n, dim) vectors in bfloat16, and how far that is from float32.

    Parameters
    ----------
    vectors : (n, dim) float32.
    present : (n,) bool; the others become zeros.
    """

    def __init__(self, vectors: Float32, present: Bool) -> None:
        self.exact = vectors
        self.present = present
        self.rounded = torch.empty(vectors.shape, dtype=torch.bfloat16)
        #: Largest length of a vector, and of the difference that rounding makes.
        self.length = self.error = 0.0
        for start in range(0, len(vectors), _ROWS):
            rows = slice(start, start + _ROWS)
            exact = torch.from_numpy(np.where(present[rows, None], vectors[rows], 0))
            rounded = self.rounded[rows].copy_(exact)
            self.length = max(self.length, float(exact.norm(dim=1).max()))
            self.error = max(self.error, float((exact - rounded.float()).norm(dim=1).max()))


class HalfProduct:
    """Similarities of some queries, estimated a block of vectors at a time.

    Parameters
    ----------
    queries : (q, dim) float32.
    vectors : to compare them with.
    block_elements, group : as in ``nearest``: similarities of a block, and rows of a group.
    """

    def __init__(
        self, queries: Float32, vectors: HalfVectors, block_elements: int, group: int
    ) -> None:
        exact = torch.from_numpy(queries)
        rounded = exact.bfloat16()
        self._queries, self._vectors, self._group = queries, vectors, group
        self._across = rounded.T.contiguous()
        self.block_rows = max(group, block_elements // len(queries) // group * group)
        self._buffer = torch.empty((self.block_rows, len(queries)), dtype=torch.bfloat16)
        # |q c - q' c'| <= |q - q'| |c| + |q'| |c - c'|, and sums of products in float32.
        length, change = exact.norm(dim=1), (exact - rounded.float()).norm(dim=1)
        accumulated = 2.0**-22 * queries.shape[1] * length * vectors.length
        error = change * vectors.length + (length + change) * vectors.error + accumulated
        self._error: Float32 = error.numpy()

    def above(self, start: int, stop: int, least: Float32) -> tuple[Int64, Int64, Float32]:
        """(rows, queries, float32 similarities) of all from ``start`` to ``stop`` over ``least``.

        ``least`` is (q,) float32. Rows count from ``start``.
        """
        block = self._buffer[: stop - start]
        torch.mm(self._vectors.rounded[start:stop], self._across, out=block)
        lowest = least - self._error
        lowest -= _ROUNDING * np.abs(lowest)  # the product itself was rounded
        row, query = self._may_be_above(block, lowest)
        there = self._vectors.present[start:stop][row]
        row, query = row[there], query[there]
        value = self._similarity(row + start, query)
        chosen = value > least[query]
        return row[chosen], query[chosen], value[chosen]

    def _may_be_above(self, block: torch.Tensor, lowest: Float32) -> tuple[Int64, Int64]:
        """(rows, queries) of estimates (m, q) that reach ``lowest``, by the maxima of groups."""
        n_rows, n_queries = block.shape
        per_group = n_rows // self._group
        whole = per_group * self._group
        # Group j has the rows j, j + per_group, …: their maximum is one of whole vectors.
        groups = block[:whole].view(self._group, per_group * n_queries)
        if (lowest > 0).all():
            # Positive floats are ordered as their bits are, and above negative ones, whose order
            # does not matter here: maxima of integers are eight times as quick.
            groups = groups.view(torch.int16)
        maxima = groups.amax(dim=0).view(torch.bfloat16).float().numpy()
        group, query = np.nonzero(maxima.reshape(per_group, n_queries) >= lowest)
        rows = (group[:, None] + np.arange(self._group) * per_group).reshape(-1)
        queries = np.repeat(query, self._group)
        reach = _floats(block, rows, queries) >= lowest[queries]
        last_row, last_query = np.nonzero(block[whole:].float().numpy() >= lowest)
        return (
            np.concatenate([rows[reach], last_row + whole]),
            np.concatenate([queries[reach], last_query]),
        )

    def _similarity(self, row: Int64, query: Int64) -> Float32:
        """(m,) float32 inner products of rows and queries."""
        similarity = np.empty(len(row), dtype=np.float32)
        for begin in range(0, len(row), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            pairs = self._vectors.exact[row[part]], self._queries[query[part]]
            np.einsum("ij,ij->i", *pairs, out=similarity[part])
        return similarity


def _floats(block: torch.Tensor, row: Int64, column: Int64) -> Float32:
    """(m,) float32 elements of a bfloat16 matrix: its bits are the upper half of a float32's."""
    bits = block.view(torch.int16).numpy()[row, column].astype(np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


@contextmanager
def threads_that_compute_alone() -> Iterator[None]:
    """Torch splits no operation of threads that start in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
