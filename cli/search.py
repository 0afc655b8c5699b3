"""``protalign search``: the nearest structures to a sequence, and back."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protalign.cli.console import print_failures, print_json, print_table

if TYPE_CHECKING:
    from protalign.protein import Modality
    from protalign.search import Queries
    from protalign.stores import AlignedVectors


class Against(StrEnum):
    """Whose vectors are ranked."""

    other = "other"
    sequence = "sequence"
    structure = "structure"


class Format(StrEnum):
    """How hits are printed."""

    table = "table"
    tsv = "tsv"
    json = "json"


#: A hit's columns.
COLUMNS = ("query", "rank", "id", "cosine", "against")


def search(
    queries: Annotated[
        list[Path], typer.Argument(help="FASTA or structure files, or folders of them.")
    ],
    vectors: Annotated[
        Path, typer.Option("--vectors", help="A Parquet file that `protalign export` wrote.")
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="The model that made the vectors.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Hits for each query.")] = 5,
    against: Annotated[
        Against,
        typer.Option(help="other: a sequence among structures, a structure among sequences."),
    ] = Against.other,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
    sequence_weights: Annotated[
        Path | None, typer.Option(help="The sequence encoder's weights, if not found by itself.")
    ] = None,
    structure_weights: Annotated[
        Path | None, typer.Option(help="The structure encoder's weights, if not found by itself.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Find the nearest entries of an exported file by cosine similarity.

    Exit code: 0 if nothing failed, 3 if some queries could not be read, 2 for wrong usage.
    """
    from protalign.estimator import ProtAlignEstimator
    from protalign.search import check_made_by, embed_queries
    from protalign.stores import read_vectors

    targets = read_vectors(vectors)
    estimator = ProtAlignEstimator.load(model).set_params(device=device)
    check_made_by(targets, estimator)
    given: dict[Modality, Path | None] = {
        "sequence": sequence_weights,
        "structure": structure_weights,
    }
    found = embed_queries(
        queries,
        estimator,
        weights={kind: str(path) for kind, path in given.items() if path is not None},
        device=device,
    )
    _print(_hits(found, targets, k, against), output)
    if found.failures:
        print(f"{len(found.failures):,} failed:", file=sys.stderr)
        print_failures(found.failures)
        raise typer.Exit(3)


def _hits(
    queries: Queries, targets: AlignedVectors, k: int, against: Against
) -> list[dict[str, Any]]:
    """A dict for each hit, queries in their order, best hit first."""
    ranked: list[Any] = [None] * len(queries.ids)
    kinds = [
        {"sequence": "structure", "structure": "sequence"}[modality]
        if against is Against.other
        else against.value
        for modality in queries.modality
    ]
    for kind in ("sequence", "structure"):
        chosen = [index for index, own in enumerate(kinds) if own == kind]
        if not chosen:
            continue
        rows, cosine = targets.search(queries.vectors[chosen], k, against=kind)
        for index, own_rows, own_cosine in zip(chosen, rows, cosine, strict=True):
            ranked[index] = zip(own_rows.tolist(), own_cosine.tolist(), strict=True)
    return [
        dict(zip(COLUMNS, (query, rank, str(targets.ids[row]), cosine, kind), strict=True))
        for query, kind, hits in zip(queries.ids, kinds, ranked, strict=True)
        for rank, (row, cosine) in enumerate(hits, start=1)
    ]


def _print(hits: list[dict[str, Any]], output: Format) -> None:
    if output is Format.json:
        print_json({"hits": hits})
        return
    rows = [
        [hit["query"], str(hit["rank"]), hit["id"], f"{hit['cosine']:.4f}", hit["against"]]
        for hit in hits
    ]
    if output is Format.tsv:
        print("\t".join(COLUMNS))
        for row in rows:
            print("\t".join(row))
        return
    print_table(COLUMNS, rows)
