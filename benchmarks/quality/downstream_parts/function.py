"""Function: SCOPe class, fold and superfamily from one vector per protein."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.quality.downstream_parts.figures import Intervals, Metric, classified
from benchmarks.quality.downstream_parts.labels import Pool, scope_labels
from protalign import AlignedVectors
from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS

LEVELS = {"class": 1, "fold": 2, "superfamily": 3}
FOLDS, INNER_FOLDS = 5, 3
STRENGTHS = [1e1, 1e2, 1e3, 1e4]
COMPONENTS = 32


@dataclass(frozen=True, eq=False)
class Proteins:
    """A set of n proteins: one per cluster at 95 % identity, of the SCOPe classes that are kept."""

    ids: npt.NDArray[np.object_]
    labels: Int64
    clusters: Int64
    classes: int
    dropped: int

    @classmethod
    def of(cls, pool: Pool, level: int) -> Proteins:
        """Keep the proteins of the classes that are in at least as many clusters as folds."""
        labelled = pool.manifest[pool.manifest["scop40_hit"] != ""]
        table = labelled.drop_duplicates("c95").reset_index(drop=True)
        labels, kept, dropped = scope_labels(table, level, FOLDS)
        names, codes = np.unique(labels[kept].astype(str), return_inverse=True)
        clusters = np.unique(table["c30"][kept], return_inverse=True)[1]
        ids = table["entry"].to_numpy(dtype=object)[kept]
        return cls(ids, codes, clusters, len(names), dropped)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(n,) weights with which each cluster counts as one protein."""
        return 1 / np.bincount(self.clusters)[self.clusters]


def feature_sets(vectors: AlignedVectors, sequences: list[str]) -> dict[str, Float32]:
    """Return (n, d) features by name, rows as in ``vectors``."""
    assert vectors.sequence_mean is not None
    assert vectors.structure_mean is not None
    assert vectors.lengths is not None
    counts = [
        [sequence.count(letter) / len(sequence) for letter in AMINO_ACIDS] for sequence in sequences
    ]
    aligned = np.hstack([vectors.sequence, vectors.structure])
    means = np.hstack([vectors.sequence_mean, vectors.structure_mean])
    return {
        "composition and length": np.column_stack([counts, np.log(vectors.lengths)]),
        "aligned, sequence": vectors.sequence,
        "aligned, structure": vectors.structure,
        "aligned, both": aligned,
        "mean ESM2": vectors.sequence_mean,
        "mean ProteinMPNN": vectors.structure_mean,
        "mean, both": means,
        "aligned and mean, both": np.hstack([aligned, means]),
    }


def ridge(seed: int) -> Any:
    """Return ridge classification; an inner cross-validation over clusters sets its strength."""
    inner = StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    return GridSearchCV(
        make_pipeline(StandardScaler(), RidgeClassifier(class_weight="balanced")),
        {"ridgeclassifier__alpha": STRENGTHS},
        cv=inner,
        scoring="f1_macro",
    )


def boosting(seed: int, features: int) -> Any:
    """Return histogram gradient boosting, on principal components if there are many features."""
    trees = HistGradientBoostingClassifier(
        max_iter=30,
        learning_rate=0.15,
        max_leaf_nodes=15,
        class_weight="balanced",
        early_stopping=False,
        random_state=seed,
    )
    reduce = [PCA(COMPONENTS, random_state=seed)] if features > COMPONENTS else []
    return make_pipeline(StandardScaler(), *reduce, trees)


def predict(proteins: Proteins, X: Float32, model: str, seed: int) -> Int64:
    """Return (n,) classes, each predicted by a model that saw no protein of the same cluster."""
    predicted = np.zeros(len(proteins.ids), dtype=np.int64)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(X, proteins.labels, proteins.clusters):
        if model == "ridge":
            groups = {"groups": proteins.clusters[train]}
            fitted = ridge(seed).fit(X[train], proteins.labels[train], **groups)
        else:
            fitted = boosting(seed, X.shape[1]).fit(X[train], proteins.labels[train])
        predicted[test] = fitted.predict(X[test])
    return predicted


def evaluate(
    proteins: Proteins, sets: list[dict[str, Float32]], model: str, reference: str
) -> dict[str, Any]:
    """Return each feature set's figures and differences to ``reference``; a dict per seed."""
    intervals = Intervals(proteins.clusters, len(sets))
    predicted = {
        name: [predict(proteins, s[name], model, seed) for seed, s in enumerate(sets)]
        for name in sets[0]
    }
    f1 = intervals.compare({n: _metric(proteins, p, 0) for n, p in predicted.items()}, reference)
    return {
        name: {
            "macro_f1": f1[name],
            "accuracy": intervals.of(_metric(proteins, classes, 1)),
        }
        for name, classes in predicted.items()
    }


def _metric(proteins: Proteins, classes: list[Int64], which: int) -> Metric:
    weights = proteins.weights

    def metric(seed: int, rows: Int64) -> float:
        truth, predicted = proteins.labels[rows], classes[seed][rows]
        return classified(truth, predicted, weights[rows], proteins.classes)[which]

    return metric


def sequences_of(pool: Pool, ids: npt.NDArray[np.object_]) -> list[str]:
    """Return each protein's chains, joined."""
    return ["".join(pool.store.sequence(str(entry_id))) for entry_id in ids]


def summary(proteins: Proteins) -> dict[str, int]:
    """Return the numbers of proteins, clusters and classes."""
    return {
        "proteins": len(proteins.ids),
        "clusters": len(np.unique(proteins.clusters)),
        "classes": proteins.classes,
        "classes_dropped": proteins.dropped,
    }
