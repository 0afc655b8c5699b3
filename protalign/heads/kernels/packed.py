"""Rows of many proteins without padding, and attention sums over them that read each row once.

Work goes block by block (``protalign.heads.kernels.blocks``), so that every step is one dense
product, and no array of a whole batch's rows is ever made. Embeddings are frozen: rows get no
gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protalign.core.arrays import Int64
from protalign.core.ragged import Ragged
from protalign.core.threads import run_single_threaded
from protalign.heads.kernels.blocks import Block, BlockViews, Memory, blocks_of

Result = TypeVar("Result")

#: Blocks that are worked on between two steps that take several at once.
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """The rows of n proteins in place, and the blocks to read them in.

    Attributes
    ----------
    proteins : tuple of (L, D) tensors
        float16, bfloat16, float32 or float64.
    lengths : (n,) int64
        Rows of each protein.
    blocks : tuple of Block
        The proteins, sorted by length.
    places : (n,) int64 tensor
        Index of each protein in the order of blocks.
    """

    proteins: tuple[Tensor, ...]
    lengths: Int64
    blocks: tuple[Block, ...]
    places: Tensor

    @classmethod
    def from_ragged(cls, rows: Ragged, device: torch.device | str = "cpu") -> PackedBatch:
        """Return a batch of packed rows on a device; raise ValueError if a protein has no row."""
        return cls.from_tensor(moved(rows.values, torch.device(device)), rows.offsets)

    @classmethod
    def from_tensor(cls, values: Tensor, offsets: Int64) -> PackedBatch:
        """Return a batch of the rows of a tensor; ``offsets`` (n + 1,) as in ``Ragged``."""
        lengths = np.diff(offsets)
        return cls.of(values.split_with_sizes(lengths.tolist()), lengths)

    @classmethod
    def of(cls, proteins: Sequence[Tensor], lengths: Int64) -> PackedBatch:
        """Return a batch of (L, D) tensors on one device, one per protein; none is copied."""
        if np.any(lengths < 1):
            raise ValueError("every protein needs at least one row to be pooled")
        order = np.argsort(lengths, kind="stable")
        ascending = lengths[order]
        in_order = [proteins[index] for index in order.tolist()]
        blocks = blocks_of(in_order, ascending)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        on_device = torch.from_numpy(places).to(proteins[0].device)
        return cls(tuple(proteins), lengths, blocks, on_device)

    def __len__(self) -> int:
        return len(self.proteins)

    def rows(self) -> Tensor:
        """Return a (T, D) copy of all rows, one protein after another."""
        return torch.cat(self.proteins)

    def attention_heads(self, weight: Tensor, projection: Tensor) -> Tensor:
        """Return softmax(rows @ weight)-weighted sums of rows, projected head by head.

        ``weight`` (D, H), which has the dtype to compute in, and ``projection`` (H, D, K) ->
        (H, n, K) in the order of blocks.
        """
        heads: Tensor = AttentionPooling.apply(  # type: ignore[no-untyped-call]
            weight, projection, self
        )
        return heads

    def in_order(self, of_proteins: Tensor) -> Tensor:
        """Reorder results of ``attention_heads`` from block order to the proteins' order."""
        return of_proteins[self.places]

    def attention_weights(self, weight: Tensor) -> Tensor:
        """Return softmax(rows @ weight) over each protein's rows, (T, H); no gradients."""
        return torch.cat(_attention_weights(weight, self))

    def by_block(self, of_proteins: Tensor) -> tuple[Tensor, ...]:
        """Cut per-protein results in block order into the part of each block."""
        return of_proteins.split_with_sizes([len(block.proteins) for block in self.blocks])


def tensor(values: npt.NDArray[Any]) -> Tensor:
    """Return the same memory as a tensor; a copy if it is read-only or not contiguous."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def moved(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return the values on a device; a copy to a GPU does not wait for the GPU."""
    if device.type == "cuda":
        return tensor(values).pin_memory().to(device, non_blocking=True)
    return tensor(values).to(device)


_BlockInMemory = tuple[Block, BlockViews]


