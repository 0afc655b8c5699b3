"""Scores of one query's residues with many targets: the second stage of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protalign.core.arrays import Float32, Float64
from protalign.core.ragged import Ragged
from protalign.residues.calibration import Calibration
from protalign.residues.kernels.scores import both_scores, diagonal_scores, local_scores


@dataclass(frozen=True, eq=False)
class TargetScores:
    """A query's scores with n targets.

    Attributes
    ----------
    diagonal : (n,) float32
        Sum of the residues' log-likelihood ratios on the best diagonal, in nats, less the length
        term if there is one.
    local : (n,) float32
        Score of the best local alignment with affine gaps, in nats.
    excess : (n,) float64 or None
        How far the local score is above chance; None without a calibration. See
        ``Calibration.excess``.

    Examples
    --------
    >>> rows = np.eye(3, dtype=np.float32)
    >>> scores = score_targets(rows, Ragged.pack([rows, -rows]))
    >>> scores.diagonal.tolist(), scores.local.tolist()
    ([3.0, 0.0], [3.0, 0.0])
    """

    diagonal: Float32
    local: Float32
    excess: Float64 | None

    @property
    def local_order(self) -> Float64:
        """(n,) float64 to order targets by: the excess, or the local score if it is unknown."""
        return self.local.astype(np.float64) if self.excess is None else self.excess


def score_targets(
    query: Float32,
    targets: Ragged,
    calibration: Calibration | None = None,
    *,
    diagonal: tuple[Float32, Ragged] | None = None,
    length_term: float = 0.0,
) -> TargetScores:
    """Score a query's rows with those of many targets, with the usual gap costs.

    Parameters
    ----------
    query : (L, k + 2) float32
        Rows of one modality (``ResidueStage.rows``).
    targets : Ragged
        Rows of the other modality, of n proteins.
    calibration : Calibration, optional
        The stage's.
    diagonal : (query, targets), optional
        Their rows for the diagonal, if these are others (``ResidueStage.head``).
    length_term : float
        Nats that a diagonal loses for each residue by which the two lengths differ.

    Examples
    --------
    >>> rows = 9 * np.eye(3, dtype=np.float32)
    >>> score_targets(rows, Ragged.pack([rows[:2]])).local.tolist()
    [162.0]
    """
    if diagonal is None:
        (best, _), (local, _, _) = both_scores(query, targets)
    else:
        best, local = diagonal_scores(*diagonal)[0], local_scores(query, targets)[0]
    if length_term:
        differences = np.abs(targets.lengths - len(query)).astype(np.float32)
        best = best - np.float32(length_term) * differences
    if calibration is None:
        return TargetScores(best, local, None)
    reversed_targets = Ragged.pack([rows[::-1] for rows in targets])
    by_chance = local_scores(query, reversed_targets)[0]
    excess = calibration.excess(
        local, by_chance, len(query), targets.lengths, calibration.chance(query)
    )
    return TargetScores(best, local, excess)
