"""Calibration of local alignment scores: how often chance gives as much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float64
from protalign.core.errors import InputError

#: Pairs to fit on, at least.
MIN_PAIRS = 500
#: The part of the unrelated pairs whose scores decide the scale of the tail.
_TAIL = (0.2, 0.02)
#: A pair that chance gives less often than this is a relative, and says nothing about chance.
_RELATED = 1e-5
#: Fits, each without the relatives that the last one found.
_ROUNDS = 5
#: Probability that two proteins of one excess share a fold: a logistic function's centre and
#: slope, the means of three fits on CATH domains of topologies that the stage was not fitted on
#: (benchmarks/quality/calibration.py).
_FOLD_CENTRE, _FOLD_SLOPE = 6.6, 0.67


@dataclass(frozen=True)
class Calibration:
    """The scores that unrelated proteins get, and so the rarity of a score.

    A score grows with the lengths of both proteins, and with what any two proteins share: a helix
    fits every helix. The same query aligned with the reversed target has both, and nothing of a
    relationship. So an unrelated pair's expected score is linear in the reversed score and in the
    logarithm of the lengths, and what is above it has an exponential tail (Karlin and Altschul;
    reversed sequences as a null model: Karplus et al. 2005).

    Attributes
    ----------
    intercept, reversed_weight, length_weight : float
        The expected score: ``intercept + reversed_weight * reversed score + length_weight *
        ln(query length * target length)``, in nats of score.
    scale : float
        Nats of score above the expected one in which chance falls by a factor of e.
    n_pairs : int
        Unrelated pairs that it was fitted on.

    Examples
    --------
    >>> calibration = Calibration(-10.0, 0.5, 5.0, scale=25.0, n_pairs=10_000)
    >>> excess = calibration.excess(400.0, 60.0, 150, 180)
    >>> bool(calibration.evalue(excess, 1000) < 0.1)
    True
    """

    intercept: float
    reversed_weight: float
    length_weight: float
    scale: float
    n_pairs: int

    @classmethod
    def fit(
        cls,
        scores: npt.ArrayLike,
        reversed_scores: npt.ArrayLike,
        query_lengths: npt.ArrayLike,
        target_lengths: npt.ArrayLike,
    ) -> Self:
        """Fit it on pairs of which most are unrelated.

        Parameters
        ----------
        scores, reversed_scores : (n,) float
            Local scores of queries with targets, and with the targets reversed.
        query_lengths, target_lengths : (n,) int
            Their residues.

        Raises
        ------
        InputError
            There are fewer than ``MIN_PAIRS`` pairs.
        """
        y = np.asarray(scores, dtype=np.float64)
        lengths = np.log(np.asarray(query_lengths, np.float64) * np.asarray(target_lengths))
        X = np.stack([np.ones_like(y), np.asarray(reversed_scores, np.float64), lengths], axis=1)
        # Scores with reversed targets hold no relatives: far above all of them is one.
        by_chance = X[:, 1]
        keep = y < 2 * np.quantile(by_chance, 0.995) if len(y) else y > 0
        for _ in range(_ROUNDS):
            if keep.sum() < MIN_PAIRS:
                raise InputError(
                    f"calibration: {int(keep.sum())} unrelated pairs are too few",
                    "fit on more proteins of different families",
                )
            weights = np.linalg.lstsq(X[keep], y[keep], rcond=None)[0]
            above = y - X @ weights
            first, last = np.quantile(above[keep], [1 - share for share in _TAIL])
            scale = max((last - first) / np.log(_TAIL[0] / _TAIL[1]), np.finfo(np.float64).tiny)
            # The tail is _TAIL[0] exp(-(above - first) / scale): where it is 1, chance begins.
            start = first + scale * np.log(_TAIL[0])
            keep = above - start < -scale * np.log(_RELATED)
        weights[0] += start
        intercept, of_reversed, of_lengths = map(float, weights)
        return cls(intercept, of_reversed, of_lengths, float(scale), int(keep.sum()))

    def excess(
        self,
        scores: npt.ArrayLike,
        reversed_scores: npt.ArrayLike,
        query_lengths: npt.ArrayLike,
        target_lengths: npt.ArrayLike,
    ) -> Float64:
        """Return how far scores are above chance, in units of the tail's scale; float64.

        Chance gives an excess of x or more to a share exp(-x) of unrelated pairs.
        """
        lengths = np.log(np.asarray(query_lengths, np.float64) * np.asarray(target_lengths))
        expected = self.intercept + self.length_weight * lengths
        expected = expected + self.reversed_weight * np.asarray(reversed_scores, np.float64)
        excess: Float64 = (np.asarray(scores, np.float64) - expected) / self.scale
        return excess

    def evalue(self, excess: npt.ArrayLike, n_targets: int) -> Float64:
        """Return the hits of this excess that chance gives among ``n_targets``; float64."""
        evalue: Float64 = n_targets * -np.expm1(-np.exp(-np.asarray(excess, np.float64)))
        return evalue

    def probability(self, excess: npt.ArrayLike) -> Float64:
        """Return the probability that two proteins share a fold; float64, 0 to 1."""
        z = _FOLD_SLOPE * (np.asarray(excess, np.float64) - _FOLD_CENTRE)
        probability: Float64 = 1 / (1 + np.exp(-z))
        return probability

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build it from ``as_dict``; raise KeyError, TypeError or ValueError if it is damaged."""
        weights = {name: float(values[name]) for name in ("intercept", "reversed_weight")}
        calibration = cls(
            **weights,
            length_weight=float(values["length_weight"]),
            scale=float(values["scale"]),
            n_pairs=int(values["n_pairs"]),
        )
        if not (np.isfinite([*weights.values(), calibration.length_weight]).all()):
            raise ValueError("the calibration holds NaN or infinity")
        if not 0 < calibration.scale < np.inf:
            raise ValueError("the calibration's scale is not above 0")
        return calibration
