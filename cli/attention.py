"""``protalign attention``: which residues the heads look at, in structure files."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from protalign.cli.console import print_failures, quick_imports, shown_path
from protalign.cli.fit import Device, IdsPath, ModelPath, StorePath, read_ids


class Of(StrEnum):
    """Whose attention."""

    structure = "structure"
    sequence = "sequence"


def attention(
    store: StorePath,
    model: ModelPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files, one an id.")],
    entries: Annotated[list[str] | None, typer.Argument(help="Ids of the store.")] = None,
    ids: IdsPath = None,
    head: Annotated[
        int | None, typer.Option(help="One attention head, from 0; default: mean over heads.")
    ] = None,
    of: Annotated[Of, typer.Option(help="Whose attention.")] = Of.structure,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there; never a source.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Write each residue's attention into the B-factors of a structure file.

    1 is an even share, 10 ten times that; 0 is a residue without a weight. Colour by B-factor in
    any viewer.

    Exit code: 0 if nothing failed, 3 if some ids have no structure or their file is there already,
    2 for wrong usage.
    """
    with quick_imports():
        from protalign.core.errors import InputError
        from protalign.estimator.attention_files import write_attention
        from protalign.estimator.estimator import ProtAlignEstimator
        from protalign.stores import EmbeddingStore

    named = [*(entries or []), *(read_ids(ids) if ids is not None else [])]
    if not named:
        raise InputError("no ids are given", "name some behind the store, or give --ids")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is no folder", "name a folder for the files")
    estimator = ProtAlignEstimator.load(model).set_params(device=device)
    written, failures = write_attention(
        estimator,
        EmbeddingStore.open(store)[list(dict.fromkeys(named))],
        out,
        head=head,
        modality=of.value,
        overwrite=overwrite,
    )
    if not quiet:
        for file in written:
            atoms = "all atoms" if file.all_atoms else "backbone atoms of the store"
            print(f"{shown_path(str(file.path))}: {atoms}, highest {file.highest:.1f}")
    if failures:
        print(f"{len(failures):,} failed:", file=sys.stderr)
        print_failures(failures)
        raise typer.Exit(3)
