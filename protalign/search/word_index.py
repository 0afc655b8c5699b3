"""An index of residue words: built from a store in one pass, added to, and searched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.checks import check_whole
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.unfinished import put_back
from protalign.heads.inputs import choose_encoder
from protalign.heads.model import Model
from protalign.residues import ResidueStage
from protalign.residues.kernels.word_scores import word_scores
from protalign.residues.words import SAMPLED, WORDS, ResidueWords
from protalign.search.word_files import (
    AGAIN,
    BLOCK,
    MANIFEST,
    PartReader,
    PartWriter,
    StoredPart,
    ids_digest,
    is_index,
    new_index,
    new_segment,
    read_centroids,
    read_manifest,
)
from protalign.stores import EmbeddingStore, EncoderInfo
from protalign.stores.format.lock import StoreLock

#: Residues that are made words at once: 42 MB of float32 embeddings of 320 numbers.
_RESIDUES_AT_ONCE = 1 << 15
#: Words that all queries read before the next ones are looked at: 64 MB.
_WORDS_AT_ONCE = 8 * BLOCK


class WordIndex:
    """An index of a store's residue words, opened for searching.

    Parameters
    ----------
    path : str or path
        The folder. ``index_store`` writes it.

    Attributes
    ----------
    path : Path
        The folder.
    provenance : mapping
        The model and the store that it was made with.

    Raises
    ------
    InputError
        The folder is missing, is damaged, or is not an index.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.search.word_files import PartWriter, new_index
    >>> words = ResidueWords({"structure": np.eye(3, 5, dtype=np.float32)})
    >>> folder = tempfile.mkdtemp() + "/index"
    >>> with new_index(folder, {"stage_sha256": "", "store": {}}, words) as (segment, parts):
    ...     with PartWriter(segment, "structure") as writer:  # two entries of three residues
    ...         writer.add(np.arange(2), np.array([3, 3]), np.array([2, 2, 2, 0, 1, 2]))
    ...     parts["structure"] = writer.finish(["a", "b"])
    >>> index = WordIndex(folder)
    >>> query = 9 * np.eye(2, 5, dtype=np.float32) - 3  # two residues that fit words 0 and 1
    >>> [(rows, scores)] = index.nearest("structure", [query], k=1)
    >>> rows.tolist(), scores.tolist()
    ([1], [12])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        put_back(Path(path))
        self.path = Path(path)
        self._manifest = read_manifest(path)
        self.provenance: Mapping[str, Any] = self._manifest.provenance
        self.words: ResidueWords = read_centroids(self.path, self._manifest)
        self._parts: dict[Modality, list[PartReader]] = {m: [] for m in self.words.centroids}
        for name, parts in self._manifest.segments.items():
            for modality, part in parts.items():
                n_words = len(self.words.centroids[modality])
                self._parts[modality].append(PartReader(self.path, name, modality, part, n_words))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that it has words of."""
        return tuple(self._parts)

    def n_entries(self, modality: Modality) -> int:
        """Return the entries of a modality; an entry that was embedded anew counts twice."""
        return sum(reader.part.entries for reader in self._parts.get(modality, []))

    def entry_rows(self, modality: Modality) -> Int64:
        """Return (n,) int64: each entry's row in the store's log of entries."""
        rows = [reader.rows for reader in self._parts.get(modality, [])]
        return np.concatenate([np.empty(0, dtype=np.int64), *rows])

    def check_made_by(self, model: Model) -> None:
        """Raise ModelError if another model's residue stage made the words."""
        stage = model.residue_scorer()
        widths = {centroids.shape[1] for centroids in self.words.centroids.values()}
        if self.provenance["stage_sha256"] != stage_sha256(stage) or widths - {stage.width}:
            raise ModelError(
                f"{self.path}: the residue stage of another model made its words; search with that "
                "model, or build an index with this one (`protalign index`)"
            )

    def check_is_of(self, store: EmbeddingStore) -> None:
        """Raise InputError if it was made from another store."""
        for modality, readers in self._parts.items():
            for reader in readers:
                rows = reader.rows
                known = rows.max() < len(store.log)
                if not known or ids_digest(store.log.ids[rows].tolist()) != reader.part.ids_sha256:
                    raise InputError(
                        f"{self.path}: its {modality} entries are not those of {store.path}",
                        "name the store that it was made from, or build it again",
                    )

    def nearest(
        self,
        against: Modality,
        queries: Sequence[Float32],
        k: int,
        kept: Bool | None = None,
    ) -> list[tuple[Int64, npt.NDArray[np.int32]]]:
        """Find the entries whose words fit each query best.

        Parameters
        ----------
        against : "sequence" or "structure"
            The entries' modality.
        queries : sequence of (L, k + 2) float32
            Rows of proteins of the other modality, each of at least one residue.
        k : int
            Entries for each query, at least 1; fewer if there are fewer.
        kept : (n,) bool, optional
            The entries to search, in the order of ``entry_rows``; default: all.

        Returns
        -------
        list of (rows, scores)
            For each query (k,) int64 rows of entries in the store's log, and (k,) int32 scores of
            their best segments (``protalign.residues.kernels.word_scores``), best first.

        Raises
        ------
        InputError
            The index has no words of the modality, or is damaged.
        """
        check_whole("k", k, 1)
        if against not in self._parts:
            raise InputError(
                f"{self.path}: it has no words of a {against}",
                "search for a query of the other modality, or embed these in the store",
            )
        profiles = [self.words.profile(against, query) for query in queries]
        best = [_Best.none() for _ in queries]
        first = 0
        for reader in self._parts[against]:
            for begin, end in _pieces(reader.offsets):
                offsets = reader.offsets[begin : end + 1]
                words = reader.words(int(offsets[0]), int(offsets[-1]))
                inside = None if kept is None else kept[first + begin : first + end]
                for place, profile in enumerate(profiles):
                    scores = word_scores(profile, words, offsets)
                    best[place] = best[place].joined(reader.rows[begin:end], scores, inside, k)
            first += reader.part.entries
        return [(each.rows, each.scores) for each in best]

    def problems(self) -> list[str]:
        """Read everything; return what is wrong, one line each."""
        problems = []
        if (self.path / MANIFEST).read_text("utf-8") != self._manifest.text():
            problems.append(f"{self.path}: the spaces in its {MANIFEST} were changed; {AGAIN}")
        for readers in self._parts.values():
            for reader in readers:
                try:
                    if len(reader.rows) + 1 == len(reader.offsets):
                        reader.words()
                except InputError as error:
                    problems.append(str(error))
        return problems


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """The best entries of a query so far: of equal scores the earlier one first."""

    rows: Int64
    scores: npt.NDArray[np.int32]

    @classmethod
    def none(cls) -> _Best:
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32))

    def joined(
        self, rows: Int64, scores: npt.NDArray[np.int32], inside: Bool | None, k: int
    ) -> _Best:
        """Return the best k of these and of some later entries."""
        if inside is not None:
            rows, scores = rows[inside], scores[inside]
        if len(scores) > k:  # only what reaches the k-th best is sorted
            reached = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
            rows, scores = rows[reached], scores[reached]
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        order = np.argsort(-scores, kind="stable")[:k]
        return _Best(rows[order], scores[order])


