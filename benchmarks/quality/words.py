"""What a first stage by residue words loses, on folds that the residue stage was not fitted on.

    python benchmarks/quality/words.py domains.zarr --labels cath.csv --json figures.json
    python benchmarks/quality/words.py domains.zarr --labels cath.csv --made-up 1000000 --queries 50

The store has sequences and structures of domains; the table has their ids and a column with the
label (default: topology). A third of the labels is held out, by a seed; the residue stage and the
words are made of all other entries of the store. Held-out sequences are compared with every
structure of the store, by words and in full: by the best diagonal ("global"), and by local
alignment ("local"). It prints how often the own structure is among the first n, and how often the
first hit of the full comparison is among the first n by words, which is what a second stage needs.
"scores of all" scores all by all their words; "with length" keeps what chance adds for the length.
``--made-up`` adds structures to those compared by words: pieces of entries that are not held out,
as in benchmarks/speed/words.py. The full comparison does not see them.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.measuring import MACHINE
from benchmarks.speed.words import MEDIAN, blocks
from protalign import EmbeddingStore
from protalign.core.arrays import Int64, Words
from protalign.core.files import write_json
from protalign.core.protein import Modality
from protalign.core.ragged import Ragged
from protalign.heads.inputs import read_inputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.residues import ResidueStage
from protalign.residues.kernels.word_scores import without_length, word_scores
from protalign.residues.proteins import PackedRows
from protalign.residues.targets import score_targets
from protalign.residues.word_scan import WordScan
from protalign.residues.words import SAMPLED, WORDS, ResidueWords

FIRST = (1, 20, 50, 100, 200)
#: Those of all targets show what hits in lists, and what the correction for lengths, is worth.
BY_WORDS = ("words", "scores of all", "with length")
SIDES = (*BY_WORDS, "global", "local")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--column", default="topology")
    parser.add_argument(
        "--residue-context",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as of `protalign fit`",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=150, help="of those held out, at most")
    parser.add_argument("--words", type=int, default=WORDS)
    parser.add_argument("--made-up", type=int, default=0, help="structures more by words")
    parser.add_argument("--median", type=int, default=MEDIAN, help="residues of those made up")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    labels = labels_of(options.labels, options.column)
    store = EmbeddingStore.open(options.store)
    runs = []
    for seed in range(options.seeds):
        run = measure(store, labels, seed, options)
        runs.append(run)
        print(
            f"seed {seed}: {run['queries']} queries, {run['targets']:,} structures, % among first"
        )
        print(f"{'':>36}" + "".join(f"{n:>8}" for n in FIRST))
        for name, shares in run["shares"].items():
            print(f"{name:>36}" + "".join(f"{100 * share:8.1f}" for share in shares), flush=True)
    if options.json:
        write_json(options.json, {"machine": MACHINE, "runs": runs})


def labels_of(path: Path, column: str) -> dict[str, str]:
    """Return id -> label."""
    with path.open(encoding="utf-8") as file:
        return {row["id"]: row[column] for row in csv.DictReader(file)}


def rows_of(
    stage: ResidueStage, store: EmbeddingStore, modality: Modality, positions: Int64
) -> PackedRows:
    """Return the rows of some entries."""
    entries = store[positions]
    embeddings = read_inputs(entries).rows(modality, np.arange(len(entries)))
    packed = stage.packed_rows(modality, embeddings, entries.chain_rows(modality), words=True)
    return packed.placed(entries.row_positions(modality))


def plain_of(rows: PackedRows) -> Ragged:
    """Return the rows that words are made of."""
    assert rows.plain is not None
    return rows.plain


def measure(
    store: EmbeddingStore, labels: dict[str, str], seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Fit on two thirds of the labels and measure on the rest."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels.values()))
    held_out = set(rng.permutation(names)[: len(names) // 3].tolist())
    is_held_out = np.array([labels.get(i) in held_out for i in store.ids.tolist()])
    inputs = read_inputs(store)
    both = (inputs.items("sequence") >= 0) & (inputs.items("structure") >= 0)
    pairs = Pairs.of(read_inputs(store[~is_held_out]))
    stage = fit_residue_stage(pairs, rng, with_context=False)
    if options.residue_context:  # it draws more: what is drawn below stays the same
        stage = fit_residue_stage(pairs, np.random.default_rng(seed))
    assert stage is not None
    known = rng.permutation(np.flatnonzero(both & ~is_held_out))
    known = known[
        : int(np.searchsorted(np.cumsum(inputs.lengths("structure")[known]), SAMPLED)) + 1
    ]
    sample = plain_of(rows_of(stage, store, "structure", known)).values
    words = ResidueWords.fit({"structure": sample}, options.words, seed)
    structures = np.flatnonzero(both)
    targets = rows_of(stage, store, "structure", structures)
    of_words = plain_of(targets)
    target_words, offsets = words.of("structure", of_words.values), of_words.offsets
    if options.made_up:
        target_words, offsets = with_made_up(
            target_words, offsets, words.of("structure", sample), options.made_up, options.median
        )
    listed = words.listed("structure", target_words, offsets)
    queries = np.sort(rng.permutation(np.flatnonzero(both & is_held_out))[: options.queries])
    scores: dict[str, list[npt.NDArray[Any]]] = {side: [] for side in SIDES}
    for query in rows_of(stage, store, "sequence", queries):
        scan = WordScan(words, "structure", [query.plain])
        [(found, by_words)] = scan.scores(listed, FIRST[-1])
        every = np.full(len(offsets) - 1, -np.inf, dtype=np.float32)  # hits did not choose it
        every[found] = by_words
        profile = words.profile("structure", query.plain)
        plain = word_scores(profile, target_words, offsets)
        full = score_targets(query, targets, stage.calibration)
        of_sides = every, without_length(plain, np.diff(offsets)), plain
        for side, each in zip(SIDES, (*of_sides, full.diagonal, full.local_order), strict=True):
            scores[side].append(each)
    own = np.searchsorted(structures, queries)
    ranks = {f"own structure, {side}": ranks_of(scores[side], own) for side in SIDES}
    for side in ("global", "local"):
        best = np.array([each.argmax() for each in scores[side]])
        for by in BY_WORDS:
            ranks[f"first hit of {side}, {by}"] = ranks_of(scores[by], best)
    return {
        "queries": len(queries),
        "targets": len(offsets) - 1,
        "words": len(words.centroids["structure"]),
        "shares": {
            name: [float(np.mean(each <= n)) for n in FIRST] for name, each in ranks.items()
        },
    }


def with_made_up(
    words: Words, offsets: Int64, real: Words, count: int, median: int
) -> tuple[Words, Int64]:
    """Return the words and offsets of some targets, and of structures made of real words."""
    parts = list(blocks(count, real, median))
    lengths = np.concatenate([each for _, each, _ in parts])
    return (
        np.concatenate([words, *(some for _, _, some in parts)]),
        np.concatenate([offsets, offsets[-1] + np.cumsum(lengths)]),
    )


def ranks_of(scores: list[npt.NDArray[Any]], targets: Int64) -> Int64:
    """Return the rank of one target of each query; ties count against it."""
    pairs = zip(scores, targets.tolist(), strict=True)
    return np.array([np.count_nonzero(each >= each[target]) for each, target in pairs])


if __name__ == "__main__":
    main()
