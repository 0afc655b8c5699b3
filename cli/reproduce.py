"""``protalign reproduce``: the paper's tables and figures on a store and a split."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from protalign.cli.console import (
    SOME_FAILED,
    ConsoleReporter,
    on_ctrl_c,
    print_json,
    print_table,
    quick_imports,
)
from protalign.cli.options import (
    AsJson,
    Quiet,
    SequenceEmbeddings,
    SplitPath,
    StorePath,
    StructureEmbeddings,
)
from protalign.core.printing import printable
from protalign.core.words import counted


def reproduce(
    store: StorePath,
    split: SplitPath,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The folder for the report; finished runs are kept."),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="Runs of each configuration.")
    ] = 3,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, metavar="<int>", help="Runs at once. Default: one per core."
        ),
    ] = None,
    families: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns id and family for the test part. Default: clusters at "
            "95 % identity."
        ),
    ] = None,
    scop: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns id and scop (an sccs such as b.1.1.1): the page then "
            "has remote relatives."
        ),
    ] = None,
    cath: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns id and cath (a code such as 3.40.50.1260), likewise."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Train few configurations and epochs, to try it out.")
    ] = False,
    sequence_encoder: SequenceEmbeddings = None,
    structure_encoder: StructureEmbeddings = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train the paper's models and write a report.

    The report is one page, index.html, that works without a network. results.json has the numbers,
    config.json the settings, and figures/ the pictures. Needs the report extra (pip install
    "protalign[report]"). Run the same command again to resume: finished runs are kept.

    \b
    Example:
      protalign reproduce store.zarr --split split.csv --out report/

    Exit code: 0 if all went well, 3 if some configurations could not be trained, 2 for wrong usage.
    """
    from protalign.report import check_installed

    check_installed()
    with quick_imports():
        from protalign.core.machine import core_count
        from protalign.report.plan import ReproduceOptions
        from protalign.report.reproduce import reproduce as run
        from protalign.splits import read_split
        from protalign.stores import EmbeddingStore

    options = ReproduceOptions(
        seeds=seeds,
        jobs=jobs or core_count(),
        quick=quick,
        families=families,
        scop=scop,
        cath=cath,
        sequence_encoder=sequence_encoder,
        structure_encoder=structure_encoder,
        command=shlex.join(["protalign", *sys.argv[1:]]),
    )
    parts = read_split(split)
    with (
        on_ctrl_c("run the same command again to continue"),
        ConsoleReporter(quiet=quiet or as_json) as reporter,
    ):
        summary = run(EmbeddingStore.open(store), parts, out, options, reporter)
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
        trained = counted(summary.trained, "run")
        print(f"{printable(summary.page)}: {trained} trained, {summary.kept} kept")
    if summary.failed:
        for label, error in summary.failed.items():
            print(printable(f"  {label}: {error}"), file=sys.stderr)
        raise typer.Exit(SOME_FAILED)


def _print_tables(results: dict[str, list[dict[str, dict[str, object]]]]) -> None:
    from protalign.report.results import table_lines

    for table in results["tables"]:
        title, header, rows = table_lines(table)
        print(title)
        print_table(header, rows)
        print()
