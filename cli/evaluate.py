"""``protalign evaluate``: retrieval with intervals, baselines and a leakage audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from protalign.cli.console import print_json, print_table, quick_imports, refuse_unused
from protalign.cli.options import (
    AsJson,
    Device,
    Method,
    ModelPath,
    PartOfSplit,
    Scheduler,
    Seed,
    SequenceWeights,
    SplitPath,
    StoreList,
    StructureWeights,
    given_weights,
)
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import counted

#: A task's heading; {} is the candidates' modality.
TASKS = {
    "protein": "its own {}, among all",
    "family": "any {} of its family",
    "within_family": "its own {}, among its family's",
    "scop_fold": "another {} of its SCOPe fold",
    "scop_superfamily": "another {} of its SCOPe superfamily",
    "scop_family": "another {} of its SCOPe family",
    "cath_topology": "another {} of its CATH topology",
    "cath_superfamily": "another {} of its CATH superfamily",
    "clean_95": "its own {}; not in training at 95 % identity",
    "clean_30": "its own {}; not in training at 30 % identity",
}
SCORERS = {
    "model": "model",
    "residues_global": "residues, best diagonal",
    "residues_local": "residues, local",
    "residues_excess": "residues, above chance",
    "residues_backed": "residues, with backing",
    "chance": "chance",
    "family": "random in true family",
    "length": "length only",
    "family_and_length": "family and length",
    "kmers": "k-mers (a ceiling)",
    "mmseqs": "MMseqs2 (needs sequences)",
    "cca": "CCA of means",
}
#: A level's heading in the table of remote homology.
REMOTE = {
    "scop_family": "the same SCOPe family",
    "scop_superfamily": "the same SCOPe superfamily, another family",
    "scop_fold": "the same SCOPe fold, another superfamily",
    "cath_superfamily": "the same CATH superfamily",
    "cath_topology": "the same CATH topology, another superfamily",
}
ALIGNERS = {"residues_local": "residues, local", "blosum": "BLOSUM62 (needs sequences)"}
#: Scorers that are printed with intervals.
WITH_INTERVALS = (
    "model",
    "residues_global",
    "residues_local",
    "residues_excess",
    "residues_backed",
)
LEFT_OUT = {"alone": "no relatives", "unlabelled": "no label"}


def evaluate(
    context: typer.Context,
    store: StoreList,
    model: ModelPath,
    split: SplitPath,
    part: PartOfSplit = "test",
    families: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns id and family. Default: clusters at 95 % identity."
        ),
    ] = None,
    family_column: Annotated[
        str | None,
        typer.Option(help="Column with the family. Default: family, cluster or label."),
    ] = None,
    scop: Annotated[
        Path | None,
        typer.Option(help="CSV file with the columns id and scop (an sccs such as b.1.1.1)."),
    ] = None,
    scop_column: Annotated[
        str | None,
        typer.Option(help="Column with the sccs. Default: scop, scope, sccs or label."),
    ] = None,
    cath: Annotated[
        Path | None,
        typer.Option(help="CSV file with the columns id and cath (a code such as 3.40.50.1260)."),
    ] = None,
    cath_column: Annotated[
        str | None, typer.Option(help="Column with the CATH code. Default: cath or label.")
    ] = None,
    residues: Annotated[
        bool | None,
        typer.Option(
            "--residues/--no-residues",
            help="Rank by the residue stage as well. Default: if that takes minutes, not hours.",
        ),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            help="Cut a random share, at most this one (such as 0.2), off each end of the queries "
            "and embed them again."
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="<int>", help="Resamples for the intervals; 0 for none.")
    ] = 1000,
    method: Method = "auto",
    seed: Seed = 0,
    sequence_weights: SequenceWeights = None,
    structure_weights: StructureWeights = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report to this JSON file as well.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval with intervals, baselines and leakage.

    Prints Recall@1, 5 and 10, MRR and the median rank in both directions, each with a 95 %
    interval, by the model's vectors and by its residue stage. Below them stand baselines that use
    no model, and at the end the overlap between this part of the split and the training data. With
    --scop or --cath it also measures how well relatives without nearer ones are found.

    \b
    Example:
      protalign evaluate store.zarr --model model/ --split split.csv
    """
    wanting = {
        "families": (families, ["family_column"]),
        "scop": (scop, ["scop_column"]),
        "cath": (cath, ["cath_column"]),
        "crop": (crop, ["sequence_weights", "structure_weights", "scheduler"]),
    }
    for option, (given, names) in wanting.items():
        if given is None:
            refuse_unused(context, names, f"--{option}")
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(
            f"--out {out}: {out.parent} is not a folder", "make it or name another file"
        )
    if out is not None and out.is_dir():
        raise InputError(f"--out {out}: it is a folder", "name a file in it")
    with quick_imports():
        from protalign.core.files import write_json
        from protalign.encoders.recorded import RecordedEncoders
        from protalign.evaluation.evaluate import evaluate as run
        from protalign.evaluation.labels import (
            CATH_COLUMNS,
            FAMILY_COLUMNS,
            SCOP_COLUMNS,
            read_labels,
        )
        from protalign.heads.model import Model
        from protalign.splits import read_split
        from protalign.stores import EmbeddingStore

    parts = read_split(split)
    views = parts.of(EmbeddingStore.open(store))
    if not len(views[part]):
        raise InputError(f"{split}: its {part} part is empty", "name another with --part")
    loaded = Model.load(model, device)

    def labels(
        file: Path | None, column: str | None, usual: Sequence[str]
    ) -> dict[str, str] | None:
        return None if file is None else read_labels(file, column, usual)

    weights = given_weights(sequence_weights, structure_weights)
    report = {
        "split": {"file": path_text(split), "how": parts.how, "part": part},
        **run(
            loaded,
            views[part],
            train=views["train"] if part != "train" and len(views["train"]) else None,
            families=labels(families, family_column, FAMILY_COLUMNS),
            scop=labels(scop, scop_column, SCOP_COLUMNS),
            cath=labels(cath, cath_column, CATH_COLUMNS),
            crop=crop,
            residues=residues,
            encoders=RecordedEncoders(loaded.encoders, weights, device),
            n_bootstrap=bootstrap,
            random_state=seed,
            method=method,
            scheduler=scheduler,
        ),
    }
    if out is not None:
        write_json(out, report)
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    split = report["split"]
    print(
        printable(f"{split['part']} part of {split['file']}")
        + (f": {printable(split['how'])}" if split["how"] else "")
    )
    print(
        f"{report['n_sequences']:,} unique sequences, {report['n_structures']:,} unique structures "
        f"of {counted(report['n_entries'], 'entry', 'entries')}"
        + (f"; {report['n_skipped']:,} have only one of the two" if report["n_skipped"] else "")
    )
    print(f"the model's epoch was chosen by: {report['model']['validation']}")
    if report["crop"] is not None:
        print(
            f"queries are cut: each end of a chain loses a random 0 to {100 * report['crop']:g} % "
            "of its residues; candidates are whole; a query's length is that after the cut"
        )
    print(f"residue stage: {report['residues']}")
    families, intervals = report["families"], report["intervals"]
    unlabelled = families["n_unlabelled"]
    print(
        f"families: {families['n']:,} ({printable(families['how'])})"
        + (
            f"; {counted(unlabelled, 'entry', 'entries')} without one, each a family of its own"
            if unlabelled
            else ""
        )
    )
    if intervals["resamples"] and families["n"] > 1:
        print(
            f"in brackets: {100 * intervals['level']:.0f} % bootstrap intervals, "
            f"{intervals['resamples']:,} resamples of whole {intervals['units']}"
        )
    for direction in ("sequence_to_structure", "structure_to_sequence"):
        _print_direction(direction, report[direction])
    if report["register"]:
        _print_register(report["register"])
    _print_baselines(report)
    _print_leakage(report)


