"""Mean pooling: the paper's other projection strategies, and X with its means taken beforehand.

A protein's residues are averaged, and the average goes through a linear layer ("mean-linear") or a
two-layer perceptron ("mean-mlp"), then LayerNorm and unit length as behind attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.core.arrays import Int64
from protalign.core.protein import Modality
from protalign.core.ragged import Ragged
from protalign.heads.inputs import Inputs
from protalign.heads.kernels.batch import ProteinBatch
from protalign.heads.kernels.packed import PackedBatch

#: The projections of a protein's mean, by the estimator's ``pooling``.
MEAN_POOLINGS = ("mean-linear", "mean-mlp")


def mean_rows(batch: ProteinBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, D) mean of each protein's rows, summed in ``dtype``.

    Each protein is summed by itself: its mean is the same to the last bit in every batch.
    """
    if (batch.lengths == 1).all():  # nothing to average
        return batch.rows().to(dtype)
    return torch.stack([rows.mean(dim=0, dtype=dtype) for rows in batch.proteins])


class MeanPoolingHead(nn.Module):
    """The mean of the residues, projected, then LayerNorm and unit length.

    Parameters
    ----------
    input_dim : D, width of a residue's embedding.
    embed_dim : width of the vectors given back.
    projection : "mean-linear", one linear layer; "mean-mlp", two with GELU between them, the
        hidden layer as wide as the embedding (the form of SimCLR's head; Chen et al., 2020).
    """

    def __init__(self, input_dim: int, embed_dim: int = 128, projection: str = "mean-linear"):
        super().__init__()
        self.embed_dim = embed_dim
        last = nn.Linear(input_dim, embed_dim)
        self.projection: nn.Module = (
            last
            if projection == "mean-linear"
            else nn.Sequential(nn.Linear(input_dim, input_dim), nn.GELU(), last)
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, batch: ProteinBatch) -> Tensor:
        """(n, embed_dim) unit-length vectors in the parameters' dtype."""
        means = mean_rows(batch, self.norm.weight.dtype)
        return functional.normalize(self.norm(self.projection(means)), dim=-1)


class MeanInputs(Inputs):
    """Other inputs with each item's rows replaced by their mean, one row, taken once.

    The embeddings are frozen and so are their means: training on these reads no residue again. All
    means are held in memory, 4 bytes a value.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self.dims, self.encoders = inputs.dims, inputs.encoders
        self._place: dict[Modality, Int64] = {}
        self._means: dict[Modality, npt.NDArray[np.float32]] = {}
        for modality in inputs.dims:
            items = inputs.items(modality)
            there = np.flatnonzero(items >= 0)
            _, first, item = np.unique(items[there], return_index=True, return_inverse=True)
            self._place[modality] = np.full(len(items), -1, dtype=np.int64)
            self._place[modality][there] = item
            means = [
                mean_rows(PackedBatch.from_ragged(rows)).numpy()
                for rows in inputs.blocks(modality, there[first])
            ]
            none = np.empty((0, inputs.dims[modality]), dtype=np.float32)
            self._means[modality] = np.concatenate([none, *means])

    def __len__(self) -> int:
        return len(self._inputs)

    def items(self, modality: Modality) -> Int64:
        return self._inputs.items(modality)

    def lengths(self, modality: Modality) -> Int64:
        return (self._inputs.items(modality) >= 0).astype(np.int64)

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        return self._means[modality].dtype

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        means = self._means[modality][self._place[modality][positions]]
        return Ragged(means, np.arange(len(positions) + 1))

    def name(self, position: int) -> str:
        return self._inputs.name(position)
