"""Best diagonals on a GPU: the launch of the Triton kernel."""

from __future__ import annotations

import torch
from torch import Tensor

#: Rows and columns of a tile.
_TILE = 64
#: Numbers of a row at least: a product of tensor cores takes so many.
_WIDTH = 16
#: Targets, or queries, of one launch: a GPU's second dimension takes no more.
_QUERIES_AT_ONCE = 65_535


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
                float("-inf") if floor is None else float(floor),
                **options,
            )
    return scores, offsets


def launch_options(width: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the kernel's compile-time arguments for rows of ``width`` numbers."""
    return {
        "K": width,
        "WIDTH": max(_WIDTH, 1 << (width - 1).bit_length()),
        "TILE": _TILE,
        "SPLIT": int(dtype == torch.float16),
        "num_warps": 4,
    }
