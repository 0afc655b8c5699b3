"""``protalign split``: a store's proteins into training, validation and test parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from protalign.cli.console import print_json, print_table, refuse_unused
from protalign.cli.options import AsJson, Method, Seed, StorePath
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import Validation

#: The ways to make a split, each a function of ``protalign.splits.make``.
By = Literal["pdbbind", "cluster", "column"]
#: Options that only some ways have.
OPTIONS: dict[By, tuple[str, ...]] = {
    "column": ("id_column", "part_column"),
    "pdbbind": ("index", "year", "validation"),
    "cluster": ("fractions",),
}


def split(
    context: typer.Context,
    store: StorePath,
    by: Annotated[
        By,
        typer.Option(help="Use PDBbind's sets, whole sequence clusters, or a column of a table."),
    ],
    table: Annotated[
        Path | None,
        typer.Argument(help="--by column: a CSV or TSV file with a header.", show_default=False),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The CSV file to write (columns id, part); replaced."),
    ] = Path("split.csv"),
    id_column: Annotated[
        str | None,
        typer.Option(help="--by column: the column of ids. Default: id, or a similar name."),
    ] = None,
    part_column: Annotated[
        str | None,
        typer.Option(help="--by column: the column of parts. Default: part, split or set."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="--by pdbbind: the folder of PDBbind's INDEX files.")
    ] = None,
    year: Annotated[
        int | None,
        typer.Option(help="--by pdbbind: the release year. Default: the newest in the folder."),
    ] = None,
    validation: Annotated[
        Validation,
        typer.Option(
            help="--by pdbbind: validate on the refined set, on a random part, or on whole "
            "sequence clusters that are not in training (the last generalises best)."
        ),
    ] = "refined",
    identity: Annotated[
        float, typer.Option(help="Sequence identity (0 to 1) that puts chains into one cluster.")
    ] = 0.3,
    fractions: Annotated[
        str, typer.Option(help="--by cluster: the shares of training, validation and test.")
    ] = "0.8,0.1,0.1",
    method: Method = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Divide proteins into training, validation and test parts.

    Writes a small CSV file that `fit`, `score`, `evaluate` and `reproduce` take with --split.

    \b
    Examples:
      protalign split store.zarr --by cluster --identity 0.3 --out split.csv
      protalign split store.zarr --by column table.csv --out split.csv
      protalign split store.zarr --by pdbbind --index index/
    """
    if table is not None and (table.is_dir() or table.suffix == ".zarr"):
        raise InputError(
            f"{path_text(table)}: it is a folder, and one store is named",
            "name several stores by a quoted pattern, such as 'shards/*.zarr'",
        )
    if (by == "column") != (table is not None):
        raise InputError("--by column: needs a table, and only it does", "give both or neither")
    if by == "pdbbind" and index is None:
        raise InputError("--by pdbbind: needs --index", "name the folder of PDBbind's INDEX files")
    for other, names in OPTIONS.items():
        if by != other:
            refuse_unused(context, names, f"--by {other}")
    validated = validation if by == "pdbbind" else None
    if by != "cluster" and validated != "cluster":
        wants = "--by cluster or --validation cluster"
        refuse_unused(context, ("identity", "method"), wants)
        if validated != "random":
            refuse_unused(context, ["seed"], f"{wants} or random")
    from protalign.splits import by_cluster, by_column, by_pdbbind, read_index, write_split
    from protalign.splits.make import PAPER_COUNTS
    from protalign.stores import EmbeddingStore

    opened = EmbeddingStore.open(store)
    if table is not None:
        made = by_column(opened, table, id_column, part_column)
    elif index is not None:
        made = by_pdbbind(
            opened,
            read_index(index, year),
            validation=validation,
            identity=identity,
            random_state=seed,
            method=method,
        )
    else:
        made = by_cluster(opened, identity, _numbers(fractions), random_state=seed, method=method)
    write_split(made, out)
    paper = PAPER_COUNTS if by == "pdbbind" else None
    if as_json:
        compared = {} if paper is None else {"paper": paper}
        print_json({"how": made.how, "counts": made.counts, **compared, "file": path_text(out)})
        return
    print(printable(f"{out}: {made.how}"))
    rows = [[part, f"{count:,}"] for part, count in made.counts.items()]
    if paper is None:
        print_table(["part", "entries"], rows)
    else:
        compared_rows = [[*row, f"{paper[row[0]]:,}"] for row in rows]
        print_table(["part", "entries", "paper (PDBbind v2020)"], compared_rows)


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(
            f"--fractions {text}: not numbers", "give three with commas, such as 0.8,0.1,0.1"
        ) from None
