"""Files to hits in one call: embed queries and targets, pool them, search by residues.

It joins the rooms as ``embedding.py`` does. What it makes of files is kept in a cache, and the same
call again embeds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from protalign.core.arrays import Bool
from protalign.core.checks import check_whole, first_few
from protalign.core.errors import Failure, InputError, ModelError, StoreError, StoreInUseError
from protalign.core.paths import may_exist, path_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import AlignMode, Rerank, counted
from protalign.embedding import EmbedReport, EmbedReporter, EncoderChoice, embed
from protalign.encoders.recorded import spec_of
from protalign.estimator.export import export_vectors
from protalign.heads.model import Model, as_model
from protalign.heads.provenance import provenance_of
from protalign.heads.shipped import SHIPPED, shipped_model, worth
from protalign.reading import ReadOptions
from protalign.reading.sources import split_name
from protalign.search.comparison import HitFilters
from protalign.search.hit_columns import parse_columns
from protalign.search.hit_list import Hits
from protalign.search.hits import search
from protalign.search.provenance import open_store, recorded_store
from protalign.search.searcher import Searcher
from protalign.search.wanted import Wanted, refuse_uncalibrated, refuse_without_coordinates
from protalign.stores import AlignedVectors, EmbeddingStore, read_vectors
from protalign.stores.format.lock import held_by_this_process
from protalign.stores.union.paths import absolute, is_pattern, stores_of
from protalign.stores.vectors.folder import is_vector_folder

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

#: A folder of targets or queries in the cache, or of --db: its store and its vectors.
STORE, VECTORS = "store.zarr", "vectors.parquet"
#: The highest E-value of a hit, if none is named: as in MMseqs2's and Foldseek's easy-search.
MAX_EVALUE = 10.0
#: The cache, if none is named.
CACHE = "protalign-cache"
#: Seconds between two looks at a folder that another search fills.
_PAUSE = 0.5


@dataclass(frozen=True, eq=False)
class Side:
    """The queries or the targets of a search, ready for it.

    Attributes
    ----------
    vectors : AlignedVectors
        Their vectors.
    store : EmbeddingStore
        Their residues and coordinates.
    failures : tuple of Failure
        Inputs that could not be read or embedded.
    """

    vectors: AlignedVectors
    store: EmbeddingStore
    failures: tuple[Failure, ...] = ()

    def has(self, modality: Modality) -> Bool:
        """Return (n,) bool: the entries that have the modality."""
        present: Bool = self.vectors.candidates(modality)[1]
        return present


class _SaidOnce:
    """A reporter that says the same line about queries and targets once."""

    def __init__(self, reporter: EmbedReporter) -> None:
        self._said: set[str] = set()
        self._reporter = reporter
        self.scanned, self.encoded = reporter.scanned, reporter.encoded

    def say(self, line: str) -> None:
        """Show a line, unless it was shown before."""
        if line not in self._said:
            self._said.add(line)
            self._reporter.say(line)


def easy_search(
    queries: Paths,
    targets: Paths,
    *,
    model: Model | str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    db: str | os.PathLike[str] | None = None,
    k: int = 50,
    rerank: Rerank = 200,
    mode: AlignMode = "local",
    length_term: float = 0.0,
    query_by: Modality = "structure",
    tm_score: bool = False,
    max_evalue: float | None = None,
    min_prob: float | None = None,
    min_score: float | None = None,
    min_cov: float | None = None,
    min_tm: float | None = None,
    columns: str | Iterable[str] | None = None,
    superpose: bool = False,
    options: ReadOptions | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
    reporter: EmbedReporter | None = None,
) -> Hits:
    """Find for each query the targets that fit it: sequences against structures, and back.

    A FASTA record is a query by its sequence, a structure file by its backbone, which is compared
    with the targets' sequences. While another search fills the same folder of the cache, it waits.

    Parameters
    ----------
    queries, targets : path, or iterable of paths
        FASTA and structure files, or folders of them; or one store, one Parquet file of vectors, or
        one folder that ``db`` named before.
    model : Model or path, optional
        The model to search with. Default: the small one that ships with ProtAlign.
    cache : str or path
        The folder for stores and vectors of files: the next search does not embed them again.
    db : str or path, optional
        The folder for the targets' store and vectors, in place of one in the cache. It can be given
        as ``targets`` from then on.
    k : int
        Hits per query, at most.
    rerank : int or "all"
        Compare this many of the nearest targets with a query residue by residue, at least ``k``; or
        all of them, as for ``protalign.search``.
    mode, length_term, tm_score, min_prob, min_score, min_cov, min_tm, columns, superpose
        As for ``protalign.search``.
    max_evalue : float, optional
        Give only hits of at most this E-value. Default: 10, if the model gives E-values and
        ``min_prob`` is not given.
    query_by : "structure" or "sequence"
        What a structure file is a query by: "sequence" compares the letters that it has with the
        targets' structures.
    options : ReadOptions, optional
        How files are read; queries without the assembly.
    weights : mapping, optional
        Modality -> weights file of the model's encoder, if it is not found by itself.
    device : str
        "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
    reporter : EmbedReporter, optional
        Receives the progress.

    Returns
    -------
    Hits
        Query by query, best first. ``failures`` has the files that could not be read or embedded.

    Raises
    ------
    InputError
        No path exists, nothing in them can be read, a store is given among other paths or with
        ``db``, or neither the queries nor the targets have structures.
    StoreError
        A store was made with other encoders.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import easy_search
    >>> cache = tempfile.mkdtemp()
    >>> queries, targets = "examples/sample/1bpi_A.cif", ["examples/sample/1b5m_A.pdb.gz",
    ...     "examples/sample/1bpi_A.cif"]
    >>> hits = easy_search(queries, targets, cache=cache)
    >>> hits[0].query, hits[0].id
    ('1bpi_A', '1bpi_A')
    """
    check_whole("k", k, 1)
    if reporter is not None:
        reporter = _SaidOnce(reporter)
    model, name, quality = _model(model, device)
    if reporter is not None:
        reporter.say(f"model: {name}; {quality}")
    filters = HitFilters(max_evalue, min_prob, min_score, min_cov, min_tm)
    wanted = Wanted(parse_columns(columns), filters, superpose, tm_score)
    if model.residue_scorer().calibration is None:
        refuse_uncalibrated(wanted)
    elif max_evalue is None and min_prob is None:
        max_evalue = MAX_EVALUE
    options = options or ReadOptions()
    given = [
        (_listed(queries), None, replace(options, assembly=None)),
        (_listed(targets), None if db is None else Path(db), options),
    ]
    for paths, folder, _ in given:  # before the hours that the other side may take
        _check_paths(paths, folder)
    if _are_sequences(given[0][0]):
        refuse_without_coordinates(wanted)
    of_queries, of_targets = (
        _prepared(paths, Path(cache), folder, model, reading, weights, device, reporter)
        for paths, folder, reading in given
    )
    _check_sides(of_queries, of_targets, query_by)
    hits = search(
        of_queries.vectors,
        of_targets.vectors,
        model=model,
        k=k,
        query_by=query_by,
        rerank="all" if rerank == "all" else max(k, rerank),
        mode=mode,
        length_term=length_term,
        tm_score=tm_score,
        max_evalue=max_evalue,
        min_prob=min_prob,
        min_score=min_score,
        min_cov=min_cov,
        min_tm=min_tm,
        columns=columns,
        superpose=superpose,
        store=of_targets.store,
        weights=weights,
        device=device,
    )
    failures = (*of_queries.failures, *of_targets.failures, *hits.failures)
    return replace(hits, failures=failures)


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets that are ready to be searched, and the model to search them with.

    Attributes
    ----------
    side : Side
        Their vectors and store.
    model : Model
        The model.
    name, line : str
        The model's name, and what it is worth.
    """

    side: Side
    model: Model
    name: str
    line: str

    def searcher(
        self, *, weights: Mapping[Modality, str] | None = None, device: str = "auto"
    ) -> Searcher:
        """Return a searcher of them; ``weights`` and ``device`` are as for ``easy_search``."""
        side = self.side
        return Searcher(
            side.vectors, model=self.model, store=side.store, weights=weights, device=device
        )


