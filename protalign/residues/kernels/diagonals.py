"""Best diagonals on a GPU: the launch of the Triton kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from protalign.core.arrays import Float32
from protalign.core.ragged import Ragged
from protalign.residues.kernels.packed import not_finite

#: Rows and columns of a tile.
_TILE = 64
#: Numbers of a row at least: a product of tensor cores takes so many.
_WIDTH = 16
#: Queries of one launch: a GPU's second dimension takes no more.
_QUERIES_AT_ONCE = 65_535
#: Largest difference of a sum from the processor's, by the lengths of both proteins' rows as one
#: vector each: float32 sums in another order, of products of numbers with 22 bits.
_ERROR = 4e-6


class DeviceDiagonals:
    """Queries that are scored against many targets on a GPU.

    Parameters
    ----------
    queries : sequence of (Lq, K) float32
        Rows of m queries, each of at least one residue.
    device : torch.device
        The GPU.
    """

    def __init__(self, queries: Sequence[Float32], device: torch.device) -> None:
        packed = Ragged.pack(queries)
        self._rows = torch.from_numpy(packed.values).to(device)
        self._offsets = torch.from_numpy(packed.offsets).to(device)
        self._norms = _norms(self._rows, self._offsets)
        self._device = device

    def scores(self, targets: Ragged) -> tuple[Float32, Float32]:
        """Score targets by their best diagonals, nearly as the processor does.

        Parameters
        ----------
        targets : Ragged
            Rows (R, K) of n proteins: float16 or float32.

        Returns
        -------
        scores : (m, n) float32
            As of ``diagonal_scores``, within the error.
        error : (m, n) float32
            The largest error.

        Raises
        ------
        InputError
            A row has a number that is not finite.
        """
        rows = torch.from_numpy(np.array(targets.values)).to(self._device)
        if not torch.isfinite(rows).all():
            raise not_finite("targets")
        offsets = torch.from_numpy(np.array(targets.offsets)).to(self._device)
        scores, _ = best_diagonals(self._rows, self._offsets, rows, offsets)
        error = _ERROR * self._norms[:, None] * _norms(rows, offsets)
        return scores.cpu().numpy(), error.cpu().numpy()


def _norms(rows: Tensor, offsets: Tensor) -> Tensor:
    """Return (n,) lengths of proteins' rows as one vector each, float32."""
    sums = torch.zeros(len(rows) + 1, dtype=torch.float64, device=rows.device)
    torch.cumsum(rows.double().square().sum(dim=1), 0, out=sums[1:])
    return sums[offsets].diff().clamp(min=0).sqrt().float()


def best_diagonals(
    queries: Tensor,
    query_offsets: Tensor,
    targets: Tensor,
    target_offsets: Tensor,
    floor: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Score each target by its best diagonal with each query, on the tensors' device.

    Parameters
    ----------
    queries : (Q, K) float32 tensor
        Rows of m queries, one after another.
    query_offsets : (m + 1,) int64 tensor
        Rows before each query, and of all.
    targets : (R, K) float16 or float32 tensor
        Rows of n targets.
    target_offsets : (n + 1,) int64 tensor
        Rows before each target, and of all.
    floor : float, optional
        Score of a residue pair at least. Default: no floor.

    Returns
    -------
    scores : (m, n) float32 tensor
        As of ``protalign.residues.kernels.scores.diagonal_scores``, in another order of sums.
    offsets : (m, n) int64 tensor
        The best diagonals' offsets.
    """
    from protalign.residues.kernels import diagonals_triton  # optional, and slow to import

    n_queries, n_targets = len(query_offsets) - 1, len(target_offsets) - 1
    scores = queries.new_empty(n_queries, n_targets)
    offsets = torch.empty_like(scores, dtype=torch.int64)
    if n_targets == 0:
        return scores, offsets
    options = launch_options(queries.shape[1], targets.dtype)
    unit = _power_of_two(queries)  # float16, in which products are made, ends at 65,504
    queries = queries / unit
    with torch.cuda.device_of(targets):  # type: ignore[no-untyped-call]
        for first in range(0, n_queries, _QUERIES_AT_ONCE):
            last = min(first + _QUERIES_AT_ONCE, n_queries)
            diagonals_triton.best_diagonals[n_targets, last - first](
                queries,
                query_offsets[first : last + 1],
                targets,
                target_offsets,
                scores[first:last],
                offsets[first:last],
                float("-inf") if floor is None else float(floor) / unit,
                **options,
            )
    return scores.mul_(unit), offsets


def _power_of_two(numbers: Tensor) -> float:
    """Return the power of two just above all numbers: dividing by it changes no digit."""
    largest = float(numbers.abs().max()) if numbers.numel() else 0.0
    return 2.0 ** math.frexp(largest)[1]


def launch_options(width: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the kernel's compile-time arguments for rows of ``width`` numbers."""
    return {
        "K": width,
        "WIDTH": max(_WIDTH, 1 << (width - 1).bit_length()),
        "TILE": _TILE,
        "SPLIT": int(dtype == torch.float16),
        "num_warps": 4,
    }
