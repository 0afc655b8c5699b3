"""E-values of local alignments on folds that the residue stage was not fitted on.

    python benchmarks/quality/calibration.py domains.zarr --labels cath.csv --json figures.json

The store has sequences and structures of domains; the table has their ids and a column with the
label (default: topology). A third of the labels is held out, by a seed; the residue stage is fitted
on all other entries of the store. Every held-out sequence is aligned with every held-out structure.
A false hit is one of another label. It prints false hits and found relatives a query at several
E-values, and the logistic function of the excess that gives the probability of the same label.
"""

from __future__ import annotations

import argparse
import csv
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from sklearn.linear_model import LogisticRegression

from benchmarks.shared.measuring import MACHINE
from protalign import EmbeddingStore
from protalign.core.files import write_json
from protalign.core.protein import MODALITIES
from protalign.heads.inputs import read_inputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.residues.targets import score_targets

EVALUES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
#: Probabilities between which the share of hits that are right is printed.
PROBABILITIES = (0.2, 0.4, 0.6, 0.95, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--column", default="topology")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    labels = labels_of(options.labels, options.column)
    store = EmbeddingStore.open(options.store)
    runs = [measure(store, labels, seed) for seed in range(options.seeds)]
    for seed, run in enumerate(runs):
        print(f"seed {seed}: {run['queries']} queries, {run['targets']} targets")
        for evalue, figures in run["at"].items():
            print(f"  E <= {evalue}: {figures['false']:.3f} false hits a query, "
                  f"{100 * figures['found']:.1f} % of the relatives")  # fmt: skip
        for span, figures in run["probable"].items():
            print(f"  probability {span}: {figures['right']:.2f} of {figures['hits']} are right")
        print(f"  own structures with E > 1: {run['own_above_1']:.3f}")
        print(f"  probability: centre {run['centre']:.2f}, slope {run['slope']:.3f}")
    if options.json:
        write_json(options.json, {"machine": MACHINE, "runs": runs})


def labels_of(path: Path, column: str) -> dict[str, str]:
    """Return id -> label."""
    with path.open(encoding="utf-8") as file:
        return {row["id"]: row[column] for row in csv.DictReader(file)}


def measure(store: EmbeddingStore, labels: dict[str, str], seed: int) -> dict[str, Any]:
    """Fit on two thirds of the labels and measure on the rest."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels.values()))
    held_out = set(rng.permutation(names)[: len(names) // 3].tolist())
    is_held_out = np.array([labels.get(i) in held_out for i in store.ids.tolist()])
    stage = fit_residue_stage(Pairs.of(read_inputs(store[~is_held_out])), rng)
    assert stage is not None
    assert stage.calibration is not None
    entries = store[is_held_out]
    inputs = read_inputs(entries)
    everyone = np.arange(len(entries))
    rows = {}
    for modality in MODALITIES:
        embeddings = inputs.rows(modality, everyone)
        rows[modality] = stage.packed_rows(modality, embeddings, entries.chain_rows(modality))
    excess = np.stack(
        [score_targets(q, rows["structure"], stage.calibration).excess for q in rows["sequence"]]
    )
    label = np.array([labels[i] for i in entries.ids.tolist()])
    same = label[:, None] == label
    other = ~np.eye(len(label), dtype=np.bool_)
    evalues = stage.calibration.evalue(excess, len(label))
    at = {
        str(evalue): {
            "false": float(((evalues <= evalue) & ~same).sum() / len(label)),
            "found": float(((evalues <= evalue) & same & other).sum() / (same & other).sum()),
        }
        for evalue in EVALUES
    }
    probability = stage.calibration.probability(excess)
    probable = {}
    for least, most in pairwise(PROBABILITIES):
        some = (probability >= least) & (probability <= most) & other
        hits = int(some.sum())
        right = float(same[some].mean()) if hits else float("nan")
        probable[f"{least} to {most}"] = {"hits": hits, "right": right}
    model = LogisticRegression(C=1e6).fit(excess[other][:, None], same[other])
    slope = float(model.coef_[0, 0])
    return {
        "queries": len(label),
        "targets": len(label),
        "calibration": stage.calibration.as_dict(),
        "at": at,
        "probable": probable,
        "own_above_1": float((np.diag(evalues) > 1).mean()),
        "centre": -float(model.intercept_[0]) / slope,
        "slope": slope,
    }


if __name__ == "__main__":
    main()
