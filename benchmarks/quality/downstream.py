"""Exported vectors in scikit-learn: function and stability, with several sets of features.

    python benchmarks/quality/downstream.py --work /somewhere/with/10/GB
    python benchmarks/quality/downstream.py --work … --parts function --seeds 2    # a part of it

Reads ../shared/data and ../shared/weights. In --work it makes, and keeps for the next run, the
stores of all structures (about ten minutes on two cores) and of all mutants (about as long), the
aligned heads of each seed, and the vectors exported with them. The parts are

- function: SCOPe class, fold and superfamily (of a protein at least 40 % identical) of one protein
  per cluster at 95 % identity; 5-fold cross-validation, with each cluster at 30 % identity in one
  fold; a class counts if it is in 5 clusters or more, and each cluster counts as one protein.
- stability: change of melting temperature and of free energy on mutation. S8754, S4346 and
  Kortemme's curated ProTherm are cross-validated by cluster of the wild type at 30 % identity;
  S669, S571 and Ssym are predicted by models of S8754 or S4346, trained without the clusters of the
  test set. Ssym is cross-validated too: each of its mutants has a structure.
- why: how much of a mutation's effect pooling keeps.

All features get the same folds and models; each seed has other folds and other aligned heads. It
prints the table and writes all figures to --out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.quality.downstream_parts import function, stability, why
from benchmarks.quality.downstream_parts.labels import Pool, geostab, protherm, ssym
from benchmarks.quality.downstream_parts.log_odds import log_probabilities
from benchmarks.quality.downstream_parts.mutations import Features, Mutations, Placing
from benchmarks.quality.downstream_parts.preferences import preferences
from benchmarks.quality.downstream_parts.preparation import Work, sequences_of
from benchmarks.quality.downstream_parts.stability import Task
from benchmarks.shared.measuring import MACHINE, ROOT
from protalign.splits.clusters import cluster

PARTS = ("function", "stability", "why")
MODELS = ("ridge", "boosting")
REFERENCE = {"function": "mean ESM2", "stability": "mean ESM2"}


def main() -> None:
    options = parse()
    start = time.perf_counter()
    options.work.mkdir(parents=True, exist_ok=True)
    work = Work(options.shared.resolve(), options.work.resolve())
    report: dict[str, Any] = {
        "seeds": options.seeds,
        "machine": MACHINE,
        "scikit_learn": sklearn.__version__,
    }
    pool = work.pool()
    models = [work.model(pool, seed) for seed in range(options.seeds)]
    vectors = [work.vectors(pool.store, model, seed) for seed, model in enumerate(models)]
    say(start, "stores, heads and vectors of the proteins are ready")
    if "function" in options.parts:
        report["function"] = of_function(pool, vectors, options, start)
    if {"stability", "why"} & set(options.parts):
        tasks, features, mutants, mutant_vectors = of_mutations(work, pool, models, vectors)
        say(start, "stores, vectors and log-odds of the mutants are ready")
        if "why" in options.parts:
            report["why"] = why.explain(tasks[0].test, features[0], mutants, mutant_vectors)
            say(start, json.dumps(report["why"], indent=2))
        if "stability" in options.parts:
            report["stability"] = of_stability(tasks, features, options, start)
    report["seconds"] = round(time.perf_counter() - start)
    write(options.out, report)
    say(start, f"figures in {options.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the results")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "downstream.json"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--boosting-seeds", type=int, default=5, help="boosting is slow")
    return parser.parse_args()


def write(path: Path, report: dict[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n")


def say(start: float, line: str) -> None:
    print(f"[{time.perf_counter() - start:6.0f} s] {line}", flush=True)


def of_function(
    pool: Pool, vectors: list[Any], options: argparse.Namespace, start: float
) -> dict[str, Any]:
    """Evaluate each level of SCOPe with each model."""
    report: dict[str, Any] = {}
    for name, level in function.LEVELS.items():
        proteins = function.Proteins.of(pool, level)
        sequences = function.sequences_of(pool, proteins.ids)
        sets = [function.feature_sets(v.select(proteins.ids), sequences) for v in vectors]
        report[name] = function.summary(proteins)
        for model in options.models:
            seeds = len(sets) if model == "ridge" else options.boosting_seeds
            figures = function.evaluate(proteins, sets[:seeds], model, REFERENCE["function"])
            report[name][model] = figures
            say(start, f"SCOPe {name}, {model}: {function.summary(proteins)}")
            show(figures, ["macro_f1", "accuracy"])
    return report


def of_mutations(
    work: Work, pool: Pool, models: list[Any], vectors: list[Any]
) -> tuple[list[Task], list[Features], Any, Any]:
    """Return tasks, features by seed, the store of sequences, and its vectors by the first seed."""
    labels = work.shared / "data" / "labels"
    tables = {
        name: geostab(labels / f"geostab_{name}.csv", pool)
        for name in ("S8754", "S4346", "S669", "S571")
    }
    tables["Ssym"] = ssym(labels / "geostab_Ssym.csv", tables["S8754"], pool)
    tables["ProTherm"] = protherm(labels / "kortemme_curatedprotherm.csv", pool)
    mutants = work.mutants(sequences_of(tables.values()))
    wild = sorted({sequence for table in tables.values() for sequence in table["wild"]})
    clusters = dict(zip(wild, cluster(wild, 0.3).labels.tolist(), strict=True))
    place = Placing(mutants, pool.store)
    sets = {name: place(table, clusters) for name, table in tables.items()}
    places = {pair for mutations in sets.values() for pair in _places(mutations)}
    decoder = log_probabilities(
        pool.store,
        places,
        work.shared / "weights" / "proteinmpnn_v_48_020.pt",
        work.folder / "log_probabilities.npz",
    )
    known = preferences(pool, places)
    of_mutants = [work.vectors(mutants, model, seed) for seed, model in enumerate(models)]
    features = [
        Features(mutants, pool.store, sequences, structures, decoder, known)
        for sequences, structures in zip(of_mutants, vectors, strict=True)
    ]
    return _tasks(sets), features, mutants, of_mutants[0]


def _places(m: Mutations) -> set[tuple[int, int]]:
    sides = [(m.wild_structure, m.wild_row), (m.mutant_structure, m.mutant_row)]
    pairs = [pair for s, r in sides for pair in zip(s.tolist(), r.tolist(), strict=True)]
    return {(structure, row) for structure, row in pairs if structure >= 0}


def _tasks(sets: dict[str, Mutations]) -> list[Task]:
    def without(train: str, test: str) -> Mutations:
        return sets[train][~np.isin(sets[train].cluster, sets[test].cluster)]

    return [
        Task("ddG, S8754", sets["S8754"]),
        Task("ddG, S8754 to S669", sets["S669"], without("S8754", "S669")),
        Task("ddG, S8754 to Ssym", sets["Ssym"], without("S8754", "Ssym")),
        Task("ddG, Ssym", sets["Ssym"]),
        Task("ddG, ProTherm", sets["ProTherm"]),
        Task("dTm, S4346", sets["S4346"]),
        Task("dTm, S4346 to S571", sets["S571"], without("S4346", "S571")),
    ]


def of_stability(
    tasks: list[Task], features: list[Features], options: argparse.Namespace, start: float
) -> dict[str, Any]:
    """Evaluate each task with each model."""
    names = list(features[0].sets)
    report: dict[str, Any] = {
        task.name: {
            "mutations": len(task.test),
            "clusters": len(np.unique(task.test.cluster)),
            "trained_on": len(task.train) if task.train is not None else "the other folds",
            "with_structure": int(np.count_nonzero(task.test.wild_structure >= 0)),
        }
        for task in tasks
    }
    columns = ["spearman", "spearman_with_structure", "pearson", "rmse", "reversed_spearman"]
    columns += ["antisymmetry_pearson", "antisymmetry_mean_sum"]
    for model in options.models:
        seeds = len(features) if model == "ridge" else options.boosting_seeds
        for task in tasks:
            counts = {k: v for k, v in report[task.name].items() if not isinstance(v, dict)}
            figures = stability.evaluate(
                task, features[:seeds], model, names, REFERENCE["stability"]
            )
            report[task.name][model] = figures
            say(start, f"{task.name}, {model}: {counts}")
            show(figures, columns)
    return report


def show(results: dict[str, Any], columns: list[str]) -> None:
    """Print a row per feature set: values and intervals."""

    def text(figure: dict[str, float]) -> str:
        return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"

    table = pd.DataFrame(
        {name: [text(figures[c]) for c in columns] for name, figures in results.items()}
    ).T
    table.columns = columns
    print(table.to_string(), flush=True)


if __name__ == "__main__":
    main()
