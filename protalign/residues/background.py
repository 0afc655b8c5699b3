"""The background: proteins that are kept to see what chance gives a query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.residues.kernels.packed import PackedTargets, pack
from protalign.residues.kernels.scores import local_scores

#: Proteins that are kept, and the fewest that show a tail. The fewer, the more E-values depend on
#: which they are: with 100 there were 0.9 to 1.9 false hits a query at E = 1, with 150 0.9 to 1.3.
PROTEINS, FEWEST = 200, 60


@dataclass(frozen=True, eq=False)
class Background:
    """Residue rows of proteins of both modalities, most of them unrelated to any query.

    Attributes
    ----------
    proteins : dict
        Modality -> rows of ``ResidueStage.rows``, float16.

    Examples
    --------
    >>> rows = np.zeros((9, 4), np.float16)
    >>> rows[:, -2] = 1
    >>> structures = Ragged(rows, np.array([0, 4, 9]))
    >>> background = Background({"sequence": structures, "structure": structures})
    >>> scores, reversed_scores, lengths = background.scores(np.eye(4, dtype=np.float32)[[3, 3]])
    >>> scores.tolist(), lengths.tolist()
    ([0.0, 0.0], [4, 5])
    """

    proteins: Mapping[Modality, Ragged]

    def scores(self, query: Float32) -> tuple[Float32, Float32, Int64]:
        """Align a query with the background of the other modality.

        Parameters
        ----------
        query : (L, k + 2) float32
            Its rows, which show its modality: the last number of a sequence's is 1.

        Returns
        -------
        scores, reversed_scores : (n,) float32
            Local scores with each protein, and with each reversed.
        lengths : (n,) int64
            The proteins' residues.
        """
        other: Modality = "structure" if (query[:, -1] == 1).all() else "sequence"
        forward, backward = self._packed[other]
        scores = local_scores(query, forward)[0], local_scores(query, backward)[0]
        return *scores, self.proteins[other].lengths

    @cached_property
    def _packed(self) -> dict[Modality, tuple[PackedTargets, PackedTargets]]:
        packed: dict[Modality, tuple[PackedTargets, PackedTargets]] = {}
        for modality, proteins in self.proteins.items():
            rows = [each.astype(np.float32) for each in proteins]
            backward = [each[::-1] for each in rows]
            packed[modality] = pack(Ragged.pack(rows)), pack(Ragged.pack(backward))
        return packed

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return its arrays by name, as a saved model holds them."""
        named: dict[str, npt.NDArray[np.generic]] = {}
        for modality in MODALITIES:
            named[f"rows.{modality}"] = self.proteins[modality].values
            named[f"lengths.{modality}"] = self.proteins[modality].lengths
        return named

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, npt.NDArray[np.generic]], width: int) -> Self:
        """Build it of ``tensors``; raise KeyError or ValueError if damaged."""
        proteins: dict[Modality, Ragged] = {}
        for modality in MODALITIES:
            rows = np.asarray(tensors[f"rows.{modality}"], dtype=np.float16)
            lengths = np.asarray(tensors[f"lengths.{modality}"], dtype=np.int64)
            if rows.ndim != 2 or rows.shape[1] != width or lengths.ndim != 1:
                raise ValueError(f"the background's {modality} rows have another width")
            if len(lengths) == 0 or lengths.min() < 1 or not np.isfinite(rows).all():
                raise ValueError(f"the background's {modality} rows are incomplete")
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            proteins[modality] = Ragged(rows, offsets)
        return cls(proteins)