def ready_targets(
    targets: Paths,
    *,
    vectors: str | os.PathLike[str] | None = None,
    model: Model | str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = CACHE,
    options: ReadOptions | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
    reporter: EmbedReporter | None = None,
) -> Targets:
    """Return targets ready for many searches: made before, or embedded and pooled now.

    Parameters
    ----------
    targets, model, cache, options, weights, device, reporter
        As for ``easy_search``.
    vectors : str or path, optional
        The vectors of ``targets``, which is then their store. Default: those in the cache.

    Raises
    ------
    InputError, StoreError
        As for ``easy_search``.

    Examples
    --------
    >>> import tempfile
    >>> ready = ready_targets("examples/sample/1bpi_A.cif", cache=tempfile.mkdtemp())
    >>> ready.name, len(ready.side.vectors)
    ('protalign-2M', 1)
    """
    loaded, _, line = _model(model, device)
    if model is None:
        name = SHIPPED
    else:
        name = "given" if isinstance(model, Model) else Path(model).absolute().name
    paths = _listed(targets)
    if vectors is not None:
        side = Side(read_vectors(vectors), EmbeddingStore.open(paths))
    else:
        _check_paths(paths, None)
        side = _prepared(
            paths, Path(cache), None, loaded, options or ReadOptions(), weights, device, reporter
        )
    return Targets(side, loaded, name, line)


