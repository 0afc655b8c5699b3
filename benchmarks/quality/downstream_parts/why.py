"""Reasons why pooled vectors say little about a mutation: how much of its effect remains."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.quality.downstream_parts.mutations import LETTERS, Features, Mutations
from benchmarks.quality.downstream_parts.preparation import SEQUENCE
from protalign import AlignedVectors, EmbeddingStore
from protalign.core.arrays import Float32

#: The number of mutations, and the feature sets from which the new residue is predicted.
SAMPLE = 1500
DECODED = ("aligned, sequence", "mean ESM2", "mean ESM2 times length", "ESM2 at the residue")


def explain(
    mutations: Mutations, features: Features, mutants: EmbeddingStore, vectors: AlignedVectors
) -> dict[str, Any]:
    """Measure where a mutation changes embeddings, and how much of it a pooled vector keeps.

    - ``share_at_residue``: of the squared change of all residues' embeddings, the share at the
      mutated residue; median.
    - ``relative_change``: the distance from mutant to wild type, over the median distance between
      wild types of different clusters, for the residue's embedding and for pooled vectors; medians.
    - ``new_residue_read``: accuracy of a logistic regression that predicts the new amino acid from
      the differences, cross-validated by cluster; ``by_chance``: always the most common one.
    """
    rng = np.random.default_rng(0)
    subset = mutations[np.sort(rng.permutation(len(mutations))[:SAMPLE])]
    means = vectors.sequence_mean
    assert means is not None
    groups, letters = subset.cluster, subset.to_letter
    read = {
        name: float(
            cross_val_score(
                make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)),
                features.sets[name](subset),
                letters,
                groups=groups,
                cv=GroupKFold(5),
            ).mean()
        )
        for name in DECODED
    }
    most = np.bincount(letters, minlength=len(LETTERS)).max() / len(letters)
    return {
        "mutations": len(subset),
        "share_at_residue": _share_at_residue(subset, mutants),
        "relative_change": {
            "aligned, sequence": _relative(vectors.sequence, subset),
            "mean ESM2": _relative(means, subset),
            "ESM2 at the residue": _relative_at_residue(subset, features),
        },
        "new_residue_read": read,
        "by_chance": float(most),
    }


def _share_at_residue(m: Mutations, mutants: EmbeddingStore) -> float:
    shares = []
    for wild, mutant, position in zip(m.wild, m.mutant, m.position, strict=True):
        both = mutants.embeddings(SEQUENCE, np.array([wild, mutant]))
        change = np.square(both[1] - both[0]).sum(axis=1)
        shares.append(change[position] / change.sum())
    return float(np.median(shares))


def _relative(vectors: Float32, m: Mutations) -> float:
    change = np.linalg.norm(vectors[m.mutant] - vectors[m.wild], axis=1)
    return float(np.median(change) / _between(vectors[m.wild], m))


def _relative_at_residue(m: Mutations, features: Features) -> float:
    change = np.linalg.norm(features.sets["ESM2 at the residue"](m), axis=1)
    wild = features.wild_residues(m)
    return float(np.median(change) / _between(wild, m))


def _between(vectors: Float32, m: Mutations) -> float:
    """Return the median distance between wild types of different clusters."""
    _, first = np.unique(m.cluster, return_index=True)
    some = vectors[first]
    distances = np.linalg.norm(some[:, None] - some[None], axis=2)
    return float(np.median(distances[np.triu_indices(len(some), 1)]))
