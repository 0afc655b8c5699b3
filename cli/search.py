"""``protalign search``: the nearest structures to a sequence, and back."""

from __future__ import annotations

import math
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from protalign.cli.console import (
    SOME_FAILED,
    print_failures,
    print_json,
    print_table,
    quick_imports,
)
from protalign.cli.options import AsJson, Device, SequenceWeights, StructureWeights
from protalign.core.errors import InputError
from protalign.core.words import Against, Modality

if TYPE_CHECKING:
    from protalign.search.queries import Queries
    from protalign.stores import AlignedVectors, EmbeddingStore

#: The forms in which hits are printed.
Format = Literal["table", "tsv", "json"]
#: A hit's columns; tm_score is added if it is asked for.
COLUMNS = ("query", "rank", "id", "cosine", "length", "against")


def search(
    queries: Annotated[
        list[str],
        typer.Argument(
            help="Ids of the vectors; FASTA files, structure files or folders of them; or Parquet "
            "files of vectors. If 1a30 is an id and a file, ./1a30 is the file.",
            show_default=False,
        ),
    ],
    vectors: Annotated[
        Path,
        typer.Option(
            "--vectors", help="The Parquet file to search, which `protalign export` wrote."
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", help="The model that made the vectors; needed if queries are files."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="<int>", help="Hits per query.")] = 5,
    against: Annotated[
        Against,
        typer.Option(
            help="Search among sequences, among structures, or (other) among structures for a "
            "sequence and among sequences for a structure."
        ),
    ] = "other",
    query_by: Annotated[
        Modality,
        typer.Option(help="Vector to query with, if the query is an id or a Parquet file."),
    ] = "sequence",
    tm_score: Annotated[
        bool,
        typer.Option(
            "--tm-score",
            help="Superpose each hit on the query and print the TM-score, normalised by the "
            "query's length.",
        ),
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            help="--tm-score: the store with the hits' coordinates. Default: the one that the "
            "vectors were exported from."
        ),
    ] = None,
    output: Annotated[
        Format | None,
        typer.Option("--format", help="How to print the hits. Default: table.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    sequence_weights: SequenceWeights = None,
    structure_weights: StructureWeights = None,
    device: Device = "auto",
) -> None:
    """Find the nearest proteins in a file of vectors.

    Hits are ranked by cosine similarity.

    \b
    Examples:
      protalign search query.fasta --vectors vectors.parquet --model model/ -k 5
      protalign search 1a30 3ebp --vectors vectors.parquet --tm-score

    Exit code: 0 if nothing failed, 3 if some queries could not be read, 2 for wrong usage.
    """
    if as_json and output not in (None, "json"):
        raise InputError(f"--format {output}: contradicts --json", "give one of the two")
    with quick_imports():
        from protalign.search.queries import open_coordinates
        from protalign.stores import read_vectors

    targets = read_vectors(vectors)
    coordinates = open_coordinates(targets, store) if tm_score else None
    weights: dict[Modality, Path | None] = {
        "sequence": sequence_weights,
        "structure": structure_weights,
    }
    found = _queries(queries, targets, query_by, model, weights, device, coordinates)
    hits = _hits(found, targets, k, against)
    if coordinates is not None:
        _add_tm_scores(hits, found, coordinates)
    _print(
        list(chain(*hits)),
        "json" if as_json else output or "table",
        [*COLUMNS, "tm_score"] if tm_score else list(COLUMNS),
    )
    print_failures(found.failures)
    if found.failures:
        raise typer.Exit(SOME_FAILED)


def _queries(
    given: list[str],
    targets: AlignedVectors,
    query_by: Modality,
    model: Path | None,
    weights: dict[Modality, Path | None],
    device: str,
    coordinates: EmbeddingStore | None,
) -> Queries:
    """Files' proteins, embedded; then ids; then the entries of files of vectors."""
    from protalign.search.queries import check_same_model, coordinates_of, stored_queries
    from protalign.stores import read_vectors

    entries = set(targets.ids.tolist())
    # os.path: Path("") is a folder, and a name too long is an error to it.
    paths = [text for text in given if text not in entries and os.path.exists(text)]  # noqa: PTH110
    tables = [path for path in paths if Path(path).suffix == ".parquet"]
    files = [path for path in paths if path not in tables]
    ids = [text for text in given if text not in paths]
    found = stored_queries(targets, ids, query_by, coordinates)
    for table in tables:
        asked = read_vectors(table)
        check_same_model(asked, targets)
        theirs = coordinates and coordinates_of(asked, targets, coordinates)
        found = found.and_also(stored_queries(asked, asked.ids.tolist(), query_by, theirs))
    if not files:
        return found
    if model is None:
        raise InputError(
            f"{files[0]}: it is not embedded yet", "give --model, the model that made the vectors"
        )
    return _embedded(files, targets, model, weights, device).and_also(found)


def _embedded(
    files: list[str],
    targets: AlignedVectors,
    model: Path,
    weights: dict[Modality, Path | None],
    device: str,
) -> Queries:
    with quick_imports():
        from protalign.heads.model import Model
        from protalign.search.queries import check_made_by, embed_queries, read_options

    loaded = Model.load(model, device)
    check_made_by(targets, loaded)
    return embed_queries(
        files,
        loaded,
        options=read_options(targets),
        weights={kind: str(path) for kind, path in weights.items() if path is not None},
        device=device,
    )


def _hits(
    queries: Queries, targets: AlignedVectors, k: int, against: Against
) -> list[list[dict[str, Any]]]:
    """Return a dict for each hit of each query, best hit first."""
    ranked: list[Any] = [None] * len(queries.ids)
    kinds = [
        {"sequence": "structure", "structure": "sequence"}[modality]
        if against == "other"
        else against
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
        [
            {
                "query": query,
                "rank": rank,
                "id": str(targets.ids[row]),
                "cosine": cosine,
                "length": None if targets.lengths is None else int(targets.lengths[row]),
                "against": kind,
            }
            for rank, (row, cosine) in enumerate(hits, start=1)
        ]
        for query, kind, hits in zip(queries.ids, kinds, ranked, strict=True)
    ]


def _add_tm_scores(
    hits: list[list[dict[str, Any]]], queries: Queries, store: EmbeddingStore
) -> None:
    """None where the query or the hit has no coordinates."""
    from protalign.search.queries import stored_backbone
    from protalign.search.superposition import tm_score

    for query, own in zip(queries.backbones, hits, strict=True):
        for hit in own:
            target = None if query is None else stored_backbone(store, hit["id"])
            score = math.nan if query is None or target is None else tm_score(query, target)
            hit["tm_score"] = None if math.isnan(score) else score


def _print(hits: list[dict[str, Any]], output: Format, columns: list[str]) -> None:
    if output == "json":
        print_json({"hits": hits})
        return
    rows = [[_cell(column, hit[column]) for column in columns] for hit in hits]
    if output == "tsv":
        print("\t".join(columns))
        for row in rows:
            print("\t".join(row))
        return
    print_table(columns, rows)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "cosine":
        return f"{value:.4f}"
    return f"{value:.3f}" if column == "tm_score" else str(value)
