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

Int64 = npt.NDArray[np.int64]
Result = TypeVar("Result")

#: Elements of a block: half of a core's second-level cache in float32 on a CPU; on a GPU enough to
#: keep every multiprocessor busy.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 26
#: The longest protein of a block has at most this many times the shortest one's rows.
_LENGTH_RATIO = 1.25
#: Blocks that one thread takes at a time.
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Proteins of nearly equal length that are worked on at once.

    Attributes
    ----------
    proteins : slice of the batch's proteins, in the order of blocks.
    longest : rows of the longest.
    rows : each protein's (L, D) rows of the batch's values.
    sizes : by protein, L and ``longest - L``.
    missing : (proteins, longest) bool, which rows a protein lacks; None where all are as long.
    """

    proteins: slice
    longest: int
    rows: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    missing: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """n proteins, each some consecutive rows of one array, and the plan of how to walk through.

    Attributes
    ----------
    values : (R, D) float16, bfloat16, float32 or float64 tensor; it may hold other rows too.
    starts, lengths : (n,) int64, first row and number of rows of each protein.
    blocks : the proteins, sorted by length.
    places : (n,) int64 tensor, the place of each protein in the order of blocks.
    """

    values: Tensor
    starts: Int64
    lengths: Int64
    blocks: tuple[_Block, ...]
    places: Tensor

    @classmethod
    def from_ragged(cls, rows: Ragged, device: torch.device | str = "cpu") -> PackedBatch:
        """Packed rows, moved to a device; raises ValueError where a protein has no row."""
        return cls.from_tensor(tensor(rows.values).to(device), rows.offsets)

    @classmethod
    def from_tensor(cls, values: Tensor, offsets: Int64) -> PackedBatch:
        """Rows that are a tensor already; ``offsets`` (n + 1,) as in ``Ragged``."""
        return cls.of(values, offsets[:-1], np.diff(offsets))

    @classmethod
    def of(cls, values: Tensor, starts: Int64, lengths: Int64) -> PackedBatch:
        """Some proteins among the rows of ``values``, which are not copied."""
        if np.any(lengths < 1):
            raise ValueError("every protein needs at least one row to be pooled")
        order = np.argsort(lengths, kind="stable")
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        blocks = tuple(
            _block(values, starts[order], lengths[order], first, last)
            for first, last in _cut(lengths[order], _row_limit(values))
        )
        return cls(values, starts, lengths, blocks, torch.from_numpy(places).to(values.device))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Tensor]:
        """Each protein's (L, D) rows, as stored."""
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield self.values[start : start + length]


def tensor(values: npt.NDArray[Any]) -> Tensor:
    """The same memory as a tensor; a copy where it is read-only or not contiguous."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def _row_limit(values: Tensor) -> int:
    elements = _BLOCK_ELEMENTS.get(values.device.type, _BLOCK_ELEMENTS_ACCELERATOR)
    return max(1, elements // values.shape[1])


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


def _block(values: Tensor, starts: Int64, lengths: Int64, first: int, last: int) -> _Block:
    own = lengths[first:last]
    longest = int(own[-1])
    missing = None
    if own[0] != longest:
        missing = torch.from_numpy(np.arange(longest) >= own[:, None]).to(values.device)
    spans = list(zip(starts[first:last].tolist(), own.tolist(), strict=True))
    return _Block(
        proteins=slice(first, last),
        longest=longest,
        rows=tuple(values[start : start + length] for start, length in spans),
        sizes=tuple(size for _, length in spans for size in (length, longest - length)),
        missing=missing,
    )


class _Buffer:
    """Memory for the rows of one block after another."""

    def __init__(self, blocks: Sequence[_Block], dtype: torch.dtype) -> None:
        size = max(sum(block.sizes) for block in blocks)
        self._rows = blocks[0].rows[0].new_empty(size, blocks[0].rows[0].shape[1], dtype=dtype)

    def fill(self, block: _Block) -> Tensor:
        """(proteins, longest, D) in the compute dtype, 0 where missing; good until the next."""
        rows = self._rows[: sum(block.sizes)]
        parts = rows.split_with_sizes(block.sizes)
        for own, stored in zip(parts[::2], block.rows, strict=True):
            own.copy_(stored)
        if block.missing is not None:
            for nothing in parts[1::2]:
                nothing.zero_()
        return rows.view(-1, block.longest, rows.shape[1])


def _share_out(
    batch: PackedBatch, dtype: torch.dtype, work: Callable[[slice, _Buffer], Result]
) -> list[Result]:
    """Run ``work`` on some blocks at a time, without gradients; returns what it gave, in order.

    On a CPU they are shared out among torch's number of threads, each of which computes alone: the
    operations are too small to be split, and threads that meet at the end of each one spend their
    time waiting, above all where other programs keep the cores busy. The numbers do not depend on
    how many threads there are.
    """
    inference = torch.is_inference_mode_enabled()

    def work_alone(blocks: slice) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # each thread has its own state
            return work(blocks, _Buffer(batch.blocks[blocks], dtype))

    count = len(batch.blocks)
    shares = [slice(i, min(i + _BLOCKS_AT_ONCE, count)) for i in range(0, count, _BLOCKS_AT_ONCE)]
    threads = torch.get_num_threads()
    workers = min(threads, len(shares)) if batch.values.device.type == "cpu" else 1
    if workers == 1:
        return [work_alone(share) for share in shares]
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work_alone, shares))
    finally:
        # It counts for the calling thread, and for those that start later: for them, as it was.
        torch.set_num_threads(threads)


def attention_weights(weight: Tensor, batch: PackedBatch) -> list[Tensor]:
    """Softmax of ``rows @ weight`` over each protein's rows, (L, H) each; without gradients."""
    by_head = weight.detach().T.contiguous()

    def attend(share: slice, buffer: _Buffer) -> list[Tensor]:
        return [_attention(by_head, block, buffer.fill(block)) for block in batch.blocks[share]]

    blocks = [each for share in _share_out(batch, weight.dtype, attend) for each in share]
    weights = [protein for block in blocks for protein in block]
    return [
        weights[place][:, :length].T
        for place, length in zip(batch.places.tolist(), batch.lengths.tolist(), strict=True)
    ]


