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
from protalign.residues.similarity import Similarity

#: Proteins that are kept, and the fewest that show a tail. The fewer, the more E-values depend on
#: which they are: with 100 there were 0.9 to 1.9 false hits a query at E = 1, with 150 0.9 to 1.3.
PROTEINS, FEWEST = 200, 60


#: The largest number that is kept of a coordinate: eight bits.
_LARGEST = 127


@dataclass(frozen=True, eq=False)
class CompactRows:
    """Rows of ``ResidueStage.rows`` of several proteins, in a byte for each coordinate.

    Attributes
    ----------
    modality : "sequence" or "structure"
        Theirs.
    coordinates : Ragged of (R, k) int8
        A row's first k numbers, in steps.
    steps : (k,) float32
        The size of a step of each coordinate.
    alone : (R,) float32
        What each residue counts by itself: the one of a row's last two numbers that is not 1.

    Examples
    --------
    >>> rows = np.float32([[0.5, -2.0, -1.5, 1.0], [1.0, 0.0, -0.5, 1.0]])
    >>> compact = CompactRows.of("sequence", Ragged.pack([rows]))
    >>> compact.coordinates.values.tolist()
    [[64, -127], [127, 0]]
    >>> compact.rows().values.round(2).tolist()
    [[0.5, -2.0, -1.5, 1.0], [1.0, 0.0, -0.5, 1.0]]
    """

    modality: Modality
    coordinates: Ragged
    steps: Float32
    alone: Float32

    @classmethod
    def of(cls, modality: Modality, rows: Ragged) -> Self:
        """Round the (R, k + 2) rows of some proteins."""
        values = rows.values[:, :-2]
        steps = np.abs(values).max(axis=0, initial=0) / np.float32(_LARGEST)
        steps = np.maximum(steps, np.finfo(np.float32).tiny)  # a column may be 0
        whole = np.rint(values / steps).astype(np.int8)
        alone = rows.values[:, _alone(modality)].astype(np.float32)
        return cls(modality, Ragged(whole, rows.offsets), steps, alone)

    def rows(self) -> Ragged:
        """Return the (R, k + 2) float32 rows."""
        values = np.ones((len(self.alone), len(self.steps) + 2), dtype=np.float32)
        values[:, :-2] = self.coordinates.values * self.steps
        values[:, _alone(self.modality)] = self.alone
        return Ragged(values, self.coordinates.offsets)

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return its arrays by name, as a saved model holds them."""
        arrays: tuple[npt.NDArray[np.generic], ...] = (
            *(self.coordinates.values, self.steps, self.alone, self.coordinates.lengths),
        )
        return {f"{n}.{self.modality}": a for n, a in zip(_KEPT, arrays, strict=True)}

    @classmethod
    def of_tensors(
        cls, modality: Modality, tensors: Mapping[str, npt.NDArray[np.generic]], width: int
    ) -> Self:
        """Build it of ``tensors``; raise KeyError or ValueError if damaged."""
        values, steps, alone, lengths = (tensors[f"{name}.{modality}"] for name in _KEPT)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        problem = f"the background's {modality} rows are damaged"
        if values.shape != (offsets[-1], width - 2) or alone.shape != (offsets[-1],):
            raise ValueError(problem)
        if len(lengths) == 0 or lengths.min() < 1 or steps.shape != (width - 2,):
            raise ValueError(problem)
        if not all(np.isfinite(array).all() for array in (steps, alone)):
            raise ValueError(problem)
        coordinates = Ragged(values.astype(np.int8), offsets)
        return cls(modality, coordinates, steps.astype(np.float32), alone.astype(np.float32))


_KEPT = ("coordinates", "steps", "alone", "lengths")


def other_modality(rows: Float32) -> Modality:
    """Return the modality that a protein's (L, k + 2) rows are compared with."""
    return "structure" if (rows[:, -1] == 1).all() else "sequence"


def _alone(modality: Modality) -> int:
    """Return the column of ``CompactRows.alone`` in a row."""
    return -2 if modality == "sequence" else -1


@dataclass(frozen=True, eq=False)
class Background:
    """Residue rows of proteins of both modalities, most of them unrelated to any query.

    Attributes
    ----------
    proteins : dict
        Modality -> rows.

    Examples
    --------
    >>> rows = np.zeros((9, 4), np.float32)
    >>> rows[:, -2] = 1
    >>> structures = CompactRows.of("structure", Ragged(rows, np.array([0, 4, 9])))
    >>> background = Background({"structure": structures})
    >>> scores, reversed_scores, lengths = background.scores(np.eye(4, dtype=np.float32)[[3, 3]])
    >>> scores.tolist(), lengths.tolist()
    ([0.0, 0.0], [4, 5])
    """

    proteins: Mapping[Modality, CompactRows]

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
        other = other_modality(query)
        forward, backward = self._packed[other]
        scores = local_scores(query, forward)[0], local_scores(query, backward)[0]
        return *scores, self.proteins[other].coordinates.lengths

    def similarity(self, modality: Modality) -> Similarity | None:
        """Return how similar its proteins of a modality are; None if it has fewer than two."""
        if modality not in self._similarities:
            proteins = self.proteins.get(modality)
            few = proteins is None or len(proteins.coordinates) < 2
            fitted = None if few or proteins is None else Similarity.fit(proteins.rows())
            self._similarities[modality] = fitted
        return self._similarities[modality]

    @cached_property
    def _similarities(self) -> dict[Modality, Similarity | None]:
        """What is known so far: each takes some tenths of a second."""
        return {}

    @cached_property
    def _packed(self) -> dict[Modality, tuple[PackedTargets, PackedTargets]]:
        packed: dict[Modality, tuple[PackedTargets, PackedTargets]] = {}
        for modality, proteins in self.proteins.items():
            rows = proteins.rows()
            packed[modality] = pack(rows), pack(rows.backward())
        return packed

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return its arrays by name, as a saved model holds them."""
        return {k: v for rows in self.proteins.values() for k, v in rows.tensors().items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, npt.NDArray[np.generic]], width: int) -> Self:
        """Build it of ``tensors``; raise KeyError or ValueError if damaged."""
        return cls({m: CompactRows.of_tensors(m, tensors, width) for m in MODALITIES})