def _print_direction(direction: str, result: dict[str, Any]) -> None:
    queries, candidates = direction.split("_to_")
    print(
        f"\n{queries} to {candidates}: {result['n_queries']:,} queries, "
        f"{result['n_candidates']:,} candidates"
    )
    header = ["", "Recall@1 %", "Recall@5 %", "Recall@10 %", "MRR", "median rank"]
    rows: list[list[str]] = []
    for task, figures in result["tasks"].items():
        rows.append([f"{TASKS[task].format(candidates)} ({_numbers(figures)})"])
        rows += [
            [f"  {name}", *_cells(figures[scorer], intervals=scorer in WITH_INTERVALS)]
            for scorer, name in SCORERS.items()
            if scorer in figures
        ]
    print_table(header, rows)
    if result["remote"]:
        _print_remote(result["remote"], candidates)


def _print_remote(remote: dict[str, Any], candidates: str) -> None:
    print(
        "\nrelatives without nearer ones; sensitivity: the share of a query's relatives above the "
        f"first {candidates} of another fold"
    )
    rows: list[list[str]] = []
    for scheme, levels in remote.items():
        for level, figures in levels.items():
            rows.append([f"{REMOTE[f'{scheme}_{level}']} ({_numbers(figures)})"])
            rows += [
                [
                    f"  {name}",
                    *(
                        _cell(figures[scorer][measure], _percent, scorer in WITH_INTERVALS)
                        for measure in ("recall_at_1", "recall_at_5", "sensitivity")
                    ),
                ]
                for scorer, name in SCORERS.items()
                if scorer in figures
            ]
    print_table(["", "Recall@1 %", "Recall@5 %", "sensitivity %"], rows)


