"""Retrieval figures with intervals, beside baselines and a leakage audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.checks import check_between, check_whole
from protalign.core.errors import InputError
from protalign.core.protein import DIRECTIONS, MODALITIES
from protalign.core.version import __version__
from protalign.core.words import ClusterMethod
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
from protalign.evaluation.labels import (
    SCOP_LEVELS,
    Labels,
    computed_families,
    families_of,
    scop_of,
)
from protalign.evaluation.leakage import IDENTITIES, Leakage
from protalign.evaluation.ranking import expected_recall, expected_reciprocal_rank, median_rank
from protalign.evaluation.tasks import TaskRanks, paired, related, task_ranks
from protalign.evaluation.test_set import RetrievalItems, chains_of, retrieval_items
from protalign.heads.inputs import means_of
from protalign.heads.model import TrainingRecord, as_model
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import RankCounts
from protalign.stores import Entries

#: The most pairs that CCA is fitted on; more would not change a covariance of 2,560 columns.
MAX_CCA_PAIRS = 50_000
#: k of Recall@k.
KS = (1, 5, 10)
#: Baseline -> what it knows.
BASELINES = {
    "chance": "a random order",
    "family": "knows the true family; random order within it",
    "length": "the nearest number of residues",
    "family_and_length": "knows the true family; the nearest number of residues within it",
    "kmers": "3-mers of the sequence; a structure's are read off it, which no encoder does: a "
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
    method: ClusterMethod = "auto",
) -> dict[str, Any]:
    """Measure retrieval among a test set's unique sequences and structures, in both directions.

    Entries that share an embedding are one query and one candidate; entries with a missing modality
    are left out. A model's ties count as misses; a baseline's ties are resolved in expectation over
    their orders. What is known of one of the entries that share a sequence or a structure (family,
    SCOPe label) is known of it.

    Parameters
    ----------
    model : Model, fitted ProtAlignEstimator, or path of a saved model
        The model to evaluate.
    test : EmbeddingStore or StoreView
        The test entries; all their unique structures (sequences) are the candidates.
    train : EmbeddingStore or StoreView, optional
        The training entries: for the leakage audit, for the figures of queries that are not in
        training, and for CCA (fitted on at most ``MAX_CCA_PAIRS`` of them). Without them these
        parts are left out.
    families : mapping, optional
        id -> family; an id that is missing, or has "", is a family of its own. Default: clusters of
        the sequences at 95 % identity.
    scop : mapping, optional
        id -> SCOPe sccs such as "b.1.1.1", several with commas or blanks between them, "" if it has
        none. Without it the SCOPe tasks are left out.
    crop : float, optional
        Cut a random share, at most this one, off each end of the queries' chains, and embed them
        again (``protalign.evaluation.cropping``): lengths, and ends that are missing in both
        modalities, no longer give a pair away. The candidates stay whole. Default: whole queries.
    encoders : RecordedEncoders, optional
        The encoders of the cut queries; default: the model's own.
    n_bootstrap : int
        Resamples for the intervals (95 %, percentiles). Whole families are resampled, since their
        members succeed and fail together (see ``protalign.evaluation.bootstrap``).
    random_state : int
        Random seed for bootstrap and cropping.
    method : "auto", "mmseqs" or "kmer"
        The comparison of sequences, for the families and the leakage audit; see
        ``protalign.splits.clusters.cluster``.

    Returns
    -------
    dict
        JSON values:

        - "protalign_version", "store", "model" (weights_sha256, n_pairs, n_validation_pairs,
          validation: the pairs that chose the epoch)
        - "n_entries", "n_skipped" (of them, with a missing modality), "n_sequences",
          "n_structures"
        - "crop": as given; "families": n, how, n_unlabelled (entries of unknown family);
          "intervals": level, resamples, units, random_state
        - "baselines": name -> what it knows
        - "leakage": None, or how (the method of comparison), n_sequences, exact, at_95, at_30,
          n_training_sequences, n_training_pairs, pairs_agree (False if the model was trained on
          another number of pairs: then ``train`` is not its training set)
        - "sequence_to_structure", "structure_to_sequence": n_queries, n_candidates, and "tasks":
          task -> n_queries, left_out (alone, unlabelled, others), "model" and each baseline ->
          recall_at_1, recall_at_5, recall_at_10, mrr, median_rank, each of which is value, low,
          high (low and high are None without an interval: fewer than two units, or a baseline's
          median). Tasks: protein, family, within_family, scop_fold, scop_superfamily, scop_family
          (``protalign.evaluation.tasks`` defines them), and clean_95, clean_30: "protein" for the
          queries with sequences that are not in training at that identity, among the same
          candidates. A task without queries has n_queries 0 and no figures.

    Raises
    ------
    InputError
        No entry has both modalities; ``test`` is not a store or a view of one; labels of other ids;
        no label of ``scop`` is an sccs; the model is not fitted.
    ModelError
        The entries were embedded by other encoders than the model was fitted on, or its encoders'
        weights (needed for ``crop``) differ from those found.
    HomologyError
        MMseqs2 is missing or failed.

    Examples
    --------
    >>> from protalign import EmbeddingStore, evaluate
    >>> store = EmbeddingStore.open("store.zarr")  # doctest: +SKIP
    >>> report = evaluate("model/", store, n_bootstrap=100)  # doctest: +SKIP
    >>> report["sequence_to_structure"]["tasks"]["protein"]["model"]["mrr"]  # doctest: +SKIP
    {'value': 0.367, 'low': 0.31, 'high': 0.43}
    """
    if not isinstance(test, Entries):
        raise InputError(
            f"test: a {type(test).__name__}, not a store's entries", "use retrieval_report"
        )
    check_whole("n_bootstrap", n_bootstrap, 0)
    if crop is not None:
        check_between("crop", crop, 0, MAX_CROP)
    model = as_model(model)
    record = model.training_record
    if record is None:
        raise InputError("model: it is not trained", "fit it first")
    pairs = Pairs.of(model.inputs(test))
    retrieval = model.retrieval_set(pairs)
    items = retrieval_items(test, pairs, (retrieval.sequence, retrieval.structure))
    _check_labels(test, families, scop)
    how = "given"
    if families is None:
        families, how = computed_families(test, method)
    leakage, audit, cca = None, None, None
    if train is not None:
        trained = Pairs.of(model.inputs(train))
        ids = train.ids[trained.positions_of_items(0)].tolist()
        leakage = Leakage.of(items[0].chains, chains_of(train, ids, "sequence"), method)
        audit = {**leakage.counts(), **_same_pairs(record, len(trained))}
        cca = _fitted_cca(trained, random_state)
    context = _Context(families, scop, cca, leakage, (n_bootstrap, random_state))
    query_items = items
    if crop is not None:
        rng = np.random.default_rng(random_state)
        encoders = encoders or RecordedEncoders(model.encoders, device=str(model.device))
        first, second = (
            cropped(whole, modality, test, model, encoders, crop, rng)
            for whole, modality in zip(items, MODALITIES, strict=True)
        )
        query_items = first, second
    return {
        "protalign_version": __version__,
        "store": test.store.path,
        "model": {
            "weights_sha256": model.weights_sha256,
            "n_pairs": record.n_pairs,
            "n_validation_pairs": record.n_validation_pairs,
            "validation": record.validation,
        },
        "n_entries": len(test),
        "n_skipped": pairs.n_skipped,
        "n_sequences": len(items[0].ids),
        "n_structures": len(items[1].ids),
        "crop": crop,
        "families": {
            "n": len(set(_units(families_of(items[0].entries, families)).tolist())),
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
        "leakage": audit,
        **{
            direction: _direction(query_items[column], items[1 - column], pairs, column, context)
            for column, direction in enumerate(DIRECTIONS)
        },
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Context:
    """Labels, the fitted CCA, the audit and the bootstrap settings, which both directions share."""

    families: Mapping[str, str]
    scop: Mapping[str, str] | None
    cca: CCA | None
    leakage: Leakage | None
    resampling: tuple[int, int]


def _check_labels(
    test: Entries, families: Mapping[str, str] | None, scop: Mapping[str, str] | None
) -> None:
    ids = [str(i) for i in test.ids]
    for name, labels in (("families", families), ("scop", scop)):
        if labels is not None and not any(labels.get(i) for i in ids):
            raise InputError(
                f"{name}: names none of the entries", f"give labels of ids such as {ids[0]!r}"
            )
    if scop is not None and not any(scop_of([ids], scop, "fold").of):
        example = next(scop[i] for i in ids if scop.get(i))
        raise InputError(
            f"scop: no label is an sccs such as b.1.1.1 ({example!r})",
            "name the column of sccs",
        )


def _fitted_cca(trained: Pairs, random_state: int) -> CCA:
    positions = trained.positions
    if len(positions) > MAX_CCA_PAIRS:
        rng = np.random.default_rng(random_state)
        positions = np.sort(rng.choice(positions, MAX_CCA_PAIRS, replace=False))
    left, right = (means_of(trained.inputs, modality, positions) for modality in MODALITIES)
    return CCA.fit(left, right)


def _same_pairs(record: TrainingRecord, n_pairs: int) -> dict[str, Any]:
    """Compare the number of training pairs with the model's, validation pairs in or out."""
    fitted = record.n_pairs, record.n_pairs + record.n_validation_pairs
    return {"n_training_pairs": n_pairs, "pairs_agree": n_pairs in fitted}


