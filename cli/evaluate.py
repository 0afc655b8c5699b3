"""``protalign evaluate``: retrieval with intervals, baselines and a leakage audit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protalign.cli.console import print_json, print_table, quick_imports, refuse_unused
from protalign.cli.fit import AsJson, Device, ModelPath, Part, StorePath

if TYPE_CHECKING:
    from protalign.core.protein import Modality

#: How a task is called on the terminal; {0} is the candidates' modality, {1} a clean part's limit.
TASKS = {
    "protein": "its own {0}, among all",
    "family": "any of its family",
    "within_family": "its own {0}, among its family's",
    "scop_fold": "another of its SCOPe fold",
    "scop_superfamily": "another of its SCOPe superfamily",
    "scop_family": "another of its SCOPe family",
    "clean_95": "its own {0}; not in training at 95 % identity",
    "clean_30": "its own {0}; not in training at 30 % identity",
}
SCORERS = {
    "model": "model",
    "chance": "chance",
    "family": "random in true family",
    "length": "length only",
    "family_and_length": "family and length",
    "kmers": "k-mers (a ceiling)",
    "cca": "CCA of means",
}
LEFT_OUT = {"alone": "that are alone", "unlabelled": "without a label"}


def evaluate(
    context: typer.Context,
    store: StorePath,
    model: ModelPath,
    split: Annotated[Path, typer.Option("--split", help="A file that `protalign split` wrote.")],
    part: Annotated[Part, typer.Option(help="The part to evaluate on.")] = Part.test,
    families: Annotated[
        Path | None,
        typer.Option(help="CSV with columns id and family; default: computed, 95 % identity."),
    ] = None,
    family_column: Annotated[str | None, typer.Option(help="Its name, if not family.")] = None,
    scop: Annotated[
        Path | None, typer.Option(help="CSV with columns id and scop (sccs such as b.1.1.1).")
    ] = None,
    scop_column: Annotated[str | None, typer.Option(help="Its name, if not scop.")] = None,
    crop: Annotated[
        float | None,
        typer.Option(help="Cut up to this part (0.2) off each end of the queries, at random."),
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resampling and the cuts.")] = 0,
    sequence_weights: Annotated[
        Path | None, typer.Option(help="For --crop: the encoder's, if not found by itself.")
    ] = None,
    structure_weights: Annotated[
        Path | None, typer.Option(help="For --crop: the encoder's, if not found by itself.")
    ] = None,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report as JSON, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Retrieval on a part of a split: recall, MRR and median rank, both ways, with intervals.

    Under each figure of the model are those of baselines that use no model, and at the end stands
    how much of the part occurs in training. Figures of the model are followed by 95 % intervals.
    """
    wanting = {
        "families": (families, ["family_column"]),
        "scop": (scop, ["scop_column"]),
        "crop": (crop, ["sequence_weights", "structure_weights"]),
    }
    for option, (given, names) in wanting.items():
        if given is None:
            refuse_unused(context, names, f"--{option}")
    with quick_imports():
        from protalign.core.errors import InputError
        from protalign.encoders.recorded import RecordedEncoders
        from protalign.estimator.estimator import ProtAlignEstimator
        from protalign.evaluation.evaluate import evaluate as evaluated
        from protalign.evaluation.test_set import FAMILY_COLUMNS, SCOP_COLUMNS, read_labels
        from protalign.splits.make import read_split
        from protalign.stores import EmbeddingStore

    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"{out.parent} is no folder", "make it, or name another file")
    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder", "name a file in it")
    estimator = ProtAlignEstimator.load(model).set_params(device=device)
    parts = read_split(split)
    views = parts.of(EmbeddingStore.open(store))
    if len(views[part.value]) == 0:
        raise InputError(f"{split} has no {part.value} entries", "name another --part")
    files: dict[Modality, Path | None] = {
        "sequence": sequence_weights,
        "structure": structure_weights,
    }

    def labels(
        file: Path | None, column: str | None, usual: Sequence[str]
    ) -> dict[str, str] | None:
        return None if file is None else read_labels(file, column, usual)

    weights = {kind: str(path) for kind, path in files.items() if path is not None}
    report = evaluated(
        estimator,
        views[part.value],
        train=views["train"] if part is not Part.train and len(views["train"]) else None,
        families=labels(families, family_column, FAMILY_COLUMNS),
        scop=labels(scop, scop_column, SCOP_COLUMNS),
        crop=crop,
        encoders=RecordedEncoders(estimator.encoders_, weights, device),
        n_bootstrap=bootstrap,
        random_state=seed,
    )
    report = {"split": {"file": str(split), "how": parts.how, "part": part.value}, **report}
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    split = report["split"]
    print(
        f"{split['part']} part of {split['file']}" + (f": {split['how']}" if split["how"] else "")
    )
    print(
        f"{report['n_sequences']:,} unique sequences, {report['n_structures']:,} unique structures "
        f"of {report['n_entries']:,} entries"
        + (f"; {report['n_skipped']:,} lack one of the two" if report["n_skipped"] else "")
    )
    print(f"epoch of the model chosen by: {report['model']['validation']}")
    if report["crop"] is not None:
        print(
            f"queries cut: each end of a chain by 0 to {100 * report['crop']:g} % of its residues, "
            "at random; candidates whole; length is the cut query's"
        )
    families, intervals = report["families"], report["intervals"]
    unlabelled = families["n_unlabelled"]
    print(
        f"families: {families['n']:,} ({families['how']})"
        + (f"; {unlabelled:,} entries without one are each its own" if unlabelled else "")
    )
    if intervals["resamples"] and families["n"] > 1:
        print(
            f"in brackets: {100 * intervals['level']:.0f} % bootstrap intervals, "
            f"{intervals['resamples']:,} resamples of whole {intervals['units']}"
        )
    for direction in ("sequence_to_structure", "structure_to_sequence"):
        _print_direction(direction, report[direction])
    _print_baselines(report)
    _print_leakage(report)


