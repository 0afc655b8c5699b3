"""E-values and probabilities of local alignments among proteins of labels that are held out.

    python benchmarks/quality/calibration.py domains.zarr --labels cath.csv
    python benchmarks/quality/calibration.py chains.zarr --labels scop.csv --column scop --level 2 \
        --one-of c30 --train domains.zarr

The store has sequences and structures; the table has their ids and a column with the label
(default: topology). A third of the labels is held out, by a seed, and the residue stage is fitted
on all other entries of the store; with --train it is fitted on another store, and all entries with
a label are held out. Entries without a label, as those of folds, may be relatives of the held-out
ones: --without-relatives leaves out of the fit what MMseqs2 finds with these. Every held-out
sequence is aligned with every held-out structure, and each is a query once.

A false hit is one of another label. It prints false hits and found relatives a query at several
E-values; the relatives and own structures that are found where a tenth of the queries, or each, has
a false hit; and how many hits of several probabilities are right. Few labels may decide: so it
draws the labels again, with replacement, and prints between which numbers 95 % of such draws have
their false hits at E = 1. Last comes the mean of all seeds. Probabilities, and the
relative that comes first, are by the sum of the excess and the backing of first hits,
but for the query's own partner. With --tm it superimposes so many pairs of each of several sums,
and prints how many have a TM-score of at least 0.5 by the shorter protein, whatever their labels,
and the function of the sum that gives the probability; and so many of the false hits at E = 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from sklearn.linear_model import LogisticRegression

from benchmarks.shared.measuring import MACHINE
from benchmarks.shared.relatives import related_to
from benchmarks.shared.tm_align import SAME_FOLD, tm_score, trace_of
from protalign import EmbeddingStore
from protalign.core.arrays import Bool, Float64
from protalign.core.files import write_json
from protalign.core.protein import MODALITIES
from protalign.evaluation.test_set import chains_of
from protalign.heads.inputs import read_inputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.residues.backing import backing
from protalign.residues.calibration import Calibration
from protalign.residues.proteins import PackedRows
from protalign.residues.targets import score_targets
from protalign.stores import Entries

EVALUES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
#: Probabilities between which the share of hits that are right is printed.
PROBABILITIES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
#: False hits a query at which found own structures and relatives are counted.
RATES = (0.1, 1.0)
#: Sums of excess and backing between which pairs are superimposed.
SUMS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0, np.inf)
#: Draws of labels, and the part of them that is left out at each end.
DRAWS, LEFT_OUT = 1000, 0.025


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--column", default="topology")
    parser.add_argument("--level", type=int, help="parts of a label that count: 2 of a.1.1.2: a.1")
    parser.add_argument("--one-of", help="a column of clusters: one entry of each is held out")
    parser.add_argument("--train", help="a store to fit on; then all labels are held out")
    parser.add_argument(
        "--without-relatives",
        action="store_true",
        help="fit without proteins that MMseqs2 finds, by 37 bits, with one of those held out",
    )
    parser.add_argument(
        "--residue-context",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as of `protalign fit`",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tm", type=int, default=0, help="pairs of each excess to superimpose")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = []
    for seed in range(options.seeds):
        for run in measure(options, seed):
            print_run(run)
            runs.append(run)
    for query in MODALITIES:
        print(f"mean of {options.seeds} seeds, each {query}:")
        for evalue in EVALUES:
            false = [run["at"][str(evalue)]["false"] for run in runs if run["query"] == query]
            print(f"  E <= {evalue}: {np.mean(false):.3f} false hits a query")
    if options.json:
        write_json(options.json, {"machine": MACHINE, "runs": runs})


def print_run(run: dict[str, Any]) -> None:
    """Print the figures of one seed and one kind of query."""
    print(f"seed {run['seed']}, each {run['query']}: {run['queries']} queries and targets")
    for evalue, figures in run["at"].items():
        print(f"  E <= {evalue}: {figures['false']:.3f} false hits a query, "
              f"{100 * figures['found']:.1f} % of the relatives")  # fmt: skip
    least, most = run["drawn"]
    print(f"  E <= 1.0: {least:.2f} to {most:.2f} false hits a query for labels drawn again")
    for rate, figures in run["rates"].items():
        print(f"  {rate} false hits a query: {100 * figures['own']:.1f} % of own structures, "
              f"{100 * figures['found']:.1f} % of the relatives")  # fmt: skip
    for span, figures in run["probable"].items():
        print(f"  probability {span}: {figures['right']:.2f} of {figures['hits']} are right")
    print(f"  own structures with E > 1: {run['own_above_1']:.3f}")
    print(f"  a relative comes first: {run['first']:.3f}")
    for span, figures in run["alike"].items():
        print(f"  sum {span}: {figures['alike']:.2f} of {figures['pairs']} are alike, "
              f"by the probability {figures['probability']:.2f}")  # fmt: skip
    if run["alike"]:
        print(f"  {run['false_alike']:.2f} of the false hits at E = 1 are alike")
        print(f"  probability: centre {run['centre']:.2f}, power {run['power']:.2f}")


def measure(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Fit on some entries and measure on others, by queries of each modality."""
    rng = np.random.default_rng(seed)
    train, entries, label = split(options, rng)
    pairs = Pairs.of(read_inputs(train))
    stage = fit_residue_stage(pairs, rng, with_context=options.residue_context)
    calibration = None if stage is None else stage.calibration
    if stage is None or calibration is None:
        raise SystemExit(f"seed {seed}: the store has too few proteins to fit on")
    inputs = read_inputs(entries)
    everyone = np.arange(len(entries))
    rows = {}
    for modality in MODALITIES:
        embeddings = inputs.rows(modality, everyone)
        rows[modality] = stage.packed_rows(modality, embeddings, entries.chain_rows(modality))
    runs = []
    for query, target in (MODALITIES, MODALITIES[::-1]):
        found = [score_targets(each, rows[target], calibration).excess for each in rows[query]]
        excess = np.stack([each for each in found if each is not None])
        evalues = calibration.evalue(excess, len(label))
        order = excess + backings(calibration, excess, rows[query], rows[target])
        figures = figures_of(excess, evalues, order, label)
        false = (evalues <= 1) & (label[:, None] != label)
        figures["drawn"] = drawn_again(false, label, rng)
        probability = calibration.probability(order)
        figures["probable"] = probable(probability, label)
        figures |= alike(order, probability, entries, options.tm, rng)
        if options.tm:
            some = rng.permutation(np.argwhere(false))[: options.tm].tolist()
            alike_ones = [same_fold(entries, pair) for pair in some]
            figures["false_alike"] = float(np.mean(alike_ones)) if some else 0.0
        fitted = {"seed": seed, "query": query, "calibration": calibration.as_dict()}
        runs.append(fitted | figures)
    return runs


