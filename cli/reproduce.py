"""``protalign reproduce``: the paper's tables and figures on a store and a split."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from protalign.cli.console import ConsoleReporter, print_json, print_table, quick_imports
from protalign.cli.fit import EncoderName


def reproduce(
    store: Annotated[Path, typer.Argument(help="A store that `protalign embed` made.")],
    split: Annotated[Path, typer.Option("--split", help="A file that `protalign split` wrote.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the report; finished runs are kept.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each configuration.")] = 3,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Runs side by side; default: one a core."),
    ] = None,
    families: Annotated[
        Path | None,
        typer.Option(help="CSV file id,family of the test part; default: clusters at 95 %."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few configurations and epochs, to try it out.")
    ] = False,
    sequence_encoder: EncoderName = None,
    structure_encoder: EncoderName = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, nothing else.")
    ] = False,
) -> None:
    """Train the paper's configurations, and write one page with its tables and figures.

    Run again, it trains what is missing only. `index.html` needs no network; results.json holds
    the numbers, config.json what they were made from, figures/ the pictures.
    """
    from protalign.report import check_installed

    check_installed()
    with quick_imports():
        from protalign.reading.processes import available_processors
        from protalign.report.plan import Options
        from protalign.report.reproduce import reproduce as run
        from protalign.splits.make import read_split
        from protalign.stores import EmbeddingStore

    options = Options(
        seeds=seeds,
        jobs=jobs or available_processors(),
        quick=quick,
        families=families,
        sequence_encoder=sequence_encoder,
        structure_encoder=structure_encoder,
        command=shlex.join(["protalign", *sys.argv[1:]]),
    )
    chosen = read_split(split)
    with ConsoleReporter(quiet=quiet or as_json) as reporter:
        summary = run(EmbeddingStore.open(store), chosen, out, options, reporter)
    if as_json:
        print_json(
            {
                "page": str(summary.page),
                "trained": summary.trained,
                "kept": summary.kept,
                "failed": summary.failed,
            }
        )
    elif not quiet:
        _print_tables(summary.results)
        print(f"{summary.page}: {summary.trained} runs trained, {summary.kept} kept")
    if summary.failed:
        for label, error in summary.failed.items():
            print(f"  {label}: {error}", file=sys.stderr)
        raise typer.Exit(3)


def _print_tables(results: dict[str, list[dict[str, dict[str, object]]]]) -> None:
    from protalign.report.text import table_lines

    for table in results["tables"]:
        title, header, rows = table_lines(table)
        print(title)
        print_table(header, rows)
        print()