def _pieces(offsets: Int64) -> Iterator[tuple[int, int]]:
    """Yield (first, last) entries of about ``_WORDS_AT_ONCE`` words."""
    first = 0
    while first < len(offsets) - 1:
        end = np.searchsorted(offsets, offsets[first] + _WORDS_AT_ONCE, side="right")
        last = max(first + 1, int(end) - 1)
        yield first, last
        first = last


def verify_index(path: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with an index, one line each; nothing if it is whole.

    Reads all of it and compares it with its checksums.

    Parameters
    ----------
    path : str or path
        The index's folder.
    """
    try:
        index = WordIndex(path)
    except InputError as error:
        return [str(error)]
    return index.problems()


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What ``index_store`` did.

    Attributes
    ----------
    is_new : bool
        Whether the index was built; else it was added to.
    added : dict
        Modality -> entries that were added.
    residues : int
        Residues that were added.
    entries : dict
        Modality -> entries that the index has now.
    """

    is_new: bool
    added: dict[Modality, int]
    residues: int
    entries: dict[Modality, int]


def index_store(
    model: Model,
    store: EmbeddingStore,
    path: str | os.PathLike[str],
    *,
    n_words: int = WORDS,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Build an index of a store's residue words, or add the store's new entries to it.

    The embeddings of each modality are read once, in the order in which they lie in the store. An
    index appears whole or not at all, and so does what is added to one: it goes on with the words
    that the index has.

    Parameters
    ----------
    model : Model
        A model with a residue stage.
    store : EmbeddingStore
        The store; entries count for each modality that is embedded.
    path : str or path
        The index's folder.
    n_words : int
        Words of each modality, from 1 to 65,535; of a new index only.
    seed : int
        Chooses the residues that the words are made of.
    on_progress : callable, optional
        Called with the residues that are done, and those of all entries to add.

    Returns
    -------
    IndexReport

    Raises
    ------
    InputError
        Something else is at the path, the index is of another store, or the store has no
        embeddings.
    ModelError
        The index is another model's, the model has no residue stage, or the store was embedded by
        other encoders.
    StoreError
        Another process adds to the index.
    WriteError
        The folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, ProtAlignEstimator, embed
    >>> folder, files = tempfile.mkdtemp(), sorted(Path("examples/sample").glob("1b*"))
    >>> _ = embed(files, f"{folder}/s", ["protalign_t6_2M", "proteinmpnn_v_48_020"])
    >>> store = EmbeddingStore.open(f"{folder}/s")
    >>> model = ProtAlignEstimator(max_epochs=1, device="cpu").fit(store).model_
    >>> index_store(model, store, f"{folder}/index", n_words=64).added
    {'sequence': 9, 'structure': 9}
    >>> index_store(model, store, f"{folder}/index").added  # again: nothing is new
    {'sequence': 0, 'structure': 0}
    >>> from protalign import search
    >>> [hit.id for hit in search("1bpi_A", index=f"{folder}/index", model=model, k=1)]
    ['1bpi_A']
    """
    check_whole("n_words", n_words, 1)
    folder = Path(path).absolute()
    put_back(folder)
    stage = model.residue_scorer()
    inputs = model.inputs(store)
    encoders: dict[Modality, EncoderInfo] = {}
    for modality in inputs.dims:
        encoder = choose_encoder(store, modality, None, model.encoders.get(modality))
        if encoder is not None:
            encoders[modality] = encoder
    progress = _Progress(on_progress)
    if is_index(folder):
        with StoreLock(folder):
            index = WordIndex(folder)
            index.check_made_by(model)
            index.check_is_of(store)
            known = {m: index.entry_rows(m) for m in index.modalities}
            for modality in encoders.keys() - known.keys():
                raise InputError(
                    f"{path}: it has no words of a {modality}, which the store had not when it was "
                    "built",
                    "remove the folder and build it again",
                )
            added = _new_entries(store, encoders, known)
            progress.total = sum(int(each.lengths.sum()) for each in added.values())
            if added:
                with new_segment(folder, index._manifest) as (segment, parts):
                    _write(stage, index.words, store, added, segment, parts, progress)
            return _report(False, added, known)
    _check_free(folder, path)
    added = _new_entries(store, encoders, {})
    if not added:
        raise InputError(
            f"{store.path}: none of its entries has embeddings", "run `protalign embed` to the end"
        )
    progress.total = sum(int(each.lengths.sum()) for each in added.values())
    rng = np.random.default_rng(seed)
    samples = {m: stage.rows(m, _sample(store, each, rng)) for m, each in added.items()}
    words = ResidueWords.fit(samples, n_words, seed)
    with new_index(folder, _provenance(model, stage, store, encoders), words) as (segment, parts):
        _write(stage, words, store, added, segment, parts, progress)
    return _report(True, added, {})


def stage_sha256(stage: ResidueStage) -> str:
    """Return the hex digest of the numbers of a residue stage that decide its words.

    These are the local mode's: a head may be trained later.
    """
    digest = hashlib.sha256()
    named = {f"mean.{m}": stage.means[m] for m in MODALITIES}
    named |= {f"projection.{m}": stage.projections[m] for m in MODALITIES}
    for name, values in sorted({**named, "correlations": stage.correlations}.items()):
        digest.update(f"{name}\n{values.dtype.str}\n{values.shape}\n".encode("ascii"))
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class _Added:
    """Entries of one modality to add: their rows in the log, and their embeddings, in order."""

    encoder: str
    rows: Int64
    starts: Int64
    lengths: Int64


class _Progress:
    def __init__(self, call: Callable[[int, int], None] | None) -> None:
        self._call, self._done, self.total = call, 0, 0

    def add(self, residues: int) -> None:
        self._done += residues
        if self._call is not None:
            self._call(self._done, self.total)


def _new_entries(
    store: EmbeddingStore,
    encoders: Mapping[Modality, EncoderInfo],
    known: Mapping[Modality, Int64],
) -> dict[Modality, _Added]:
    """Return the entries that are not known, as their embeddings lie in the store."""
    added: dict[Modality, _Added] = {}
    for modality in MODALITIES:
        if modality not in encoders:
            continue
        starts, lengths = store.rows(encoders[modality].name)
        new = lengths > 0
        if modality in known:
            new &= ~np.isin(store.entry_rows, known[modality])
        positions = np.flatnonzero(new)
        positions = positions[np.argsort(starts[positions], kind="stable")]
        if len(positions):
            rows = store.entry_rows[positions]
            columns = starts[positions], lengths[positions]
            added[modality] = _Added(encoders[modality].name, rows, *columns)
    return added


def _sample(
    store: EmbeddingStore, added: _Added, rng: np.random.Generator
) -> npt.NDArray[np.generic]:
    """Return the embeddings of up to ``SAMPLED`` residues, of whole proteins by chance."""
    _, first = np.unique(added.starts, return_index=True)  # entries may share their embeddings
    order = rng.permutation(first)
    count = int(np.searchsorted(np.cumsum(added.lengths[order]), SAMPLED)) + 1
    some = order[:count]
    some = some[np.argsort(added.starts[some])]
    rows = store.encoders.rows(added.encoder)
    return rows.gather(added.starts[some], added.lengths[some])[:SAMPLED]


def _write(
    stage: ResidueStage,
    words: ResidueWords,
    store: EmbeddingStore,
    added: Mapping[Modality, _Added],
    folder: Path,
    parts: dict[Modality, StoredPart],
    progress: _Progress,
) -> None:
    """Write a segment, some thousand residues at a time."""
    for modality, each in added.items():
        encoded = store.encoders.rows(each.encoder)
        ends = np.cumsum(each.lengths)
        with PartWriter(folder, modality) as writer:
            first = 0
            while first < len(each.rows):
                before = ends[first] - each.lengths[first]
                end = np.searchsorted(ends, before + _RESIDUES_AT_ONCE, side="right")
                here = slice(first, max(first + 1, int(end)))
                embeddings = encoded.gather(each.starts[here], each.lengths[here])
                rows = stage.rows(modality, embeddings)
                if not np.isfinite(rows).all():
                    raise InputError(
                        f"{store.path}: {modality} embeddings hold NaN or infinity",
                        "`protalign verify` names the entries",
                    )
                writer.add(each.rows[here], each.lengths[here], words.of(modality, rows))
                progress.add(len(rows))
                first = here.stop
            parts[modality] = writer.finish(store.log.ids[each.rows].tolist())


def _provenance(
    model: Model,
    stage: ResidueStage,
    store: EmbeddingStore,
    encoders: Mapping[Modality, EncoderInfo],
) -> dict[str, Any]:
    """Return what an index says of its model and its store, as a file of vectors does."""
    description = model.description()
    return {
        "protalign_version": description["protalign_version"],
        "model": {
            "parameters": description["parameters"],
            "encoders": description["encoders"],
            "weights_sha256": model.weights_sha256,
        },
        "store": {
            "path": store.path,
            "options": dict(store.options),
            "encoders": {m: asdict(record) for m, record in encoders.items()},
        },
        "stage_sha256": stage_sha256(stage),
    }


def _report(
    is_new: bool, added: Mapping[Modality, _Added], known: Mapping[Modality, Int64]
) -> IndexReport:
    counts = {m: len(each.rows) for m, each in added.items()}
    modalities = [m for m in MODALITIES if m in counts or m in known]
    return IndexReport(
        is_new,
        {m: counts.get(m, 0) for m in modalities},
        sum(int(each.lengths.sum()) for each in added.values()),
        {m: counts.get(m, 0) + len(known.get(m, ())) for m in modalities},
    )


def _check_free(folder: Path, path: object) -> None:
    """Raise InputError if something that is not an index is at a path."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{path}: it exists but is not an index", "name another folder")
