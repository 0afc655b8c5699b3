"""Rows of many proteins without padding, and attention sums over them that read each row once.

Work goes block by block (``protalign.heads.kernels.blocks``), so that every step is one dense product, and no
array of a whole batch's rows is ever made.
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
from protalign.heads.kernels.blocks import Block, Layout, Memory, blocks_of

Result = TypeVar("Result")

#: Blocks that are worked on between two steps that take several at once.
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """n proteins' rows, wherever they lie, and the plan of how to walk through them.

    Attributes
    ----------
    proteins : (L, D) float16, bfloat16, float32 or float64 tensors.
    lengths : (n,) int64 rows of each.
    blocks : the proteins, sorted by length.
    places : (n,) int64 tensor, the place of each protein in the order of blocks.
    values : (R, D) tensor that all rows are of, one protein after another, where there is one.
    """

    proteins: tuple[Tensor, ...]
    lengths: Int64
    blocks: tuple[Block, ...]
    places: Tensor
    values: Tensor | None

    @classmethod
    def from_ragged(cls, rows: Ragged, device: torch.device | str = "cpu") -> PackedBatch:
        """Packed rows, moved to a device; raises ValueError where a protein has no row."""
        return cls.from_tensor(moved(rows.values, torch.device(device)), rows.offsets)

    @classmethod
    def from_tensor(cls, values: Tensor, offsets: Int64) -> PackedBatch:
        """Rows that are a tensor already; ``offsets`` (n + 1,) as in ``Ragged``."""
        lengths = np.diff(offsets)
        return cls.of(values.detach().split_with_sizes(lengths.tolist()), lengths, values)

    @classmethod
    def of(
        cls, proteins: Sequence[Tensor], lengths: Int64, values: Tensor | None = None
    ) -> PackedBatch:
        """Proteins whose rows are tensors already, on one device, (L, D) each; none is copied."""
        if np.any(lengths < 1):
            raise ValueError("every protein needs at least one row to be pooled")
        order = np.argsort(lengths, kind="stable")
        ascending = lengths[order]
        in_order = [proteins[index] for index in order.tolist()]
        blocks = blocks_of(in_order, ascending)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        on_device = torch.from_numpy(places).to(proteins[0].device)
        return cls(tuple(proteins), lengths, blocks, on_device, values)

    def __len__(self) -> int:
        return len(self.proteins)

    def rows(self) -> Tensor:
        """(T, D) copy of all rows, one protein after another."""
        return torch.cat(self.proteins)

    def attention_heads(self, weight: Tensor, projection: Tensor) -> Tensor:
        """Softmax(rows @ weight)-weighted sums of each protein's rows, projected head by head.

        ``weight`` (D, H), its dtype the one to compute in, and ``projection`` (H, D, K) ->
        (H, n, K) in the order of blocks.
        """
        heads: Tensor = AttentionPooling.apply(  # type: ignore[no-untyped-call]
            self.values, weight, projection, self
        )
        return heads

    def in_order(self, of_proteins: Tensor) -> Tensor:
        """What was computed of ``attention_heads``, in the proteins' order."""
        return of_proteins[self.places]

    def attention_weights(self, weight: Tensor) -> Tensor:
        """Softmax of ``rows @ weight`` over each protein's rows, (T, H); without gradients."""
        return torch.cat(_attention_weights(weight, self))

    def by_block(self, of_proteins: Tensor) -> tuple[Tensor, ...]:
        """Something of every protein, in the order of blocks: each block's part."""
        return of_proteins.split_with_sizes([len(block.proteins) for block in self.blocks])


def tensor(values: npt.NDArray[Any]) -> Tensor:
    """The same memory as a tensor; a copy where it is read-only or not contiguous."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def moved(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The same on a device; to a GPU without waiting for what it has still to do."""
    if device.type == "cuda":
        return tensor(values).pin_memory().to(device, non_blocking=True)
    return tensor(values).to(device)


_Laid = tuple[Block, Layout]


