"""Attention pooling on a GPU: batches that are indices alone, and the launch of fused kernels.

If Triton is missing, or the GPU is too old for its kernels, ``protalign.heads.kernels.packed`` does
the same in plain torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from protalign.core.arrays import Int64
from protalign.core.ragged import Ragged
from protalign.heads.kernels.packed import moved

#: Warps of all programs on one multiprocessor: each thread takes 255 registers, the most it can.
_WARPS = 8
#: Most columns of a warp: their sums for all heads of a program stay in its registers.
_COLUMNS = 320
#: Attention heads that a program works on.
_HEADS = 4
#: Rows of a tile, and numbers of a tile without tensor cores, which is laid out anew on chip for
#: each head.
_ROWS, _NUMBERS_WITHOUT_DOT = 16, 5120
#: Most bytes of a tile for a pipeline of three stages: two tiles are loaded while one is worked on.
#: A larger tile has two stages.
_TILE_BYTES = 40 * 1024
#: Most bytes of a tile for tensor cores: their operands must fit beside it.
_DOT_BYTES = 80 * 1024
#: Programs in Triton's interpreter, since no GPU sets their number.
_SHARES_INTERPRETED = 3


@dataclass(frozen=True, slots=True, eq=False)
class RangeBatch:
    """n proteins, each a range of rows of one tensor, in any order; a range may be repeated.

    Attributes
    ----------
    values : (R, D) tensor
        float16, bfloat16 or float32, contiguous. No gradient flows to it.
    starts : (n,) int64 tensor
        The first row of each protein, on the device of ``values``.
    offsets : (n + 1,) int64 tensor
        Rows of the batch before each protein, and of all, on that device.
    lengths : (n,) int64
        Rows of each protein.
    """

    values: Tensor
    starts: Tensor
    offsets: Tensor
    lengths: Int64

    @classmethod
    def from_ragged(cls, rows: Ragged, device: torch.device) -> RangeBatch:
        """Return a batch of packed rows on a device; raise ValueError if a protein has no row."""
        values = moved(rows.values, device)
        [batch] = cls.several(values, [rows.offsets[:-1]], [rows.lengths])
        return batch

    @classmethod
    def several(
        cls, values: Tensor, starts: Sequence[Int64], lengths: Sequence[Int64]
    ) -> Iterator[RangeBatch]:
        """Yield batches of proteins of one tensor; raise ValueError if a protein has no row.

        The indices of all batches are moved to the tensor's device at once.
        """
        if any(np.any(batch_lengths < 1) for batch_lengths in lengths):
            raise ValueError("every protein needs at least one row to be pooled")
        parts: list[Int64] = []
        for batch_starts, batch_lengths in zip(starts, lengths, strict=True):
            parts += [batch_starts, np.concatenate([[0], np.cumsum(batch_lengths)])]
        indices = torch.from_numpy(np.concatenate(parts, dtype=np.int64)).to(values.device)
        split = indices.split_with_sizes([len(part) for part in parts])
        for first_rows, offsets, batch_lengths in zip(
            split[::2], split[1::2], lengths, strict=True
        ):
            yield cls(values, first_rows, offsets, batch_lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def proteins(self) -> tuple[Tensor, ...]:
        """(L, D) views of each protein's rows; making them waits for the device."""
        spans = zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        return tuple(self.values[start : start + length] for start, length in spans)

    def rows(self) -> Tensor:
        """Return a (T, D) copy of all rows, one protein after another."""
        lengths = torch.from_numpy(self.lengths).to(self.values.device)
        shift = torch.repeat_interleave(self.starts - self.offsets[:-1], lengths)
        return self.values[shift + torch.arange(len(shift), device=shift.device)]

    def attention_sums(self, weight: Tensor) -> Tensor:
        """Return softmax(rows @ weight)-weighted sums of each protein's rows.

        ``weight`` (D, H) float32 -> (n, H, D) float32.
        """
        sums: Tensor = FusedAttentionPooling.apply(weight, self)  # type: ignore[no-untyped-call]
        return sums

    def attention_heads(self, weight: Tensor, projection: Tensor) -> Tensor:
        """Return the same sums, projected head by head.

        ``weight`` (D, H) and ``projection`` (H, D, K), float32 -> (H, n, K) float32, in the order
        that ``in_order`` is given.
        """
        return torch.bmm(self.attention_sums(weight).transpose(0, 1), projection)

    def in_order(self, of_proteins: Tensor) -> Tensor:
        """Return results of ``attention_heads`` as they are: in the proteins' order."""
        return of_proteins

    def attention_weights(self, weight: Tensor) -> Tensor:
        """Return softmax(rows @ weight) over each protein's rows, (T, H), detached."""
        _, scores, normaliser = _forward(weight.detach(), self)
        lengths = torch.from_numpy(self.lengths).to(scores.device)
        return scores.sub_(torch.repeat_interleave(normaliser, lengths, dim=0)).exp_()


