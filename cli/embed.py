"""``protalign embed``: files and folders into a store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protalign.cli.console import (
    ConsoleReporter,
    print_failures,
    print_json,
    quick_imports,
    refuse_unused,
)

if TYPE_CHECKING:
    from protalign.core.protein import Modality
    from protalign.embedding import EmbedReport


class Per(StrEnum):
    """What one entry is."""

    protein = "protein"
    chain = "chain"


class SequenceKind(StrEnum):
    """Which residues a structure's sequence has."""

    observed = "observed"
    deposited = "deposited"


class StorageDtype(StrEnum):
    """Number format of the stored embeddings."""

    float16 = "float16"
    float32 = "float32"


def embed(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files or folders (searched recursively): .pdb .ent .cif .mmcif .bcif and FASTA, "
            "each also .gz; PDBbind's layout gives one protein per id.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The store: made, or added to.", show_default=False)
    ],
    per: Annotated[
        Per, typer.Option(help="An entry is a file's unique chains together, or each chain.")
    ] = Per.protein,
    sequence: Annotated[
        SequenceKind,
        typer.Option(help="Residues that are there, or the whole SEQRES / entity sequence."),
    ] = SequenceKind.observed,
    min_plddt: Annotated[
        float | None,
        typer.Option(help="Predicted structures: leave out residues below this pLDDT (0-100)."),
    ] = None,
    sequence_encoder: Annotated[
        str | None,
        typer.Option(
            help="A model that `protalign weights` lists, or 'none'. Default: the store's own, "
            "else an ESM2 whose weights are at hand or can be fetched.",
            show_default=False,
        ),
    ] = None,
    sequence_weights: Annotated[
        Path | None,
        typer.Option(help="Its weights: fair-esm's .pt, or .safetensors with the same keys."),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Which layer's output; default: the final one.")
    ] = None,
    structure_encoder: Annotated[
        str | None,
        typer.Option(
            help="A model that `protalign weights` lists, or 'none'. Default: the store's own, "
            "else proteinmpnn_v_48_020.",
            show_default=False,
        ),
    ] = None,
    structure_weights: Annotated[
        Path | None, typer.Option(help="Its weights, e.g. upstream's v_48_002.pt.")
    ] = None,
    sequence_name: Annotated[
        str | None,
        typer.Option(help="Name of these embeddings in the store; default: the model's."),
    ] = None,
    structure_name: Annotated[
        str | None,
        typer.Option(help="Name of these embeddings in the store; default: the model's."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; auto takes every GPU there is.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Compute in auto, float32, bfloat16 or float16.")
    ] = "auto",
    store_dtype: Annotated[
        StorageDtype, typer.Option(help="Store the embeddings as.")
    ] = StorageDtype.float16,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler (tcp://host:8786), one worker per GPU; default: this "
            "machine."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, nothing else.")
    ] = False,
) -> None:
    """Embed proteins into a store. Run it again to resume, or to add what is new.

    Exit code: 0 if nothing failed, 3 if some inputs failed (all else is embedded), 2 for wrong
    usage.
    """
    for encoder, names in (
        (sequence_encoder, ["sequence_weights", "sequence_name", "layer"]),
        (structure_encoder, ["structure_weights", "structure_name"]),
    ):
        if encoder == "none":
            refuse_unused(context, names, "an encoder")
    with quick_imports():
        from protalign.core.errors import InputError
        from protalign.embedding import choose_encoder
        from protalign.embedding import embed as run
        from protalign.encoders import EncoderSpec
        from protalign.reading import ReadOptions

    options = ReadOptions(per=per.value, sequence=sequence.value, min_plddt=min_plddt)
    with ConsoleReporter(quiet=quiet or as_json) as reporter:
        wanted: dict[Modality, tuple[str | None, Path | None, int | None, str | None]] = {
            "sequence": (sequence_encoder, sequence_weights, layer, sequence_name),
            "structure": (structure_encoder, structure_weights, None, structure_name),
        }
        choices = [
            choose_encoder(
                modality,
                EncoderSpec(model or "", str(weights or ""), model_layer, device, dtype),
                name or "",
                out,
            )
            for modality, (model, weights, model_layer, name) in wanted.items()
            if model != "none"
        ]
        if not choices:
            raise InputError("no encoder is left to run", "drop one of the two 'none'")
        report = run(
            paths,
            out,
            choices,
            options=options,
            storage_dtype=store_dtype.value,
            scheduler=scheduler,
            reporter=reporter,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        _print_summary(report, out, quiet=quiet)
    if report.failures:
        raise typer.Exit(3)


def _print_summary(report: EmbedReport, out: Path, *, quiet: bool) -> None:
    if not quiet:
        print(f"{out}: {report.entries:,} entries from {report.files:,} files", end="")
        print(f" ({report.files - report.files_read:,} were there already)")
        for name, done in report.encoded.items():
            rate = done["residues"] / max(done["seconds"], 1e-9)
            print(
                f"  {name}: {done['items']:,.0f} items, {done['residues']:,.0f} residues "
                f"in {done['seconds']:.1f} s ({rate:,.0f} residues/s)"
            )
    if report.failures:
        import sys

        print(f"{len(report.failures):,} failed:", file=sys.stderr)
        print_failures(report.failures)
