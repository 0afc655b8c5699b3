"""``protalign attention``: the heads' attention in structure files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from protalign.cli.console import SOME_FAILED, print_failures, print_json, quick_imports, shown_path
from protalign.cli.options import AsJson, Device, IdsPath, ModelPath, Quiet, StorePath
from protalign.core.errors import InputError
from protalign.core.words import Modality


def attention(
    store: StorePath,
    model: ModelPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the files, one per id.")],
    entries: Annotated[list[str] | None, typer.Argument(help="Ids in the store.")] = None,
    ids: IdsPath = None,
    head: Annotated[
        int | None, typer.Option(help="One attention head, from 0. Default: the mean of all.")
    ] = None,
    of: Annotated[
        Modality, typer.Option(help="The attention of the structure or of the sequence head.")
    ] = "structure",
    device: Device = "auto",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace existing files, but never one that the store was made from.",
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write attention weights into structure files, as B-factors.

    1 is an even share, 10 is ten times that, and 0 is a residue without a weight. Colour by
    B-factor in any viewer: in PyMOL `spectrum b`, in ChimeraX `color bfactor`.

    \b
    Example:
      protalign attention store.zarr 1a30 3ebp --model model/ --out attention/

    Exit code: 0 if nothing failed, 3 if some ids have no structure or their file exists, 2 for
    wrong usage.
    """
    if not entries and ids is None:
        raise InputError("no ids given", "list them after the store, or use --ids")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: it is not a folder", "name a folder for the files")
    with quick_imports():
        from protalign.estimator.attention_files import write_attention
        from protalign.heads.model import Model
        from protalign.splits.ids import read_ids
        from protalign.stores import EmbeddingStore

    named = [*(entries or []), *(read_ids(ids) if ids is not None else [])]
    written, failures = write_attention(
        Model.load(model, device),
        EmbeddingStore.open(store)[list(dict.fromkeys(named))],
        out,
        head=head,
        modality=of,
        overwrite=overwrite,
    )
    if as_json:
        files = [{**asdict(file), "path": str(file.path)} for file in written]
        print_json({"files": files, "failures": [asdict(failure) for failure in failures]})
    else:
        if not quiet:
            for file in written:
                atoms = "all atoms" if file.all_atoms else "backbone atoms of the store"
                print(f"{shown_path(str(file.path))}: {atoms}, highest {file.highest:.1f}")
        print_failures(failures)
    if failures:
        raise typer.Exit(SOME_FAILED)
