"""How much does a mutation destabilise? Differences of vectors in a scikit-learn pipeline.

    python examples/stability.py --out demo_stability

370 measured mutations (kcal/mol) of seven of the sample's proteins. Each mutant is embedded from
its sequence; its features are its vector minus the wild type's. A whole protein at
a time is held out: the question is what a model knows of a protein that nobody has mutated yet.
With seven proteins the answer is rough, and says so.
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

from protalign import EmbeddingStore, VectorLookup, read_vectors
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

    store = EmbeddingStore.open(make_store(out))  # the wild types are in the sample …
    fasta = out / "mutants.fasta"
    with fasta.open("w") as file:
        for protein, mutant in zip(proteins, mutants, strict=True):
            [sequence] = store.sequence(protein)
            file.write(f">{mutant}\n{mutated(sequence, mutant.split(':')[1])}\n")
    store = EmbeddingStore.open(make_store(out, fasta))  # … and now the mutants are there too
    vectors = make_vectors(out)

    sequences = ["".join(store.sequence(protein)) for protein in proteins]
    clusters = cluster(sequences, 0.3)
    print(f"\n{len(rows)} mutations of {len(clusters)} proteins ({clusters.method})")
    print("Each protein predicted from the others: Spearman's correlation, root mean square error")

    lengths = read_vectors(vectors).select(proteins).lengths[:, None]
    aligned, mean = (
        VectorLookup(vectors, features=name).transform(mutants)
        - VectorLookup(vectors, features=name).transform(proteins)
        for name in ("aligned", "mean")
    )
    # At the mutated residue itself, out of the store: what pooling averages away.
    places = [int(mutant.split(":")[1][1:-1]) - 1 for mutant in mutants]
    residue = store[mutants].embeddings_at(ENCODER, places).astype(np.float32)
    residue -= store[proteins].embeddings_at(ENCODER, places)
    features = {
        "aligned vectors": aligned,
        "mean embeddings": mean,
        "mean embeddings times length": mean * lengths,  # a change of one residue, undiluted
        "at the mutated residue": residue,
    }
    for name, X in features.items():
        # Every mutation is also one back: the same difference and the same effect, signs turned.
        model = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": [1.0, 100.0, 10000.0]},
            cv=GroupKFold(3),
            scoring="neg_mean_squared_error",
        )
        found = np.empty_like(ddg)
        for train, test in GroupKFold(len(clusters)).split(X, ddg, clusters.labels):
            both_ways = np.vstack([X[train], -X[train]]), np.concatenate([ddg[train], -ddg[train]])
            model.fit(*both_ways, groups=np.tile(clusters.labels[train], 2))
            found[test] = model.predict(X[test])
        rmse = np.sqrt(np.mean((found - ddg) ** 2))
        print(f"  {name:30s} {spearmanr(ddg, found).statistic:5.2f}   {rmse:.2f} kcal/mol")
    print(f"  {'no change at all, always 0':30s}         {np.sqrt(np.mean(ddg**2)):.2f} kcal/mol")
    print("\nNot much better than no change at all, or worse: six tell little of a seventh.")
    print("docs/downstream.md has the same on thousands of mutations, and what does better.")


def mutated(sequence: str, mutation: str) -> str:
    """The sequence with a mutation such as T98G in it."""
    wild, place, mutant = mutation[0], int(mutation[1:-1]) - 1, mutation[-1]
    assert sequence[place] == wild, f"{mutation}: there is {sequence[place]}"
    return sequence[:place] + mutant + sequence[place + 1 :]


if __name__ == "__main__":
    main()
