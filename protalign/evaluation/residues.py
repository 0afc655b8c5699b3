"""The residue stage as a scorer: every query's residues against every candidate's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from protalign.core.arrays import Float32
from protalign.core.ragged import Ragged
from protalign.evaluation.baselines import ALIGNED_AT_ONCE, SCORES_AT_ONCE, query_parts
from protalign.evaluation.tasks import Relation
from protalign.residues import ResidueStage
from protalign.residues.background import Background
from protalign.residues.backing import backing
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
    "residues_backed": "residue stage: the same and the backing; a query's own protein backs none",
}
#: The scorer that only tasks of relatives have: without the own protein's voice its siblings would
#: be behind it for no good reason.
OF_RELATIVES = "residues_backed"
#: Pairs of residues that an evaluation scores unasked: about a quarter of an hour on two cores.
MOST_PAIRS = 2e11
#: The least that a pair of residues counts on a diagonal of cut queries, in nats.
CUT_FLOOR = -1.5


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """Scores of n proteins of one modality with m of the other, whichever of them are the queries.

    Attributes
    ----------
    diagonal, local : (n, m) float32
        As in ``protalign.residues.targets.TargetScores``.
    excess : (n, m) float32 or None
        The calibration's excess without any query's own chance; None without a calibration.
    """

    diagonal: Float32
    local: Float32
    excess: Float32 | None

    @classmethod
    def of(
        cls,
        stage: ResidueStage,
        proteins: PackedRows,
        others: PackedRows,
        *,
        floor: float | None = None,
    ) -> Self:
        """Align every protein with every other; parameters as of ``residue_scores``."""
        targets, calibration = ProteinTargets(others), stage.calibration
        shape = len(proteins), len(others)
        scores = cls(
            np.empty(shape, dtype=np.float32),
            np.empty(shape, dtype=np.float32),
            None if calibration is None else np.empty(shape, dtype=np.float32),
        )
        backward = pack(others.local.backward())
        for part in query_parts(*shape, ALIGNED_AT_ONCE):
            block = proteins.take(np.arange(shape[0])[part])
            best, local = targets.scores(block, floor=floor)
            scores.diagonal[part], scores.local[part] = best, local
            if calibration is not None and scores.excess is not None:
                by_chance = local_scores(block.local, backward)[0]
                lengths = block.local.lengths[:, None], others.local.lengths[None, :]
                scores.excess[part] = calibration.excess(local, by_chance, *lengths)
        return scores

    @property
    def transposed(self) -> PairScores:
        """The same, of the m others with the n proteins."""
        excess = None if self.excess is None else self.excess.T
        return PairScores(self.diagonal.T, self.local.T, excess)

    def of_queries(
        self,
        stage: ResidueStage,
        queries: PackedRows,
        candidates: PackedRows,
        own: Relation | None = None,
    ) -> dict[str, Float32]:
        """Return the scores that rank the others if the n proteins are the queries.

        Parameters
        ----------
        stage : ResidueStage
            The stage that gave the scores.
        queries, candidates : PackedRows
            The rows of the n proteins, and of the m others.
        own : Relation, optional
            As for ``residue_scores``.

        Returns
        -------
        dict
            As of ``residue_scores``.
        """
        scores = {"residues_global": self.diagonal, "residues_local": self.local}
        if self.excess is None or stage.calibration is None:
            return scores
        excess, chance = self.excess, _chances(stage.calibration, queries.local)
        if chance is not None:
            excess = np.empty_like(self.excess)
            for part in query_parts(len(excess), excess.shape[1], SCORES_AT_ONCE):
                of_part = Chance(chance.location[part], chance.scale[part])
                excess[part] = stage.calibration.by_query(self.excess[part], of_part)
        scores["residues_excess"] = excess
        background = stage.calibration.background
        if background is not None:
            said = _backings(background, excess, queries, candidates, own)
            scores[OF_RELATIVES] = excess + said
        return scores


def residue_scores(
    stage: ResidueStage,
    queries: PackedRows,
    candidates: PackedRows,
    *,
    floor: float | None = None,
    own: Relation | None = None,
) -> dict[str, Float32]:
    """Score every query against every candidate.

    Parameters
    ----------
    stage : ResidueStage
        The stage that made the rows; its calibration, if it has one, gives the excess, by each
        query's own chance.
    queries, candidates : PackedRows
        Rows of n proteins of one modality and of m of the other.
    floor : float, optional
        The least that a pair counts on a diagonal, in nats.
    own : Relation, optional
        The candidates that are each query's own protein. They say nothing for others: else a query
        would find its relatives by its own structure, which it lacks in use.

    Returns
    -------
    dict
        Name of ``RESIDUE_SCORERS`` -> (n, m) float32; without "residues_excess" if the
        stage is not calibrated, and without "residues_backed" if it keeps no background.

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
    scores = PairScores.of(stage, queries, candidates, floor=floor)
    return scores.of_queries(stage, queries, candidates, own)


def _backings(
    background: Background,
    excess: Float32,
    queries: PackedRows,
    candidates: PackedRows,
    own: Relation | None,
) -> Float32:
    """Return (n, m): what each query's first hits say for its candidates."""
    said = np.empty_like(excess)
    for place, query in enumerate(queries.local):
        silent = None if own is None else own(slice(place, place + 1))[0]
        rows, lengths = candidates.local.take, candidates.local.lengths
        n_targets = len(candidates)
        said[place] = backing(query, excess[place], lengths, rows, background, n_targets, silent)
    return said


def _chances(calibration: Calibration, queries: Ragged) -> Chance | None:
    """Return what chance gives each of n queries, (n, 1) each; None without a background."""
    chances = [calibration.chance(query) for query in queries]
    known = [chance for chance in chances if chance is not None]
    if not known:
        return None
    location, scale = np.array([(chance.location, chance.scale) for chance in known]).T
    return Chance(location[:, None], scale[:, None])
