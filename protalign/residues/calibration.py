"""Calibration of local alignment scores: how often chance gives as much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Float64
from protalign.core.errors import InputError
from protalign.residues.background import Background
from protalign.residues.tail import tail_of

#: Pairs to fit on, at least.
MIN_PAIRS = 500
#: The part of the unrelated pairs whose scores decide the scale of the tail.
_TAIL = (0.2, 0.02)
#: Quantiles of a query's scores with the background that give its location and its scale. Above the
#: second are relatives, if there are any.
_QUERY = (0.75, 0.97)
#: A pair that chance gives less often than this is a relative, and says nothing about chance.
_RELATED = 1e-5
#: The highest weight of a reversed score: what chance gives counts once. Unrelated pairs alone
#: would ask for up to 1.8, and relatives whose fold has much that any fold has would be lost: among
#: 1,248 chains a superfamily's other families were first for 30 of 100 queries, with this limit for
#: 41 (benchmarks/quality/remote.py, ESM2-8M).
_HIGHEST_REVERSED = 1.0
#: The spread of chance's scores grows as this power of the product of both lengths: as the square
#: root of their geometric mean. If it were the same for all lengths, large proteins would have most
#: of the false hits: with 0 the own structure came before a false hit of one query in ten for about
#: 87 and 80 of 100 sequences of CATH's domains and SCOPe's chains, with this power for 93 and 95
#: (benchmarks/quality/calibration.py).
_LENGTH_POWER = 0.25
#: The part of the usual scale that is added to the scale of a query's own tail, which few proteins
#: show. With 1, E = 1 depended more on which topologies a model had seen: it gave 0.18 to 1.9 false
#: hits for eight choices, with this part 0.22 to 1.6. With 0 half of the relatives that come before
#: a false hit of one query in ten were lost.
_USUAL = 0.35
#: Besides, the scale of a query's tail grows as this power of its length: the background is of
#: short proteins, with which a long query cannot show all. The order of its hits does not change.
_QUERY_POWER = 0.1
#: Fits, each without the relatives that the last one found.
_ROUNDS = 5
#: A shorter protein counts as one of so many residues: of few residues chance is unknown. Without
#: this any two peptides of 1 to 5 residues would be relatives.
_LEAST_LENGTH = 30
#: The least scale of the tail that a fit may find. With less nearly all pairs have one score, as
#: those of copies of few proteins have, and any other score would have an E-value of 0.
_LEAST_SCALE = 1e-3
#: Excess at which half of the pairs share a fold, and the power of the excess by which the odds
#: rise. Fits on sums of excess and backing of CATH's domains that a stage was not fitted on gave
#: 7.4, 10.2 and 9.2, and powers of 2.0, 1.8 and 2.4, for three choices of topologies, structures as
#: queries 8.2, 8.4 and 13.7, and with a context 7.1, 7.7, 10.1 and 7.8 for two
#: (benchmarks/quality/calibration.py --tm 60). Classes would not do: how many pairs of one excess
#: share one of CATH's or SCOPe's varies much.
_FOLD_CENTRE, _FOLD_POWER = 8.3, 2.3


@dataclass(frozen=True)
class Chance:
    """The upper tail of the scores that chance gives a query.

    Attributes
    ----------
    location, scale : float64
        Of the excess that a ``Calibration`` without a background gives; arrays for many queries.
    """

    location: Float64
    scale: Float64

    @classmethod
    def of(cls, excess: npt.ArrayLike) -> Self:
        """Return it by a query's excess over the background, (…, n) for n proteins."""
        low, high = np.quantile(np.asarray(excess, np.float64), _QUERY, axis=-1)
        scale = (high - low) / np.log((1 - _QUERY[0]) / (1 - _QUERY[1]))
        return cls(low, np.maximum(scale, np.finfo(np.float32).tiny))

    def excess(self, excess: npt.ArrayLike) -> Float64:
        """Return the excess of scores of this query over this chance, in units of its scale."""
        above: Float64 = (np.asarray(excess, np.float64) - self.location) / self.scale
        return above


