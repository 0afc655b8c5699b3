"""``protalign search``: the nearest structures to a sequence, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from protalign.cli.console import quick_imports, refuse_unused
from protalign.cli.hit_options import (
    FormatOutput,
    Header,
    HitOutput,
    HitsPerQuery,
    HtmlFile,
    LengthTerm,
    MaxEvalue,
    MinCoverage,
    MinProbability,
    MinScore,
    MinTm,
    OrderMode,
    OutFiles,
    PrintFormat,
    SuperposeFolder,
    TmScore,
    chosen_format,
    number_or_all,
    with_page,
)
from protalign.cli.options import AsJson, Device, SequenceWeights, StructureWeights, given_weights
from protalign.core.words import Against, Modality


def search(
    context: typer.Context,
    queries: Annotated[
        list[str],
        typer.Argument(
            help="Ids of the vectors; FASTA files, structure files or folders of them; tar "
            "archives of structures; sequences of at least 10 letters; or Parquet files or "
            "folders of vectors. If 1a30 is an id and a file, ./1a30 is the file.",
            show_default=False,
        ),
    ],
    vectors: Annotated[
        Path | None,
        typer.Option(
            "--vectors",
            help="The Parquet file or the folder to search, which `protalign export` wrote.",
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            help="The index that `protalign index` wrote: of the --vectors; or, without them, of "
            "residue words, which needs --model and the store.",
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
    k: HitsPerQuery = 5,
    against: Annotated[
        Against,
        typer.Option(
            help="Search among sequences, among structures, or (other) among structures for a "
            "sequence and among sequences for a structure."
        ),
    ] = "other",
    query_by: Annotated[
        Modality | None,
        typer.Option(
            help="Vector to query with, if the query is an id or vectors of another file. Default: "
            "sequence. Refused if all queries are files of proteins or sequences: a file is "
            "compared by its backbone if it has one.",
            show_default=False,
        ),
    ] = None,
    rerank: Annotated[
        Any,
        typer.Option(
            parser=number_or_all(0),
            metavar="<int>|all",
            help="Compare this many nearest entries with the query residue by residue and print "
            "the best of them; all: every entry, which takes much longer. Needs --model and the "
            "store. 0: do not; with --index 200.",
        ),
    ] = 0,
    mode: OrderMode = "local",
    length_term: LengthTerm = 0.0,
    tm_score: TmScore = False,
    max_evalue: MaxEvalue = None,
    min_prob: MinProbability = None,
    min_score: MinScore = None,
    min_cov: MinCoverage = None,
    min_tm: MinTm = None,
    out: OutFiles = None,
    html: HtmlFile = None,
    format_output: FormatOutput = None,
    header: Header = False,
    superpose: SuperposeFolder = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<path>",
            help="--tm-score, --superpose, --rerank, --index: the store with the hits' coordinates "
            "and residues; several times, or a quoted pattern ('shards/*.zarr'), for several "
            "stores, read as one. Default: the one that the vectors or the index were made from.",
            show_default=False,
        ),
    ] = None,
    output: PrintFormat = None,
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
      protalign search 1a30 --vectors vectors/ --index vector-index/
      protalign search query.fasta --vectors v.parquet --model model/ --rerank 200
        -o hits.m8 --html hits.html --max-evalue 0.001

    Exit code: 0 if nothing failed, 3 if some queries could not be read, 2 for wrong usage.
    """
    form = chosen_format(output, as_json)
    output_of = HitOutput(with_page(out, html), format_output, header, superpose, form)
    with quick_imports():
        from protalign.search.comparison import HitFilters
        from protalign.search.hits import search as find_hits
        from protalign.search.wanted import Wanted

    if model is None:
        refuse_unused(context, ["sequence_weights", "structure_weights", "device"], "--model")
    asked = output_of.check([*queries, vectors, index, model, *(store or [])])
    by_words = index is not None and vectors is None
    wanted = Wanted(asked["columns"] or (), HitFilters(min_tm=min_tm), asked["superpose"], tm_score)
    if not (rerank or by_words or wanted.that_need("coordinates")):
        refuse_unused(context, ["store"], "--tm-score, --superpose, --rerank or an index of words")
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
        max_evalue=max_evalue,
        min_prob=min_prob,
        min_score=min_score,
        min_cov=min_cov,
        min_tm=min_tm,
        store=store,
        weights=given_weights(sequence_weights, structure_weights),
        device=device,
        **asked,
    )
    output_of.finish(hits, tm_score=tm_score)