class _Workspace:
    """A batch's blocks, a share of some at a time, in the memory of the threads that work on them.

    On a CPU each thread computes alone: threads that meet at the end of each small operation spend
    their time waiting, above all where other programs keep the cores busy. The numbers do not
    depend on how many threads there are.
    """

    def __init__(self, batch: PackedBatch, heads: int, dtype: torch.dtype) -> None:
        blocks = batch.blocks
        self._alone = batch.places.device.type == "cpu" and torch.get_num_threads() > 1
        starts = range(0, len(blocks), _BLOCKS_AT_ONCE)
        self._workers = min(torch.get_num_threads(), len(starts)) if self._alone else 1
        memories = [Memory(blocks, heads, dtype) for _ in range(self._workers)]
        self._shares = [
            [(block, memory.layout(block)) for block in blocks[start : start + _BLOCKS_AT_ONCE]]
            for start, memory in zip(starts, itertools.cycle(memories), strict=False)
        ]

    def run(
        self, prepare: Callable[[slice, Sequence[_Laid]], Callable[[], Result]]
    ) -> list[Result]:
        """What the shares' work gives, in order; it runs without gradients.

        ``prepare`` takes a share, as a slice and as the blocks and their layouts, and returns the
        work, having made what views it needs.
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
    """(L, H) of each protein."""
    by_head = weight.detach().T.contiguous()

    def prepare(_: slice, laid: Sequence[_Laid]) -> Callable[[], list[Tensor]]:
        def attend() -> list[Tensor]:
            of_blocks = []
            for block, layout in laid:
                layout.fill(block)
                of_blocks.append(layout.attention(layout.by_protein(by_head), block.missing))
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
    of pooled: the softmax's correction needs no second pass over the rows. Of pooled only its
    product with ``projection`` is given back: so g, as large as pooled, is made for a few proteins
    at a time, and pooled . g is the product of what was given back and its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor | None, weight: Tensor, projection: Tensor, batch: PackedBatch
    ) -> Tensor:
        """weight (D, H) and projection (H, D, K) -> (H, n, K), in the order of blocks.

        ``values`` are the batch's, named once more for their gradient.
        """
        by_head = weight.T.contiguous()
        pooled = weight.new_empty(len(batch), *by_head.shape)
        targets = batch.by_block(pooled)
        workspace = _Workspace(batch, len(by_head), weight.dtype)

        def prepare(share: slice, laid: Sequence[_Laid]) -> Callable[[], list[Tensor]]:
            of_blocks = [
                (block, layout, layout.by_protein(by_head), target)
                for (block, layout), target in zip(laid, targets[share], strict=True)
            ]

            def pool() -> list[Tensor]:
                kept = []
                for block, layout, weights, target in of_blocks:
                    layout.fill(block)
                    attention = layout.attention(weights, block.missing)
                    torch.bmm(attention, layout.rows, out=target)
                    kept.append(attention)
                return kept

            return pool

        shares = workspace.run(prepare)
        heads = torch.bmm(pooled.transpose(0, 1), projection)
        ctx.save_for_backward(weight, projection, pooled, heads)
        ctx.batch, ctx.attention = batch, [each for share in shares for each in share]
        # Kept for the way back where it is small: a GPU's is 2^26 elements.
        ctx.workspace = workspace if weight.device.type == "cpu" else None
        return heads

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        weight, projection, pooled, heads = ctx.saved_tensors
        batch: PackedBatch = ctx.batch
        workspace = ctx.workspace or _Workspace(batch, weight.shape[1], weight.dtype)
        gradient, keep = gradients[0], ctx.needs_input_grad[0]
        corrections = batch.by_block((gradient * heads).sum(dim=2).T[:, :, None])
        of_shares = iter(_cut_by_share(batch, gradient))
        to_rows = projection.transpose(1, 2)

        def prepare(
            share: slice, laid: Sequence[_Laid]
        ) -> Callable[[], tuple[Tensor, list[_RowGradients]]]:
            total = torch.zeros_like(weight.T)
            own_gradient = next(of_shares)
            sizes = [len(block.proteins) for block, _ in laid]
            of_blocks = list(zip(laid, corrections[share], ctx.attention[share], strict=True))

            def differentiate() -> tuple[Tensor, list[_RowGradients]]:
                """The blocks' part of the weight's gradient, (H, D), and what rows' take."""
                kept = []
                of_pooled = torch.bmm(own_gradient, to_rows).transpose(0, 1)
                parts = of_pooled.split_with_sizes(sizes)
                for part, (pair, correction, attention) in zip(parts, of_blocks, strict=True):
                    block, layout = pair
                    layout.fill(block)
                    torch.bmm(part, layout.columns, out=layout.scores)
                    layout.scores.sub_(correction)
                    torch.mul(layout.scores, attention, out=layout.turned)
                    total.addmm_(layout.head_scores, layout.flat)
                    if keep:
                        kept.append(_RowGradients(attention, part, layout.turned.clone()))
                return total, kept

            return differentiate

        shares = workspace.run(prepare)
        d_values = (
            _by_rows(batch, weight, [k for _, kept in shares for k in kept]) if keep else None
        )
        d_weight = torch.stack([total for total, _ in shares]).sum(dim=0).T
        return d_values, d_weight, torch.bmm(pooled.permute(1, 2, 0), gradient), None


def _cut_by_share(batch: PackedBatch, gradient: Tensor) -> tuple[Tensor, ...]:
    """(H, n, K) as each share's part."""
    sizes = np.array([len(block.proteins) for block in batch.blocks])
    shares = np.add.reduceat(sizes, np.arange(0, len(sizes), _BLOCKS_AT_ONCE))
    return gradient.split_with_sizes(shares.tolist(), dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class _RowGradients:
    """Of a block: its attention and the gradients of its sums and scores."""

    attention: Tensor
    of_sums: Tensor
    of_scores: Tensor


def _by_rows(batch: PackedBatch, weight: Tensor, blocks: Sequence[_RowGradients]) -> Tensor:
    """The gradient of ``batch.values``: through the sum, and through the scores."""
    own: list[Tensor] = []
    for block in blocks:
        through_sums = block.attention.transpose(1, 2) @ block.of_sums
        own += through_sums + block.of_scores.transpose(1, 2) @ weight.T
    spans = zip(batch.places.tolist(), batch.lengths.tolist(), strict=True)
    return torch.cat([own[place][:length] for place, length in spans]).to(batch.proteins[0].dtype)