class _Workspace:
    """A batch's blocks in shares, each in the memory of the thread that works on it.

    On a CPU each thread has one core: threads that meet at the end of each small operation spend
    their time waiting, above all if other programs keep the cores busy. The results do not depend
    on the number of threads.
    """

    def __init__(self, batch: PackedBatch, heads: int, dtype: torch.dtype) -> None:
        blocks = batch.blocks
        self._alone = batch.places.device.type == "cpu" and torch.get_num_threads() > 1
        starts = range(0, len(blocks), _BLOCKS_AT_ONCE)
        self._workers = min(torch.get_num_threads(), len(starts)) if self._alone else 1
        memories = [Memory(blocks, heads, dtype) for _ in range(self._workers)]
        self._shares = [
            [(block, memory.views(block)) for block in blocks[start : start + _BLOCKS_AT_ONCE]]
            for start, memory in zip(starts, itertools.cycle(memories), strict=False)
        ]

    def run(
        self, prepare: Callable[[slice, Sequence[_BlockInMemory]], Callable[[], Result]]
    ) -> list[Result]:
        """Return the results of the shares' work, in order; it runs without gradients.

        ``prepare`` takes a share, as a slice and as the blocks and their views. It makes the
        other views that the work needs, and returns the work.
        """
        inference = torch.is_inference_mode_enabled()
        work, first = [], 0
        for share in self._shares:
            work.append(prepare(slice(first, first + len(share)), share))
            first += len(share)

        def worker(number: int) -> list[Result]:
            with torch.inference_mode(inference), torch.no_grad():  # each thread has its own state
                return [each() for each in work[number :: self._workers]]

        if not self._alone:
            return worker(0)
        done = run_single_threaded(self._workers, worker)
        return [done[index % self._workers][index // self._workers] for index in range(len(work))]


def _attention_weights(weight: Tensor, batch: PackedBatch) -> list[Tensor]:
    """Return the (L, H) weights of each protein."""
    by_head = weight.detach().T.contiguous()

    def prepare(_: slice, blocks: Sequence[_BlockInMemory]) -> Callable[[], list[Tensor]]:
        def attend() -> list[Tensor]:
            of_blocks = []
            for block, views in blocks:
                views.fill(block)
                of_blocks.append(views.attention(views.by_protein(by_head), block.missing))
            return of_blocks

        return attend

    shares = _Workspace(batch, len(by_head), weight.dtype).run(prepare)
    weights = [protein for share in shares for block in share for protein in block]
    spans = zip(batch.places.tolist(), batch.lengths.tolist(), strict=True)
    return [weights[place][:, :length].T for place, length in spans]


class AttentionPooling(torch.autograd.Function):
    """Softmax-weighted sums of each protein's rows, reading them once forward and once backward.

    With a = softmax(z w) over a protein's rows and pooled = sum_t a_t z_t, the gradient of the
    scores is a_t (z_t . g - sum_s a_s z_s . g) = a_t (z_t . g - pooled . g), g being the gradient
    of pooled: the softmax's correction needs no second pass over the rows. Only pooled's product
    with ``projection`` is returned: so g, which is as large as pooled, is made for a few proteins
    at a time, and pooled . g is the product of the result and its gradient.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, projection: Tensor, batch: PackedBatch) -> Tensor:
        """Return (H, n, K) in the order of blocks for weight (D, H) and projection (H, D, K)."""
        by_head = weight.T.contiguous()
        pooled = weight.new_empty(len(batch), *by_head.shape)
        targets = batch.by_block(pooled)
        workspace = _Workspace(batch, len(by_head), weight.dtype)

        def prepare(share: slice, blocks: Sequence[_BlockInMemory]) -> Callable[[], list[Tensor]]:
            of_blocks = [
                (block, views, views.by_protein(by_head), target)
                for (block, views), target in zip(blocks, targets[share], strict=True)
            ]

            def pool() -> list[Tensor]:
                kept = []
                for block, views, weights, target in of_blocks:
                    views.fill(block)
                    attention = views.attention(weights, block.missing)
                    torch.bmm(attention, views.rows, out=target)
                    kept.append(attention)
                return kept

            return pool

        shares = workspace.run(prepare)
        heads = torch.bmm(pooled.transpose(0, 1), projection)
        ctx.save_for_backward(weight, projection, pooled, heads)
        ctx.batch, ctx.attention = batch, [each for share in shares for each in share]
        # Kept for the backward pass if it is small: a GPU's has 2^26 elements.
        ctx.workspace = workspace if weight.device.type == "cpu" else None
        return heads

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of weight and projection."""
        weight, projection, pooled, heads = ctx.saved_tensors
        batch: PackedBatch = ctx.batch
        workspace = ctx.workspace or _Workspace(batch, weight.shape[1], weight.dtype)
        gradient = gradients[0]
        corrections = batch.by_block((gradient * heads).sum(dim=2).T[:, :, None])
        of_shares = iter(_cut_by_share(batch, gradient))
        to_rows = projection.transpose(1, 2)

        def prepare(share: slice, blocks: Sequence[_BlockInMemory]) -> Callable[[], Tensor]:
            total = torch.zeros_like(weight.T)
            share_gradient = next(of_shares)
            sizes = [len(block.proteins) for block, _ in blocks]
            of_blocks = list(zip(blocks, corrections[share], ctx.attention[share], strict=True))

            def differentiate() -> Tensor:
                """Return the blocks' part of the weight's gradient, (H, D)."""
                of_pooled = torch.bmm(share_gradient, to_rows).transpose(0, 1)
                parts = of_pooled.split_with_sizes(sizes)
                for part, (pair, correction, attention) in zip(parts, of_blocks, strict=True):
                    block, views = pair
                    views.fill(block)
                    torch.bmm(part, views.columns, out=views.scores)
                    views.scores.sub_(correction)
                    torch.mul(views.scores, attention, out=views.turned)
                    total.addmm_(views.head_scores, views.flat)
                return total

            return differentiate

        d_weight = torch.stack(workspace.run(prepare)).sum(dim=0).T
        return d_weight, torch.bmm(pooled.permute(1, 2, 0), gradient), None


def _cut_by_share(batch: PackedBatch, gradient: Tensor) -> tuple[Tensor, ...]:
    """Cut (H, n, K) into the part of each share."""
    sizes = np.array([len(block.proteins) for block in batch.blocks])
    shares = np.add.reduceat(sizes, np.arange(0, len(sizes), _BLOCKS_AT_ONCE))
    return gradient.split_with_sizes(shares.tolist(), dim=1)
