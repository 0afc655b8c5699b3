"""``protalign align``: a sequence on a structure, residue by residue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protalign.cli.console import (
    SOME_FAILED,
    print_failures,
    print_json,
    quick_imports,
    refuse_beside,
)
from protalign.cli.options import (
    AsJson,
    Device,
    ModelPath,
    SequenceWeights,
    StructureWeights,
    given_weights,
)
from protalign.core.errors import InputError
from protalign.core.words import AlignFormat, AlignMode, Modality

_PROTEIN = (
    "A FASTA file, a structure file, a folder of them, a tar archive of structures, an id of "
    "--store, or a sequence of at least 10 letters."
)


def align(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help=_PROTEIN, show_default=False)],
    target: Annotated[str, typer.Argument(help=_PROTEIN, show_default=False)],
    model: ModelPath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A folder for the alignments in all formats and the fit of each "
            "residue. Default: print only.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        AlignMode,
        typer.Option(
            help="The best part of both with gaps (local), or the best diagonal, without gaps; "
            "of several chains one each (global)."
        ),
    ] = "local",
    gap_open: Annotated[
        float, typer.Option(help="--mode local: cost of a gap's first residue in nats.")
    ] = 16.0,
    gap_extend: Annotated[
        float, typer.Option(help="--mode local: cost of each further residue of a gap in nats.")
    ] = 2.0,
    query_by: Annotated[
        Modality | None,
        typer.Option(
            help="Compare the query by its sequence or by its structure, and the target by the "
            "other. Default: by its sequence, if the target has a structure.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<path>",
            help="A store: its ids can be given, and its rows are read, not embedded. Several "
            "times, or a quoted pattern ('shards/*.zarr'), for several stores read as one.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        AlignFormat | None,
        typer.Option(
            "--format", help="How to print the alignments. Default: text.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    sequence_weights: SequenceWeights = None,
    structure_weights: StructureWeights = None,
    device: Device = "auto",
) -> None:
    """Align a sequence with a structure, residue by residue.

    Shows which residues of the one belong to which of the other, how well each of them fits, and
    where the register slips. --out gets the alignments as text, m8, A3M, FASTA and JSON, a table of
    the residues, and the structure with each residue's log-likelihood ratio as its B-factor.

    \b
    Examples:
      protalign align query.fasta structure.cif --model model/ --out alignment/
      protalign align 1a30 3ebp --store store.zarr --model model/ --format m8

    Exit code: 0 if nothing failed, 3 if some proteins could not be read or aligned, 2 for wrong
    usage.
    """
    if as_json and output not in (None, "json"):
        raise InputError(f"--format {output}: contradicts --json", "give one of the two")
    if mode == "global":
        refuse_beside(context, ["gap_open", "gap_extend"], "--mode global")
    with quick_imports():
        from protalign.search.align_files import align_texts, check_folder, shown, write_folder

    if out is not None:
        check_folder(out)
    results = align_texts(
        query,
        target,
        model,
        mode=mode,
        gap_open=gap_open,
        gap_extend=gap_extend,
        query_by=query_by,
        store=store,
        weights=given_weights(sequence_weights, structure_weights),
        device=device,
    )
    if out is not None and results.alignments:
        results = write_folder(results, out)
    if as_json or output == "json":
        print_json(results.as_dict())
    else:
        print(shown(results, output or "text"), end="")
    print_failures(results.failures)
    if results.failures:
        raise typer.Exit(SOME_FAILED)
