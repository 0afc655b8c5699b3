"""``protalign export``: a store's vectors into a file or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protalign.cli.console import on_ctrl_c, print_json, quick_imports, refuse_torchrun
from protalign.cli.options import AsJson, Device, IdsPath, ModelPath, Quiet, Scheduler, StoreList
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import counted

if TYPE_CHECKING:
    from protalign.stores import Entries


def export(
    store: StoreList,
    model: ModelPath,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The file to write: .parquet, .csv or .h5ad (AnnData). A name without an ending "
            "is a folder, for many vectors: `protalign search` reads it without loading it.",
        ),
    ],
    features: Annotated[
        str,
        typer.Option(help="aligned, or aligned,mean to add the mean of the residues' embeddings."),
    ] = "aligned",
    rows_per_file: Annotated[
        int | None,
        typer.Option(
            "--rows-per-file",
            min=1,
            metavar="<int>",
            help="Proteins in each Parquet file of a folder, at most. Default: 1,000,000.",
            show_default=False,
        ),
    ] = None,
    ids: IdsPath = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write every protein's vectors to a file or a folder.

    The columns are id, length, sequence_vector and structure_vector. `protalign search` reads the
    Parquet file or the folder, and so do pandas, polars and DuckDB.

    \b
    Examples:
      protalign export store.zarr --model model/ --out vectors.parquet
      protalign export store.zarr --model model/ --out vectors.h5ad
      protalign export store.zarr --model model/ --out vectors/
      protalign export 'shards/*.zarr' --model model/ --out vectors.parquet
    """
    refuse_torchrun("export")
    with quick_imports():
        from protalign.estimator.export import export_vectors
        from protalign.heads.model import Model
        from protalign.splits.ids import read_ids
        from protalign.stores import EmbeddingStore

    entries: Entries = EmbeddingStore.open(store)
    if ids is not None:
        entries = entries[read_ids(ids)]
    with on_ctrl_c("no file is left unfinished"):
        export_vectors(
            Model.load(model, device),
            entries,
            out,
            features=[name.strip() for name in features.split(",")],
            rows_per_file=rows_per_file,
            scheduler=scheduler,
        )
    n_sequences, n_structures = int(entries.has_sequence.sum()), int(entries.has_structure.sum())
    if as_json:
        print_json(
            {
                "file": path_text(out),
                "ids": len(entries),
                "sequence_vectors": n_sequences,
                "structure_vectors": n_structures,
            }
        )
    elif not quiet:
        print(
            f"{printable(out)}: {counted(len(entries), 'id')}, "
            f"{counted(n_sequences, 'sequence vector')} and "
            f"{counted(n_structures, 'structure vector')}"
        )
