"""Where a query's hits stand among the candidates, and what is to be expected where scores tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float64, Int64
from protalign.heads.ranks import TIE


@dataclass(frozen=True, eq=False)
class Standing:
    """How each of n queries' best hit stands.

    The candidates that tie with it come in a random order, every order as likely; ``above`` others
    come before them all. The rank is that of the first hit.

    Attributes
    ----------
    above : (n,) int64 candidates that are no hits, with a higher score than the best hit.
    tied : (n,) int64 candidates that are no hits, with the best hit's score.
    hits : (n,) int64 hits with that score, at least 1.
    """

    above: Int64
    tied: Int64
    hits: Int64

    def __len__(self) -> int:
        return len(self.above)

    def __getitem__(self, index: Any) -> Standing:
        return Standing(self.above[index], self.tied[index], self.hits[index])

    @classmethod
    def of(cls, scores: npt.NDArray[Any], hits: Bool, candidates: Bool) -> Standing:
        """(n, m) each: scores, which are hits, and which candidates are ranked at all.

        Scores closer than ``metrics.TIE`` tie. Every query needs a hit among its candidates.
        """
        hits = hits & candidates
        if not hits.any(axis=1).all():
            raise ValueError("every query needs a hit among its candidates")
        best = np.where(hits, scores, -np.inf).max(axis=1)[:, None]
        others = candidates & ~hits
        return cls(
            above=np.count_nonzero(others & (scores > best + TIE), axis=1),
            tied=np.count_nonzero(others & (abs(scores - best) <= TIE), axis=1),
            hits=np.count_nonzero(hits & (scores >= best - TIE), axis=1),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Standing]) -> Standing:
        """Several queries' standings, one after another."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("above", "tied", "hits")
            )
        )

    def ties_lost(self) -> Standing:
        """Ties decided against the query: what a model is measured by."""
        none = np.zeros_like(self.tied)
        return Standing(self.above + self.tied, none, none + 1)

    def recall_at(self, k: int) -> Float64:
        """(n,) probability that the first hit's rank is at most k."""
        missed = np.ones(len(self))
        for drawn in range(k):  # of the tied, without replacement
            left = np.maximum(self.tied - drawn, 0)
            missed *= np.where(drawn < k - self.above, left / np.maximum(left + self.hits, 1), 1.0)
        return 1.0 - missed

    def reciprocal_rank(self) -> Float64:
        """(n,) expectation of 1 / rank."""
        kinds, which = self._kinds
        expected = [float(pmf @ (1.0 / ranks)) for ranks, pmf in map(_rank_distribution, kinds)]
        return np.array(expected)[which]

    def median_rank(self) -> float:
        """Median rank over queries and the orders of ties; between two middle ranks, their mean."""
        kinds, which = self._kinds
        mass = np.zeros(max(above + tied for above, tied, _ in kinds) + 2)
        for kind, count in zip(kinds, np.bincount(which), strict=True):
            ranks, pmf = _rank_distribution(kind)
            mass[ranks] += count * pmf
        reached = np.cumsum(mass) / len(self)
        lower = np.argmax(reached >= 0.5 - 1e-9)
        upper = np.argmax(reached > 0.5 + 1e-9)
        return float(lower + upper) / 2

    @cached_property
    def _kinds(self) -> tuple[list[tuple[int, int, int]], Int64]:
        """The different (above, tied, hits), and which of them each query is."""
        table = np.stack([self.above, self.tied, self.hits], axis=1)
        kinds, which = np.unique(table, axis=0, return_inverse=True)
        return [tuple(kind) for kind in kinds.tolist()], which.ravel()


def _rank_distribution(kind: tuple[int, int, int]) -> tuple[Int64, Float64]:
    """(ranks, probabilities) of the first of ``hits`` among ``tied`` others in a random order."""
    above, tied, hits = kind
    place = np.arange(tied + 1)  # others before the first hit
    left = tied - place
    first_here = hits / (left + hits)
    passed = np.concatenate([[1.0], np.cumprod(1.0 - first_here[:-1])])
    return above + 1 + place, passed * first_here
