"""The residue stage as a scorer: every query's residues against every candidate's."""

from __future__ import annotations

import numpy as np

from protalign.core.arrays import Float32
from protalign.core.ragged import Ragged
from protalign.residues import ResidueStage
from protalign.residues.calibration import Calibration, Chance
from protalign.residues.chains import ProteinTargets
from protalign.residues.kernels.packed import pack
from protalign.residues.kernels.scores import local_scores
from protalign.residues.proteins import PackedRows

#: Scorer -> what it does.
RESIDUE_SCORERS = {
    "residues_global": "residue stage: the best diagonal, or those of several chains in order",
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
    >>> packed, chains = Ragged.pack(hidden), [np.array([100])] * 8
    >>> rows = [stage.packed_rows(each, packed, chains) for each in ("sequence", "structure")]
    >>> residue_scores(stage, *rows)["residues_global"].argmax(axis=1).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    targets = ProteinTargets(candidates)
    n, m = len(queries), len(candidates)
    calibration = stage.calibration
    names = [name for name in RESIDUE_SCORERS if name != "residues_excess" or calibration]
    scores = {name: np.empty((n, m), dtype=np.float32) for name in names}
    reversed_targets = None
    if calibration is not None:
        reversed_targets = pack(Ragged.pack([rows[::-1] for rows in candidates.local]))
    step = max(1, _SCORES_AT_ONCE // m)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        block = queries.take(np.arange(n)[part])
        best, local = targets.scores(block, floor=floor)
        scores["residues_global"][part], scores["residues_local"][part] = best, local
        if calibration is not None and reversed_targets is not None:
            by_chance = local_scores(block.local, reversed_targets)[0]
            lengths = block.local.lengths[:, None], candidates.local.lengths[None, :]
            excess = calibration.excess(
                local, by_chance, *lengths, _chances(calibration, block.local)
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
