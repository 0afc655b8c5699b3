"""``protalign index``: a store's residue words into a folder that can be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from protalign.cli.console import ConsoleReporter, on_ctrl_c, print_json, quick_imports
from protalign.cli.options import AsJson, ModelPath, Quiet, Scheduler, Seed, StoreList
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import counted


def index(
    store: StoreList,
    model: ModelPath,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The index's folder. An index is added to, if it is this store's."
        ),
    ],
    words: Annotated[
        int,
        typer.Option(
            min=2,
            max=65_535,
            metavar="<int>",
            help="Words of each modality, of a new index: more are slower and find a little more.",
        ),
    ] = 1024,
    seed: Seed = 0,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Index the residues of a store, for large searches.

    Each residue is the nearest of 1,024 words of the model's residue stage: two bytes. `protalign
    search --index` compares a query with all words, and then residue by residue with the entries
    that fit best. The same command again adds the entries that the store has got since.

    \b
    Examples:
      protalign index store.zarr --model model/ --out index/
      protalign search query.fasta --index index/ --model model/
    """
    with quick_imports():
        from protalign.heads.model import Model
        from protalign.search.word_building import index_store
        from protalign.stores import EmbeddingStore

    with ConsoleReporter(quiet=quiet or as_json) as reporter, on_ctrl_c("nothing was added"):
        report = index_store(
            Model.load(model),
            EmbeddingStore.open(store),
            out,
            n_words=words,
            seed=seed,
            scheduler=scheduler,
            on_progress=reporter.indexed,
        )
    if as_json:
        value: dict[str, Any] = {"index": path_text(out), "new": report.is_new}
        counts = {"added": report.added, "residues": report.residues, "entries": report.entries}
        print_json({**value, **counts})
    elif not quiet:
        added = " and ".join(counted(n, m) for m, n in report.added.items())
        total = " and ".join(counted(n, m) for m, n in report.entries.items())
        done = f"{added} added, {counted(report.residues, 'residue')}" if report.residues else ""
        print(f"{printable(out)}: {done or 'nothing is new'}; it has {total}")