def _print_direction(direction: str, found: dict[str, Any]) -> None:
    asked, sought = direction.split("_to_")
    print(
        f"\n{asked} to {sought}: {found['n_queries']:,} queries, "
        f"{found['n_candidates']:,} candidates"
    )
    header = ["", "Recall@1 %", "Recall@5 %", "Recall@10 %", "MRR", "median rank"]
    rows: list[list[str]] = []
    for task, figures in found["tasks"].items():
        notes = [
            f"{figures['left_out'][why]:,} {what} left out"
            for why, what in LEFT_OUT.items()
            if figures["left_out"].get(why)
        ]
        counted = "; ".join([f"{figures['n_queries']:,} queries", *notes])
        rows.append([f"{TASKS[task].format(sought)} ({counted})"])
        rows += [
            [f"  {name}", *_cells(figures[scorer], intervals=scorer == "model")]
            for scorer, name in SCORERS.items()
            if scorer in figures
        ]
    print_table(header, rows)


def _cells(figures: dict[str, Any], *, intervals: bool) -> list[str]:
    def cell(name: str, form: Callable[[float], str]) -> str:
        value, low, high = (figures[name][part] for part in ("value", "low", "high"))
        shown = form(value).rjust(6)
        return f"{shown} ({form(low)}-{form(high)})" if intervals and low is not None else shown

    return [
        *(cell(f"recall_at_{k}", lambda value: f"{100 * value:.1f}") for k in (1, 5, 10)),
        cell("mrr", lambda value: f"{value:.3f}"),
        cell("median_rank", lambda value: f"{round(value, 1):g}"),
    ]


def _print_baselines(report: dict[str, Any]) -> None:
    print("\nbaselines, none of which uses the model:")
    for name, what in report["baselines"].items():
        print(f"  {SCORERS[name]}: {what}")


def _print_leakage(report: dict[str, Any]) -> None:
    leakage = report["leakage"]
    if leakage is None:
        print("\nleakage: not known, the training entries are not told or are those evaluated on")
        return
    n = leakage["n_sequences"]
    print(
        f"\nleakage: of {n:,} sequences, {leakage['exact']:,} are in training exactly, "
        f"{leakage['at_95']:,} with a chain at 95 % identity or more, {leakage['at_30']:,} at 30 % "
        f"(among {leakage['n_training_sequences']:,} training sequences; {leakage['how']})"
    )
    if not leakage["pairs_agree"]:
        fitted = report["model"]
        print(
            f"  but the model was trained on {fitted['n_pairs']:,} pairs "
            f"({fitted['n_validation_pairs']:,} more chose its epoch), and the split's train part "
            f"has {leakage['n_training_pairs']:,}: what it saw outside that part is not counted"
        )