def _print_register(register: dict[str, Any]) -> None:
    print(
        "\nresidues of a sequence on a relative's structure, against a structural alignment: the "
        "share of its\npairs that are aligned exactly, or at most 4 residues off"
    )
    rows: list[list[str]] = []
    for scheme, levels in register.items():
        for level, figures in levels.items():
            pairs = counted(figures["n_pairs"], "pair", "pairs")
            rows.append([f"{REMOTE[f'{scheme}_{level}']} ({pairs} of {figures['n_superposed']:,})"])
            rows += [
                [f"  {name}", *(_cell(figures[key][m], _percent, True) for m in ("exact", "near"))]
                for key, name in ALIGNERS.items()
                if key in figures
            ]
    print_table(["", "exact %", "within 4 %"], rows)


def _numbers(figures: dict[str, Any]) -> str:
    """Return a task's queries in words, and those left out."""
    notes = [
        f"{figures['left_out'][reason]:,} left out: {words}"
        for reason, words in LEFT_OUT.items()
        if figures["left_out"].get(reason)
    ]
    return "; ".join([f"{figures['n_queries']:,} queries", *notes])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _cell(figure: dict[str, Any], form: Callable[[float], str], intervals: bool) -> str:
    value, low, high = (figure[part] for part in ("value", "low", "high"))
    text = form(value).rjust(6)
    return f"{text} ({form(low)}-{form(high)})" if intervals and low is not None else text


def _cells(figures: dict[str, Any], *, intervals: bool) -> list[str]:
    return [
        *(_cell(figures[f"recall_at_{k}"], _percent, intervals) for k in (1, 5, 10)),
        _cell(figures["mrr"], lambda value: f"{value:.3f}", intervals),
        _cell(figures["median_rank"], lambda value: f"{round(value, 1):g}", intervals),
    ]


def _print_baselines(report: dict[str, Any]) -> None:
    print("\nbaselines, which do not use the model:")
    for name, description in report["baselines"].items():
        print(f"  {SCORERS[name]}: {description}")


def _print_leakage(report: dict[str, Any]) -> None:
    leakage = report["leakage"]
    if leakage is None:
        print(
            "\nleakage: unknown, since the split has no train part or that part is evaluated itself"
        )
        return
    print(
        f"\nleakage: of {leakage['n_sequences']:,} sequences, {leakage['exact']:,} are in training "
        f"exactly, {leakage['at_95']:,} with a chain at 95 % identity or more, "
        f"{leakage['at_30']:,} at 30 % (among {leakage['n_training_sequences']:,} training "
        f"sequences; {leakage['how']})"
    )
    if not leakage["pairs_agree"]:
        fitted = report["model"]
        print(
            f"  but the model was trained on {fitted['n_pairs']:,} pairs "
            f"({fitted['n_validation_pairs']:,} more chose its epoch), and the split's train part "
            f"has {leakage['n_training_pairs']:,}; pairs outside that part are not counted here"
        )
