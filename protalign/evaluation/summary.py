"""Retrieval figures of a model in one dictionary, without baselines or intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protalign.heads.model import as_model
from protalign.heads.ranks import RetrievalSet, chance_recall, mean_reciprocal_rank, recall_at_k


def retrieval_report(model: Any, X: Any) -> dict[str, Any]:
    """Return both directions' retrieval figures for the entries of X that have both modalities.

    Queries and candidates are X's unique sequences and unique structures, so that entries which
    share one embedding do not compete with each other. A sequence that several entries pair with
    different structures is one query, and any of those structures answers it.

    Parameters
    ----------
    model : Model, fitted ProtAlignEstimator, or path of a saved model
        The model to measure.
    X : EmbeddingStore, StoreView, list of pairs, 2-D array, or Inputs
        The entries; see ``Model.inputs``.

    Returns
    -------
    dict
        n_queries and n_candidates (of sequence to structure), and, under "sequence_to_structure"
        and "structure_to_sequence", the figures of ``retrieval_figures``.

    Raises
    ------
    InputError
        No entry has both modalities, or ``model`` is not fitted.
    ModelError
        The entries were embedded by other encoders than the model was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> from protalign.heads.losses import ContrastiveLoss
    >>> from protalign.heads.model import Model
    >>> model = Model({"sequence": 3, "structure": 3}, ContrastiveLoss("clip"), embed_dim=4)
    >>> report = retrieval_report(model, np.random.default_rng(0).normal(size=(20, 6)))
    >>> report["n_queries"], report["n_candidates"]
    (20, 20)
    """
    retrieval = as_model(model).retrieval_set(X)
    forward = retrieval_figures(retrieval)
    return {
        "n_queries": forward["n_queries"],
        "n_candidates": forward["n_candidates"],
        "sequence_to_structure": forward,
        "structure_to_sequence": retrieval_figures(retrieval.reverse()),
    }


def retrieval_figures(retrieval: RetrievalSet, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Any]:
    """Return one direction's figures; the queries are ``retrieval.sequence``.

    Parameters
    ----------
    retrieval : RetrievalSet
        The vectors and their pairs.
    ks : sequence of int
        The k of each Recall@k.

    Returns
    -------
    dict
        n_queries, n_candidates, recall_at_{k}, mrr, median_rank, chance_recall_at_{k}.
    """
    ranks = retrieval.ranks()
    n_candidates = len(retrieval.structure)
    n_partners = np.bincount(retrieval.pairs[:, 0], minlength=len(ranks))
    return {
        "n_queries": len(ranks),
        "n_candidates": n_candidates,
        **{f"recall_at_{k}": recall_at_k(ranks, k) for k in ks},
        "mrr": mean_reciprocal_rank(ranks),
        "median_rank": float(np.median(ranks)),
        **{f"chance_recall_at_{k}": chance_recall(n_candidates, n_partners, k) for k in ks},
    }
