"""Why pooled vectors say little of a mutation: how much of its trace pooling keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.quality.downstream_parts.mutations import LETTERS, Features, Mutations
from benchmarks.quality.downstream_parts.preparation import SEQUENCE
from protalign import AlignedVectors, EmbeddingStore

Float32 = npt.NDArray[np.float32]

#: Mutations looked at, and the feature sets that the new residue is read from.
SAMPLE = 1500
DECODED = ("aligned, sequence", "mean ESM2", "mean ESM2 times length", "ESM2 at the residue")


def explain(
    mutations: Mutations, features: Features, mutants: EmbeddingStore, vectors: AlignedVectors
) -> dict[str, Any]:
    """Where a mutation's change is, how large it is in a pooled vector, what can be read from it.

    - ``share_at_residue``: of the squared change of all residues' embeddings, the part that is at
      the mutated residue; median.
    - ``relative_change``: the distance from mutant to wild type, over the median distance between
      wild types of different clusters, for the residue's embedding and for pooled vectors; medians.
    - ``new_residue_read``: accuracy of a logistic regression that reads which amino acid came in
      out of the differences, cross-validated by cluster; ``by_chance``: always the most common.
    """
    rng = np.random.default_rng(0)
    chosen = mutations[np.sort(rng.permutation(len(mutations))[:SAMPLE])]
    means = vectors.sequence_mean
    assert means is not None
    groups, letters = chosen.cluster, chosen.to_letter
    read = {
        name: float(
            cross_val_score(
                make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)),
                features.sets[name](chosen),
                letters,
                groups=groups,
                cv=GroupKFold(5),
            ).mean()
        )
        for name in DECODED
    }
    most = np.bincount(letters, minlength=len(LETTERS)).max() / len(letters)
    return {
        "mutations": len(chosen),
        "share_at_residue": _share_at_residue(chosen, mutants),
        "relative_change": {
            "aligned, sequence": _relative(vectors.sequence, chosen),
            "mean ESM2": _relative(means, chosen),
            "ESM2 at the residue": _relative_at_residue(chosen, features),
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
    """Median distance between one wild type of a cluster and one of another."""
    _, first = np.unique(m.cluster, return_index=True)
    some = vectors[first]
    distances = np.linalg.norm(some[:, None] - some[None], axis=2)
    return float(np.median(distances[np.triu_indices(len(some), 1)]))