def _units(families: Labels) -> npt.NDArray[np.str_]:
    """Return (n,) units to resample: each item's family, the first if its entries have several."""
    return np.array([min(labels) for labels in families.of])


def _direction(
    queries: RetrievalItems,
    candidates: RetrievalItems,
    pairs: Pairs,
    column: int,
    context: _Context,
) -> dict[str, Any]:
    """Return one direction's part of the report; ``column`` is that of the queries in the pairs."""
    n, m = len(queries.ids), len(candidates.ids)
    labels = families_of(queries.entries, context.families)
    family = labels.matrices(families_of(candidates.entries, context.families))
    scorers = {
        "model": by_cosine(queries.vectors, candidates.vectors),
        **_baselines(queries, candidates, by_family(*family)),
    }
    if context.cca is not None:
        scorers["cca"] = by_cosine(
            context.cca.project(queries.means, column),
            context.cca.project(candidates.means, 1 - column),
        )
    scop = {}
    for level in SCOP_LEVELS if context.scop is not None else ():
        query_labels = scop_of(queries.entries, context.scop or {}, level)
        matrices = query_labels.matrices(scop_of(candidates.entries, context.scop or {}, level))
        scop[level] = related(*matrices), np.array([bool(names) for names in query_labels.of])
    partners = paired(pairs.items[:, [column, 1 - column]], n, m)
    results = task_ranks(n, m, scorers, partners, related(*family), scop)
    if context.leakage is not None:
        identity = np.zeros(n, dtype=np.float32)
        sequences = pairs.items[:, 0]
        np.maximum.at(identity, pairs.items[:, column], context.leakage.identity[sequences])
        for limit in IDENTITIES:
            results[f"clean_{100 * limit:.0f}"] = results["protein"].select(identity < limit)
    units = _units(labels)
    return {
        "n_queries": n,
        "n_candidates": m,
        "tasks": {
            task: _figures(result, units, context.resampling) for task, result in results.items()
        },
    }


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
                if name == "model"
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
