"""Retrieval figures with intervals, beside baselines and a leakage audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protalign.core.checks import check_between, check_whole
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.protein import DIRECTIONS, MODALITIES
from protalign.core.spread import check_scheduler, spread_over
from protalign.core.version import __version__
from protalign.core.words import ClusterMethod
from protalign.encoders.recorded import RecordedEncoders
from protalign.evaluation.aligned import aligned_scorers
from protalign.evaluation.bootstrap import LEVEL
from protalign.evaluation.cca import CCA
from protalign.evaluation.cropping import MAX_CROP, cropped
from protalign.evaluation.direction import Shared, direction_figures, units_of
from protalign.evaluation.labels import (
    check_labels,
    computed_families,
    families_of,
)
from protalign.evaluation.leakage import Leakage
from protalign.evaluation.register import ALIGNERS, register_figures
from protalign.evaluation.residues import MOST_PAIRS, RESIDUE_SCORERS
from protalign.evaluation.tasks import paired
from protalign.evaluation.test_set import chains_of, retrieval_items
from protalign.heads.inputs import means_of
from protalign.heads.model import Model, as_model
from protalign.heads.pairs import Pairs
from protalign.heads.training_record import TrainingRecord
from protalign.residues import ResidueStage
from protalign.splits.clusters import KMER_FALLBACK, method_in_words
from protalign.stores import Entries

#: The most pairs that CCA is fitted on; more would not change a covariance of 2,560 columns.
MAX_CCA_PAIRS = 50_000
#: Baseline -> what it knows.
BASELINES = {
    "chance": "a random order",
    "family": "knows the true family; random order within it",
    "length": "the nearest number of residues",
    "family_and_length": "knows the true family; the nearest number of residues within it",
    "kmers": "3-mers of the sequence; a structure's are read off it, which no encoder does: a "
    "ceiling by leakage",
    "mmseqs": "MMseqs2 -s 7.5 with the sequence; a structure's is read off it: what to use if the "
    "structures carry their sequences",
    "cca": "regularised CCA of mean-pooled embeddings, fitted on the training entries",
}


def evaluate(
    model: Any,
    test: Entries,
    *,
    train: Entries | None = None,
    families: Mapping[str, str] | None = None,
    scop: Mapping[str, str] | None = None,
    cath: Mapping[str, str] | None = None,
    crop: float | None = None,
    residues: bool | None = None,
    encoders: RecordedEncoders | None = None,
    n_bootstrap: int = 1000,
    random_state: int = 0,
    method: ClusterMethod = "auto",
    scheduler: str | None = None,
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
    cath : mapping, optional
        id -> CATH code such as "3.40.50.1260", likewise.
    crop : float, optional
        Cut a random share, at most this one, off each end of the queries' chains, and embed them
        again (``protalign.evaluation.cropping``): lengths, and ends that are missing in both
        modalities, no longer give a pair away. The candidates stay whole. Default: whole queries.
    residues : bool, optional
        Score all queries against all candidates by the model's residue stage as well. Default: if
        the model has one and there are at most ``MOST_PAIRS`` pairs of residues.
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
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers embed the cut
        queries of ``crop``. Default: this process.

    Returns
    -------
    dict
        JSON values:

        - "protalign_version", "store", "model" (weights_sha256, n_pairs, n_validation_pairs,
          validation: the pairs that chose the epoch)
        - "n_entries", "n_skipped" (of them, with a missing modality), "n_sequences",
          "n_structures"
        - "residues": how the residue stage was used, or why not
        - "crop": as given; "families": n, how, n_unlabelled (entries of unknown family);
          "intervals": level, resamples, units, random_state
        - "scorers": name -> what it does, of the residue stage; "baselines": name -> what it knows
        - "leakage": None, or how (the method of comparison), n_sequences, exact, at_95, at_30,
          n_training_sequences, n_training_pairs, pairs_agree (False if the model was trained on
          another number of pairs: then ``train`` is not its training set)
        - "sequence_to_structure", "structure_to_sequence": n_queries, n_candidates, and "tasks":
          task -> n_queries, left_out (alone, unlabelled, others), "model", each scorer of the
          residue stage and each baseline -> recall_at_1, recall_at_5, recall_at_10, mrr,
          median_rank, each of which is value, low, high (low and high are None without an
          interval: fewer than two units, or a baseline's median). Tasks: protein, family,
          within_family, scop_fold, scop_superfamily, scop_family (``protalign.evaluation.tasks``
          defines them), and clean_95, clean_30: "protein" for the queries with sequences that are
          not in training at that identity, among the same candidates. A task without queries has
          n_queries 0 and no figures. "remote" has, for "scop" and "cath" if given, each level's
          relatives without nearer ones (``protalign.evaluation.remote``): n_queries, left_out, and
          each scorer's recall_at_1, recall_at_5 and sensitivity.
        - "aligners": name -> what it does; "register": scheme -> level -> n_pairs, n_superposed,
          and each aligner's exact, near, exact_of_aligned and near_of_aligned: the residues of a
          sequence on a relative's structure that a structural alignment places alike
          (``protalign.evaluation.register``). Empty without labels, without the residue stage, and
          for cut queries.

    Raises
    ------
    InputError
        No entry has both modalities; ``test`` is not a store or a view of one; labels of other ids;
        no label of ``scop`` is an sccs, or none of ``cath`` a code; the model is not fitted;
        ``residues`` is True, and the model has no residue stage.
    ModelError
        The entries were embedded by other encoders than the model was fitted on, or its encoders'
        weights (needed for ``crop``) differ from those found.
    HomologyError
        MMseqs2 is missing or failed.
    StoreError
        No scheduler answers, or it has no workers.

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
    check_scheduler(scheduler)
    pairs = Pairs.of(model.inputs(test))
    classes = {n: c for n, c in (("scop", scop), ("cath", cath)) if c is not None}
    check_labels(test, families, classes)
    stage, residues_how = _residue_stage(model, pairs, residues)
    retrieval = model.retrieval_set(pairs)
    items = retrieval_items(test, pairs, (retrieval.sequence, retrieval.structure), stage)
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
    shared = Shared(families, classes, cca, leakage, (n_bootstrap, random_state))
    query_items = items
    if crop is not None:
        rng = np.random.default_rng(random_state)
        encoders = encoders or RecordedEncoders(model.encoders, device=str(model.device))
        with spread_over(scheduler) as spread:
            first, second = (
                cropped(whole, modality, test, model, encoders, crop, rng, spread)
                for whole, modality in zip(items, MODALITIES, strict=True)
            )
        query_items = first, second
    searched = method_in_words(method) != KMER_FALLBACK
    n_items = len(items[0].ids), len(items[1].ids)
    own = paired(pairs.items, *n_items), paired(pairs.items[:, ::-1], *n_items[::-1])
    aligned = aligned_scorers(stage, searched, query_items, items, own, cut=crop is not None)
    left_out = {"cca": cca is None, "mmseqs": not searched}
    register: dict[str, Any] = {}
    if stage is not None and crop is None:
        register = register_figures(
            test.store,
            items,
            own[0],
            classes,
            units_of(families_of(items[0].entries, families)),
            shared.resampling,
        )
    return {
        "protalign_version": __version__,
        "store": path_text(test.store.path),
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
            "n": len(set(units_of(families_of(items[0].entries, families)).tolist())),
            "how": how,
            "n_unlabelled": sum(not families.get(str(i)) for i in test.ids),
        },
        "intervals": {
            "level": LEVEL,
            "resamples": n_bootstrap,
            "units": "families",
            "random_state": random_state,
        },
        "residues": residues_how,
        "scorers": {k: v for k, v in RESIDUE_SCORERS.items() if k in aligned[0]},
        "baselines": {k: v for k, v in BASELINES.items() if not left_out.get(k)},
        "leakage": audit,
        **{
            direction: direction_figures(
                query_items[column], items[1 - column], pairs, column, aligned[column], shared
            )
            for column, direction in enumerate(DIRECTIONS)
        },
        "aligners": ALIGNERS if register else {},
        "register": register,
    }


def _residue_stage(
    model: Model, pairs: Pairs, residues: bool | None
) -> tuple[ResidueStage | None, str]:
    """Return the residue stage if it is to be used, and how or why not, in words."""
    stage = model.residue_stage
    if stage is None:
        if residues:
            raise InputError("residues: the model has no residue stage", "fit it again")
        return None, "left out: the model has no residue stage"
    if residues is False:
        return None, "left out, as asked"
    rows = [
        pairs.inputs.lengths(modality)[pairs.positions_of_items(column)].sum()
        for column, modality in enumerate(MODALITIES)
    ]
    n_pairs = float(rows[0]) * float(rows[1])
    if residues is None and n_pairs > MOST_PAIRS:
        return None, (
            f"left out: {n_pairs:.1e} pairs of residues would take long; ask for it, or evaluate a "
            "smaller part"
        )
    return stage, "all queries against all candidates"


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
