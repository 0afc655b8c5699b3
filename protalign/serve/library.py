"""What the server searches: vectors, a model and a store, opened together and replaced together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protalign.core.arrays import Float32, Float64
from protalign.core.errors import InputError
from protalign.core.printing import one_line
from protalign.core.protein import MODALITIES, Modality, Protein, sequence_hash
from protalign.core.version import __version__
from protalign.core.words import counted
from protalign.search.queries import Queries
from protalign.search.searcher import Searcher
from protalign.stores import EmbeddingStore

#: The version of the API.
API = "v1"
#: Points of the map, at most, and the seed of their choice.
MAP_POINTS, _MAP_SEED = 2000, 0
#: Opens a searcher from where its parts lie now.
Opener = Callable[[], Searcher]


class Library:
    """A searcher with all its parts open, and what was pooled with it.

    Parameters
    ----------
    searcher : Searcher
        The searcher; everything of it is opened now.
    name : str
        The model's name.
    line : str
        What the model is worth, in a line.
    cache_bytes : int
        Memory for pooled queries.

    Raises
    ------
    ProtAlignError
        A part is missing or does not fit the others: the store has none of the vectors' entries.

    Attributes
    ----------
    without_vectors : int
        Entries of the store that the vectors lack.
    without_entry : int
        Vectors whose entry the store lacks.
    """

    def __init__(
        self, searcher: Searcher, name: str, line: str = "", cache_bytes: int = 64_000_000
    ) -> None:
        searcher.open_all()
        self.searcher = searcher
        self.name, self.line = name, line
        self.pooled = PooledCache(cache_bytes)
        self._ids = searcher.vectors.id_column()
        known = pa.array(searcher.store.ids, pa.large_string())
        shared = pc.sum(pc.is_in(self._ids, value_set=known)).as_py() or 0
        if len(self._ids) and not shared:
            raise InputError(
                f"the vectors: the store has none of their entries, such as "
                f"{one_line(self._ids[0], 100)}",
                "export them from this store",
            )
        self.without_vectors, self.without_entry = len(known) - shared, len(self._ids) - shared

    @property
    def gaps(self) -> str:
        """What the store and the vectors lack of each other, in a sentence; "" for nothing."""
        parts = []
        if self.without_vectors:
            lacking = counted(self.without_vectors, "entry", "entries")
            parts.append(f"{lacking} of the store without vectors")
        if self.without_entry:
            parts.append(f"{counted(self.without_entry, 'vector')} without an entry in the store")
        return f"{' and '.join(parts)}; export the vectors again" if parts else ""

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.searcher.vectors

    @property
    def store(self) -> EmbeddingStore:
        """The store of the entries."""
        return self.searcher.store

    @property
    def has_residues(self) -> bool:
        """Whether the model compares residues."""
        return self.searcher.model.residue_stage is not None

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the library holds, as JSON values, without paths of this machine."""
        model, vectors, store = self.searcher.model, self.searcher.vectors, self.store
        stage = model.residue_stage
        return {
            "version": __version__,
            "api": API,
            "store": {
                "name": Path(store.path).name,
                "entries": len(store),
                "options": dict(store.options),
            },
            "model": {
                "name": self.name,
                "sha256": model.weights_sha256,
                "residue_stage": stage is not None,
                "calibrated": stage is not None and stage.calibration is not None,
                "line": self.line,
            },
            "encoders": {
                modality: {
                    name: value
                    for name, value in asdict(record).items()
                    if name in ("model", "dim", "weights_sha256", "settings")
                }
                for modality, record in model.encoders.items()
            },
            "vectors": {
                "n": len(vectors),
                "sequences": int(vectors.present("sequence").sum()),
                "structures": int(vectors.present("structure").sum()),
                "dim": vectors.dim,
            },
        }

    def matching(self, part: str, limit: int) -> list[str]:
        """Return ids that contain a text in either case: first those that begin with it."""
        fits = pc.match_substring(self._ids, part, ignore_case=True)
        first = pc.starts_with(self._ids, part, ignore_case=True)
        found: list[str] = self._ids.filter(first)[:limit].to_pylist()
        if len(found) < limit:
            later = self._ids.filter(pc.and_not(fits, first))
            found += later[: limit - len(found)].to_pylist()
        return found

    @cached_property
    def plane(self) -> tuple[Float64, Float64]:
        """The mean of a sample of the vectors, (dim,), and two principal axes, (2, dim)."""
        sample = np.concatenate([vectors for _, vectors, _ in self._sample()]).astype(np.float64)
        if not len(sample):
            dim = self.searcher.vectors.dim
            return np.zeros(dim), np.zeros((2, dim))
        mean = sample.mean(axis=0)
        axes = np.zeros((2, sample.shape[1]))
        found = np.linalg.svd(sample - mean, full_matrices=False)[2][:2]
        # A sign that does not depend on the library of linear algebra.
        signs = np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])
        axes[: len(found)] = found * signs[:, None]
        return mean, axes

    def placed(self, vectors: Float32) -> list[tuple[float, float]]:
        """Return the places of (n, dim) vectors on the map."""
        mean, axes = self.plane
        places = ((vectors - mean) @ axes.T).round(5).tolist()
        return [(x, y) for x, y in places]

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """A sample of the vectors on the map."""
        return [
            {"id": entry_id, "modality": modality, "x": x, "y": y}
            for modality, vectors, ids in self._sample()
            for entry_id, (x, y) in zip(ids, self.placed(vectors), strict=True)
        ]

    def _sample(self) -> list[tuple[Modality, Float32, list[str]]]:
        """Return some of the vectors of each modality, and their ids."""
        both = []
        for modality in MODALITIES:
            rows = np.flatnonzero(self.searcher.vectors.present(modality))
            if len(rows) > MAP_POINTS // 2:
                chosen = np.random.default_rng(_MAP_SEED)
                rows = np.sort(chosen.choice(rows, MAP_POINTS // 2, replace=False))
            ids: list[str] = self.searcher.vectors.ids_at(rows).tolist()
            both.append((modality, self.searcher.vectors.vectors_at(modality, rows), ids))
        return both


class Shelf:
    """The library in use; another one takes its place at once, or not at all.

    Parameters
    ----------
    open_library : callable
        Opens the library from where its parts lie now.

    Examples
    --------
    >>> shelf = Shelf(lambda: None)
    >>> shelf.current is None
    True
    """

    def __init__(self, open_library: Callable[[], Library]) -> None:
        self._open, self._lock = open_library, threading.Lock()
        self.current: Library | None = None

    def reload(self) -> Library:
        """Open the library again and use it from now on; an error leaves the old one in use."""
        with self._lock:
            library = self._open()
            self.current = library
        return library


@dataclass(frozen=True, eq=False, slots=True)
class _Kept:
    queries: Queries
    size: int


class PooledCache:
    """Pooled queries by their content, the least used ones dropped first.

    Parameters
    ----------
    most : int
        Bytes of vectors and residue rows, at most.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[tuple[bytes, ...], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, protein: Protein) -> Queries | None:
        """Return a protein pooled, if one with its content was kept."""
        with self._lock:
            key = content_of(protein)
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
        return replace(
            kept.queries, ids=[protein.id], proteins=[protein], lengths=[len(protein)], failures=[]
        )

    def put(self, protein: Protein, queries: Queries) -> None:
        """Keep a protein's one query."""
        rows = queries.residues[0]
        size = 1000 + queries.vectors.nbytes
        if rows is not None:
            arrays = {id(each): each for each in (rows.local, rows.diagonal, rows.plain)}
            size += sum(each.nbytes for each in arrays.values() if each is not None)
        kept = _Kept(
            replace(queries, ids=[], proteins=[], lengths=[], vectors=queries.vectors.copy()), size
        )
        key = content_of(protein)
        with self._lock:
            if size > self._most or key in self._kept:
                return
            self._kept[key] = kept
            self._size += size
            while self._size > self._most:
                self._size -= self._kept.popitem(last=False)[1].size


def content_of(protein: Protein) -> tuple[bytes, ...]:
    """Return what decides a protein's query: its structure and chains, or its sequences."""
    if protein.structure is None:
        return (sequence_hash(protein.sequences),)
    chains = {id(chain) for chain in protein.chains}
    kept = bytes(id(chain) in chains for chain in protein.structure.kept_chains)
    return protein.structure.content_hash, kept, sequence_hash(protein.sequences)


def described(store: EmbeddingStore, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the annotation of each entry as JSON values; empty for one that the store lacks."""
    known = [entry_id for entry_id in ids if entry_id in store]
    about = iter(store.log.annotations(store.log.rows_of(known)) if known else [])
    by_id = {entry_id: next(about).as_dict() for entry_id in known}
    return [by_id.get(entry_id, {}) for entry_id in ids]
