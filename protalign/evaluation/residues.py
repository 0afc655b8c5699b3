"""The residue stage as a scorer: every query's residues against every candidate's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32
from protalign.core.ragged import Ragged
from protalign.evaluation.test_set import Chains
from protalign.residues import ResidueStage
from protalign.residues.calibration import Calibration, Chance
from protalign.residues.kernels.packed import pack
from protalign.residues.kernels.scores import both_scores, diagonal_scores, local_scores
from protalign.residues.stage import PackedRows

#: Scorer -> what it does.
RESIDUE_SCORERS = {
    "residues_global": "residue stage: the best diagonal",
    "residues_local": "residue stage: the best local alignment",
    "residues_excess": "residue stage: the local alignment above what chance gives it",
}
#: Pairs of residues that an evaluation scores unasked: about a quarter of an hour on two cores.
MOST_PAIRS = 2e11
#: The least that a pair of residues counts on a diagonal of cut queries, in nats.
CUT_FLOOR = -1.5
#: Scores of one block of queries.
_SCORES_AT_ONCE = 1 << 18


def residue_scores(
    stage: ResidueStage,
    queries: PackedRows,
    candidates: PackedRows,
    *,
    floor: float | None = None,
    query_chains: list[Chains] | None = None,
) -> dict[str, Float32]:
    """Score every query against every candidate.

    Parameters
    ----------
    stage : ResidueStage
        The stage that made the rows; its calibration, if it has one, gives the excess.
    queries, candidates : PackedRows
        Rows of n proteins of one modality and of m of the other.
    floor : float, optional
        The least that a pair counts on a diagonal, in nats.
    query_chains : list of n tuple of str, optional
        The queries' chains: each has a diagonal of its own, and their scores are added up.
        Default: a query has one diagonal.

    Returns
    -------
    dict
        Name of ``RESIDUE_SCORERS`` -> (n, m) float32; without "residues_excess" if the stage is not
        calibrated.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> from protalign.residues import PairSums
    >>> hidden = [rng.normal(size=(100, 6)) for _ in range(8)]
    >>> sums = PairSums(6, 6)
    >>> sums.add(np.vstack(hidden), np.vstack(hidden))
    >>> stage = sums.stage()
    >>> packed = Ragged.pack(hidden)
    >>> rows = [stage.packed_rows(modality, packed) for modality in ("sequence", "structure")]
    >>> residue_scores(stage, *rows)["residues_global"].argmax(axis=1).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    targets = pack(candidates.local)
    one = candidates.local is candidates.diagonal
    diagonal_targets = targets if one else pack(candidates.diagonal)
    n, m = len(queries.local), len(candidates.local)
    calibration = stage.calibration
    names = [name for name in RESIDUE_SCORERS if name != "residues_excess" or calibration]
    scores = {name: np.empty((n, m), dtype=np.float32) for name in names}
    reversed_targets = None
    if calibration is not None:
        reversed_targets = pack(Ragged.pack([rows[::-1] for rows in candidates.local]))
    step = max(1, _SCORES_AT_ONCE // m)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        block = queries.part(part)
        if query_chains is None and one:
            (best, _), local = both_scores(block.local, targets, floor=floor)
        else:
            local = local_scores(block.local, targets)
            if query_chains is None:
                best, _ = diagonal_scores(block.diagonal, diagonal_targets, floor=floor)
            else:
                best = _by_chain(block.diagonal, query_chains[part], diagonal_targets, floor)
        scores["residues_global"][part] = best
        scores["residues_local"][part] = local[0]
        if calibration is not None and reversed_targets is not None:
            by_chance = local_scores(block.local, reversed_targets)[0]
            lengths = block.local.lengths[:, None], candidates.local.lengths[None, :]
            excess = calibration.excess(
                local[0], by_chance, *lengths, _chances(calibration, block.local)
            )
            scores["residues_excess"][part] = excess
    return scores


def _chances(calibration: Calibration, queries: Ragged) -> Chance | None:
    """Return what chance gives each query, (m, 1) each."""
    chances = [calibration.chance(query) for query in queries]
    known = [chance for chance in chances if chance is not None]
    if not known:
        return None
    location, scale = np.array([(chance.location, chance.scale) for chance in known]).T
    return Chance(location[:, None], scale[:, None])


def _by_chain(
    queries: Ragged, chains: list[Chains], targets: Any, floor: float | None
) -> npt.NDArray[np.float32]:
    """Return the sum over each query's chains of the best diagonal's score."""
    lengths = [len(chain) for protein in chains for chain in protein if chain]
    split = Ragged(queries.values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    best = diagonal_scores(split, targets, floor=floor)[0]
    counts = [sum(map(bool, protein)) for protein in chains]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.asarray(np.add.reduceat(best, first, axis=0), dtype=np.float32)
