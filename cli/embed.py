"""``protalign embed``: files and folders into a store."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protalign.cli.console import (
    FAILURES_SHOWN,
    SOME_FAILED,
    ConsoleReporter,
    on_ctrl_c,
    print_failures,
    print_json,
    print_notes,
    quick_imports,
    refuse_beside,
)
from protalign.cli.options import (
    AsJson,
    Assembly,
    EntryPer,
    MinPlddt,
    Scheduler,
    SequenceOf,
    SequenceWeights,
    StructureWeights,
)
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import Modality, StorageDtype, counted

if TYPE_CHECKING:
    from protalign.embedding import EmbedReport


def embed(
    context: typer.Context,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="The store to make or to add to: a folder, or s3://, gs:// or az:// and a path.",
            show_default=False,
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, or folders that are searched recursively: .pdb .ent .cif .mmcif .bcif "
            "and FASTA, also with .gz. In PDBbind's layout, one protein per folder. Tar archives "
            "of structures are read if they are named, and so are addresses: https://, s3://, …",
            show_default=False,
        ),
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            "--list",
            metavar="<path>",
            help="A text file with a path or an address in each line; paths are relative to its "
            "folder. -: standard input. May be given several times.",
            show_default=False,
        ),
    ] = None,
    per: EntryPer = "protein",
    sequence: SequenceOf = "observed",
    min_plddt: MinPlddt = None,
    assembly: Assembly = None,
    sequence_encoder: Annotated[
        str | None,
        typer.Option(
            help="A model that `protalign weights` lists, or none. Default: the store's, else an "
            "ESM2 that was downloaded before, else esm2_t33_650M_UR50D (2.6 GB to download).",
            show_default=False,
        ),
    ] = None,
    sequence_weights: SequenceWeights = None,
    layer: Annotated[
        int | None, typer.Option(help="Store the output of this layer. Default: the last.")
    ] = None,
    structure_encoder: Annotated[
        str | None,
        typer.Option(
            help="A model that `protalign weights` lists, or none. Default: the store's, else "
            "proteinmpnn_v_48_020.",
            show_default=False,
        ),
    ] = None,
    structure_weights: StructureWeights = None,
    sequence_name: Annotated[
        str | None,
        typer.Option(help="Name of the sequence embeddings in the store. Default: the model's."),
    ] = None,
    structure_name: Annotated[
        str | None,
        typer.Option(help="Name of the structure embeddings in the store. Default: the model's."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1 or mps; auto uses every GPU."),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="Number format to compute in: auto, float32, bfloat16 or float16."),
    ] = "auto",
    store_dtype: Annotated[
        StorageDtype, typer.Option(help="Number format of the stored embeddings.")
    ] = "float16",
    scheduler: Scheduler = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="<number>/<count>",
            help="Embed one part of the files: 17/1000 is the 17th of 1,000 parts. Each task of a "
            "cluster's array makes one, in a store of its own.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Embed proteins into a store, or add to one.

    Run the same command again to resume an interrupted run or to add new files.

    \b
    Examples:
      protalign embed structures/ --out store.zarr
      protalign embed proteins.fasta --out store.zarr --structure-encoder none
      protalign embed --list paths.txt --out store.zarr

    Exit code: 0 if nothing failed, 3 if some inputs failed (the others are embedded), 2 for wrong
    usage.
    """
    for option, encoder, names in (
        ("sequence", sequence_encoder, ["sequence_weights", "sequence_name", "layer"]),
        ("structure", structure_encoder, ["structure_weights", "structure_name"]),
    ):
        if encoder == "none":
            refuse_beside(context, names, f"--{option}-encoder none")
    if not paths and not lists:
        raise InputError("nothing to read", "name files, folders, addresses or --list")
    if sequence_encoder == structure_encoder == "none":
        raise InputError("--sequence-encoder and --structure-encoder: both are none", "drop one")
    with quick_imports():
        from protalign.embedding import embed as run
        from protalign.embedding import encoder_to_run
        from protalign.encoders import EncoderSpec
        from protalign.reading import ReadOptions

    with (
        on_ctrl_c("run the same command again to continue"),
        ConsoleReporter(quiet=quiet or as_json) as reporter,
    ):
        wanted: dict[Modality, tuple[str | None, Path | None, int | None, str | None]] = {
            "sequence": (sequence_encoder, sequence_weights, layer, sequence_name),
            "structure": (structure_encoder, structure_weights, None, structure_name),
        }
        choices = [
            encoder_to_run(
                modality,
                EncoderSpec(model or "", str(weights or ""), model_layer, device, dtype),
                name or "",
                out,
            )
            for modality, (model, weights, model_layer, name) in wanted.items()
            if model != "none"
        ]
        report = run(
            paths or [],
            out,
            choices,
            options=ReadOptions(per, sequence, min_plddt, assembly),
            storage_dtype=store_dtype,
            scheduler=scheduler,
            shard=None if shard is None else _shard(shard),
            lists=lists or [],
            reporter=reporter,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        if not quiet:
            _print_summary(report, out)
            print_notes(report.notes)
        print_failures(report.failures)
        remarks = len(report.failures) + sum(note.count for note in report.notes)
        if remarks > min(len(report.failures), FAILURES_SHOWN) + len(report.notes) and not quiet:
            named = shlex.quote(printable(path_text(out)))
            print(f"all of them: protalign info {named} --notes --format tsv", file=sys.stderr)
    if report.failures:
        raise typer.Exit(SOME_FAILED)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None:
        raise InputError(f"--shard {printable(text)}: not a part", "give it as 17/1000")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        parts = f"give 1/{count} to {count}/{count}" if count else "give it as 17/1000"
        raise InputError(f"--shard {text}: parts are numbered from 1 to their count", parts)
    return number, count


def _print_summary(report: EmbedReport, out: str) -> None:
    unchanged = report.files - report.files_read
    print(
        f"{printable(path_text(out))}: {counted(report.entries, 'entry', 'entries')}; "
        f"{counted(report.files, 'file')}" + (f" ({unchanged:,} unchanged)" if unchanged else "")
    )
    for name, done in report.encoded.items():
        rate = done["residues"] / max(done["seconds"], 1e-9)
        print(
            f"  {name}: {counted(done['items'], 'item')}, {counted(done['residues'], 'residue')} "
            f"in {done['seconds']:.1f} s ({rate:,.0f} residues/s)"
        )
