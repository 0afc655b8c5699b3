"""The alignment of one sequence with one structure by their residue embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.checks import check_between, check_choice
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES, OTHER, Modality
from protalign.core.ragged import Ragged, ascend
from protalign.core.words import AlignMode
from protalign.residues.alignment import (
    GAP_EXTEND,
    GAP_OPEN,
    Alignment,
    align,
    check_gap_costs,
    check_memory,
)
from protalign.residues.chains import align_rows
from protalign.residues.proteins import one_chain
from protalign.residues.stage import ResidueStage


def align_embeddings(
    stage: ResidueStage,
    query: npt.ArrayLike,
    target: npt.ArrayLike,
    mode: AlignMode = "local",
    *,
    query_by: Modality = "sequence",
    gap_open: float = GAP_OPEN,
    gap_extend: float = GAP_EXTEND,
    floor: float | None = None,
    n_targets: int = 1,
    query_positions: Int64 | None = None,
    target_positions: Int64 | None = None,
    query_chains: Int64 | None = None,
    target_chains: Int64 | None = None,
) -> Alignment:
    """Align the residues of a sequence with those of a structure by a residue stage.

    Parameters
    ----------
    stage : ResidueStage
        The stage, for embeddings of D and D' numbers.
    query, target : (L, D) and (L', D') array
        Residue embeddings: the query's of the modality ``query_by``, the target's of the other.
    mode : "local" or "global"
        The best part with affine gaps, or the best diagonal of the whole, taken for one chain.
    query_by : "sequence" or "structure"
        The query's modality.
    gap_open, gap_extend : float
        Costs in nats of a gap's first residue and of each further one; "local" only.
    floor : float, optional
        The least that a pair counts, in nats, 0 or below; "global" only.
    n_targets : int
        The size of the search that the E-value is for.
    query_positions, target_positions : (L,) and (L',) int64, optional
        The residues' positions in the whole chains, ascending from 0 on; "global" only. Default:
        none is left out.
    query_chains, target_chains : (c,) and (d,) int64, optional
        Rows of each chain, all of them together; "local" only. Default: one chain.

    Returns
    -------
    Alignment
        With an E-value, bits and a probability if the mode is "local" with the usual gap costs,
        and the stage is calibrated.

    Raises
    ------
    ModelError
        An embedding has another width.
    InputError
        The mode, a cost or the floor is none, a number is not finite, a side has no residue
        ("global"), positions or chains are not those of the residues, or the pairs of residues
        take more memory than is free.

    Examples
    --------
    >>> from protalign.residues import PairSums
    >>> sums, rng = PairSums(20, 12), np.random.default_rng(0)
    >>> hidden = rng.normal(size=(900, 6))
    >>> sequences, structures = hidden @ rng.normal(size=(6, 20)), hidden @ rng.normal(size=(6, 12))
    >>> sums.add(sequences, structures)
    >>> alignment = align_embeddings(sums.stage(), sequences[10:30], structures[:80])
    >>> int(alignment.target_rows[0]), len(alignment)
    (10, 20)
    """
    check_choice("mode", mode, get_args(AlignMode))
    check_choice("query_by", query_by, MODALITIES)
    check_gap_costs(gap_open, gap_extend)
    if floor is not None:
        check_between("floor", floor, -np.inf, 0, closed=True)
    rows = []
    for embeddings, modality, chains in (
        (query, query_by, query_chains),
        (target, OTHER[query_by], target_chains),
    ):
        with np.errstate(over="ignore"):  # such numbers are named below
            values = np.asarray(embeddings, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != len(stage.means[modality]):
            raise ModelError(
                f"the {modality} embeddings: their shape is {values.shape}, not (residues, "
                f"{len(stage.means[modality])}); embed with the model's encoder"
            )
        ends = _chain_ends(modality, len(values), None if mode == "global" else chains)
        with np.errstate(invalid="ignore", over="ignore"):
            of_residues = stage.chain_rows(modality, Ragged(values, ends), mode)
        if not np.isfinite(of_residues).all():
            raise InputError(
                f"the {modality} embeddings: they hold NaN, infinity or huge values",
                "embed them again",
            )
        rows.append(of_residues)
    if mode == "global":
        one = one_chain("query", rows[0], query_positions)
        other = one_chain("target", rows[1], target_positions)
        placed = query_positions is not None or target_positions is not None
        check_memory("query", "target", one.n_residues, other.n_residues, mode, placed=placed)
        return align_rows(one, other, mode, floor=floor)
    check_memory("query", "target", len(rows[0]), len(rows[1]), mode)
    alignment = align(rows[0], rows[1], gap_open=gap_open, gap_extend=gap_extend)
    usual = (gap_open, gap_extend) == (GAP_OPEN, GAP_EXTEND)
    if stage.calibration is None or not usual or 0 in map(len, rows):
        return alignment
    by_chance = align(rows[0], rows[1][::-1]).score
    lengths = len(rows[0]), len(rows[1])
    excess = stage.calibration.excess(
        alignment.score, by_chance, *lengths, stage.calibration.chance(rows[0])
    )
    return replace(
        alignment,
        evalue=float(stage.calibration.evalue(excess, n_targets)),
        probability=float(stage.calibration.probability(excess)),
        bits=float(stage.calibration.bits(excess)),
    )


def _chain_ends(modality: Modality, n_rows: int, chains: Int64 | None) -> Int64:
    """Return where chains begin and end among rows; raise InputError if they have others."""
    if chains is None:
        return np.array([0, n_rows])
    rows = np.asarray(chains)
    if rows.ndim == 1 and rows.dtype.kind in "iu":
        ends: Int64 = np.concatenate([[0], np.cumsum(rows)])
        if ends[-1] == n_rows and ascend(ends):
            return ends
    raise InputError(
        f"the {modality} embeddings: {n_rows} rows are not those of their chains",
        "give the rows of each chain, all of them together",
    )
