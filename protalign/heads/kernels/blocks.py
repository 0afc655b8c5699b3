"""Blocks of proteins of nearly equal length, and the memory that their rows are copied to.

A block is about as large as a core's cache holds. It is one (proteins, longest, D) array, in the
compute dtype; what a shorter protein lacks is masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from protalign.core.arrays import Int64

#: Elements of a block: half of a core's second-level cache in float32 on a CPU; on a GPU enough to
#: keep every multiprocessor busy.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 26
#: The longest protein of a block has at most this many times the shortest one's rows.
_LENGTH_RATIO = 1.25


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Proteins of nearly equal length that are worked on at once.

    Attributes
    ----------
    proteins : each one's (L, D) rows, in ascending length.
    sizes : by protein, L and ``longest - L``.
    longest : rows of the longest.
    missing : (proteins, 1, longest) bool, which rows a protein lacks; None where all are as long.
    """

    proteins: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    longest: int
    missing: Tensor | None


def blocks_of(proteins: Sequence[Tensor], ascending: Int64) -> tuple[Block, ...]:
    """Blocks of proteins in ascending length, (L, D) each."""
    return tuple(
        _block(tuple(proteins[first:last]), ascending[first:last])
        for first, last in _cut(ascending, _row_limit(proteins[0]))
    )


def _row_limit(rows: Tensor) -> int:
    elements = _BLOCK_ELEMENTS.get(rows.device.type, _BLOCK_ELEMENTS_ACCELERATOR)
    return max(1, elements // rows.shape[1])


def _cut(lengths: Int64, row_limit: int) -> Iterator[tuple[int, int]]:
    """Where each block of ascending lengths begins and ends.

    A protein above the limit is a block of its own.
    """
    first = 0
    while first < len(lengths):
        shortest = int(lengths[first])
        window = lengths[first : first + max(1, row_limit // shortest)]
        size = np.arange(1, len(window) + 1) * window
        fits = (size <= row_limit) & (window <= _LENGTH_RATIO * shortest)
        last = first + max(1, int(np.count_nonzero(fits)))
        yield first, last
        first = last


def _block(proteins: tuple[Tensor, ...], lengths: Int64) -> Block:
    longest = int(lengths[-1])
    missing = None
    if lengths[0] != longest:
        mask = np.arange(longest) >= lengths[:, None, None]
        missing = torch.from_numpy(mask).to(proteins[0].device)
    sizes = np.stack([lengths, longest - lengths], axis=1).ravel()
    return Block(proteins, tuple(sizes.tolist()), longest, missing)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Memory as blocks of the same sizes lie in it; good until the next block is filled.

    All views are made beforehand: each hands Python's lock over, for which threads would queue.

    Attributes
    ----------
    own, gaps : the rows of each protein, and those that shorter ones lack.
    rows : (proteins, longest, D); ``columns`` is its transpose, (proteins, D, longest).
    flat : the same rows, (proteins * longest, D).
    scores : (proteins, H, longest).
    head_scores : (H, proteins * longest), elsewhere; ``turned`` is the same, shaped as ``scores``.
    """

    own: tuple[Tensor, ...]
    gaps: tuple[Tensor, ...]
    rows: Tensor
    columns: Tensor
    flat: Tensor
    scores: Tensor
    head_scores: Tensor
    turned: Tensor

    def fill(self, block: Block) -> None:
        """Copy the proteins' rows here, to the compute dtype; 0 where one lacks them."""
        torch._foreach_copy_(self.own, block.proteins)
        if self.gaps:
            torch._foreach_zero_(self.gaps)

    def attention(self, weights: Tensor, missing: Tensor | None) -> Tensor:
        """(proteins, H, longest): softmax of the scores over each protein's rows; 0 where missing.

        ``weights`` : (proteins, H, D), what ``by_protein`` gives.
        """
        torch.bmm(weights, self.columns, out=self.scores)
        if missing is not None:
            self.scores.masked_fill_(missing, -torch.inf)
        return self.scores.softmax(dim=2)

    def by_protein(self, by_head: Tensor) -> Tensor:
        """(H, D), the same for every protein, as (proteins, H, D)."""
        return by_head.expand(len(self.rows), -1, -1)


class Memory:
    """What one thread works on, as large as the largest block needs it."""

    def __init__(self, blocks: Sequence[Block], heads: int, dtype: torch.dtype) -> None:
        some = blocks[0].proteins[0]
        size = max(len(block.proteins) * block.longest for block in blocks)
        self._heads = heads
        self._rows = some.new_empty(size, some.shape[1], dtype=dtype)
        self._scores = some.new_empty(2, size * heads, dtype=dtype)
        self._layouts: dict[tuple[int, ...], Layout] = {}

    def layout(self, block: Block) -> Layout:
        """Return the beginning of the memory in the shapes that a block needs."""
        if block.sizes not in self._layouts:
            self._layouts[block.sizes] = self._new_layout(block)
        return self._layouts[block.sizes]

    def _new_layout(self, block: Block) -> Layout:
        count, longest = len(block.proteins), block.longest
        flat = self._rows[: count * longest]
        parts = flat.split_with_sizes(block.sizes)
        rows = flat.view(count, longest, -1)
        scores, elsewhere = self._scores[:, : len(flat) * self._heads]
        head_scores = elsewhere.view(self._heads, count, longest)
        return Layout(
            own=parts[::2],
            gaps=parts[1::2] if block.missing is not None else (),
            rows=rows,
            columns=rows.transpose(1, 2),
            flat=flat,
            scores=scores.view(count, self._heads, longest),
            head_scores=head_scores.flatten(1),
            turned=head_scores.transpose(0, 1),
        )
