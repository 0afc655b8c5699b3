"""The TM-score of two structures: how alike they are in their best superposition.

biotite aligns and superimposes by a method like TM-align: residues are matched by their 3Di
states, then by distance, until nothing changes. TM-score: Zhang and Skolnick, Proteins
57, 702 (2004); TM-align: Zhang and Skolnick, Nucleic Acids Res 33, 2302 (2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import BACKBONE_ATOMS, Chain

#: Fewer residues than this have no fold to compare.
LEAST_RESIDUES = 5
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
    nothing = float("nan"), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if min(len(query), len(hit)) < LEAST_RESIDUES:
        return nothing
    import biotite.structure as structure

    fixed, mobile = _atoms(query), _atoms(hit)
    try:
        fitted, _, fixed_index, mobile_index = structure.superimpose_structural_homologs(
            fixed, mobile, reference_length="reference"
        )
    except ValueError:  # no residue of the one comes near one of the other
        return nothing
    score = structure.tm_score(fixed, fitted, fixed_index, mobile_index, "reference")
    rows = (index // len(BACKBONE_ATOMS) for index in (fixed_index, mobile_index))
    query_rows, hit_rows = (np.asarray(each, dtype=np.int64) for each in rows)
    return float(score), query_rows, hit_rows


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
