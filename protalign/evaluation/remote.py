"""Remote homology: relatives at one level of a classification, without those of nearer levels.

Levels go from the nearest (a SCOPe family, a CATH superfamily) to the widest (fold, topology). At
each level the query's relatives are the candidates that share its class there and not the next
nearer one: another family of its superfamily, another superfamily of its fold. Nearer relatives
are not ranked, and neither are candidates that may be relatives at the level or nearer ones: those
that share a wider class, and whose code, or the query's, ends there.

Sensitivity up to the first false positive is the measure of Foldseek's benchmark on SCOPe40 (van
Kempen et al., Nat Biotechnol 42, 243, 2024): the share of a query's relatives with a higher score
than the best candidate of another fold. Hits in the same fold at other levels are neither right
nor wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float64, Int64
from protalign.core.errors import InputError
from protalign.evaluation.baselines import SCORES_AT_ONCE, Scorer, Scores, query_parts
from protalign.evaluation.bootstrap import Bootstrap
from protalign.evaluation.labels import LEVELS, classes_of, open_classes_of, scheme_of
from protalign.evaluation.ranking import expected_recall
from protalign.evaluation.tasks import Relation, related
from protalign.heads.ranks import TIE, RankCounts

#: k of Recall@k.
REMOTE_KS = (1, 5)


def sensitivity(scores: npt.NDArray[Any], relatives: Bool, others: Bool) -> Float64:
    """Return the share of each query's relatives above its first false positive.

    Of relatives that tie with the first false positive it counts as many as a random order of the
    tied candidates puts first, in expectation. A score of minus infinity means that a search did
    not report the candidate: it is never above anything.

    Parameters
    ----------
    scores : (n, m) array of float
        Higher is better; no NaN.
    relatives : (n, m) bool
        The candidates to find, at least one for each query.
    others : (n, m) bool
        The candidates that are false positives. The remaining ones do not count.

    Returns
    -------
    (n,) float64
        0 to 1.

    Examples
    --------
    >>> relatives = np.array([[True, True, False, False]])
    >>> sensitivity(np.array([[0.9, 0.4, 0.5, 0.1]]), relatives, ~relatives)
    array([0.5])
    """
    reported = relatives & np.isfinite(scores)
    false = others & np.isfinite(scores)
    first = np.where(false, scores, -np.inf).max(axis=1, initial=-np.inf)[:, None]
    above = np.count_nonzero(reported & (scores > first + TIE), axis=1)
    tied = np.count_nonzero(reported & (scores >= first - TIE), axis=1) - above
    n_false = np.count_nonzero(false & (scores >= first - TIE), axis=1)
    found: Float64 = (above + tied / (n_false + 1)) / np.count_nonzero(relatives, axis=1)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Kinship:
    """The classes that n queries share with m candidates.

    Attributes
    ----------
    levels : tuple of str
        The nearest first.
    shared : dict
        Level -> Relation: both have the same class.
    known : dict
        Level -> ((n,) bool, (m,) bool): the queries and candidates with a class at all.
    undecided : dict
        Level but the widest -> relations: both have the same class at the next wider level, and the
        code of one of the two has none at this level.
    """

    levels: tuple[str, ...]
    shared: Mapping[str, Relation]
    known: Mapping[str, tuple[Bool, Bool]]
    undecided: Mapping[str, tuple[Relation, Relation]]

    @classmethod
    def of(
        cls,
        queries: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        codes: Mapping[str, str],
        scheme: str,
    ) -> Self:
        """Read the classes of items.

        Parameters
        ----------
        queries, candidates : n and m sequences of str
            The ids of each item's entries.
        codes : mapping
            id -> code; see ``classes_of``.
        scheme : "scop" or "cath"
            The classification.
        """
        shared, known, undecided = {}, {}, {}
        levels = tuple(reversed(LEVELS[scheme]))
        both = queries, candidates
        for place, level in enumerate(levels):
            of = [classes_of(items, codes, scheme, level) for items in both]
            shared[level] = related(*of[0].matrices(of[1]))
            n, m = (np.array([bool(own) for own in each.of], dtype=np.bool_) for each in of)
            known[level] = n, m
            if place:
                nearer = levels[place - 1]
                ends = [open_classes_of(items, codes, scheme, nearer, level) for items in both]
                undecided[nearer] = (
                    related(*of[0].matrices(ends[1])),
                    related(*ends[0].matrices(of[1])),
                )
        return cls(levels, shared, known, undecided)

    def parts(self, level: str, part: slice, own: Bool) -> tuple[Bool, Bool, Bool]:
        """Return some queries' relatives at a level, the candidates of other folds, and all ranked.

        Parameters
        ----------
        level : str
            One of ``levels``.
        part : slice
            The queries.
        own : (b, m) bool
            The candidates that are the query itself.

        Returns
        -------
        relatives, others, ranked : (b, m) bool
        """
        place, widest = self.levels.index(level), self.levels[-1]
        at_level = self.shared[level](part) & ~own
        classified = self.known[widest][0][part, None] & self.known[widest][1] & ~own
        ranked = classified.copy()
        for wider in self.levels[place:-1]:  # may share the class at this level, or a nearer one
            decided = ~self._undecided(wider, part)
            ranked &= decided if place else at_level | decided  # no class is nearer than the first
        if place:
            nearer = self.levels[place - 1]
            ranked &= ~self.shared[nearer](part) & ~self._undecided(nearer, part)
        return at_level & ranked, classified & ~self.shared[widest](part), ranked

    def _undecided(self, level: str, part: slice) -> Bool:
        one, other = self.undecided[level]
        return one(part) | other(part)


def remote_homology(
    scores: Mapping[str, npt.NDArray[Any] | Scorer],
    queries: Sequence[str],
    candidates: Sequence[str],
    *,
    own: Bool | None = None,
    units: npt.ArrayLike | None = None,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> dict[str, Any]:
    """Measure how well scores find relatives of each level.

    Parameters
    ----------
    scores : mapping
        Name -> (n, m) scores, higher is better, minus infinity for a candidate that is not
        reported; or a function from a slice of the queries to their (b, m) scores.
    queries, candidates : n and m str
        Codes of SCOPe ("b.1.1.2") or of CATH ("3.40.50.1260"), several with commas or blanks
        between them, "" for none.
    own : (n, m) bool, optional
        The candidates that are the query itself, or stand for it: they are not ranked.
    units : (n,) array, optional
        What is resampled for the intervals; default: the query's code.
    n_bootstrap : int
        Resamples; 0 gives no intervals.
    random_state : int
        Random seed of the intervals.

    Returns
    -------
    dict
        Level, the nearest first -> n_queries, left_out (alone, unlabelled), and for each name
        recall_at_1, recall_at_5 and sensitivity (see ``sensitivity``), each with value, low, high.
        A level without queries has no figures.

    Raises
    ------
    InputError
        No label is a code, a matrix has another shape, or scores have the name of a count.

    Examples
    --------
    >>> labels = ["b.1.1.1", "b.1.1.2", "b.1.2.1", "c.1.1.1"]
    >>> scores = np.array([[9, 5, 1, 2], [5, 9, 3, 2], [4, 5, 9, 6], [1, 2, 3, 9]])
    >>> report = remote_homology({"mine": scores}, labels, labels, own=np.eye(4) > 0, n_bootstrap=0)
    >>> report["superfamily"]["n_queries"], report["superfamily"]["mine"]["recall_at_1"]["value"]
    (2, 1.0)
    >>> report["fold"]["mine"]["sensitivity"]["value"]
    0.333...
    """
    scheme = scheme_of([*queries, *candidates])
    codes = {code: code for code in [*queries, *candidates]}
    kinship = Kinship.of([[c] for c in queries], [[c] for c in candidates], codes, scheme)
    shape = (len(queries), len(candidates))
    itself = np.zeros(shape, dtype=np.bool_) if own is None else own
    for name in ("n_queries", "left_out"):
        if name in scores:
            raise InputError(
                f"{name}: the figures have an entry of this name", "give the scores another name"
            )
    for name, values in (*scores.items(), ("own", itself)):
        if not callable(values) and np.shape(values) != shape:
            raise InputError(
                f"{name}: its shape is {np.shape(values)}, not {shape}",
                "give a row for each query and a column for each candidate",
            )
    scorers = {
        name: values if callable(values) else values.__getitem__ for name, values in scores.items()
    }
    bootstrap = list(queries) if units is None else units
    return kinship_figures(
        scorers, kinship, itself.__getitem__, bootstrap, (n_bootstrap, random_state)
    )


def kinship_figures(
    scorers: Mapping[str, Scorer],
    kinship: Kinship,
    own: Relation,
    units: npt.ArrayLike,
    resampling: tuple[int, int],
) -> dict[str, Any]:
    """Return the figures of ``remote_homology``, some queries at a time.

    Parameters
    ----------
    scorers : mapping
        Name -> scorer.
    kinship : Kinship
        The classes.
    own : Relation
        The candidates that are the query itself.
    units : (n,) array
        What is resampled.
    resampling : (int, int)
        Resamples and seed.
    """
    known = kinship.known[kinship.levels[-1]]
    collected: dict[str, list[_Part]] = {level: [] for level in kinship.levels}
    for part in query_parts(len(known[0]), len(known[1]), SCORES_AT_ONCE):
        scores = {name: np.asarray(scorer(part)) for name, scorer in scorers.items()}
        itself = own(part)
        for level in kinship.levels:
            kin = kinship.parts(level, part, itself)
            collected[level].append(_Part.of(scores, *kin, part.start))
    labels = np.asarray(units)
    return {
        level: _figures(parts, labels, kinship.known[level][0], resampling)
        for level, parts in collected.items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The queries with relatives at one level, by index, and each scorer's figures of them."""

    queries: Int64
    values: Mapping[str, dict[str, Float64]]

    @classmethod
    def of(
        cls, scores: Mapping[str, Scores], relatives: Bool, others: Bool, ranked: Bool, start: int
    ) -> Self:
        rows = np.flatnonzero(relatives.any(axis=1))
        relatives, others, ranked = relatives[rows], others[rows], ranked[rows]
        values = {}
        for name, all_scores in scores.items():
            mine = all_scores[rows]
            counts = RankCounts.of(mine, relatives, ranked)
            values[name] = {f"recall_at_{k}": expected_recall(counts, k) for k in REMOTE_KS}
            values[name]["sensitivity"] = sensitivity(mine, relatives, others)
        return cls(start + rows, values)


def _figures(
    parts: Sequence[_Part], units: npt.NDArray[Any], known: Bool, resampling: tuple[int, int]
) -> dict[str, Any]:
    queries = np.concatenate([np.empty(0, np.int64), *(part.queries for part in parts)])
    n_known = int(known.sum())
    figures: dict[str, Any] = {
        "n_queries": len(queries),
        "left_out": {"alone": n_known - len(queries), "unlabelled": len(known) - n_known},
    }
    if len(queries) == 0:
        return figures
    bootstrap = Bootstrap(units[queries], *resampling)
    for name, measures in parts[0].values.items():
        figures[name] = {
            measure: bootstrap.mean(np.concatenate([part.values[name][measure] for part in parts]))
            for measure in measures
        }
    return figures
