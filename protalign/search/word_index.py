"""An index of residue words, opened: its search and its checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.checks import check_whole
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import InputError, ModelError, StoreError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import ascend, blocks
from protalign.core.unfinished import put_back
from protalign.core.words import counted
from protalign.heads.inputs import choose_encoder
from protalign.heads.model import Model
from protalign.residues import ResidueStage
from protalign.residues.word_scan import WordScan
from protalign.residues.words import ResidueWords
from protalign.search.provenance import store_paths
from protalign.search.word_files import (
    AGAIN,
    MANIFEST,
    contents_digest,
    damaged,
    ids_digest,
    read_centroids,
    read_manifest,
)
from protalign.search.word_parts import BLOCK, PartReader
from protalign.stores import EmbeddingStore
from protalign.stores.union.paths import is_here

#: Words that some queries read before the next ones are looked at, 64 MB, and how many an entry
#: counts for at least: 128 queries need four bytes for each entry.
_WORDS_AT_ONCE, _LEAST_WORDS = 8 * BLOCK, 128
#: Residues of the queries that read together, and how many a query counts for at least. More are
#: no quicker, and a residue needs 0.5 kB.
_RESIDUES_AT_ONCE, _LEAST_RESIDUES = 1 << 16, 1 << 9


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
    >>> from protalign.search.word_files import new_index
    >>> from protalign.search.word_parts import PartWriter
    >>> words = ResidueWords({"structure": np.eye(3, 5, dtype=np.float32)})
    >>> folder = tempfile.mkdtemp() + "/index"
    >>> made_with = {"stage_sha256": "", "store": {}, "n_words": 3, "seed": 0}
    >>> with new_index(folder, made_with, words) as (segment, parts):
    ...     with PartWriter(segment, "structure", words) as writer:  # two entries of 3 residues
    ...         writer.add(np.arange(2), np.array([3, 3]), np.array([2, 2, 2, 0, 1, 2]))
    ...         parts["structure"] = writer.finish(["a", "b"], [])
    >>> index = WordIndex(folder)
    >>> query = 9 * np.eye(2, 5, dtype=np.float32) - 3  # two residues that fit words 0 and 1
    >>> [(rows, scores)] = index.nearest("structure", [query], k=1)
    >>> rows.tolist(), scores.tolist()
    ([1], [4.0])
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
        """Return (n,) int64: each entry's row in the store's log of entries.

        Raises
        ------
        InputError
            The index is damaged.
        """
        parts = [reader.rows for reader in self._parts.get(modality, [])]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *parts])
        if len(parts) > 1 and not ascend(np.sort(rows), strictly=True):  # a part's own differ
            raise damaged(self.path, f"two segments have words of the same {modality}")
        return rows

    def check_made_by(self, model: Model) -> None:
        """Raise ModelError if another model's residue stage made the words."""
        stage = model.residue_scorer()
        widths = {centroids.shape[1] for centroids in self.words.centroids.values()}
        if self.provenance["stage_sha256"] != stage_sha256(stage) or widths - {stage.width}:
            raise ModelError(
                f"{self.path}: the residue stage of another model made its words; search with that "
                "model, or build an index with this one (`protalign index`)"
            )

    def check_built_with(self, n_words: int | None, seed: int | None) -> None:
        """Raise InputError if it was built with another number of words, or another seed.

        None is not compared.
        """
        recorded, known_seed = self.provenance["n_words"], self.provenance["seed"]
        if n_words not in (None, recorded):
            raise self._built_otherwise(f"{recorded:,} words", f"{n_words:,}", "n_words (--words)")
        if seed not in (None, known_seed):
            raise self._built_otherwise(f"seed {known_seed}", f"{seed}", "seed (--seed)")

    def _built_otherwise(self, built_with: str, asked: str, option: str) -> InputError:
        return InputError(
            f"{self.path}: it was built with {built_with}, not {asked}, and what is added gets the "
            "same words",
            f"leave {option} out, or name another folder for a new index",
        )

    def check_is_of(self, store: EmbeddingStore) -> None:
        """Raise InputError if it was made from another store, or names an entry twice."""
        for modality, readers in self._parts.items():
            self.entry_rows(modality)
            for reader in readers:
                rows = reader.rows
                known = rows.max() < len(store.log)
                ids = store.log.each_id(rows) if known else ()
                if ids_digest(ids) != reader.part.ids_sha256:
                    raise InputError(
                        f"{self.path}: its {modality} entries are not those of {store.path}",
                        "name the store that it was made from, or build it again",
                    )
                contents = contents_digest(store.log.each_content(modality, rows))
                if reader.part.contents_sha256 != contents:
                    raise InputError(
                        f"{self.path}: entries of {store.path} have the same ids but other "
                        f"{modality}s than when it was built",
                        "remove the folder and build it again, or name the store that it was made "
                        "from",
                    )

    def n_lacking(self, store: EmbeddingStore) -> int:
        """Return how many entries of its store have embeddings, but no words here.

        They came later, or were embedded anew: no search by the index finds them.

        Raises
        ------
        InputError
            The index is damaged.
        """
        absent = [np.empty(0, dtype=np.int64)]
        for modality in self.modalities:
            encoder = choose_encoder(store, modality, None, self._encoder(modality))
            if encoder is not None:
                embedded = store.entry_rows[store.rows(encoder.name)[1] > 0]
                absent.append(np.setdiff1d(embedded, self.entry_rows(modality)))
        return len(np.unique(np.concatenate(absent)))

    def _encoder(self, modality: Modality) -> EncoderRecord | None:
        """Return the store's encoder whose embeddings became words; None if it is not recorded."""
        try:
            return EncoderRecord(**self.provenance["store"]["encoders"][modality])
        except (KeyError, TypeError):
            return None

    def nearest(
        self,
        against: Modality,
        queries: Sequence[Float32],
        k: int,
        kept: Bool | None = None,
    ) -> list[tuple[Int64, Float32]]:
        """Find entries whose words fit each query best.

        Of many entries those are scored that have the most hits in inverted lists (``WordScan``):
        some of the best may be missing, rarely the first. Memory does not grow with the number of
        queries. An entry's chains are one after another, and a segment may go from one to the next.

        Parameters
        ----------
        against : "sequence" or "structure"
            The entries' modality.
        queries : sequence of (L, k + 2) float32
            Plain rows (``ResidueStage.plain_rows``) of proteins of the other modality, each of at
            least one residue.
        k : int
            Entries for each query, at least 1; fewer if there are fewer.
        kept : (n,) bool, optional
            The entries to search, in the order of ``entry_rows``; default: all.

        Returns
        -------
        list of (rows, scores)
            For each query (k,) int64 rows of entries in the store's log, and (k,) float32 scores of
            their best segments (``protalign.residues.kernels.word_scores``) less what chance adds
            for their length, best first.

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
        lengths = np.array([len(query) for query in queries], dtype=np.int64)
        found: list[tuple[Int64, Float32]] = []
        for part in blocks(np.maximum(lengths, _LEAST_RESIDUES), _RESIDUES_AT_ONCE):
            found += self._nearest(against, queries[part], k, kept)
        return found

    def _nearest(
        self, against: Modality, queries: Sequence[Float32], k: int, kept: Bool | None
    ) -> list[tuple[Int64, Float32]]:
        """Find the entries for queries that read together."""
        best = [_Best.none() for _ in queries]
        scan = WordScan(self.words, against, queries)
        first = 0
        for reader in self._parts[against]:
            lengths = np.maximum(np.diff(reader.offsets), _LEAST_WORDS)
            of_blocks = np.add.reduceat(lengths, reader.blocks[:-1])
            for part in blocks(of_blocks, _WORDS_AT_ONCE):
                here = slice(*reader.blocks[[part.start, part.stop]].tolist())
                inside = None if kept is None else kept[first + here.start : first + here.stop]
                rows, targets = reader.rows[here], reader.listed(part.start, part.stop)
                for place, (entries, scores) in enumerate(scan.scores(targets, k, inside)):
                    best[place] = best[place].joined(rows[entries], scores, k)
            first += reader.part.entries
        return [(each.rows, each.scores) for each in best]

    def problems(self) -> list[str]:
        """Read everything; return what is wrong, one line each."""
        problems = []
        if (self.path / MANIFEST).read_text("utf-8") != self._manifest.text():
            problems.append(f"{self.path}: the spaces in its {MANIFEST} were changed; {AGAIN}")
        for modality, readers in self._parts.items():
            for reader in readers:
                problems += reader.problems(self.words, modality)
        return problems


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """The best entries of a query so far: of equal scores the earlier one first."""

    rows: Int64
    scores: Float32

    @classmethod
    def none(cls) -> _Best:
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))

    def joined(self, rows: Int64, scores: Float32, k: int) -> _Best:
        """Return the best k of these and of some later entries."""
        if len(scores) > k:  # only what reaches the k-th best is sorted
            reached = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
            rows, scores = rows[reached], scores[reached]
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        order = np.argsort(-scores, kind="stable")[:k]
        return _Best(rows[order], scores[order])


def verify_index(path: str | os.PathLike[str], store: EmbeddingStore | None = None) -> list[str]:
    """Return what is wrong with an index, one line each; nothing if it is whole.

    Reads all of it and compares it with its checksums.

    Parameters
    ----------
    path : str or path
        The index's folder.
    store : EmbeddingStore, optional
        The store that it was made from (``recorded_store``): whether its entries are still those
        of the index.
    """
    try:
        index = WordIndex(path)
    except InputError as error:
        return [str(error)]
    problems = index.problems()
    if store is not None:
        try:
            index.check_is_of(store)
        except InputError as error:
            problems += [str(error)] if str(error) not in problems else []
        except StoreError as error:
            problems.append(f"{path}: its store was not compared: {error}")
    return problems


def lacking_words(count: int, store: str = "the store") -> str:
    """Return what an index that lacks so many entries of its store means, and what to do.

    Examples
    --------
    >>> lacking_words(3, "store.zarr")
    'it lacks 3 entries of store.zarr, which cannot be found; run `protalign index` again'
    """
    entries = counted(count, "entry", "entries")
    return f"it lacks {entries} of {store}, which cannot be found; run `protalign index` again"


def recorded_store(path: str | os.PathLike[str]) -> EmbeddingStore | None:
    """Return the store that an index was made from, by its recorded path.

    None if the index is damaged, or the store is not a folder of this machine.

    Raises
    ------
    ProtAlignError
        The store cannot be opened.
    """
    try:
        paths = store_paths(WordIndex(path).provenance)
    except InputError:
        return None
    return EmbeddingStore.open(paths) if paths and all(map(is_here, paths)) else None


def stage_sha256(stage: ResidueStage) -> str:
    """Return the hex digest of the numbers of a residue stage that decide its words.

    These make the plain rows. A context and a head decide no word, and may come later.
    """
    digest = hashlib.sha256()
    named = {f"mean.{m}": stage.means[m] for m in MODALITIES}
    named |= {f"projection.{m}": stage.projections[m] for m in MODALITIES}
    if stage.largest is not None:  # models of before have none
        named["largest"] = np.array([stage.largest], dtype=np.float64)
    for name, values in sorted({**named, "correlations": stage.correlations}.items()):
        digest.update(f"{name}\n{values.dtype.str}\n{values.shape}\n".encode("ascii"))
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
