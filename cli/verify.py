"""``protalign verify``: a store, a file of vectors, a model or an index against its checksums."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protalign.cli.console import SOME_FAILED, human_bytes, print_json
from protalign.cli.options import AsJson, Scheduler
from protalign.core.errors import InputError, ProtAlignError, StoreError
from protalign.core.folders import DOCUMENTS, kind_of
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import counted

if TYPE_CHECKING:
    from protalign.stores import EmbeddingStore


def verify(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="path",
            help="A store that `protalign embed` made, a file or folder that `protalign export` "
            "wrote, a model folder that `protalign fit` wrote, or an index that `protalign index` "
            "wrote. Several stores, or a quoted pattern such as 'shards/*.zarr', are checked as "
            "one: no two of them may have the same id.",
            show_default=False,
        ),
    ],
    upgrade: Annotated[
        bool,
        typer.Option(
            "--upgrade",
            help="Record checksums by place in a store of format 1.0, so that exchanged chunks are "
            "found from now on, and any that are missing; only if the store is whole.",
        ),
    ] = False,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<path>",
            help="Of an index of words: the store that it was made from, to compare its entries "
            "with. Default: the recorded one, if it is here. Several times, or a quoted pattern, "
            "for several stores.",
            show_default=False,
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="<path>",
            help="Of an index of vectors: the vectors that it was made of, to compare with what it "
            "records of them. Default: they are not compared.",
            show_default=False,
        ),
    ] = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Check a store, vectors, a model or an index for damage.

    Reads everything and compares it with the checksums and counts that were written. Names the
    damaged ids of a store. An index of words is also compared with its store, if that is here: it
    may lack entries that came later. One of vectors is compared with its --vectors. Changes
    nothing, unless --upgrade is given.

    \b
    Examples:
      protalign verify store.zarr
      protalign verify 'shards/*.zarr'
      protalign verify vectors.parquet

    Exit code: 0 if everything is whole, 3 if something is damaged or a store is not finished, 2 for
    wrong usage.
    """
    others = [path for path in map(Path, paths) if _is_no_store(path)]
    for each in paths if store else ():
        if not Path(each, "index.json").is_file():
            raise InputError(
                f"--store: {path_text(each)} is not an index of words", "leave the option out"
            )
    for each in paths if vectors else ():
        if not Path(each, "vector-index.json").is_file():
            raise InputError(
                f"--vectors: {path_text(each)} is not an index of vectors", "leave the option out"
            )
    if vectors is not None and not vectors.exists():
        raise InputError(f"{path_text(vectors)}: it does not exist", "name the index's vectors")
    if not others:
        _verify_stores(paths, upgrade, scheduler, as_json)
        return
    (path, *_), name = others, path_text(others[0])
    if len(paths) > 1:
        raise InputError(f"{name}: only stores are checked together", "check it alone")
    if upgrade:
        raise InputError(f"--upgrade: {name} is not a store", "leave the option out")
    if scheduler is not None:
        raise InputError(f"--scheduler: {name} is not a store", "leave the option out")
    _verify_file(path, store, vectors, as_json)


def _is_no_store(path: Path) -> bool:
    """Return whether a path is a file, a model, an index or vectors, or what is left of one."""
    return path.is_file() or kind_of(path) != "" or _without_document(path) != ""


def _without_document(path: Path) -> str:
    """Return the problem of a folder that has the files of one kind, but not its document."""
    if any((path / name).is_file() for name in ("zarr.json", *DOCUMENTS)):
        return ""
    for document, (kind, pattern) in DOCUMENTS.items():
        if any(path.glob(pattern)):
            return (
                f"{path_text(path)}: it is damaged, {document} of {kind} is missing; restore that "
                "file from a copy, or make the folder again"
            )
    return ""


def _verify_stores(paths: list[str], upgrade: bool, scheduler: str | None, as_json: bool) -> None:
    from protalign.stores import verify as run

    report = run(paths, upgrade=upgrade, scheduler=scheduler)
    if as_json:
        print_json(report.as_dict())
    else:
        read = f"{counted(report.chunks, 'chunk')}, {human_bytes(report.bytes)} read"
        print(f"{printable(path_text(' '.join(paths)))}: {read}")
        for line in report.lines():
            print(f"  {printable(line)}")
        if report.ok:
            print("  every chunk is whole")
            if not report.finished:
                print("  not finished: run `protalign embed` again with the same files")
    if not (report.ok and report.finished):
        raise typer.Exit(SOME_FAILED)


def _verify_file(path: Path, store: list[str] | None, vectors: Path | None, as_json: bool) -> None:
    """Verify vectors, a model or an index, whose damage is not traced to ids."""
    check: Callable[[Path], list[str]]
    also: dict[str, str | int | None] = {}
    whole = "it is whole"
    compared: EmbeddingStore | None = None
    if (path / "index.json").is_file():
        check, compared, why = _index_check(path, store)
        name = None if compared is None else path_text(compared.path)
        also = {"store": name}
        whole += f", and its entries are those of {name}" if name else f"; {why}"
    elif (path / "vector-index.json").is_file():
        from protalign.search.vector_index import verify_vector_index

        check = partial(verify_vector_index, vectors=vectors)
        also = {"vectors": None if vectors is None else path_text(vectors)}
        whole += (
            "; its vectors were not compared (--vectors)"
            if vectors is None
            else f", and its vectors are those of {path_text(vectors)}"
        )
    elif (path / "config.json").is_file():
        from protalign.heads.model_check import verify_model as check
    else:
        from protalign.stores import verify_vectors as check
    missing = _without_document(path)
    problems = [missing] if missing else check(path)
    if compared is not None and not problems:
        from protalign.search.word_index import WordIndex, lacking_words

        try:
            also["lacking"] = lacking = WordIndex(path).n_lacking(compared)
        except StoreError as error:
            problems, lacking = [f"{path}: its store was not compared: {error}"], 0
        if lacking:
            whole = f"it is whole, but {lacking_words(lacking, path_text(compared.path))}"
    if as_json:
        print_json({"path": path_text(path), "ok": not problems, "problems": problems, **also})
    else:
        for problem in problems or [f"{path}: {whole}"]:
            print(printable(problem))
    if problems:
        raise typer.Exit(SOME_FAILED)


def _index_check(
    path: Path, given: list[str] | None
) -> tuple[Callable[[Path], list[str]], EmbeddingStore | None, str]:
    """Return what checks an index of words, its store, or None and why it is not compared.

    A damaged store hides nothing of the index. If it was named, it is a problem.
    """
    from protalign.search.word_index import recorded_store, verify_index
    from protalign.stores import EmbeddingStore
    from protalign.stores.union.paths import is_here

    why = "its store is not here, and was not compared (--store)"
    try:
        store = EmbeddingStore.open(given) if given else recorded_store(path)
    except ProtAlignError as error:
        why = f"its store was not compared: {error}"
        if given:
            if not (isinstance(error, StoreError) and all(map(is_here, given))):
                raise
            return lambda path: [*verify_index(path), f"{path}: {why}"], None, why
        store = None
    return partial(verify_index, store=store), store, why
