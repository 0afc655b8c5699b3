"""``protalign easy-search``: files in, hits out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from protalign.cli.console import ConsoleReporter, on_ctrl_c, quick_imports
from protalign.cli.hit_options import (
    FormatOutput,
    Header,
    HitOutput,
    HitsPerQuery,
    HtmlFile,
    LengthTerm,
    MinCoverage,
    MinProbability,
    MinScore,
    MinTm,
    OrderMode,
    SuperposeFolder,
    number_or_all,
    with_page,
)
from protalign.cli.options import (
    AnyModel,
    Assembly,
    Device,
    EntryPer,
    MinPlddt,
    Quiet,
    SequenceOf,
    SequenceWeights,
    StructureWeights,
    given_weights,
)
from protalign.core.words import Modality


def easy_search(
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="queries",
            help="A FASTA file, a structure file or a folder of them; a tar archive of structures; "
            "or a store, vectors, or a folder that --db made.",
        ),
    ],
    targets: Annotated[Path, typer.Argument(metavar="targets", help="What to search: likewise.")],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="out",
            help="The file of hits: .m8, .tsv, .csv, .json, .parquet or .html, or one of these and "
            ".gz.",
        ),
    ],
    model: AnyModel = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="The folder that keeps stores and vectors, so that the next search embeds nothing "
            "again. Default: protalign-cache, beside the file of hits.",
            show_default=False,
        ),
    ] = None,
    db: Annotated[
        Path | None,
        typer.Option(
            help="The folder to keep the targets' store and vectors in, instead of the cache. Give "
            "it as the targets of later searches.",
            show_default=False,
        ),
    ] = None,
    k: HitsPerQuery = 50,
    rerank: Annotated[
        Any,
        typer.Option(
            parser=number_or_all(1),
            metavar="<int>|all",
            help="Compare this many targets of the nearest vectors with a query residue by "
            "residue; all: every target, which takes much longer.",
        ),
    ] = 200,
    mode: OrderMode = "local",
    length_term: LengthTerm = 0.0,
    query_by: Annotated[
        Modality,
        typer.Option(
            help="What a structure file is a query by: its backbone, or the letters of its "
            "sequence."
        ),
    ] = "structure",
    max_evalue: Annotated[
        float | None,
        typer.Option(
            metavar="<float>",
            help="Give only hits of at most this E-value. Default: 10, if the model gives "
            "E-values and --min-prob is not given.",
            show_default=False,
        ),
    ] = None,
    min_prob: MinProbability = None,
    min_score: MinScore = None,
    min_cov: MinCoverage = None,
    min_tm: MinTm = None,
    more_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            "-o",
            metavar="<path>",
            help="Write the hits to this file as well. May be given several times.",
            show_default=False,
        ),
    ] = None,
    html: HtmlFile = None,
    format_output: FormatOutput = None,
    header: Header = False,
    superpose: SuperposeFolder = None,
    per: EntryPer = "protein",
    sequence: SequenceOf = "observed",
    min_plddt: MinPlddt = None,
    assembly: Assembly = None,
    sequence_weights: SequenceWeights = None,
    structure_weights: StructureWeights = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Search files with files: embed, compare, align.

    Sequences are searched against structures, and structures against sequences. It embeds both
    sides, compares their vectors, aligns the residues of the nearest, and writes the hits. No
    training is needed: a small model ships with ProtAlign.

    \b
    Examples:
      protalign easy-search query.fasta structures/ hits.m8
      protalign easy-search design.pdb proteome.fasta hits.html
      protalign easy-search query.fasta structures/ hits.m8 --db structures.db

    Exit code: 0 if nothing failed, 3 if some files could not be read, 2 for wrong usage.
    """
    files = with_page([out, *(more_out or [])], html)
    output = HitOutput(files, format_output, header, superpose, None, quiet)
    with quick_imports():
        from protalign.reading import ReadOptions
        from protalign.searching import CACHE
        from protalign.searching import easy_search as find_hits

    asked = output.check([queries, targets, model])
    place = out.parent / CACHE if cache is None else cache
    with (
        on_ctrl_c("run the same command again to continue"),
        ConsoleReporter(quiet=quiet) as reporter,
    ):
        hits = find_hits(
            queries,
            targets,
            model=model,
            cache=place,
            db=db,
            k=k,
            rerank=rerank,
            mode=mode,
            length_term=length_term,
            query_by=query_by,
            max_evalue=max_evalue,
            min_prob=min_prob,
            min_score=min_score,
            min_cov=min_cov,
            min_tm=min_tm,
            options=ReadOptions(per, sequence, min_plddt, assembly),
            weights=given_weights(sequence_weights, structure_weights),
            device=device,
            reporter=reporter,
            **asked,
        )
    output.finish(hits, tm_score=False)
