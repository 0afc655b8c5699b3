"""Blocks of proteins of nearly equal length, and the memory that their rows are copied to.

A block is about as large as a core's cache holds. It is one (proteins, longest, D) array, in the
compute dtype; rows beyond the end of a shorter protein are masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from protalign.core.arrays import Int64

#: Elements of a block on a CPU: half of a core's second-level cache in float32. On a GPU a block
#: keeps every multiprocessor busy.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 26
#: The longest protein of a block has at most this many times the rows of the shortest one.
_LENGTH_RATIO = 1.25


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Proteins of nearly equal length that are worked on at once.

    Attributes
    ----------
    proteins : tuple of (L, D) tensors
        The rows of each protein, in ascending length.
    sizes : tuple of int
        L and ``longest - L`` of each protein in turn.
    longest : int
        Rows of the longest protein.
    missing : (proteins, 1, longest) bool tensor, optional
        True beyond a protein's last row; None if all proteins are equally long.
    """

    proteins: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    longest: int
    missing: Tensor | None


def blocks_of(proteins: Sequence[Tensor], ascending: Int64) -> tuple[Block, ...]:
    """Return the blocks of proteins, (L, D) each, in ascending length."""
    return tuple(
        _block(tuple(proteins[first:last]), ascending[first:last])
        for first, last in _cut(ascending, _row_limit(proteins[0]))
    )


def _row_limit(rows: Tensor) -> int:
    elements = _BLOCK_ELEMENTS.get(rows.device.type, _BLOCK_ELEMENTS_ACCELERATOR)
    return max(1, elements // rows.shape[1])


def _cut(lengths: Int64, row_limit: int) -> Iterator[tuple[int, int]]:
    """Yield the begin and the end of each block of ascending lengths.

    A protein above the limit is a block by itself.
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
class BlockViews:
    """Views of a thread's memory in the shapes of a block; valid until the next block is filled.

    Blocks of the same sizes share them. All views are made beforehand: making one releases Python's
    lock, and threads would queue to take it again.

    Attributes
    ----------
    filled, padding : tuples of tensors
        The rows of each protein, and those beyond the end of each shorter one.
    rows : (proteins, longest, D) tensor
        The rows of all proteins.
    columns : (proteins, D, longest) tensor
        The transpose of ``rows``.
    flat : (proteins * longest, D) tensor
        The same memory as ``rows``.
    scores : (proteins, H, longest) tensor
        Scores of the rows.
    head_scores : (H, proteins * longest) tensor
        Scores in memory apart from that of ``scores``.
    turned : (proteins, H, longest) tensor
        The same memory as ``head_scores``.
    """

    filled: tuple[Tensor, ...]
    padding: tuple[Tensor, ...]
    rows: Tensor
    columns: Tensor
    flat: Tensor
    scores: Tensor
    head_scores: Tensor
    turned: Tensor

    def fill(self, block: Block) -> None:
        """Copy the proteins' rows here, in the compute dtype; the padding becomes 0."""
        torch._foreach_copy_(self.filled, block.proteins)
        if self.padding:
            torch._foreach_zero_(self.padding)

    def attention(self, weights: Tensor, missing: Tensor | None) -> Tensor:
        """Return the softmax of the scores over each protein's rows, (proteins, H, longest).

        It is 0 for missing rows. ``weights``, (proteins, H, D), come from ``by_protein``.
        """
        torch.bmm(weights, self.columns, out=self.scores)
        if missing is not None:
            self.scores.masked_fill_(missing, -torch.inf)
        return self.scores.softmax(dim=2)

    def by_protein(self, by_head: Tensor) -> Tensor:
        """Return a view of (H, D) as (proteins, H, D), the same for every protein."""
        return by_head.expand(len(self.rows), -1, -1)


class Memory:
    """The memory that one thread works in, large enough for the largest block."""

    def __init__(self, blocks: Sequence[Block], heads: int, dtype: torch.dtype) -> None:
        example = blocks[0].proteins[0]
        size = max(len(block.proteins) * block.longest for block in blocks)
        self._heads = heads
        self._rows = example.new_empty(size, example.shape[1], dtype=dtype)
        self._scores = example.new_empty(2, size * heads, dtype=dtype)
        self._views: dict[tuple[int, ...], BlockViews] = {}

    def views(self, block: Block) -> BlockViews:
        """Return views of the beginning of the memory in the shapes that a block needs."""
        if block.sizes not in self._views:
            self._views[block.sizes] = self._new_views(block)
        return self._views[block.sizes]

    def _new_views(self, block: Block) -> BlockViews:
        count, longest = len(block.proteins), block.longest
        flat = self._rows[: count * longest]
        parts = flat.split_with_sizes(block.sizes)
        rows = flat.view(count, longest, -1)
        scores, head_scores = self._scores[:, : len(flat) * self._heads]
        head_scores = head_scores.view(self._heads, count, longest)
        return BlockViews(
            filled=parts[::2],
            padding=parts[1::2] if block.missing is not None else (),
            rows=rows,
            columns=rows.transpose(1, 2),
            flat=flat,
            scores=scores.view(count, self._heads, longest),
            head_scores=head_scores.flatten(1),
            turned=head_scores.transpose(0, 1),
        )
