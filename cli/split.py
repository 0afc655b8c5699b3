"""``protalign split``: which entries train, which stop training early, which are tested on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protalign.cli.console import print_json, print_table, refuse_unused

if TYPE_CHECKING:
    from protalign.splits.make import Split
    from protalign.stores import EmbeddingStore


class By(StrEnum):
    """Ways to make a split."""

    pdbbind = "pdbbind"
    cluster = "cluster"
    column = "column"


class Validation(StrEnum):
    """What of PDBbind is stopped early on."""

    refined = "refined"
    random = "random"
    cluster = "cluster"


class Method(StrEnum):
    """How sequences are clustered."""

    auto = "auto"
    mmseqs = "mmseqs"
    kmer = "kmer"


#: Options that only some ways of splitting have.
OPTIONS = {
    By.column: ("id_column", "part_column"),
    By.pdbbind: ("index", "year", "validation"),
    By.cluster: ("fractions",),
}


def split(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(help="A store that `protalign embed` made.")],
    by: Annotated[
        By,
        typer.Option(help="PDBbind's sets, whole sequence clusters, or a column of your table."),
    ],
    table: Annotated[
        Path | None,
        typer.Argument(help="--by column: a CSV or TSV file with a header.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file: CSV, columns id and part; replaced.")
    ] = Path("split.csv"),
    id_column: Annotated[
        str | None, typer.Option(help="--by column: its name; default: id, or one like it.")
    ] = None,
    part_column: Annotated[
        str | None, typer.Option(help="--by column: its name; default: part, split or set.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="--by pdbbind: folder of PDBbind's INDEX files.")
    ] = None,
    year: Annotated[
        int | None, typer.Option(help="--by pdbbind: of the index; default: the newest there.")
    ] = None,
    validation: Annotated[
        Validation,
        typer.Option(
            help="--by pdbbind: the refined set, a random part, or whole families that are not in "
            "training (stopping early on these generalises better)."
        ),
    ] = Validation.refined,
    identity: Annotated[
        float, typer.Option(help="Sequence identity (0 to 1) that links chains to a cluster.")
    ] = 0.3,
    fractions: Annotated[
        str, typer.Option(help="--by cluster: of train, validation and test.")
    ] = "0.8,0.1,0.1",
    method: Annotated[
        Method, typer.Option(help="MMseqs2, or a coarse k-mer fallback; auto: what there is.")
    ] = Method.auto,
    seed: Annotated[int, typer.Option(help="Same seed, same split.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, nothing else.")
    ] = False,
) -> None:
    """Write a split: a small file of ids that `fit`, `score`, `evaluate` and `reproduce` take.

    \b
    protalign split store.zarr --by pdbbind --index index/
    protalign split store.zarr --by cluster --identity 0.3 --out split.csv
    protalign split store.zarr --by column table.csv --out split.csv
    """
    from protalign.core.errors import InputError
    from protalign.splits.make import PAPER_COUNTS, by_cluster, by_column, write_split
    from protalign.stores import EmbeddingStore

    if (by is By.column) != (table is not None):
        raise InputError("a table goes with --by column", "give both, or neither")
    for other, names in OPTIONS.items():
        if by is not other:
            refuse_unused(context, names, f"--by {other.value}")
    chosen = validation if by is By.pdbbind else None
    if by is not By.cluster and chosen is not Validation.cluster:
        wants = "--by cluster or --validation cluster"
        refuse_unused(context, ("identity", "method"), wants)
        if chosen is not Validation.random:
            refuse_unused(context, ["seed"], f"{wants} or random")
    opened = EmbeddingStore.open(store)
    if table is not None:
        made = by_column(opened, table, id_column, part_column)
    elif by is By.cluster:
        made = by_cluster(
            opened, identity, _numbers(fractions), random_state=seed, method=method.value
        )
    else:
        made = _by_pdbbind(opened, index, year, validation, identity, seed, method)
    write_split(made, out)
    paper = PAPER_COUNTS if by is By.pdbbind else None
    if as_json:
        compared = {} if paper is None else {"paper": paper}
        print_json({"how": made.how, "counts": made.counts, **compared, "file": str(out)})
        return
    print(f"{out}: {made.how}")
    rows = [[part, f"{count:,}"] for part, count in made.counts.items()]
    if paper is None:
        print_table(["part", "entries"], rows)
        return
    compared_rows = [[*row, f"{paper[row[0]]:,}"] for row in rows]
    print_table(["part", "entries", "paper (PDBbind v2020)"], compared_rows)


def _by_pdbbind(
    store: EmbeddingStore,
    index: Path | None,
    year: int | None,
    validation: Validation,
    identity: float,
    seed: int,
    method: Method,
) -> Split:
    from protalign.core.errors import InputError
    from protalign.splits.make import by_pdbbind
    from protalign.splits.pdbbind import read_index

    if index is None:
        raise InputError("--by pdbbind needs --index", "name the folder of PDBbind's INDEX files")
    return by_pdbbind(
        store,
        read_index(index, year),
        validation=validation.value,
        identity=identity,
        random_state=seed,
        method=method.value,
    )


def _numbers(text: str) -> list[float]:
    from protalign.core.errors import InputError

    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--fractions {text}", "give three numbers, such as 0.8,0.1,0.1") from None
