"""``protalign attention``: the heads' attention, or the residues' fit, in structure files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from protalign.cli.console import (
    SOME_FAILED,
    print_failures,
    print_json,
    quick_imports,
    refuse_beside,
    shown_path,
)
from protalign.cli.options import AsJson, Device, IdsPath, ModelPath, Quiet, StorePath
from protalign.core.errors import Failure, InputError
from protalign.core.paths import path_text
from protalign.core.words import Modality


def attention(
    context: typer.Context,
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
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="Write how well each residue of the sequence fits its place in the structure, in "
            "place of attention, and a table (.fit.tsv).",
        ),
    ] = False,
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

    With --fit the number is the log-likelihood ratio (nats) of the entry's own sequence on its own
    backbone: above 0 a residue fits, below 0 it does not. Stretches that fit better a few residues
    further on are printed.

    \b
    Examples:
      protalign attention store.zarr 1a30 3ebp --model model/ --out attention/
      protalign attention store.zarr 1a30 --model model/ --out fit/ --fit

    Exit code: 0 if nothing failed, 3 if some ids have no structure or their file exists, 2 for
    wrong usage.
    """
    if not entries and ids is None:
        raise InputError("no ids given", "list them after the store, or use --ids")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: it is not a folder", "name a folder for the files")
    if fit:
        refuse_beside(context, ["head", "of"], "--fit")
    with quick_imports():
        from protalign.estimator.attention_files import write_attention
        from protalign.heads.model import Model
        from protalign.search.residue_support import sentences, write_own_support
        from protalign.splits.ids import read_ids
        from protalign.stores import EmbeddingStore

    named = [*(entries or []), *(read_ids(ids) if ids is not None else [])]
    fitted = Model.load(model, device)
    chosen = EmbeddingStore.open(store)[list(dict.fromkeys(named))]
    failures: list[Failure] = []
    report: list[dict[str, Any]] = []
    if fit:
        for result in write_own_support(fitted, chosen, out, overwrite=overwrite):
            if isinstance(result, Failure):
                failures.append(result)
                continue
            report.append(result.as_dict())
            if not (quiet or as_json):
                print(" ".join(shown_path(str(file)) for file in result.files))
                print("\n".join(f"  {line}" for line in sentences(result.support)))
    else:
        written, failures = write_attention(
            fitted, chosen, out, head=head, modality=of, overwrite=overwrite
        )
        for file in written:
            report.append({**asdict(file), "path": path_text(file.path)})
            if not (quiet or as_json):
                atoms = "all atoms" if file.all_atoms else "backbone atoms of the store"
                print(f"{shown_path(str(file.path))}: {atoms}, highest {file.highest:.1f}")
    if as_json:
        print_json({"files": report, "failures": [asdict(failure) for failure in failures]})
    else:
        print_failures(failures)
    if failures:
        raise typer.Exit(SOME_FAILED)