def _model(given: Model | str | os.PathLike[str] | None, device: str) -> tuple[Model, str, str]:
    """Return the model, its name or path, and a line that says what it is worth."""
    if given is None:
        return Model.load(shipped_model(), device), SHIPPED, worth()
    if isinstance(given, (str, os.PathLike)):
        model, name = Model.load(given, device), path_text(given)
    else:
        model, name = as_model(given), "the given one"
    missing = [modality for modality in MODALITIES if modality not in model.encoders]
    if missing:
        raise ModelError(
            f"the model: it does not record its {missing[0]} encoder; fit it on a store"
        )
    assert model.training_record is not None  # one with encoders was trained
    return model, name, model.training_record.in_a_line


def _listed(paths: Paths) -> list[Path]:
    return (
        [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    )


def _check_paths(paths: Sequence[Path], folder: Path | None) -> None:
    """Raise InputError if none of the paths exists, or one that is ready cannot be taken as it is.

    Those that are missing among others are failures.
    """
    if not paths:
        raise InputError("a list of files: it is empty", "name files, folders or a store")
    if not any(_is_ready(path) or may_exist(path_text(path)) for path in paths):
        scheme, colon, _ = str(paths[0]).partition(":/")
        if colon and scheme.isalnum():  # a path has lost one of the URL's slashes
            raise InputError(
                f"{path_text(paths[0])}: it is a URL, and only local files are taken",
                "copy the store here, or use `protalign search` with --store",
            )
        if is_pattern(paths[0]) and split_name(paths[0].name)[1] is None:
            raise InputError(f"{path_text(paths[0])}: no store matches", "check the pattern")
        raise InputError(f"{path_text(paths[0])}: it does not exist", "check the path")
    for path in filter(_is_ready, paths):
        if len(paths) > 1 and not _are_stores(paths):
            raise InputError(
                f"{path_text(path)}: what is made already cannot be searched with other files",
                "give it alone, or the files that it was made of",
            )
        if folder is not None:
            raise InputError(
                f"db: {path_text(path)} is a store, vectors, or a folder that db made",
                "leave db out",
            )


def _are_sequences(paths: Sequence[Path]) -> bool:
    """Return whether files are FASTA by their names, all of them."""
    return all(split_name(path.name)[1] == "fasta" and not path.is_dir() for path in paths)


def _are_stores(paths: Sequence[Path]) -> bool:
    """Return whether all paths are stores or patterns of stores, which are read as one."""
    return all(map(_names_store, paths))


def _names_store(path: Path) -> bool:
    try:
        stores = stores_of([absolute(path)]) if is_pattern(path) else [path]
        return any((Path(store) / "zarr.json").is_file() for store in stores)
    except (StoreError, OSError):  # nothing matches; too long, not permitted
        return False


def _is_ready(path: Path) -> bool:
    """Return whether a path is vectors, a store, or a folder that ``db`` named."""
    try:
        return (
            (path.suffix == ".parquet" and path.is_file())
            or is_vector_folder(path)
            or _are_stores([path])
            or (path / STORE).is_dir()
        )
    except OSError:  # too long, not permitted: a failure by itself
        return False


def _prepared(
    paths: Sequence[Path],
    cache: Path,
    folder: Path | None,
    model: Model,
    options: ReadOptions,
    weights: Mapping[Modality, str] | None,
    device: str,
    reporter: EmbedReporter | None,
) -> Side:
    """Return one side of the search: made before, or embedded and pooled now."""
    path = paths[0]
    if _is_ready(path):
        if path.is_file() or is_vector_folder(path):
            vectors = read_vectors(path)
            return Side(vectors, open_store(recorded_store(vectors), path))
        if _are_stores(paths):
            place = cache / f"{_key(paths, options)}.parquet"
            return Side(*_vectors(model, EmbeddingStore.open(paths), None, place))
        return Side(*_vectors(model, EmbeddingStore.open(path / STORE), None, path / VECTORS))
    folder = folder or cache / _key(paths, options)
    encoders = _encoders(model, weights, device)
    report = _embedded(paths, folder / STORE, encoders, options, reporter)
    if report.encoded and reporter is not None:
        reporter.say(f"{path_text(folder)}: {counted(report.entries, 'entry', 'entries')}")
    store = EmbeddingStore.open(folder / STORE)
    kept = np.array(list(map(may_exist, store.log.source_paths_at(store.entry_rows))), np.bool_)
    if not kept.any():
        _refuse_nothing(paths, report.failures)
    sides = _vectors(model, store, kept, folder / VECTORS)
    return Side(*sides, tuple(report.failures))


def _embedded(
    paths: Sequence[Path],
    out: Path,
    encoders: Sequence[EncoderChoice],
    options: ReadOptions,
    reporter: EmbedReporter | None,
) -> EmbedReport:
    """Embed files; wait while another process writes to their store, which is not lost work."""
    while True:
        try:
            return embed(paths, out, encoders, options=options, reporter=reporter)
        except StoreInUseError:
            if held_by_this_process(out):
                raise
            if reporter is not None:
                reporter.say(f"{path_text(out.parent)}: waiting for another search that fills it")
            time.sleep(_PAUSE)


def _refuse_nothing(paths: Sequence[Path], failures: Sequence[Failure]) -> NoReturn:
    """Raise InputError since files gave no entry."""
    if not failures:
        raise InputError(f"{first_few([*map(path_text, paths)])}: it is empty", "name other files")
    first, more = failures[0], len(failures) - 1
    others = f", and {more:,} more could not be read" if more else ""
    raise InputError(f"{first.file}: {first.reason}{others}", first.advice)


def _key(paths: Sequence[Path], options: ReadOptions) -> str:
    """Return the name in the cache of what is made of some paths, with some options."""
    absolute = [path_text(path.absolute()) for path in paths]
    text = json.dumps([absolute, asdict(options)], sort_keys=True)
    word = "".join(
        c for c in paths[0].name.split(".")[0] if c.isascii() and (c.isalnum() or c in "_-")
    )
    return f"{word[:40] or 'proteins'}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _encoders(
    model: Model, weights: Mapping[Modality, str] | None, device: str
) -> list[EncoderChoice]:
    """Return the model's encoders."""
    given = weights or {}
    return [
        EncoderChoice(spec_of(record, given.get(modality, ""), device))
        for modality, record in model.encoders.items()
    ]


