"""``protalign index``: a store's residue words, or vectors, into a folder that can be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from protalign.cli.console import (
    ConsoleReporter,
    is_given,
    on_ctrl_c,
    print_json,
    quick_imports,
    refuse_torchrun,
)
from protalign.cli.options import AsJson, Quiet, Scheduler, Seed
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import counted


def index(
    context: typer.Context,
    store: Annotated[
        list[str],
        typer.Argument(
            metavar="store|vectors",
            help="A store that `protalign embed` made, or several, or a quoted pattern such as "
            "'shards/*.zarr', read as one; or vectors that `protalign export` wrote.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The index's folder. An index of words is added to, if it is this store's; one of "
            "vectors is replaced.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            help="A store's residues: the model folder that `protalign fit` wrote.",
        ),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=65_535,
            metavar="<int>",
            help="Words of each modality, of a new index of words: more are slower and find a "
            "little more. Default: 1,024; an index that exists keeps its own.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Index a store's residues, or vectors, for large searches.

    Of a store, each residue is the nearest of 1,024 words of the model's residue stage: two bytes.
    `protalign search --index` counts hits of words that fit a query in inverted lists, and compares
    the best entries residue by residue. The same command again adds the entries that the store has
    got since.

    Of vectors, near ones are put into a cell together, and a search reads the cells nearest to its
    query: for many millions. Cosines are exact.

    \b
    Examples:
      protalign index store.zarr --model model/ --out index/
      protalign search query.fasta --index index/ --model model/
      protalign index vectors/ --out vector-index/
      protalign search 1a30 --vectors vectors/ --index vector-index/
    """
    refuse_torchrun("index")
    from protalign.stores.vectors.folder import is_vector_folder

    vectors = [each for each in store if is_vector_folder(each) or Path(each).suffix == ".parquet"]
    if vectors:
        if len(store) > 1:
            raise InputError(f"{vectors[0]}: vectors are indexed alone", "name nothing else")
        for name in ("model", "words", "seed", "scheduler"):
            if is_given(context, name):
                raise InputError(f"--{name}: indexing vectors does without", "leave the option out")
        _index_vectors(vectors[0], out, quiet, as_json)
        return
    if model is None:
        from protalign.stores import EmbeddingStore

        EmbeddingStore.open(store)  # what is not there, or is no store, is the mistake
        raise InputError("--model: it is missing", "name the model whose words index the store")
    given = seed if is_given(context, "seed") else None
    _index_words(store, model, out, words, given, scheduler, quiet, as_json)


def _index_words(
    store: list[str],
    model: Path,
    out: Path,
    words: int | None,
    seed: int | None,
    scheduler: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
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


def _index_vectors(vectors: str, out: Path, quiet: bool, as_json: bool) -> None:
    with quick_imports():
        from protalign.search.vector_index import index_vectors

    with ConsoleReporter(quiet=quiet or as_json) as reporter, on_ctrl_c("nothing was written"):
        record = index_vectors(vectors, out, on_progress=reporter.indexed_vectors)
    if as_json:
        counts = {modality: cells.count for modality, cells in record.modalities.items()}
        recall = {modality: cells.recall for modality, cells in record.modalities.items()}
        print_json({"index": path_text(out), "vectors": counts, "recall": recall})
    elif not quiet:
        counts_and_recalls = (
            f"{counted(cells.count, f'{modality} vector')} (Recall@10 {cells.recall:.3f})"
            for modality, cells in record.modalities.items()
        )
        print(f"{printable(out)}: {' and '.join(counts_and_recalls)}")
