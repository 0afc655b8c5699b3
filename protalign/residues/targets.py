"""Scores of one query's residues with many targets: the second stage of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protalign.core.arrays import Float32, Float64, Int64
from protalign.core.ragged import Ragged
from protalign.core.steps import step
from protalign.residues.calibration import Calibration
from protalign.residues.kernels.scores import both_scores, diagonal_scores, local_scores

#: Pairs of residues that are scored at once, at most, if there are several targets: about a second.
PAIRS_AT_ONCE = 30_000_000


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

    Between ``PAIRS_AT_ONCE`` pairs other work may go first (``core.steps``).

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
    ends = _ends(targets.lengths, max(1, PAIRS_AT_ONCE // max(1, len(query))))
    scores, first = [], 0
    for last in ends:
        step()
        head = None if diagonal is None else (diagonal[0], diagonal[1].part(first, last))
        some = targets if len(ends) == 1 else targets.part(first, last)
        scores.append(_scores(query, some, calibration, head, length_term))
        first = last
    if len(scores) == 1:
        return scores[0]
    excess = None
    if calibration is not None:
        excess = np.concatenate([each.excess for each in scores if each.excess is not None])
    return TargetScores(
        np.concatenate([each.diagonal for each in scores]),
        np.concatenate([each.local for each in scores]),
        excess,
    )


def _ends(lengths: Int64, most: int) -> list[int]:
    """Return the ends of blocks of at most so many rows, or of one target."""
    ends, total = [], 0
    for place, length in enumerate(lengths.tolist()):
        if total and total + length > most:
            ends.append(place)
            total = 0
        total += length
    return [*ends, len(lengths)]


def _scores(
    query: Float32,
    targets: Ragged,
    calibration: Calibration | None,
    diagonal: tuple[Float32, Ragged] | None,
    length_term: float,
) -> TargetScores:
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