def _vectors(
    model: Model, store: EmbeddingStore, kept: Bool | None, path: Path
) -> tuple[AlignedVectors, EmbeddingStore]:
    """Return the vectors of a store's entries, pooled unless the file at ``path`` has them."""
    entries = store if kept is None or kept.all() else store[kept]
    if len(entries) == 0:
        raise InputError(f"{path_text(store.path)}: it has no entry to search", "name other files")
    wanted = json.loads(json.dumps(provenance_of(model, store, model.inputs(entries).encoders)))
    if path.is_file():
        vectors = read_vectors(path)
        if {k: vectors.metadata.get(k) for k in wanted} == wanted and np.array_equal(
            vectors.ids, entries.ids
        ):
            return vectors, store
    path.parent.mkdir(parents=True, exist_ok=True)
    export_vectors(model, entries, path)
    return read_vectors(path), store


def _check_sides(queries: Side, targets: Side, query_by: Modality) -> None:
    """Raise InputError if no query can be compared with a target of the other modality."""
    by_structure = queries.has("structure") & (query_by == "structure")
    if targets.has("structure").any() or (by_structure & targets.has("sequence").any()).any():
        return
    raise InputError(
        "the targets: they have no structures, and the queries are sequences",
        "give structures on one of the two sides, or compare sequences with MMseqs2 or BLAST",
    )
