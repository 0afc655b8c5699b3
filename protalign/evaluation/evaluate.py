"""Retrieval measured honestly: figures with intervals, baselines beside them, a leakage audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.checks import check_between, check_whole
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES
from protalign.core.version import __version__
from protalign.encoders.recorded import RecordedEncoders
from protalign.evaluation.baselines import (
    Scorer,
    by_chance,
    by_cosine,
    by_family,
    by_family_and_length,
    by_kmers,
    by_length,
)
from protalign.evaluation.bootstrap import LEVEL, Bootstrap
from protalign.evaluation.cca import CCA
from protalign.evaluation.cropping import MAX_CROP, cropped
from protalign.evaluation.leakage import IDENTITIES, Leakage
from protalign.evaluation.ranking import Standing
from protalign.evaluation.tasks import Outcome, outcomes, paired, related
from protalign.evaluation.test_set import (
    SCOP_LEVELS,
    Labels,
    Side,
    chains_of,
    computed_families,
    families_of,
    scop_of,
    sides_of,
)
from protalign.heads.inputs import Inputs, means_of
from protalign.heads.model import Model, TrainingRecord, as_model
from protalign.heads.pairs import Pairs
from protalign.stores import Entries

#: Pairs that CCA is fitted on, at most; more would not change a covariance of 2,560 columns.
MAX_CCA_PAIRS = 50_000
#: k of Recall@k.
KS = (1, 5, 10)
DIRECTIONS = ("sequence_to_structure", "structure_to_sequence")
#: What each baseline knows.
BASELINES = {
    "chance": "a random order",
    "family": "the true family is told, the order within it is random",
    "length": "the nearest number of residues",
    "family_and_length": "the true family is told, the nearest number of residues within it",
    "kmers": "3-letter words; a structure's letters are read off it, which no encoder does: a "
    "ceiling by leakage",
    "cca": "regularised CCA of mean-pooled embeddings, fitted on the training entries",
}


def evaluate(
    model: Any,
    test: Entries,
    *,
    train: Entries | None = None,
    families: Mapping[str, str] | None = None,
    scop: Mapping[str, str] | None = None,
    crop: float | None = None,
    encoders: RecordedEncoders | None = None,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> dict[str, Any]:
    """Retrieval among a test set's unique sequences and structures, both ways.

    Entries that share an embedding are one query and one candidate; those that lack a modality are
    left out. A model's ties count as misses; a baseline's ties are resolved in expectation over
    their orders. What is known of one of the entries that share a sequence or a structure (family,
    SCOPe label) is known of it.

    Parameters
    ----------
    model : Model, ProtAlignEstimator, str or path
        Fitted on a store, or loaded; or the folder of a saved model.
    test : entries of a store; all their unique structures (sequences) are the candidates.
    train : the entries trained on: for the leakage audit, the figures on the part that is not in
        training, and CCA (fitted on ``MAX_CCA_PAIRS`` of them at most). None leaves these out.
    families : id -> family; an id that is missing, or has "", is a family of its own. None
        computes them: clusters of the sequences at 95 % identity.
    scop : id -> SCOPe sccs such as "b.1.1.1", several with commas or blanks between, ""
        where there is none. None leaves the graded figures out.
    crop : cut up to this part off each end of the queries' chains, at random, before they are
        embedded (``protalign.evaluation.cropping``): lengths, and ends that are missing in both, no longer
        give a pair away. The candidates stay whole. None leaves the queries whole.
    encoders : to embed the cut queries with; None loads the model's own, as they are found.
    n_bootstrap : resamples for the intervals (95 %, percentiles). Whole families are resampled,
        since siblings succeed and fail together (see ``protalign.evaluation.bootstrap``).
    random_state : of the resampling and of the cuts.

    Returns
    -------
    dict of JSON values:

    - "protalign_version", "store", "model" (weights_sha256, n_pairs, n_validation_pairs,
      validation: what chose the epoch)
    - "n_entries", "n_skipped" (of them, for lack of a modality), "n_sequences", "n_structures"
    - "crop": as given; "families": n, how, n_unlabelled (entries whose family is not known);
      "intervals": level, resamples, units, random_state
    - "baselines": name -> what it knows, of those that are there
    - "leakage": None, or how (what compared them), n_sequences, exact, at_95, at_30,
      n_training_sequences, n_training_pairs, pairs_agree (False where the model was trained on
      another number of pairs: then ``train`` is not what it was trained on)
    - "sequence_to_structure", "structure_to_sequence": n_queries, n_candidates, and "tasks": task
      -> n_queries, left_out (alone, unlabelled, others), "model" and each baseline ->
      recall_at_1, recall_at_5, recall_at_10, mrr, median_rank, each of which is value, low, high
      (low and high None where there is no interval: fewer than two units, or a baseline's median).
      Tasks: protein, family, within_family, scop_fold, scop_superfamily, scop_family
      (``protalign.evaluation.tasks`` defines them), and clean_95, clean_30: "protein" for the
      queries whose sequences are not in training at that identity, among the same candidates. A
      task that no query is left for has n_queries 0 and no figures.

    Raises
    ------
    InputError : no entry has both modalities; ``test`` is no store or view of one; labels of
        other ids; no label of ``scop`` is an sccs.
    NotFittedError : the estimator is not fitted.
    ModelError : the entries were embedded otherwise than the model's, or its encoders' weights
        (needed for ``crop``) are not those found.
    HomologyError : MMseqs2 fails.
    """
    if not isinstance(test, Entries):
        raise InputError("only a store's entries can be evaluated", "use retrieval_report")
    check_whole("n_bootstrap", n_bootstrap, 0)
    if crop is not None:
        check_between("crop", crop, 0, MAX_CROP)
    fitted = as_model(model)
    pairs = Pairs.of(fitted.inputs(test))
    retrieval = fitted.retrieval_set(pairs)
    sides = sides_of(test, pairs, (retrieval.sequence, retrieval.structure))
    _check_labels(test, families, scop)
    how = "given"
    if families is None:
        families, how = computed_families(test)
    trained = None if train is None else Pairs.of(fitted.inputs(train))
    leakage, cca = None, None
    if train is not None and trained is not None:
        seen = train.ids[trained.positions_of_items(0)].tolist()
        leakage = Leakage.of(sides[0].chains, chains_of(train, seen, "sequence"))
        cca = _fitted_cca(trained.inputs, trained.positions, random_state)
    known = _Known(families, scop, cca)
    resampling = (n_bootstrap, random_state)
    queries = sides
    if crop is not None:
        rng = np.random.default_rng(random_state)
        loaded = encoders or RecordedEncoders(fitted.encoders, device=str(fitted.device))
        first, second = (
            cropped(side, modality, test, fitted, loaded, crop, rng)
            for side, modality in zip(sides, MODALITIES, strict=True)
        )
        queries = first, second
    directions = [
        _direction(queries, sides, pairs.items, column, known, leakage, resampling)
        for column in (0, 1)
    ]
    n_families = len(set(_units(families_of(sides[0].entries, families)).tolist()))
    return {
        "protalign_version": __version__,
        "store": test.store.path,
        "model": {
            "weights_sha256": fitted.weights_sha256,
            "n_pairs": _record(fitted).n_pairs,
            "n_validation_pairs": _record(fitted).n_validation_pairs,
            "validation": _record(fitted).validation,
        },
        "n_entries": len(test),
        "n_skipped": pairs.n_skipped,
        "n_sequences": len(sides[0].ids),
        "n_structures": len(sides[1].ids),
        "crop": crop,
        "families": {
            "n": n_families,
            "how": how,
            "n_unlabelled": sum(not families.get(str(i)) for i in test.ids),
        },
        "intervals": {
            "level": LEVEL,
            "resamples": n_bootstrap,
            "units": "families",
            "random_state": random_state,
        },
        "baselines": {k: v for k, v in BASELINES.items() if k != "cca" or cca is not None},
        "leakage": None
        if leakage is None or trained is None
        else {**leakage.counts(), **_same_pairs(fitted, len(trained))},
        **dict(zip(DIRECTIONS, directions, strict=True)),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What is known about the test set beside its embeddings."""

    families: Mapping[str, str]
    scop: Mapping[str, str] | None
    cca: CCA | None


def _check_labels(
    test: Entries, families: Mapping[str, str] | None, scop: Mapping[str, str] | None
) -> None:
    ids = [str(i) for i in test.ids]
    for name, given in (("families", families), ("scop", scop)):
        if given is not None and not any(given.get(i) for i in ids):
            raise InputError(
                f"{name} names none of the entries", f"give labels of ids such as {ids[0]!r}"
            )
    if scop is not None and not any(scop_of([ids], scop, "fold").of):
        example = next(scop[i] for i in ids if scop.get(i))
        raise InputError(
            f"scop: no label is an sccs, such as b.1.1.1 ({example!r})", "name the column of them"
        )


def _fitted_cca(inputs: Inputs, positions: Int64, random_state: int) -> CCA:
    if len(positions) > MAX_CCA_PAIRS:
        rng = np.random.default_rng(random_state)
        positions = np.sort(rng.choice(positions, MAX_CCA_PAIRS, replace=False))
    left, right = (means_of(inputs, m, positions) for m in MODALITIES)
    return CCA.fit(left, right)


def _record(model: Model) -> TrainingRecord:
    if model.training_record is None:
        raise InputError("model: it is not trained", "fit it before it is evaluated")
    return model.training_record


def _same_pairs(model: Model, n_pairs: int) -> dict[str, Any]:
    """Compare the number of pairs with the model's, with or without its validation pairs."""
    record = _record(model)
    fitted = record.n_pairs, record.n_pairs + record.n_validation_pairs
    return {"n_training_pairs": n_pairs, "pairs_agree": n_pairs in fitted}


def _units(families: Labels) -> npt.NDArray[np.str_]:
    """(n,) what is resampled; the first family of an item whose entries have several."""
    return np.array([min(own) for own in families.of])


def _direction(
    asked: tuple[Side, Side],
    sides: tuple[Side, Side],
    pairs: Int64,
    column: int,
    known: _Known,
    leakage: Leakage | None,
    resampling: tuple[int, int],
) -> dict[str, Any]:
    """One direction's part of the report.

    Queries are ``asked[column]`` and candidates ``sides[1 - column]``; pairs have both columns.
    """
    queries, candidates = asked[column], sides[1 - column]
    n, m = len(queries.ids), len(candidates.ids)
    labels = families_of(queries.entries, known.families)
    family = labels.matrices(families_of(candidates.entries, known.families))
    scorers = {
        "model": by_cosine(queries.vectors, candidates.vectors),
        **_baselines(queries, candidates, by_family(*family)),
    }
    if known.cca is not None:
        scorers["cca"] = by_cosine(
            known.cca.project(queries.means, column),
            known.cca.project(candidates.means, 1 - column),
        )
    scop = {}
    for level in SCOP_LEVELS if known.scop is not None else ():
        own = scop_of(queries.entries, known.scop or {}, level)
        matrices = own.matrices(scop_of(candidates.entries, known.scop or {}, level))
        scop[level] = related(*matrices), np.array([bool(found) for found in own.of])
    partners = paired(pairs[:, [column, 1 - column]], n, m)
    found = outcomes(n, m, scorers, partners, related(*family), scop)
    if leakage is not None:
        identity = np.zeros(n, dtype=np.float32)
        np.maximum.at(identity, pairs[:, column], leakage.identity[pairs[:, 0]])
        for limit in IDENTITIES:
            found[f"clean_{100 * limit:.0f}"] = found["protein"].select(identity < limit)
    units = _units(labels)
    return {
        "n_queries": n,
        "n_candidates": m,
        "tasks": {task: _figures(outcome, units, resampling) for task, outcome in found.items()},
    }


def _baselines(queries: Side, candidates: Side, family: Scorer) -> dict[str, Scorer]:
    length = by_length(queries.lengths, candidates.lengths)
    return {
        "chance": by_chance(len(candidates.ids)),
        "family": family,
        "length": length,
        "family_and_length": by_family_and_length(family, length),
        "kmers": by_kmers(queries.chains, candidates.chains),
    }


def _figures(
    outcome: Outcome, units: npt.NDArray[Any], bootstrap: tuple[int, int]
) -> dict[str, Any]:
    """One task's part of the report."""
    report: dict[str, Any] = {"n_queries": len(outcome.queries), "left_out": outcome.left_out}
    if len(outcome.queries):
        resampling = Bootstrap(units[outcome.queries], *bootstrap)
        for name, standing in outcome.standings.items():
            report[name] = _of(standing, resampling, model=name == "model")
    return report


def _of(standing: Standing, resampling: Bootstrap, *, model: bool) -> dict[str, Any]:
    if model:
        standing = standing.ties_lost()
        median = resampling.median(1 + standing.above)
    else:
        median = {"value": standing.median_rank(), "low": None, "high": None}
    return {
        **{f"recall_at_{k}": resampling.mean(standing.recall_at(k)) for k in KS},
        "mrr": resampling.mean(standing.reciprocal_rank()),
        "median_rank": median,
    }
