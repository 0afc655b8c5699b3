"""One direction of the whole evaluation: every task's figures of the model and of its rivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.evaluation.baselines import (
    Scorer,
    by_chance,
    by_cosine,
    by_family,
    by_family_and_length,
    by_kmers,
    by_length,
)
from protalign.evaluation.bootstrap import Bootstrap
from protalign.evaluation.cca import CCA
from protalign.evaluation.labels import LEVELS, Labels, families_of
from protalign.evaluation.leakage import IDENTITIES, Leakage
from protalign.evaluation.ranking import expected_recall, expected_reciprocal_rank, median_rank
from protalign.evaluation.remote import Kinship, kinship_figures
from protalign.evaluation.residues import OF_RELATIVES, RESIDUE_SCORERS
from protalign.evaluation.tasks import TaskRanks, paired, related, task_ranks
from protalign.evaluation.test_set import RetrievalItems
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import RankCounts

#: k of Recall@k.
KS = (1, 5, 10)


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What both directions share.

    Attributes
    ----------
    families : mapping
        id -> family.
    classes : mapping
        "scop" or "cath" -> id -> code.
    cca : CCA, optional
        Fitted on the training entries.
    leakage : Leakage, optional
        The audit.
    resampling : (int, int)
        Resamples and seed of the intervals.
    """

    families: Mapping[str, str]
    classes: Mapping[str, Mapping[str, str]]
    cca: CCA | None
    leakage: Leakage | None
    resampling: tuple[int, int]


def direction_figures(
    queries: RetrievalItems,
    candidates: RetrievalItems,
    pairs: Pairs,
    column: int,
    aligned: Mapping[str, Scorer],
    shared: Shared,
) -> dict[str, Any]:
    """Return one direction's part of the report.

    Parameters
    ----------
    queries, candidates : RetrievalItems
        The items of one modality and of the other.
    pairs : Pairs
        The pairs that they are of.
    column : int
        The queries' column in the pairs: 0 for sequences, 1 for structures.
    aligned : mapping
        Name -> scorer by alignments.
    shared : Shared
        What both directions share.
    """
    n, m = len(queries.ids), len(candidates.ids)
    labels = families_of(queries.entries, shared.families)
    family = labels.matrices(families_of(candidates.entries, shared.families))
    scorers = {
        "model": by_cosine(queries.vectors, candidates.vectors),
        **aligned,
        **_baselines(queries, candidates, by_family(*family)),
    }
    if shared.cca is not None:
        scorers["cca"] = by_cosine(
            shared.cca.project(queries.means, column),
            shared.cca.project(candidates.means, 1 - column),
        )
    kinships = {
        scheme: Kinship.of(queries.entries, candidates.entries, codes, scheme)
        for scheme, codes in shared.classes.items()
    }
    classes = {
        f"{scheme}_{level}": (kinship.shared[level], kinship.known[level][0])
        for scheme, kinship in kinships.items()
        for level in LEVELS[scheme]
    }
    partners = paired(pairs.items[:, [column, 1 - column]], n, m)
    retrieving = {name: each for name, each in scorers.items() if name != OF_RELATIVES}
    results = task_ranks(n, m, retrieving, partners, related(*family), classes)
    if shared.leakage is not None:
        identity = np.zeros(n, dtype=np.float32)
        sequences = pairs.items[:, 0]
        np.maximum.at(identity, pairs.items[:, column], shared.leakage.identity[sequences])
        for limit in IDENTITIES:
            results[f"clean_{100 * limit:.0f}"] = results["protein"].select(identity < limit)
    units = units_of(labels)
    return {
        "n_queries": n,
        "n_candidates": m,
        "tasks": {
            task: _figures(result, units, shared.resampling) for task, result in results.items()
        },
        "remote": {
            scheme: kinship_figures(scorers, kinship, partners, units, shared.resampling)
            for scheme, kinship in kinships.items()
        },
    }


def units_of(families: Labels) -> npt.NDArray[np.str_]:
    """Return (n,) units to resample: each item's family, the first if its entries have several."""
    return np.array([min(labels) for labels in families.of])


def _baselines(
    queries: RetrievalItems, candidates: RetrievalItems, family: Scorer
) -> dict[str, Scorer]:
    length = by_length(queries.lengths, candidates.lengths)
    return {
        "chance": by_chance(len(candidates.ids)),
        "family": family,
        "length": length,
        "family_and_length": by_family_and_length(family, length),
        "kmers": by_kmers(queries.chains, candidates.chains),
    }


def _figures(
    result: TaskRanks, units: npt.NDArray[Any], resampling: tuple[int, int]
) -> dict[str, Any]:
    """Return one task's part of the report."""
    figures: dict[str, Any] = {"n_queries": len(result.queries), "left_out": result.left_out}
    if len(result.queries):
        bootstrap = Bootstrap(units[result.queries], *resampling)
        for name, counts in result.counts.items():
            figures[name] = (
                _model_figures(counts.ranks(), bootstrap)
                if name == "model" or name in RESIDUE_SCORERS
                else _baseline_figures(counts, bootstrap)
            )
    return figures


def _model_figures(ranks: Int64, bootstrap: Bootstrap) -> dict[str, Any]:
    return {
        **{f"recall_at_{k}": bootstrap.mean((ranks <= k).astype(np.float64)) for k in KS},
        "mrr": bootstrap.mean(1.0 / ranks),
        "median_rank": bootstrap.median(ranks),
    }


def _baseline_figures(counts: RankCounts, bootstrap: Bootstrap) -> dict[str, Any]:
    return {
        **{f"recall_at_{k}": bootstrap.mean(expected_recall(counts, k)) for k in KS},
        "mrr": bootstrap.mean(expected_reciprocal_rank(counts)),
        "median_rank": {"value": median_rank(counts), "low": None, "high": None},
    }
