"""The building of an index of residue words from a store, in one pass, and additions to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protalign.core.arrays import Float32, Int64, Words
from protalign.core.checks import check_whole
from protalign.core.errors import InputError, ProtAlignError
from protalign.core.files import write_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import blocks
from protalign.core.spread import Spread, checked, spread_over
from protalign.core.threads import OnSameCores
from protalign.core.unfinished import put_back
from protalign.heads.inputs import choose_encoder
from protalign.heads.model import Model
from protalign.heads.provenance import provenance_of
from protalign.residues import ResidueStage
from protalign.residues.words import LEAST_WORDS, MOST_WORDS, SAMPLED, WORDS, ResidueWords
from protalign.search.residue_rows import check_finite_rows
from protalign.search.word_files import (
    MANIFEST,
    StoredPart,
    clear_unfinished,
    is_index,
    new_index,
    new_segment,
)
from protalign.search.word_index import WordIndex, stage_sha256
from protalign.search.word_parts import PartWriter
from protalign.stores import EmbeddingStore, EncoderInfo, StoreView
from protalign.stores.format.lock import StoreLock
from protalign.stores.part import StorePart

#: Residues that are made words at once: 42 MB of float32 embeddings of 320 numbers.
_RESIDUES_AT_ONCE = 1 << 15


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
    n_words: int | None = None,
    seed: int | None = None,
    scheduler: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Build an index of a store's residue words, or add the store's new entries to it.

    The embeddings of each modality are read once, in the order in which they lie in the store. An
    index appears whole or not at all, and so does what is added to one: it goes on with the words
    that the index has. A store that was moved or copied may be named by its new path, which the
    index then records.

    Parameters
    ----------
    model : Model
        A model with a residue stage.
    store : EmbeddingStore
        The store; entries count for each modality that is embedded.
    path : str or path
        The index's folder.
    n_words : int, optional
        Words of each modality, from 2 to 65,535. Default: of a new index 1,024, else those that the
        index was built with, and no other number.
    seed : int, optional
        Chooses the residues that the words are made of. Default: of a new index 0, else the one
        that the index was built with, and no other.
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers find each
        residue's word. They must see the store under the same path. Default: this process.
    on_progress : callable, optional
        Called with the residues that are done, and those of all entries to add.

    Returns
    -------
    IndexReport

    Raises
    ------
    InputError
        Something else is at the path, the index is of another store or was built with another
        number of words or another seed, or the store has no embeddings.
    ModelError
        The index is another model's, the model has no residue stage, or the store was embedded by
        other encoders.
    StoreError
        Another process adds to the index, or no scheduler answers.
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
    if n_words is not None:
        check_whole("n_words", n_words, LEAST_WORDS, MOST_WORDS)
    with spread_over(scheduler) as spread:
        return _index(model, store, path, (n_words, seed), spread, _Progress(on_progress))


def _index(
    model: Model,
    store: EmbeddingStore,
    path: str | os.PathLike[str],
    given: tuple[int | None, int | None],
    spread: Spread,
    progress: _Progress,
) -> IndexReport:
    """Add to the index at a path, or build one, with a number of words and a seed if given."""
    folder = Path(path).absolute()
    put_back(folder)
    stage = model.residue_scorer()
    inputs = model.inputs(store)
    encoders: dict[Modality, EncoderInfo] = {}
    for modality in inputs.dims:
        encoder = choose_encoder(store, modality, None, model.encoders.get(modality))
        if encoder is not None:
            encoders[modality] = encoder
    if is_index(folder):
        with StoreLock(folder):
            index = WordIndex(folder)
            clear_unfinished(folder, index._manifest)
            index.check_made_by(model)
            index.check_is_of(store)
            index.check_built_with(*given)
            known = {m: index.entry_rows(m) for m in index.modalities}
            manifest = index._manifest.with_store(provenance_of(model, store, encoders)["store"])
            added = _new_entries(store, encoders, known)
            for modality in added.keys() - known.keys():
                raise InputError(
                    f"{path}: it has no words of a {modality}, which the store had not when it was "
                    "built",
                    "remove the folder and build it again",
                )
            progress.total = sum(int(each.lengths.sum()) for each in added.values())
            if added:
                with new_segment(folder, manifest) as (segment, parts):
                    wording = _Wording(stage, index.words, store)
                    _write(wording, spread, added, segment, parts, progress)
            elif manifest.text() != index._manifest.text():
                write_text(folder / MANIFEST, manifest.text())
            return _report(False, added, known)
    _check_free(folder, path)
    added = _new_entries(store, encoders, {})
    if not added:
        raise InputError(
            f"{store.path}: none of its entries has embeddings", "run `protalign embed` to the end"
        )
    progress.total = sum(int(each.lengths.sum()) for each in added.values())
    n_words, seed = (
        default if each is None else int(each)
        for each, default in zip(given, (WORDS, 0), strict=True)
    )
    rng = np.random.default_rng(seed)
    samples = {
        m: _rows(stage, m, each.encoder, _sample(store, each, rng), SAMPLED)
        for m, each in added.items()
    }
    words = ResidueWords.fit(samples, n_words, seed)
    provenance = provenance_of(model, store, encoders) | {
        "stage_sha256": stage_sha256(stage),
        "n_words": n_words,
        "seed": seed,
    }
    with new_index(folder, provenance, words) as (segment, parts):
        _write(_Wording(stage, words, store), spread, added, segment, parts, progress)
    return _report(True, added, {})


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


def _sample(store: EmbeddingStore, added: _Added, rng: np.random.Generator) -> StoreView:
    """Return entries drawn by chance that have ``SAMPLED`` residues, or all."""
    _, first = np.unique(added.starts, return_index=True)  # entries may share their embeddings
    order = rng.permutation(first)
    count = int(np.searchsorted(np.cumsum(added.lengths[order]), SAMPLED)) + 1
    some = order[:count]
    return StoreView(store, added.rows[some[np.argsort(added.starts[some])]])


def _rows(
    stage: ResidueStage,
    modality: Modality,
    encoder: str,
    entries: StoreView,
    most: int | None = None,
) -> Float32:
    """Return the rows of the first residues of some entries; raise InputError if not finite."""
    embeddings = entries.embeddings(encoder)
    with np.errstate(invalid="ignore", over="ignore"):  # such numbers are named below
        rows = stage.plain_rows(modality, embeddings.values[:most])
    check_finite_rows(np.isfinite(rows), embeddings.offsets, entries.ids.tolist(), modality)
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class _Wording:
    """Finds the words of the residues of some entries: (R,) uint16.

    A worker opens the store once, when it gets this.
    """

    stage: ResidueStage
    words: ResidueWords
    store: EmbeddingStore

    def __call__(self, task: tuple[Modality, str, StorePart]) -> Words:
        modality, encoder, part = task
        entries = part.of(self.store)
        return self.words.of(modality, _rows(self.stage, modality, encoder, entries))


def _write(
    wording: _Wording,
    spread: Spread,
    added: Mapping[Modality, _Added],
    folder: Path,
    parts: dict[Modality, StoredPart],
    progress: _Progress,
) -> None:
    """Write a segment, some thousand residues at a time."""
    store = wording.store
    for modality, each in added.items():
        places = list(blocks(each.lengths, _RESIDUES_AT_ONCE))
        parts_of = (StorePart(StoreView(store, each.rows[here])) for here in places)
        tasks = ((modality, each.encoder, part) for part in parts_of)
        with PartWriter(folder, modality, wording.words) as writer:
            found = spread.map(OnSameCores(wording), tasks)
            for here, words in zip(places, found, strict=True):
                lengths = each.lengths[here]
                of_task = checked(words, [lengths.sum()], np.uint16)
                if of_task.max() >= len(wording.words.centroids[modality]):
                    raise ProtAlignError(
                        f"{store.path}: a worker found words that the index has not; give every "
                        "worker the same version"
                    )
                writer.add(each.rows[here], lengths, of_task)
                progress.add(len(words))
            contents = store.log.each_content(modality, each.rows)
            parts[modality] = writer.finish(store.log.each_id(each.rows), contents)


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
