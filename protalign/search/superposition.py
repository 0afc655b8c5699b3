"""The TM-score of two structures: how alike they are in their best superposition.

biotite aligns and superimposes by a method like TM-align: residues are matched by their 3Di
states, then by distance, until nothing changes, for 30 rounds at most. TM-align tries more starts
and at times finds a higher score of distant relatives. TM-score: Zhang and Skolnick, Proteins 57,
702 (2004); TM-align: Zhang and Skolnick, Nucleic Acids Res 33, 2302 (2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Float64, Int64
from protalign.core.protein import BACKBONE_ATOMS, Chain

#: Fewer residues than this have no fold to compare.
LEAST_RESIDUES = 5
#: Rounds of matching by distance. A few pairs change for ever between two matchings, of which the
#: last one counts: one of the sample's 1,600. All others were done in 16 rounds.
_ROUNDS = 30
_ELEMENTS = [name[0] for name in BACKBONE_ATOMS]


def backbone_of(chains: Sequence[Chain]) -> Float32:
    """Return (L, 4, 3) float32 in Å: N, CA, C, O of all residues with all four, chain after chain.

    Empty if no chain has coordinates.
    """
    rows = [
        chain.backbone.coordinates[chain.structure_rows]
        for chain in chains
        if chain.backbone is not None
    ]
    return np.concatenate([np.empty((0, 4, 3), dtype=np.float32), *rows])


@dataclass(frozen=True, eq=False)
class Superposition:
    """A hit moved onto a query: the motion, and the residues that come to lie on one another.

    Attributes
    ----------
    rotation : (3, 3) float64
        A point x of the hit moves to ``rotation @ x + translation``; the query stays.
    translation : (3,) float64
        In Å.
    query_rows, hit_rows : (n,) int64
        The paired residues of both, ascending, counted among those with a complete backbone.
    distances : (n,) float64
        Å between the CA atoms of each pair.
    query_length, hit_length : int
        Residues with a complete backbone.
    score : float
        TM-score, normalised by the query's length.

    Examples
    --------
    >>> pair = np.zeros(1, np.int64)
    >>> one = Superposition(np.eye(3), np.zeros(3), pair, pair, np.array([2.0]), 80, 90, 0.01)
    >>> one.rmsd, one.fit.round(1).tolist()
    (2.0, [71.7])
    """

    rotation: Float64
    translation: Float64
    query_rows: Int64
    hit_rows: Int64
    distances: Float64
    query_length: int
    hit_length: int
    score: float

    @property
    def hit_score(self) -> float:
        """TM-score, normalised by the hit's length."""
        return self._score(self.hit_length)

    @property
    def aligned_score(self) -> float:
        """TM-score, normalised by the number of pairs."""
        return self._score(len(self.distances))

    @property
    def rmsd(self) -> float:
        """Root mean square of the distances, in Å."""
        return float(np.sqrt(np.mean(self.distances**2)))

    @property
    def fit(self) -> Float64:
        """(n,) float64, 0 to 100: each pair's part of the TM-score, 100 for no distance.

        It is 50 at the distance d0 of the TM-score, of the query's length.
        """
        fit: Float64 = 100 * _terms(self.distances, self.query_length)
        return fit

    def moved(self, points: npt.NDArray[Any]) -> Float64:
        """Return (…, 3) points of the hit where the query's coordinates have them."""
        placed: Float64 = np.asarray(points, np.float64) @ self.rotation.T + self.translation
        return placed

    def _score(self, length: int) -> float:
        return float(_terms(self.distances, length).sum() / length)


def _terms(distances: Float64, length: int) -> Float64:
    """Return each pair's term of the TM-score, 0 to 1 (Zhang and Skolnick, equation 5)."""
    scale = 0.5 if length <= 21 else max(1.24 * np.cbrt(length - 15) - 1.8, 0.5)
    terms: Float64 = 1 / (1 + (distances / scale) ** 2)
    return terms


def tm_score(query: Float32, hit: Float32) -> float:
    """Return the TM-score of a hit superimposed on a query, normalised by the query's length.

    It lies between 0 and 1. Above 0.5 two chains mostly have the same fold; unrelated ones have
    about 0.2. Several chains are taken as one, in their order.

    Parameters
    ----------
    query, hit : (L, 4, 3) and (M, 4, 3) float32
        N, CA, C, O in Å, all finite.

    Returns
    -------
    float
        NaN if one of the two has fewer than 5 residues, or if no superposition brings any
        residues together.
    """
    return structural_alignment(query, hit)[0]


def structural_alignment(query: Float32, hit: Float32) -> tuple[float, Int64, Int64]:
    """Superimpose a hit on a query; return the TM-score and the aligned residues.

    Parameters
    ----------
    query, hit : (L, 4, 3) and (M, 4, 3) float32
        N, CA, C, O in Å, all finite.

    Returns
    -------
    score : float
        As from ``tm_score``.
    query_rows, hit_rows : (n,) int64
        Residues of both that the superposition pairs, ascending; empty if the score is NaN.
    """
    found = superimpose(query, hit)
    if found is None:
        return float("nan"), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return found.score, found.query_rows, found.hit_rows


def superimpose(query: Float32, hit: Float32) -> Superposition | None:
    """Superimpose a hit on a query.

    Parameters
    ----------
    query, hit : (L, 4, 3) and (M, 4, 3) float32
        N, CA, C, O in Å, all finite.

    Returns
    -------
    Superposition or None
        None if one of the two has fewer than 5 residues, or if no superposition brings any
        residues together.
    """
    if min(len(query), len(hit)) < LEAST_RESIDUES:
        return None
    import biotite.structure as structure

    fixed, mobile = _atoms(query), _atoms(hit)
    try:
        fitted, motion, fixed_index, mobile_index = structure.superimpose_structural_homologs(
            fixed, mobile, max_iterations=_ROUNDS, reference_length="reference"
        )
    except ValueError:  # no residue of the one comes near one of the other
        return None
    score = structure.tm_score(fixed, fitted, fixed_index, mobile_index, "reference")
    rows = (index // len(BACKBONE_ATOMS) for index in (fixed_index, mobile_index))
    query_rows, hit_rows = (np.asarray(each, dtype=np.int64) for each in rows)
    apart = fixed.coord[fixed_index] - fitted.coord[mobile_index]
    matrix = np.asarray(motion.as_matrix(), np.float64).reshape(4, 4)
    return Superposition(
        matrix[:3, :3],
        matrix[:3, 3],
        query_rows,
        hit_rows,
        np.linalg.norm(apart.astype(np.float64), axis=-1),
        len(query),
        len(hit),
        float(score),
    )


def _atoms(backbone: Float32) -> Any:
    """Return a biotite AtomArray of one chain of alanines, numbered from 1."""
    import biotite.structure as structure

    atoms = structure.AtomArray(backbone.shape[0] * backbone.shape[1])
    atoms.coord = backbone.reshape(-1, 3)
    atoms.chain_id[:] = "A"
    atoms.res_id = np.repeat(np.arange(1, len(backbone) + 1), len(BACKBONE_ATOMS))
    atoms.res_name[:] = "ALA"
    atoms.atom_name = np.tile(BACKBONE_ATOMS, len(backbone))
    atoms.element = np.tile(_ELEMENTS, len(backbone))
    return atoms
