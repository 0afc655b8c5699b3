"""``protalign search``: the nearest structures to a sequence, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from protalign.cli.console import (
    SOME_FAILED,
    print_failures,
    print_json,
    print_table,
    quick_imports,
)
from protalign.cli.options import AsJson, Device, SequenceWeights, StructureWeights, given_weights
from protalign.core.errors import InputError
from protalign.core.printing import table_cell
from protalign.core.words import Against, AlignMode, Modality

#: The forms in which hits are printed.
Format = Literal["table", "tsv", "json"]
#: A hit's columns; those of the residues and tm_score are added if they are asked for.
COLUMNS = ("query", "rank", "id", "cosine", "length", "against")
#: How the columns' numbers are printed; others are printed as they are.
_FORMS = {
    "cosine": ".4f",
    "tm_score": ".3f",
    "local_score": ".1f",
    "evalue": ".2g",
    "probability": ".3f",
    "global_score": ".1f",
}


def search(
    queries: Annotated[
        list[str],
        typer.Argument(
            help="Ids of the vectors; FASTA files, structure files or folders of them; "
            "sequences of at least 10 letters; or Parquet files of vectors. If 1a30 is an id and "
            "a file, ./1a30 is the file.",
            show_default=False,
        ),
    ],
    vectors: Annotated[
        Path | None,
        typer.Option(
            "--vectors", help="The Parquet file to search, which `protalign export` wrote."
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            help="The index of residue words to search in place of vectors, which `protalign "
            "index` wrote. Needs --model and the store.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            help="The model that made the vectors or the index; needed for files and sequences.",
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
    rerank: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="<int>",
            help="Compare this many nearest entries with the query residue by residue and print "
            "the best of them. Needs --model and the store. 0: do not; with --index 200.",
        ),
    ] = 0,
    mode: Annotated[
        AlignMode,
        typer.Option(
            help="--rerank: order the hits by the best local alignment, with gaps (finds "
            "relatives), or by the best diagonal of the whole (tells near-identical proteins "
            "apart)."
        ),
    ] = "local",
    length_term: Annotated[
        float,
        typer.Option(
            metavar="<float>",
            help="--mode global: subtract this many nats from the score for each residue by which "
            "the lengths differ; 2 is a good value. 0: do not.",
        ),
    ] = 0.0,
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
            help="--tm-score, --rerank, --index: the store with the hits' coordinates and "
            "residues. Default: the one that the vectors or the index were made from."
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
    """Find the nearest proteins, by vectors or by residue words.

    Hits are ranked by cosine similarity, or by their residues with --rerank or --index: evalue says
    how many hits of that local score chance would give in this search.

    \b
    Examples:
      protalign search query.fasta --vectors vectors.parquet --model model/ -k 5
      protalign search 1a30 3ebp --vectors vectors.parquet --tm-score
      protalign search query.fasta --vectors v.parquet --model model/ --rerank 200
      protalign search query.fasta --index index/ --model model/

    Exit code: 0 if nothing failed, 3 if some queries could not be read, 2 for wrong usage.
    """
    if as_json and output not in (None, "json"):
        raise InputError(f"--format {output}: contradicts --json", "give one of the two")
    with quick_imports():
        from protalign.search.hits import search as find_hits
        from protalign.search.rerank import RESIDUE_COLUMNS

    hits = find_hits(
        queries,
        vectors,
        index=index,
        model=model,
        k=k,
        against=against,
        query_by=query_by,
        rerank=rerank,
        mode=mode,
        length_term=length_term,
        tm_score=tm_score,
        store=store,
        weights=given_weights(sequence_weights, structure_weights),
        device=device,
    )
    columns = list(COLUMNS)
    if rerank or index is not None:
        columns[4:4] = RESIDUE_COLUMNS
    if tm_score:
        columns.append("tm_score")
    _print([hit.as_dict() for hit in hits], "json" if as_json else output or "table", columns)
    print_failures(hits.failures)
    if hits.failures:
        raise typer.Exit(SOME_FAILED)


def _print(hits: list[dict[str, Any]], output: Format, columns: list[str]) -> None:
    if output == "json":
        print_json({"hits": [{column: hit[column] for column in columns} for hit in hits]})
        return
    rows = [[_cell(column, hit[column]) for column in columns] for hit in hits]
    if output == "tsv":
        print("\t".join(columns))
        texts = {"query", "id", "against"}
        for row in rows:
            cells = zip(columns, row, strict=True)
            print("\t".join(table_cell(text) if name in texts else text for name, text in cells))
        return
    print_table(columns, rows)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    return format(value, _FORMS.get(column, ""))
