"""Rows of many proteins without padding, and attention sums over them that read each row once.

Work goes block by block: a few proteins of nearly the same number of rows, together about as much
as a core's cache holds. A block is copied there, to the compute dtype, as one (proteins, longest,
D) array; what a shorter protein lacks is masked. So every step is one dense product, and no array
of a whole batch's rows is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protalign.ragged import Ragged
from protalign.threads import compute_alone, threads_that_compute_alone

Int64 = npt.NDArray[np.int64]
Result = TypeVar("Result")

#: Elements of a block: half of a core's second-level cache in float32 on a CPU; on a GPU enough to
#: keep every multiprocessor busy.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 26
#: The longest protein of a block has at most this many times the shortest one's rows.
_LENGTH_RATIO = 1.25
#: Blocks that are worked on between two steps that take several at once.
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
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
    blocks: tuple[_Block, ...]
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
        blocks = tuple(
            _block(tuple(in_order[first:last]), ascending[first:last])
            for first, last in _cut(ascending, _row_limit(proteins[0]))
        )
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


def _block(proteins: tuple[Tensor, ...], lengths: Int64) -> _Block:
    longest = int(lengths[-1])
    missing = None
    if lengths[0] != longest:
        mask = np.arange(longest) >= lengths[:, None, None]
        missing = torch.from_numpy(mask).to(proteins[0].device)
    sizes = np.stack([lengths, longest - lengths], axis=1).ravel()
    return _Block(proteins, tuple(sizes.tolist()), longest, missing)


class _Buffer:
    """Memory for the rows of one block after another."""

    def __init__(self, blocks: Sequence[_Block], dtype: torch.dtype) -> None:
        some = blocks[0].proteins[0]
        size = max(len(block.proteins) * block.longest for block in blocks)
        self._rows = some.new_empty(size, some.shape[1], dtype=dtype)

    def fill(self, block: _Block) -> Tensor:
        """(proteins, longest, D) in the compute dtype, 0 where missing; good until the next."""
        rows = self._rows[: len(block.proteins) * block.longest]
        parts = rows.split_with_sizes(block.sizes)
        for own, stored in zip(parts[::2], block.proteins, strict=True):
            own.copy_(stored)
        if block.missing is not None:
            for nothing in parts[1::2]:
                nothing.zero_()
        return rows.view(len(block.proteins), block.longest, -1)


def _by_share(
    batch: PackedBatch, dtype: torch.dtype, work: Callable[[slice, _Buffer], Result]
) -> list[Result]:
    """Run ``work`` on some blocks at a time, without gradients; returns what it gave, in order.

    On a CPU in a thread that computes alone. The operations are too small to be shared out among
    torch's threads, and several threads of Python's hinder one another about as much as they help.
    """
    inference = torch.is_inference_mode_enabled()
    count = len(batch.blocks)

    def run() -> list[Result]:
        buffer = _Buffer(batch.blocks, dtype)
        with torch.inference_mode(inference), torch.no_grad():  # each thread has its own state
            return [
                work(slice(first, min(first + _BLOCKS_AT_ONCE, count)), buffer)
                for first in range(0, count, _BLOCKS_AT_ONCE)
            ]

    if batch.places.device.type != "cpu" or torch.get_num_threads() == 1:
        return run()
    with (
        threads_that_compute_alone(),
        ThreadPoolExecutor(1, initializer=compute_alone) as thread,
    ):
        return thread.submit(run).result()


def _attention_weights(weight: Tensor, batch: PackedBatch) -> list[Tensor]:
    """(L, H) of each protein."""
    by_head = weight.detach().T.contiguous()

    def attend(share: slice, buffer: _Buffer) -> list[Tensor]:
        blocks = batch.blocks[share]
        return [_attention(by_head, block, buffer.fill(block)) for block in blocks]

    shares = _by_share(batch, weight.dtype, attend)
    weights = [protein for share in shares for block in share for protein in block]
    spans = zip(batch.places.tolist(), batch.lengths.tolist(), strict=True)
    return [weights[place][:, :length].T for place, length in spans]


def _attention(by_head: Tensor, block: _Block, rows: Tensor) -> Tensor:
    """(proteins, H, longest): softmax of the scores over each protein's rows; 0 where missing."""
    scores = torch.bmm(by_head.expand(len(rows), -1, -1), rows.transpose(1, 2))
    if block.missing is not None:
        scores.masked_fill_(block.missing, -torch.inf)
    return scores.softmax(dim=2)


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

        def pool(share: slice, buffer: _Buffer) -> list[Tensor]:
            kept = []
            for block, target in zip(batch.blocks[share], targets[share], strict=True):
                rows = buffer.fill(block)
                attention = _attention(by_head, block, rows)
                torch.bmm(attention, rows, out=target)
                kept.append(attention)
            return kept

        shares = _by_share(batch, weight.dtype, pool)
        heads = torch.bmm(pooled.transpose(0, 1), projection)
        ctx.save_for_backward(weight, projection, pooled, heads)
        ctx.batch, ctx.attention = batch, [each for share in shares for each in share]
        return heads

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        weight, projection, pooled, heads = ctx.saved_tensors
        batch: PackedBatch = ctx.batch
        gradient, keep = gradients[0], ctx.needs_input_grad[0]
        corrections = batch.by_block((gradient * heads).sum(dim=2).T[:, :, None])
        to_rows = projection.transpose(1, 2)
        ends = np.cumsum([len(block.proteins) for block in batch.blocks])

        def differentiate(share: slice, buffer: _Buffer) -> tuple[Tensor, list[_RowGradients]]:
            """The blocks' part of the weight's gradient, (H, D), and what rows' gradients take."""
            total = torch.zeros_like(weight.T)
            kept = []
            blocks = batch.blocks[share]
            first = int(ends[share.start]) - len(blocks[0].proteins)
            of_pooled = torch.bmm(gradient[:, first : int(ends[share.stop - 1])], to_rows)
            parts = of_pooled.transpose(0, 1).split_with_sizes([len(b.proteins) for b in blocks])
            known = (corrections[share], ctx.attention[share])
            for block, part, correction, attention in zip(blocks, parts, *known, strict=True):
                rows = buffer.fill(block)
                d_scores = torch.bmm(part, rows.transpose(1, 2))
                d_scores.sub_(correction).mul_(attention)
                total.addmm_(d_scores.transpose(0, 1).flatten(1), rows.flatten(0, 1))
                if keep:
                    kept.append(_RowGradients(attention, part, d_scores))
            return total, kept

        shares = _by_share(batch, weight.dtype, differentiate)
        d_values = (
            _by_rows(batch, weight, [k for _, kept in shares for k in kept]) if keep else None
        )
        d_weight = torch.stack([total for total, _ in shares]).sum(dim=0).T
        return d_values, d_weight, torch.bmm(pooled.permute(1, 2, 0), gradient), None


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