@dataclass(frozen=True)
class Calibration:
    """The scores that unrelated proteins get, and so the rarity of a score.

    A score grows with the lengths of both proteins, and with what any two proteins share: a helix
    fits every helix. The same query aligned with the reversed target has both, and nothing of a
    relationship. So an unrelated pair's expected score is linear in the reversed score and in the
    logarithm of the lengths, and what is above it has an exponential tail (Karlin and Altschul;
    reversed sequences as a null model: Karplus et al. 2005), which is wider for longer proteins.

    The tail differs from query to query: a fold of many look-alikes gets high scores from all of
    them. So a query is also aligned with a background of training proteins, and an excess counts
    by the tail of these scores. It is known of few and short proteins, so a part of the usual scale
    is added to its scale, and long queries have a wider one.

    Attributes
    ----------
    intercept, reversed_weight, length_weight : float
        The expected score: ``intercept + reversed_weight * reversed score + length_weight *
        ln(query length * target length)``, in nats of score.
    scale : float
        Chance falls by a factor of e in this, times ``(query length * target length) **
        length_power``, nats of score.
    n_pairs : int
        Unrelated pairs that it was fitted on.
    background : Background or None
        The proteins that show a query's own tail; None if there were too few, or in models of
        before: then all queries have one tail.
    query_start, query_scale : float
        Where chance begins by a query's own tail, and its scale, which make up for the tail being
        known of few proteins; fitted on the pairs.
    length_power : float
        See ``scale``; 0 in models of before.
    start : float
        Where chance begins above the expected score, in units of the lengths' product to that
        power; 0 in models of before.
    added_scale, query_power : float
        A query's tail has the scale that the background shows, and ``added_scale``, a part of the
        usual one, times the query's length to the power of ``query_power``; 0 in models of before.

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
    background: Background | None = field(default=None, compare=False)
    query_start: float = 0.0
    query_scale: float = 1.0
    length_power: float = 0.0
    start: float = 0.0
    added_scale: float = 0.0
    query_power: float = 0.0

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
            There are fewer than ``MIN_PAIRS`` pairs, or their scores are nearly one.
        """
        y = np.asarray(scores, dtype=np.float64)
        lengths = _product(query_lengths, target_lengths)
        spread = lengths**_LENGTH_POWER
        by_chance = np.asarray(reversed_scores, np.float64)
        X = np.stack([np.ones_like(y), by_chance, np.log(lengths)], axis=1)
        # Scores with reversed targets hold no relatives: far above all of them is one.
        keep = y < 2 * np.quantile(by_chance, 0.995) if len(y) else y > 0
        weights, start, scale, n_pairs = _fit_tail(y, X, spread, keep)
        intercept, of_reversed, of_lengths = map(float, weights)
        if of_reversed > _HIGHEST_REVERSED:
            of_reversed = _HIGHEST_REVERSED
            rest = y - of_reversed * by_chance
            weights, start, scale, n_pairs = _fit_tail(rest, X[:, [0, 2]], spread, keep)
            intercept, of_lengths = map(float, weights)
        if scale < _LEAST_SCALE:
            raise InputError(
                "calibration: unrelated pairs have nearly one score",
                "fit on more proteins of different families",
            )
        return cls(
            *(intercept, of_reversed, of_lengths, scale, n_pairs),
            length_power=_LENGTH_POWER,
            start=start,
        )

    def with_background(
        self,
        background: Background,
        excess: npt.ArrayLike,
        shown: Chance,
        query_lengths: npt.ArrayLike,
    ) -> Calibration:
        """Return it with a background, fitted on pairs of which most are unrelated.

        Parameters
        ----------
        background : Background
            The proteins.
        excess : (n,) float
            Pairs' excess without a background.
        shown : Chance
            (n,) each, of the pairs' queries: what the background shows of them.
        query_lengths : (n,) int
            Their residues.

        Raises
        ------
        InputError
            There are fewer than ``MIN_PAIRS`` pairs.
        """
        usual = float(np.median(shown.scale)) if np.size(shown.scale) else 0.0
        fitted = replace(
            self, background=background, added_scale=_USUAL * usual, query_power=_QUERY_POWER
        )
        above = fitted.query_tail(shown, query_lengths).excess(excess)
        one = np.ones(len(above))
        weights, start, scale, _ = _fit_tail(above, one[:, None], one, one > 0)
        return replace(fitted, query_start=start + float(weights[0]), query_scale=scale)

    def query_tail(self, shown: Chance, query_lengths: npt.ArrayLike) -> Chance:
        """Return the tail of queries of so many residues, by what the background shows of them."""
        lengths = np.maximum(query_lengths, _LEAST_LENGTH).astype(np.float64)
        scale = (shown.scale + self.added_scale) * lengths**self.query_power
        return Chance(shown.location, scale)

    def chance(self, query: Float32) -> Chance | None:
        """Align a query's (L, k + 2) rows with the background; None without one."""
        if self.background is None or len(query) == 0:
            return None
        scores, reversed_scores, lengths = self.background.scores(query)
        shown = Chance.of(self.excess(scores, reversed_scores, len(query), lengths))
        return self.query_tail(shown, len(query))

    def excess(
        self,
        scores: npt.ArrayLike,
        reversed_scores: npt.ArrayLike,
        query_lengths: npt.ArrayLike,
        target_lengths: npt.ArrayLike,
        chance: Chance | None = None,
    ) -> Float64:
        """Return how far scores are above chance, in units of the tail's scale; float64.

        Chance gives an excess of x or more to a share exp(-x) of unrelated pairs. With the query's
        own ``chance`` that holds for each query.
        """
        lengths = _product(query_lengths, target_lengths)
        expected = self.intercept + self.length_weight * np.log(lengths)
        expected = expected + self.reversed_weight * np.asarray(reversed_scores, np.float64)
        above = (np.asarray(scores, np.float64) - expected) / lengths**self.length_power
        excess: Float64 = (above - self.start) / self.scale
        return excess if chance is None else self.by_query(excess, chance)

    def by_query(self, excess: npt.ArrayLike, chance: Chance) -> Float64:
        """Return the excess by the queries' own ``chance`` of an excess without it; float64.

        Without it an excess is the same whichever protein of a pair is the query.
        """
        return (chance.excess(excess) - self.query_start) / self.query_scale

    def evalue(self, excess: npt.ArrayLike, n_targets: int) -> Float64:
        """Return the hits of this excess that chance gives among ``n_targets``; float64."""
        with np.errstate(over="ignore"):  # exp(-excess) may be infinite: chance gives it always
            rate = np.exp(-np.asarray(excess, np.float64))
        evalue: Float64 = n_targets * -np.expm1(-rate)
        return evalue

    def bits(self, excess: npt.ArrayLike) -> Float64:
        """Return how rare an excess is by chance, in bits: chance gives it 2 ** -bits times.

        So the E-value is the number of targets times 2 ** -bits, whatever that number is, and bits
        go on where the E-value is too small for a float. At least 0; float64.

        Examples
        --------
        >>> calibration = Calibration(0.0, 0.0, 0.0, scale=1.0, n_pairs=1000)
        >>> float(calibration.evalue(9.0, 500) / 500 * 2 ** calibration.bits(9.0)).__round__(6)
        1.0
        >>> float(calibration.bits(2000.0)).__round__()
        2885
        """
        x = np.asarray(excess, np.float64)
        rate = np.exp(-np.maximum(x, -30))
        # ln(1 - exp(-rate)) is -x for a small rate, which may be too small for a float.
        log = np.where(rate < 1e-6, -x, np.log(-np.expm1(-np.maximum(rate, 1e-6))))
        bits: Float64 = np.maximum(-log / np.log(2), 0.0)
        return bits

    def probability(self, excess: npt.ArrayLike) -> Float64:
        """Return the probability that two proteins share a fold; float64, 0 to 1.

        That is a TM-score of 0.5 or more by the length of the shorter (Xu and Zhang 2010). It is
        fitted on sums of excess and backing, and given the excess alone where nothing backs a pair.

        Examples
        --------
        >>> calibration = Calibration(0.0, 0.0, 0.0, scale=1.0, n_pairs=1000)
        >>> calibration.probability([-1, 2.5, 8.3, 40]).round(2).tolist()
        [0.0, 0.06, 0.5, 0.97]
        """
        above = np.maximum(np.asarray(excess, np.float64), 0) / _FOLD_CENTRE
        with np.errstate(divide="ignore", over="ignore"):  # the odds may be 0 or infinite
            probability: Float64 = 1 / (1 + above**-_FOLD_POWER)
        return probability

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, without the background's rows, as JSON values."""
        return {name: getattr(self, name) for name in (*_NUMBERS, *_LATER, "n_pairs")}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any], background: Background | None = None) -> Self:
        """Build it from ``as_dict``; raise KeyError, TypeError or ValueError if it is damaged."""
        numbers = {name: float(values[name]) for name in _NUMBERS}
        # Models of before lack some.
        numbers |= {name: float(values[name]) for name in _LATER if name in values}
        if not np.isfinite(list(numbers.values())).all():
            raise ValueError("the calibration holds NaN or infinity")
        if not (numbers["scale"] > 0 and numbers.get("query_scale", 1) > 0):
            raise ValueError("the calibration's scale is not above 0")
        powers = [numbers.get(name, 0) for name in ("length_power", "query_power")]
        if numbers.get("added_scale", 0) < 0 or not all(0 <= power <= 1 for power in powers):
            raise ValueError("the calibration's tail is damaged")
        return cls(**numbers, n_pairs=int(values["n_pairs"]), background=background)


