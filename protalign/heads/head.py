"""The interface of a pooling head: residue rows of many proteins in, one vector each out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from protalign.heads.kernels.batch import ProteinBatch


class PoolingHead(nn.Module, ABC):
    """A kind of pooling. ``protalign.heads.poolings`` lists them.

    Parameters
    ----------
    input_dim : int
        D, the width of a residue's embedding.
    embed_dim : int
        E, the length of the vectors.
    n_heads : int
        Attention heads, if the kind has any.

    Attributes
    ----------
    attends : bool
        Whether residues get weights, so that ``residue_weights`` answers.
    wants_means : bool
        Whether only the mean of a protein's rows counts. Training then reads each protein once.
    n_heads : int or None
        Attention heads; None if there are none.
    embed_dim : int
        E.
    """

    attends: ClassVar[bool]
    wants_means: ClassVar[bool]
    n_heads: int | None = None
    embed_dim: int

    @abstractmethod
    def __init__(self, input_dim: int, embed_dim: int, n_heads: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, batch: ProteinBatch) -> Tensor:
        """Return (n, E) unit-length vectors in the parameters' dtype.

        A protein's vector is the same whatever else is in the batch.
        """

    def residue_weights(self, batch: ProteinBatch) -> Tensor:
        """Return the (R, n_heads) weight of each of the batch's R rows.

        Over a protein's rows the weights of each head sum to 1. A kind that does not attend raises
        NotImplementedError: callers ask ``attends`` first.
        """
        raise NotImplementedError(f"{type(self).__name__} weighs all residues alike")