class FusedAttentionPooling(torch.autograd.Function):
    """``AttentionPooling`` of ``protalign.heads.kernels.packed`` in fused kernels."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: RangeBatch) -> Tensor:
        """Return pooled (n, H, D) float32 for weight (D, H) float32."""
        pooled, scores, normaliser = _forward(weight, batch)
        ctx.save_for_backward(pooled, scores, normaliser)
        ctx.batch = batch
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the weight's gradient."""
        pooled, scores, normaliser = ctx.saved_tensors
        return _backward(ctx.batch, pooled, scores, normaliser, gradients[0].contiguous()), None


@dataclass(frozen=True, slots=True)
class _Launch:
    """The cut of the kernels for one D, H and device.

    Attributes
    ----------
    groups : int
        Programs that divide the heads among them.
    shares : int
        Programs that divide the rows among them: as many as run at once.
    constants : dict
        Compile-time arguments of all kernels.
    of_rows : dict
        Compile-time arguments of the kernels that read rows.
    """

    groups: int
    shares: int
    constants: dict[str, int]
    of_rows: dict[str, int]

    @classmethod
    def of(cls, dim: int, heads: int, values: Tensor) -> _Launch:
        main = 1 << max(0, (dim - 1).bit_length() - 1)
        tail = 1 << max(0, dim - main - 1).bit_length()
        warps = 1 << (-(-(main + tail) // _COLUMNS) - 1).bit_length()
        row_bytes = dim * values.itemsize
        dot = values.dtype == torch.float16 and _ROWS * row_bytes <= _DOT_BYTES
        few = 1 << (max(1, min(_ROWS, _NUMBERS_WITHOUT_DOT // dim)).bit_length() - 1)
        rows = _ROWS if dot else few
        multiprocessors = _multiprocessors(values.device)
        return cls(
            groups=-(-heads // _HEADS),
            shares=multiprocessors * max(1, _WARPS // warps) or _SHARES_INTERPRETED,
            constants={
                "H": heads,
                "D": dim,
                "HEADS": _HEADS,
                "MAIN": max(main, 16 * warps),  # a product of tensor cores takes 16 at least
                "TAIL": max(tail, 16 * warps),
                "WARPS": warps,
                "num_warps": warps,
            },
            of_rows={
                "DOT": int(dot),
                "ROWS": rows,
                "STAGES": 3 if rows * row_bytes <= _TILE_BYTES else 2,
            },
        )


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _forward(weight: Tensor, batch: RangeBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return pooled (n, H, D), scores (T, H), and (n, H) log of the sum of exp(score); float32."""
    from protalign.heads.kernels import fused_triton  # Triton is optional, and slow to import

    heads, n = weight.shape[1], len(batch)
    launch = _Launch.of(len(weight), heads, batch.values)
    by_head = weight.T.contiguous()
    pooled = weight.new_empty(n, *by_head.shape)
    normaliser = weight.new_empty(n, heads)
    scores = weight.new_empty(int(batch.lengths.sum()), heads)
    parts = weight.new_empty(2 * launch.shares, *by_head.shape)
    part_normaliser = weight.new_empty(len(parts), heads)
    outputs = (pooled, normaliser, parts, part_normaliser)
    with torch.cuda.device_of(batch.values):  # type: ignore[no-untyped-call]
        fused_triton.pool_forward[launch.groups, launch.shares](
            batch.values,
            batch.starts,
            batch.offsets,
            by_head,
            scores,
            *outputs,
            n,
            **launch.constants,
            **launch.of_rows,
        )
        # Proteins go first: a GPU takes at most 65,535 programs in the other dimensions.
        fused_triton.join_parts[n, launch.groups](
            batch.offsets, *outputs, n, launch.shares, **launch.constants
        )
    return pooled, scores, normaliser


def _backward(
    batch: RangeBatch, pooled: Tensor, scores: Tensor, normaliser: Tensor, gradient: Tensor
) -> Tensor:
    """Return the weight's gradient, (D, H), given that of pooled."""
    from protalign.heads.kernels import fused_triton  # Triton is optional, and slow to import

    launch = _Launch.of(pooled.shape[2], pooled.shape[1], batch.values)
    by_share = pooled.new_empty(launch.shares, *pooled.shape[1:])
    with torch.cuda.device_of(batch.values):  # type: ignore[no-untyped-call]
        fused_triton.pool_backward[launch.groups, launch.shares](
            batch.values,
            batch.starts,
            batch.offsets,
            scores,
            pooled,
            normaliser,
            gradient,
            by_share,
            len(batch),
            **launch.constants,
            **launch.of_rows,
        )
    return by_share.sum(dim=0).T
