"""Predict how much a mutation destabilises: vector differences in a scikit-learn pipeline.

    python examples/stability.py --out demo_stability

The data are 370 measured mutations (kcal/mol) of seven of the sample's proteins. Each mutant is
embedded from its sequence; its features are its vector minus the wild type's. One whole protein at
a time is held out, to test a model on a protein without any known mutation. Seven proteins give
only a rough answer.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from vectors_of_sample import ENCODER, HERE, make_store, make_vectors

from protalign import VectorLookup, read_vectors
from protalign.splits.clusters import cluster


def main() -> None:
    """Make the vectors of wild types and mutants, then predict each protein from the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo_stability"))
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)

    with (HERE / "labels" / "stability.csv").open() as file:
        rows = list(csv.DictReader(file))
    proteins = np.array([row["protein"] for row in rows])
    mutants = np.array([f"{row['protein']}:{row['mutation']}" for row in rows])
    ddg = np.array([float(row["ddg"]) for row in rows])

    store = make_store(out)  # the wild types
    fasta = out / "mutants.fasta"
    with fasta.open("w") as file:
        for protein, mutant in zip(proteins, mutants, strict=True):
            [sequence] = store.sequence(protein)
            file.write(f">{mutant}\n{mutated(sequence, mutant.split(':')[1])}\n")
    store = make_store(out, fasta)  # the wild types and the mutants
    vectors = make_vectors(store, out)

    sequences = ["".join(store.sequence(protein)) for protein in proteins]
    clusters = cluster(sequences, 0.3)
    print(f"\n{len(rows)} mutations of {len(clusters)} proteins ({clusters.method})")
    print("Each protein, predicted from the others: Spearman correlation, root mean square error")

    lengths = read_vectors(vectors).select(proteins).lengths[:, None]
    aligned, mean = (
        VectorLookup(vectors, features=name).transform(mutants)
        - VectorLookup(vectors, features=name).transform(proteins)
        for name in ("aligned", "mean")
    )
    # The embedding of the mutated residue, from the store: pooling averages its change away.
    positions = [int(mutant.split(":")[1][1:-1]) - 1 for mutant in mutants]
    residue = store[mutants].embeddings_at(ENCODER, positions).astype(np.float32)
    residue -= store[proteins].embeddings_at(ENCODER, positions)
    features = {
        "aligned vectors": aligned,
        "mean embeddings": mean,
        "mean embeddings times length": mean * lengths,  # a change of one residue, undiluted
        "at the mutated residue": residue,
    }
    for name, X in features.items():
        # Each mutation is trained on in both directions: back, all signs are reversed.
        model = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": [1.0, 100.0, 10000.0]},
            cv=GroupKFold(3),
            scoring="neg_mean_squared_error",
        )
        predicted = np.empty_like(ddg)
        for train, test in GroupKFold(len(clusters)).split(X, ddg, clusters.labels):
            both_ways = np.vstack([X[train], -X[train]]), np.concatenate([ddg[train], -ddg[train]])
            model.fit(*both_ways, groups=np.tile(clusters.labels[train], 2))
            predicted[test] = model.predict(X[test])
        rmse = np.sqrt(np.mean((predicted - ddg) ** 2))
        print(f"  {name:30s} {spearmanr(ddg, predicted).statistic:5.2f}   {rmse:.2f} kcal/mol")
    print(f"  {'no change at all, always 0':30s}         {np.sqrt(np.mean(ddg**2)):.2f} kcal/mol")
    print("\nNot much better than to predict no change, or worse: six proteins are too few to")
    print("predict a seventh. docs/downstream.md shows thousands of mutations, and what is better.")


def mutated(sequence: str, mutation: str) -> str:
    """Return the sequence with a mutation such as T98G."""
    wild, position, mutant = mutation[0], int(mutation[1:-1]) - 1, mutation[-1]
    if sequence[position] != wild:
        raise ValueError(f"{mutation}: the residue is {sequence[position]}, not {wild}")
    return sequence[:position] + mutant + sequence[position + 1 :]


if __name__ == "__main__":
    main()