def _attention(by_head: Tensor, block: _Block, rows: Tensor) -> Tensor:
    """(proteins, H, longest): softmax of the scores over each protein's rows; 0 where missing."""
    # Much faster than rows @ weight.
    scores = (by_head @ rows.flatten(0, 1).T).view(len(by_head), -1, block.longest)
    if block.missing is not None:
        scores.masked_fill_(block.missing, -torch.inf)
    return scores.softmax(dim=2).transpose(0, 1)


class AttentionPooling(torch.autograd.Function):
    """Softmax-weighted sums of each protein's rows, reading them once forward and once backward.

    With a = softmax(z w) over a protein's rows and pooled = sum_t a_t z_t, the gradient of the
    scores is a_t (z_t . g - sum_s a_s z_s . g) = a_t (z_t . g - pooled . g), g being the gradient
    of pooled: the softmax's correction needs no second pass over the rows.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, batch: PackedBatch) -> Tensor:
        """weight (D, H) in the compute dtype -> pooled (n, H, D), in the order of blocks.

        ``values`` are the batch's, named once more for their gradient.
        """
        by_head = weight.T.contiguous()
        pooled = weight.new_empty(len(batch), *by_head.shape)

        def pool(share: slice, buffer: _Buffer) -> list[Tensor]:
            attention = []
            for block in batch.blocks[share]:
                rows = buffer.fill(block)
                attention.append(_attention(by_head, block, rows))
                torch.bmm(attention[-1], rows, out=pooled[block.proteins])
            return attention

        shares = _share_out(batch, weight.dtype, pool)
        ctx.save_for_backward(values, weight, pooled)
        ctx.batch, ctx.attention = batch, [each for share in shares for each in share]
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        batch: PackedBatch = ctx.batch
        values, weight, pooled = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        correction = (pooled * gradient).sum(dim=2, keepdim=True)
        d_values = torch.zeros_like(values) if ctx.needs_input_grad[0] else None

        def differentiate(share: slice, buffer: _Buffer) -> tuple[Tensor, list[Tensor]]:
            """The blocks' part of the weight's gradient, (H, D), and the gradients of scores."""
            part = torch.zeros_like(weight.T)
            kept = []
            for block, attention in zip(batch.blocks[share], ctx.attention[share], strict=True):
                rows = buffer.fill(block)
                d_scores = torch.bmm(gradient[block.proteins], rows.transpose(1, 2))
                d_scores = d_scores.sub_(correction[block.proteins]).mul_(attention)
                part.addmm_(d_scores.transpose(0, 1).flatten(1), rows.flatten(0, 1))
                if d_values is not None:
                    kept.append(d_scores)
            return part, kept

        shares = _share_out(batch, weight.dtype, differentiate)
        if d_values is not None:
            by_scores = [each for _, kept in shares for each in kept]
            own: list[Tensor] = []
            for block, attention, d_scores in zip(
                batch.blocks, ctx.attention, by_scores, strict=True
            ):
                through_sum = attention.transpose(1, 2) @ gradient[block.proteins]
                own += through_sum + d_scores.transpose(1, 2) @ weight.T
            spans = (batch.starts.tolist(), batch.lengths.tolist(), batch.places.tolist())
            for start, length, place in zip(*spans, strict=True):
                d_values[start : start + length] += own[place][:length].to(values.dtype)
        return d_values, torch.stack([part for part, _ in shares]).sum(dim=0).T, None
