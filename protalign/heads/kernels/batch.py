"""A batch of proteins' rows in the form that its device pools fastest."""

from __future__ import annotations

import torch
from torch import Tensor

from protalign.core.devices import runs_triton
from protalign.core.ragged import Ragged
from protalign.heads.kernels.fused import RangeBatch
from protalign.heads.kernels.packed import PackedBatch

#: Both offer the same: ``lengths``, ``proteins``, ``rows``, ``attention_heads``, …
ProteinBatch = PackedBatch | RangeBatch


def batch_of(rows: Ragged, device: torch.device) -> ProteinBatch:
    """Move packed rows to a device.

    Parameters
    ----------
    rows : Ragged
        (L, D) float16 or float32 rows of each protein.
    device : torch.device
        The device to pool on.

    Returns
    -------
    PackedBatch or RangeBatch
        The latter if the device has fused kernels.

    Raises
    ------
    ValueError
        A protein has no row.
    """
    if runs_triton(device):
        return RangeBatch.from_ragged(rows, device)
    return PackedBatch.from_ragged(rows, device)


def mean_rows(batch: ProteinBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the (n, D) mean of each protein's rows, summed in ``dtype``.

    Each protein is summed by itself: its mean is the same to the last bit in every batch.
    """
    if (batch.lengths == 1).all():  # nothing to average
        return batch.rows().to(dtype)
    return torch.stack([rows.mean(dim=0, dtype=dtype) for rows in batch.proteins])
