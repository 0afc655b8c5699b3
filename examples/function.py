"""Which fold class is a protein of? Exported vectors in a scikit-learn pipeline, judged fairly.

    python examples/function.py --out demo_function

40 chains of the sample, with the first letter of their SCOPe family (a: all alpha, b: all beta,
c: alpha/beta, d: alpha+beta, g: small) as the label. The lesson is not the score, for which 40
chains are far too few, but how to get an honest one: most chains are near-identical mutants of
another, and a model that has seen one knows the other. Whole clusters go to one side.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from vectors_of_sample import HERE, make_store, make_vectors

from protalign import EmbeddingStore, VectorLookup
from protalign.splits.clusters import cluster


def main() -> None:
    """Make the vectors, then compare three ways to predict under two ways to split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo_function"))
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)
    store = EmbeddingStore.open(make_store(out))
    vectors = make_vectors(out)

    with (HERE / "labels" / "scope.csv").open() as file:
        scope = {row["id"]: row["scope"] for row in csv.DictReader(file)}
    ids = np.array(sorted(scope))
    labels = np.array([scope[entry_id][0] for entry_id in ids])

    # Proteins that share 30 % of their sequence are one group, and never on both sides.
    clusters = cluster(["".join(store.sequence(entry_id)) for entry_id in ids], 0.3)
    print(f"\n{len(ids)} chains in {len(clusters)} clusters ({clusters.method})")

    # A pipeline takes ids as X. Which vectors are best, and how strong the penalty, is for the
    # training part to say: the grid is searched inside each fold, by clusters again.
    pipeline = make_pipeline(
        VectorLookup(vectors),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    grid = {
        "vectorlookup__output": ["sequence", "structure", "both"],
        "vectorlookup__features": ["aligned", "mean"],
        "logisticregression__C": [0.01, 1.0],
    }
    models = {
        "most common class": DummyClassifier(),
        "aligned sequence vectors": pipeline,
        "tuned by clusters": GridSearchCV(pipeline, grid, cv=GroupKFold(3), scoring="accuracy"),
    }
    groups = clusters.labels
    splits = {
        "chains at random (misleading)": KFold(5, shuffle=True, random_state=0).split(ids),
        "whole clusters": GroupKFold(5, shuffle=True, random_state=0).split(ids, groups=groups),
    }
    for split_name, split in splits.items():
        print(f"\nTest parts: {split_name}")
        folds = list(split)
        for name, model in models.items():
            found = np.empty_like(labels)
            for train, test in folds:
                known = {"groups": groups[train]} if isinstance(model, GridSearchCV) else {}
                found[test] = model.fit(ids[train], labels[train], **known).predict(ids[test])
            accuracy = accuracy_score(labels, found)
            f1 = f1_score(labels, found, average="macro", zero_division=0)
            print(f"  {name:26s} accuracy {accuracy:.2f}   macro-F1 {f1:.2f}")
    print(
        "\nThe first split flatters: a mutant's sibling gives it away. The second is what a new\n"
        "protein would see: 40 chains are too few to do better than guess the most common class,\n"
        "and their figures move by 0.1 and more with the folds.\n"
        "docs/downstream.md has the same on a thousand proteins."
    )


if __name__ == "__main__":
    main()