def backings(
    calibration: Calibration, excess: Float64, queries: PackedRows, targets: PackedRows
) -> Float64:
    """Return the backing of (n, n) pairs; the query's own partner backs nothing."""
    own = np.eye(len(excess), dtype=np.bool_)
    if calibration.background is None:
        raise SystemExit("the store has too few proteins for a background")
    local, background, n = targets.local, calibration.background, len(excess)
    said = [
        backing(rows.local, of_query, local.lengths, local.take, background, n, silent)
        for rows, of_query, silent in zip(queries, excess, own, strict=True)
    ]
    return np.stack(said)


def split(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[Entries, Entries, npt.NDArray[np.str_]]:
    """Return the entries to fit on, those to measure on, and the labels of these."""
    store = EmbeddingStore.open(options.store)
    labels, clusters = {}, {}
    with options.labels.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            labels[row["id"]] = ".".join(row[options.column].split(".")[: options.level])
            clusters[row["id"]] = row[options.one_of] if options.one_of else row["id"]
    label = np.array([labels.get(i, "") for i in store.ids.tolist()])
    usable = (label != "") & store.has_sequence & store.has_structure
    if not usable.any():
        raise SystemExit(f"{options.labels}: no id with a {options.column} is in {options.store}")
    if options.train:
        train, held_out = EmbeddingStore.open(options.train)[:], usable
    else:
        names = np.unique(label[label != ""])
        chosen = rng.permutation(names)[: len(names) // 3]
        train, held_out = store[~np.isin(label, chosen)], usable & np.isin(label, chosen)
    places = np.flatnonzero(held_out)
    of = [clusters[i] for i in store.ids[places].tolist()]
    places = np.sort(places[np.unique(of, return_index=True)[1]])
    entries = store[places]
    if options.without_relatives:
        letters = [chains_of(each, each.ids.tolist(), "sequence") for each in (entries, train)]
        train = train[~related_to(*letters)]
    return train, entries, label[places]


def figures_of(
    excess: Float64, evalues: Float64, order: Float64, label: npt.NDArray[np.str_]
) -> dict[str, Any]:
    """Return what is found of (n, n) queries and targets, and what of it is false.

    ``order`` is what a search orders by: the excess and the backing.
    """
    same = label[:, None] == label
    other = ~np.eye(len(label), dtype=np.bool_)
    relatives, n = same & other, len(label)
    false = np.sort(excess[~same])[::-1]
    rates = {}
    for rate in RATES:
        least = false[round(rate * n)]
        own, found = np.diag(excess) > least, excess[relatives] > least
        rates[str(rate)] = {"own": float(own.mean()), "found": float(found.mean())}
    first = np.where(other, order, -np.inf).argmax(axis=1)
    return {
        "queries": n,
        "at": {
            str(evalue): {
                "false": float(((evalues <= evalue) & ~same).sum() / n),
                "found": float((evalues[relatives] <= evalue).mean()),
            }
            for evalue in EVALUES
        },
        "rates": rates,
        "own_above_1": float((np.diag(evalues) > 1).mean()),
        "first": float(same[np.arange(n), first][relatives.any(axis=1)].mean()),
    }


def drawn_again(
    false: Bool, label: npt.NDArray[np.str_], rng: np.random.Generator
) -> tuple[float, float]:
    """Return the least and most false hits a query of (n, n), for labels drawn with replacement.

    As for a search among n targets, however many proteins the drawn labels have.
    """
    _, group = np.unique(label, return_inverse=True)
    drawn = []
    for _ in range(DRAWS):
        chosen = rng.integers(group.max() + 1, size=group.max() + 1)
        weight = np.bincount(chosen, minlength=group.max() + 1)[group]
        drawn.append(weight @ false @ weight * len(label) / weight.sum() ** 2)
    least, most = np.quantile(drawn, [LEFT_OUT, 1 - LEFT_OUT])
    return float(least), float(most)


def probable(probability: Float64, label: npt.NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """Return how many of the hits of several probabilities are right."""
    same = label[:, None] == label
    other = ~np.eye(len(label), dtype=np.bool_)
    figures = {}
    for least, most in pairwise(PROBABILITIES):
        some = (probability >= least) & (probability <= most) & other
        if not some.any():
            continue
        right = float(same[some].mean())
        figures[f"{least} to {most}"] = {"hits": int(some.sum()), "right": right}
    return figures


def alike(
    order: Float64, probability: Float64, entries: Entries, count: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the share of pairs of several such sums whose TM-score shows one fold."""
    figures: dict[str, dict[str, float]] = {}
    x, y = [], []
    other = ~np.eye(len(order), dtype=np.bool_)
    for least, most in pairwise(SUMS):
        pairs = rng.permutation(np.argwhere((order >= least) & (order < most) & other))[:count]
        if len(pairs) == 0:
            continue
        found = [same_fold(entries, pair) for pair in pairs.tolist()]
        x += np.log(order[tuple(pairs.T)]).tolist()
        y += found
        expected = float(probability[tuple(pairs.T)].mean())
        figures[f"{least:g} to {most:g}"] = {
            "pairs": len(pairs), "alike": float(np.mean(found)), "probability": expected
        }  # fmt: skip
    if not figures:
        return {"alike": {}}
    model = LogisticRegression(C=1e6).fit(np.array(x)[:, None], y)
    power = float(model.coef_[0, 0])
    centre = float(np.exp(-model.intercept_[0] / power))
    return {"alike": figures, "centre": centre, "power": power}


def same_fold(entries: Entries, pair: Sequence[int]) -> bool:
    """Return whether TM-align's score, by the shorter of two entries, is that of one fold."""
    traces = [trace_of(entries.store, str(entries.ids[place])) for place in pair]
    return tm_score(*sorted(traces, key=len)) >= SAME_FOLD


if __name__ == "__main__":
    main()