_NUMBERS = ("intercept", "reversed_weight", "length_weight", "scale")
_LATER = ("query_start", "query_scale", "length_power", "start", "added_scale", "query_power")


def _product(query_lengths: npt.ArrayLike, target_lengths: npt.ArrayLike) -> Float64:
    """Return the products of the lengths that count."""
    query, target = (np.maximum(n, _LEAST_LENGTH) for n in (query_lengths, target_lengths))
    product: Float64 = np.asarray(query, np.float64) * target
    return product


def _fit_tail(
    y: Float64, X: Float64, spread: Float64, keep: Bool
) -> tuple[Float64, float, float, int]:
    """Fit what is expected of y by X (n, m), and the tail above it, in units of (n,) ``spread``.

    Returns
    -------
    weights : (m,) float64
        ``X @ weights`` is expected.
    start, scale : float
        Where chance begins above that; it falls by a factor of e in ``scale``.
    n_pairs : int
        Those that it was fitted on, without those that look related.

    ``keep`` are the pairs to begin with. Raise InputError if fewer than ``MIN_PAIRS`` are left.
    """
    for _ in range(_ROUNDS):
        if keep.sum() < MIN_PAIRS:
            raise InputError(
                f"calibration: {int(keep.sum())} unrelated pairs are too few",
                "fit on more proteins of different families",
            )
        weights: Float64 = np.asarray(np.linalg.lstsq(X[keep], y[keep], rcond=None)[0])
        above = (y - X @ weights) / spread
        start, scale = tail_of(above[keep], _TAIL, float(np.finfo(np.float64).tiny))
        keep = above - start < -scale * np.log(_RELATED)
    return weights, start, scale, int(keep.sum())
