"""The residue stage: own structures, remote relatives and register, beside its rivals.

    protalign embed ../shared/data/casf2016 --out casf.zarr …
    protalign embed ../shared/data/pool --out pool.zarr …
    protalign embed ../shared/data/folds ../shared/data/cath --out domains.zarr …
    python benchmarks/quality/remote.py --casf casf.zarr --chains pool.zarr --domains domains.zarr \
        --shared ../shared --out remote.json

For each seed it fits a model, on the training chains, the domains of one a fold and those of CATH,
without a third of CATH's topologies, and measures

- own: CASF-2016's 215 unique proteins, each sequence against all structures and the other way
  round, whole and with each end of the queries' chains cut by up to --crop;
- scop: 120 validation and test chains, one of each SCOPe family, that have no 95 % relative in
  training, against one chain of each of the 1,248 labelled 95 % clusters (the query's cluster left
  out): other families of the superfamily, other superfamilies of the fold, and the family. Once
  more "as written": b.1.1.0, domains without a family, is a family as any other, as in Foldseek's
  benchmark; and once more "other clusters at 30 %": as written, and without the query's cluster
  at 30 % identity;
- cath: the domains of the topologies held out, against each other: other superfamilies of the
  topology;
- register: for pairs of a sequence and a relative's structure with a TM-score of 0.5 or more, by
  the length of the query's own structure, the residues of the structural alignment that the local
  alignment places alike, on the average over the pairs; queries and candidates of scop as written,
  but CASF-2016's, and of cath;
- structures: for so many queries (--structures) of scop as written, and of cath, that have
  relatives of another family, or of CATH's topology, TM-align's score of their own structure with
  each candidate's, the ceiling; beside it the residue stage, which compares that structure with the
  candidates' sequences, or the query's sequence with their structures. TM-align needs tmtools
  (``pip install tmtools``, GPL-3), takes about 2 minutes a query of scop, and is left out if
  --rivals does not name it.

The domains of folds, and the chains, are of all topologies, also of those held out, and some are
relatives of queries: --without-relatives leaves these out.

--topologies numbers another choice of topologies: the figures of cath depend on it.

Seeds choose the heads' start, the calibration's pairs and the cuts, and the training of the residue
stage's context (not with --no-residue-context) and of its head on hard negatives (--residue-head).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.measuring import MACHINE
from benchmarks.shared.relatives import related_to
from benchmarks.shared.tm_align import tm_scores, trace_of
from protalign.core.arrays import Bool, Int64
from protalign.core.files import write_json
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.encoders.recorded import RecordedEncoders
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.baselines import Scorer
from protalign.evaluation.evaluate import evaluate
from protalign.evaluation.register import register_figures
from protalign.evaluation.remote import Kinship, remote_homology
from protalign.evaluation.residues import residue_scores
from protalign.evaluation.rivals import blosum_scores, by_hits, mmseqs_hits
from protalign.evaluation.test_set import RetrievalItems, chain_rows, chains_of, retrieval_items
from protalign.heads.inputs import Inputs, read_inputs
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs
from protalign.residues.proteins import PackedRows
from protalign.stores import EmbeddingStore, Entries

#: One in so many of CATH's topologies is held out.
HELD_OUT = 3
#: A number that no class of SCOPe or CATH has.
UNUSED = 10**6
#: The rival of structures, by its name for ``--rivals``.
TM_ALIGN = "tm-align"
#: The names of the tasks in which codes are compared as they are written; CATH's have no 0.
WRITTEN = {"scop": "scop, as written", "cath": "cath"}


class Joined(Inputs):
    """The entries of several stores, one after another."""

    def __init__(self, parts: Sequence[Inputs]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self.dims, self.encoders = parts[0].dims, parts[0].encoders

    def __len__(self) -> int:
        return int(self._starts[-1])

    def items(self, modality: Modality) -> Int64:
        parts, first = [], 0
        for part in self._parts:
            items = part.items(modality)
            parts.append(np.where(items < 0, -1, items + first))
            first += int(items.max(initial=-1)) + 1
        return np.concatenate(parts)

    def lengths(self, modality: Modality) -> Int64:
        return np.concatenate([part.lengths(modality) for part in self._parts])

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        return np.result_type(*(part.dtype(modality) for part in self._parts))

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        return Ragged.pack(self._each(positions, lambda part, p: list(part.rows(modality, p))))

    def sequence_rows(self, positions: Int64) -> Sequence[Int64 | None]:
        return self._each(positions, lambda part, p: list(part.sequence_rows(p)))

    def _each(self, positions: Int64, of: Callable[[Inputs, Int64], list[Any]]) -> list[Any]:
        """Ask each store for its entries; return the answers in the order of ``positions``."""
        answers: list[Any] = [None] * len(positions)
        store = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(store):
            mine = np.flatnonzero(store == number)
            of_store = of(self._parts[number], positions[mine] - self._starts[number])
            for place, answer in zip(mine, of_store, strict=True):
                answers[place] = answer
        return answers


def main() -> None:
    options = parse()
    if "structures" in options.tasks and TM_ALIGN in options.rivals:
        import_module("tmtools")  # not after hours
    start = time.perf_counter()
    data = Data(options)
    report: dict[str, Any] = {
        "machine": MACHINE,
        "crop": options.crop,
        "topologies": options.topologies,
        "seeds": [],
    }
    for seed in range(options.seeds):
        model = data.model(seed, options)
        say(start, f"seed {seed}: fitted")
        figures: dict[str, Any] = {}
        report["seeds"].append(figures)
        for task in options.tasks:
            figures |= TASKS[task](data, model, seed, options)
            say(start, f"seed {seed}: {task}")
            report["table"] = summary(report["seeds"])
            report["seconds"] = round(time.perf_counter() - start)
            write_json(options.out, report)  # what is done stays
    for task, rows in report["table"].items():
        print(f"\n{task}")
        for scorer, values in rows.items():
            print(f"  {scorer:28}" + "  ".join(f"{name} {value}" for name, value in values.items()))


class Data:
    """The stores, their labels, and the tasks that they give."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.casf, self.chains, self.domains = (
            EmbeddingStore.open(path) for path in (options.casf, options.chains, options.domains)
        )
        shared = options.shared / "data"
        self.manifest = pd.read_csv(shared / "manifest.csv", dtype=str, keep_default_na=False)
        # The store has the ids of PDBbind's files.
        self.manifest["id"] = self.manifest["id"].str.removeprefix("casf_")
        cath = pd.read_csv(shared / "cath.csv", dtype=str)
        topologies = np.array(sorted(set(cath["topology"])))
        np.random.default_rng(options.topologies).shuffle(topologies)
        held_out = set(topologies[: len(topologies) // HELD_OUT])
        in_store = cath[cath["id"].isin(self.domains.ids)]
        self.cath = in_store[in_store["topology"].isin(held_out)].sort_values("id")
        self.queries, self.candidates = self._scop()
        self._rivals: dict[str, dict[str, npt.NDArray[Any] | Scorer]] = {}
        self._superposed: dict[tuple[str, tuple[str, ...]], npt.NDArray[Any]] = {}
        self._training = self._joined_training(without_relatives=options.without_relatives)

    def _scop(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of the manifest that are queries and candidates of the SCOPe tasks."""
        known = self.manifest[self.manifest["scop40_hit"] != ""].sort_values("id")
        stored = np.isin(known["id"], [*self.chains.ids, *self.casf.ids])
        known = known[stored]
        trained = set(self.manifest.loc[self.manifest["split"] == "train", "c95"])
        fresh = known["split"].isin(["val", "test"]) & ~known["c95"].isin(trained)
        return known[fresh].drop_duplicates("scop40_hit"), known.drop_duplicates("c95")

    def _joined_training(self, *, without_relatives: bool) -> Joined:
        """Return what every model is fitted on."""
        train = set(self.manifest.loc[self.manifest["split"] == "train", "id"])
        held_out = set(self.cath["id"])
        chains = self.chains[np.isin(self.chains.ids, sorted(train))]
        domains = self.domains[~np.isin(self.domains.ids, sorted(held_out))]
        if without_relatives:
            asked = self.letters([*self.queries["id"], *self.cath["id"]], "sequence")
            chains, domains = (
                part[~related_to(asked, self.letters(part.ids, "sequence"))]
                for part in (chains, domains)
            )
            print(f"{len(chains):,} chains and {len(domains):,} domains are left to train on")
        return Joined([read_inputs(chains), read_inputs(domains)])

    def model(self, seed: int, options: argparse.Namespace) -> Model:
        """Fit a model."""
        few: dict[str, Any] = {}
        if options.epochs is not None:
            few = {"max_epochs": options.epochs, "early_stopping": False}
        estimator = ProtAlignEstimator(
            pooling=options.pooling,
            random_state=seed,
            residue_context=options.residue_context,
            residue_head=options.residue_head,
            verbose=True,
            **few,
        )
        model = estimator.fit(self._training).model_
        model.residue_scorer()  # says so if there is none
        return model

    def store_of(self, entry_id: str) -> EmbeddingStore:
        return next(s for s in (self.chains, self.casf, self.domains) if entry_id in set(s.ids))

    def test_set(self) -> Entries:
        """Return CASF-2016's unique proteins."""
        test = self.manifest.loc[self.manifest["split"] == "test", "id"]
        return self.casf[np.isin(self.casf.ids, test)]

    def rows(self, model: Model, ids: Sequence[str], modality: Modality) -> PackedRows:
        """Return the residue rows of some entries."""
        stage = model.residue_scorer()
        joined = Joined([read_inputs(store) for store in (self.chains, self.casf, self.domains)])
        entries = self.positions(ids)
        chains = [chain_rows(letters) for letters in self.letters(ids, modality)]
        rows = stage.packed_rows(modality, joined.rows(modality, entries), chains)
        if modality == "sequence":
            return rows
        return rows.placed([each for each in joined.sequence_rows(entries) if each is not None])

    def vectors(self, model: Model, ids: Sequence[str], modality: Modality) -> npt.NDArray[Any]:
        """Return the model's vectors of some entries."""
        joined = Joined([read_inputs(store) for store in (self.chains, self.casf, self.domains)])
        rows = joined.rows(modality, self.positions(ids))
        pairs = [(r, None) if modality == "sequence" else (None, r) for r in rows]
        return model.vectors(pairs, modality)

    def positions(self, ids: Sequence[str]) -> Int64:
        """Return the positions of some ids among the entries of the three stores."""
        every = [*self.chains.ids, *self.casf.ids, *self.domains.ids]
        place = {str(entry_id): position for position, entry_id in reversed(list(enumerate(every)))}
        return np.array([place[entry_id] for entry_id in ids], dtype=np.int64)

    def letters(self, ids: Sequence[str], modality: Modality) -> list[tuple[str, ...]]:
        """Return the sequences of some entries' chains."""
        where = {str(i): s for s in (self.domains, self.casf, self.chains) for i in s.ids}
        return [chains_of(where[i], [i], modality)[0] for i in ids]

    def tasks(self) -> dict[str, tuple[pd.DataFrame, pd.DataFrame, str, Bool]]:
        """Return task -> queries, candidates, the column of labels, and what is left out."""
        q, c = self.queries, self.candidates
        same = q["c95"].to_numpy()[:, None] == c["c95"].to_numpy()
        return {
            "scop": (q, c, "scop40_hit", same),
            "cath": (self.cath, self.cath, "cath", np.eye(len(self.cath), dtype=np.bool_)),
        }

    def rival_scores(
        self, task: str, wanted: Sequence[str]
    ) -> dict[str, npt.NDArray[Any] | Scorer]:
        """Return scorer -> scores that need no model, made once for all seeds."""
        if task not in self._rivals:
            queries, candidates, _, _ = self.tasks()[task]
            left = self.letters(queries["id"], "sequence")
            right = self.letters(candidates["id"], "structure")
            n, m = (np.array([sum(map(len, c)) for c in side]) for side in (left, right))
            makers: dict[str, Callable[[], npt.NDArray[Any] | Scorer]] = {
                "mmseqs": lambda: by_hits(mmseqs_hits(left, right)),
                "blosum": lambda: blosum_scores(left, right),
                "chance": lambda: np.zeros((len(n), len(m))),
                "length": lambda: -np.abs(n[:, None] - m).astype(float),
            }
            self._rivals[task] = {name: make() for name, make in makers.items() if name in wanted}
        return self._rivals[task]

    def superposed(self, task: str, queries: tuple[str, ...], jobs: int) -> npt.NDArray[Any]:
        """Return TM-align's scores of some queries of a task with its candidates, made once."""
        key = task, queries
        if key not in self._superposed:
            candidates = self.tasks()[task][1]["id"]
            traces = [[trace_of(self.store_of(i), i) for i in ids] for ids in (queries, candidates)]
            self._superposed[key] = tm_scores(*traces, jobs)
        return self._superposed[key]


def own(data: Data, model: Model, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what is found among CASF-2016's unique proteins, whole and cut."""
    figures: dict[str, Any] = {}
    weights: dict[Modality, str] = {}
    if options.sequence_weights:
        weights["sequence"] = options.sequence_weights
    encoders = RecordedEncoders(model.encoders, weights)
    for name, crop in (("own", None), ("own, cut", options.crop)):
        if crop is not None and crop <= 0:
            continue
        report = evaluate(
            model, data.test_set(), crop=crop, encoders=encoders, residues=True, random_state=seed
        )
        for direction in ("sequence_to_structure", "structure_to_sequence"):
            task = report[direction]["tasks"]["protein"]
            figures[f"{name}, {direction}"] = {
                scorer: {m: task[scorer][m] for m in ("recall_at_1", "recall_at_5", "mrr")}
                for scorer in ("model", *report["scorers"], "mmseqs", "length")
                if scorer in task and (options.epochs is None or scorer != "model")
            }
    return figures


def relatives(task: str) -> Callable[[Data, Model, int, argparse.Namespace], dict[str, Any]]:
    """Return what measures a task of remote homology."""

    def measured(
        data: Data, model: Model, seed: int, options: argparse.Namespace
    ) -> dict[str, Any]:
        queries, candidates, column, own = data.tasks()[task]
        sides = list(zip((queries["id"], candidates["id"]), MODALITIES, strict=True))
        rows = [data.rows(model, ids, modality) for ids, modality in sides]
        stage = model.residue_scorer()
        scores: dict[str, Any] = dict(residue_scores(stage, *rows, own=own.__getitem__))
        scores |= data.rival_scores(task, options.rivals)
        if options.epochs is None:
            left, right = (data.vectors(model, ids, modality) for ids, modality in sides)
            scores["model"] = left @ right.T
        codes = [list(side[column]) for side in (queries, candidates)]
        figures = named(task, remote_homology(scores, *codes, own=own))
        if task == "scop":
            written = [as_written(of_side) for of_side in codes]
            figures |= named("scop, as written", remote_homology(scores, *written, own=own))
            near = queries["c30"].to_numpy()[:, None] == candidates["c30"].to_numpy()
            apart = remote_homology(scores, *written, own=own | near)
            figures |= named("scop, other clusters at 30 %", apart)
        return figures

    return measured


def named(task: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the levels that have queries, under names for people."""
    figures = {}
    for level, values in found.items():
        n_queries, _ = values.pop("n_queries"), values.pop("left_out")
        if n_queries:
            figures[f"{task}, {level} ({n_queries} queries)"] = values
    return figures


def as_written(codes: Sequence[str]) -> list[str]:
    """Return codes in which a number 0 is a class like any other.

    SCOPe's b.1.1.0 holds domains that have no family yet. Foldseek's benchmark compares codes as
    they are written, so they are a family there, also if a domain is a near relative of b.1.1.2.
    """
    return [re.sub(r"\.0(?=[.,;\s]|$)", f".{UNUSED}", code) for code in codes]


def structures(data: Data, model: Model, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what structures find as queries, and TM-align, the ceiling, for the same queries."""
    figures: dict[str, Any] = {}
    for task, (queries, candidates, column, own) in data.tasks().items():
        codes = [as_written(of_side[column]) for of_side in (queries, candidates)]
        distant = related(codes, own, task)
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(distant.any(axis=1)))
        drawn = np.sort(drawn[: options.structures])
        if not len(drawn):
            continue
        some = queries.iloc[drawn]
        packed = {
            (side, modality): data.rows(model, frame["id"], modality)
            for side, frame in (("query", some), ("candidate", candidates))
            for modality in MODALITIES
        }
        scores: dict[str, npt.NDArray[Any]] = {}
        for modality, other in zip(MODALITIES, MODALITIES[::-1], strict=True):
            found = residue_scores(
                model.residue_scorer(),
                packed["query", modality],
                packed["candidate", other],
                own=own[drawn].__getitem__,
            )
            scores |= {f"{modality}: {name}": values for name, values in found.items()}
        if TM_ALIGN in options.rivals:
            scores["TM-align"] = data.superposed(task, tuple(some["id"]), options.jobs)
        found = remote_homology(scores, [codes[0][q] for q in drawn], codes[1], own=own[drawn])
        figures |= named(f"{WRITTEN[task]}, structures", found)
    return figures


def related(codes: Sequence[Sequence[str]], own: Bool, scheme: str) -> Bool:
    """Return which candidates are relatives of each query, but not of the nearest level."""
    queries, candidates = ([[code] for code in of_side] for of_side in codes)
    kinship = Kinship.of(queries, candidates, {c: c for side in codes for c in side}, scheme)
    every = slice(0, len(queries))
    return np.any([kinship.parts(level, every, own)[0] for level in kinship.levels[1:]], axis=0)


def register(data: Data, model: Model, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the register accuracy of pairs of each level, beside BLOSUM62."""
    figures: dict[str, Any] = {}
    for task, store in (("scop", data.chains), ("cath", data.domains)):
        queries, candidates, column, _ = data.tasks()[task]
        sides = [
            store[np.isin(store.ids, side["id"].to_numpy(str))] for side in (queries, candidates)
        ]
        items = [items_of(model, side)[place] for place, side in enumerate(sides)]
        every = pd.concat([queries, candidates]).drop_duplicates("id").set_index("id", drop=False)
        cluster = "c95" if task == "scop" else "id"
        clusters = [every.loc[side.ids, cluster].to_numpy() for side in items]
        codes = dict(zip(every.index, as_written(every[column]), strict=True))
        found = register_figures(
            store,
            (items[0], items[1]),
            (clusters[0][:, None] == clusters[1]).__getitem__,
            {task: codes},
            clusters[0],
            (0, 0),  # the same pairs for each seed
        )
        for level, values in found[task].items():
            n_pairs = values.pop("n_pairs")
            values.pop("n_superposed")
            if n_pairs:
                figures[f"{WRITTEN[task]}, register, {level} ({n_pairs} pairs)"] = values
    return figures


def items_of(model: Model, entries: Entries) -> tuple[RetrievalItems, RetrievalItems]:
    """Return the sequences and structures of some entries, with rows of the residue stage."""
    pairs = Pairs.of(model.inputs(entries))
    vectors = model.retrieval_set(pairs)
    return retrieval_items(
        entries, pairs, (vectors.sequence, vectors.structure), model.residue_scorer()
    )


#: Task -> what measures it.
TASKS = {
    "own": own,
    "cath": relatives("cath"),
    "scop": relatives("scop"),
    "register": register,
    "structures": structures,
}


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return task -> scorer -> measure -> mean ± standard deviation over seeds, in per cent."""
    table: dict[str, Any] = {}
    for task, rows in seeds[0].items():
        done = [seed[task] for seed in seeds if task in seed]
        table[task] = {
            scorer: {
                m: mean_and_deviation([100 * figures[scorer][m]["value"] for figures in done])
                for m in measures
            }
            for scorer, measures in rows.items()
        }
    return table


def mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def say(start: float, words: str) -> None:
    print(f"{time.perf_counter() - start:7.0f} s  {words}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, words in (
        ("casf", "store of CASF-2016"),
        ("chains", "store of the pool's chains"),
        ("domains", "store of folds and cath"),
        ("shared", "folder with data/manifest.csv and data/cath.csv"),
        ("out", "JSON file of all figures"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=words)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--topologies", type=int, default=0, help="number of the choice held out")
    parser.add_argument("--epochs", type=int, help="train heads so long only, and leave them out")
    parser.add_argument(
        "--without-relatives",
        action="store_true",
        help="fit without proteins that MMseqs2 finds, by 37 bits, with a query of scop or cath",
    )
    parser.add_argument("--pooling", default="attention", help="as of `protalign fit`")
    parser.add_argument(
        "--residue-context",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as of `protalign fit`",
    )
    parser.add_argument("--residue-head", action="store_true", help="as of `protalign fit`")
    parser.add_argument("--crop", type=float, default=0.2, help="0: no cut queries")
    parser.add_argument("--sequence-weights", help="weights for the cut queries")
    parser.add_argument(
        "--structures", type=int, default=20, help="queries of each task that are superposed"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes that superpose them")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    rivals = ("mmseqs", "blosum", "length", "chance", TM_ALIGN)
    parser.add_argument("--rivals", nargs="*", choices=rivals, default=rivals)
    return parser.parse_args()


if __name__ == "__main__":
    main()
