"""The interface of a pooling head: residue rows of many proteins in, one vector each out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from protalign.heads.kernels.batch import ProteinBatch

if TYPE_CHECKING:
    from protalign.heads.pairs import Pairs


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
    summarises : bool
        Whether training changes only what comes after ``summary``. Each protein is then summarised
        once, and training reads no row again.
    n_heads : int or None
        Attention heads; None if there are none.
    embed_dim : int
        E.
    """

    attends: ClassVar[bool]
    wants_means: ClassVar[bool]
    summarises: ClassVar[bool] = False
    n_heads: int | None = None
    embed_dim: int

    @abstractmethod
    def __init__(self, input_dim: int, embed_dim: int, n_heads: int) -> None:
        super().__init__()

    @classmethod
    def initialise(
        cls,
        sequence: Self,
        structure: Self,
        pairs: Pairs,
        generator: np.random.Generator,
        report: Callable[[str], None],
    ) -> None:
        """Set the parameters of a new model's two heads by the pairs that it will be trained on.

        Kinds whose random parameters are good enough to start from do nothing. It is not called if
        the training continues an earlier one.

        Parameters
        ----------
        sequence, structure : PoolingHead
            The two heads, with random parameters, on the device to train on.
        pairs : Pairs
            The pairs to train on.
        generator : numpy.random.Generator
            The source of what is drawn.
        report : callable
            Receives a line for each step that takes time.

        Raises
        ------
        InputError
            There are too few pairs or residues.
        """

    def finish(self) -> None:
        """Bring the parameters into the form that is kept, after training; vectors stay the same.

        Kinds that train the parameters that they keep do nothing.
        """

    def is_earlier(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether saved parameters are of this kind, but of a form of earlier versions.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            Name of a saved parameter -> its shape.
        """
        return False

    @abstractmethod
    def forward(self, batch: ProteinBatch) -> Tensor:
        """Return (n, E) unit-length vectors in the parameters' dtype.

        A protein's vector is the same whatever else is in the batch.
        """

    def summary(self, batch: ProteinBatch) -> Tensor:
        """Return (n, P, S): what ``forward`` makes of rows before any parameter that is trained.

        A protein is cut into P parts of equal length, and a part without rows is zeros. A kind that
        does not summarise raises NotImplementedError: callers ask ``summarises`` first.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained on rows")

    def of_summary(self, summary: Tensor) -> Tensor:
        """Return (n, E) unit-length vectors of the (n, P, S) summary of proteins.

        Parts that are set to zeros are left out, as if their residues were missing. If none is, the
        vectors are those of ``forward``, up to rounding.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained on rows")

    def residue_weights(self, batch: ProteinBatch) -> Tensor:
        """Return the (R, n_heads) weight of each of the batch's R rows.

        Over a protein's rows the weights of each head sum to 1. A kind that does not attend raises
        NotImplementedError: callers ask ``attends`` first.
        """
        raise NotImplementedError(f"{type(self).__name__} weighs all residues alike")
