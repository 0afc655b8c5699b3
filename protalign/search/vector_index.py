"""An index of vectors in a folder: cells of each modality give candidates, which are rescored.

The folder has ``vector-index.json`` and some arrays for each modality. The document says which
vectors the cells are of, and has a checksum of each array.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError, ProtAlignError
from protalign.core.files import check_replaceable, has_schema, json_text, new_folder
from protalign.core.machine import usable_memory
from protalign.core.protein import MODALITIES, OTHER, Modality
from protalign.core.untrusted import read_json, whole_number
from protalign.search.cell_building import Progress, build_cells, building_bytes
from protalign.search.cells import AGAIN, Cells, arrays_of, damaged
from protalign.search.index import Index
from protalign.search.rescored import (
    RescoredCells,
    exact_of,
    fitting_nprobe,
    some_vectors,
)
from protalign.search.word_files import is_index as is_word_index
from protalign.search.word_index import WordIndex
from protalign.stores import AlignedVectors, read_vectors
from protalign.stores.vectors.flat import checksum_of

DOCUMENT, SCHEMA = "vector-index.json", "protalign-vector-index/2"
#: The schema of an earlier version, whose folder may be replaced.
_OLDER = "protalign-vector-index/1"
#: Rows that are checked at once.
_AT_ONCE = 1 << 20
_MISFITS = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class CellsRecord:
    """The cells of a modality, as the index's document describes them.

    Attributes
    ----------
    count, cells : int
        Vectors in them, and how many cells there are.
    nprobe : (int, int)
        Cells that are read for a query of 10 hits, and of 200.
    recall : float
        Recall@10 with the first number, beside an exact search: of queries near the vectors, or of
        vectors of the other modality, whichever is lower.
    vectors : str
        Digest of the vectors that they are of (``AlignedVectors.digest``).
    checksums : mapping
        File -> CRC-32C of its numbers.
    """

    count: int
    cells: int
    nprobe: tuple[int, int]
    recall: float
    vectors: str
    checksums: Mapping[str, int]


@dataclass(frozen=True)
class VectorIndexRecord:
    """The document of an index of vectors.

    Attributes
    ----------
    entries, dim : int
        Rows of the vectors, and numbers of each.
    modalities : mapping
        Modality -> its cells. One that no entry has is left out.
    """

    entries: int
    dim: int
    modalities: Mapping[Modality, CellsRecord]

    def text(self) -> str:
        """Return the text of the document."""
        modalities = {modality: vars(cells) for modality, cells in self.modalities.items()}
        value = {"entries": self.entries, "dim": self.dim, "modalities": modalities}
        return json_text(sealed({"schema": SCHEMA, **value}))


def index_vectors(
    vectors: AlignedVectors | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    on_progress: Progress | None = None,
) -> VectorIndexRecord:
    """Index vectors for searches among many millions; return what the index's document says.

    When cells are built, queries near some of their vectors, and vectors of the other modality, are
    searched exactly too, and searches will read as many cells as it takes to find 99 % of their ten
    nearest, and of their 200 nearest. The same vectors give the same files.

    Parameters
    ----------
    vectors : AlignedVectors, str or path
        The vectors, or their Parquet file or folder.
    out : str or path
        The index's folder. It appears whole or not at all, and replaces an index of vectors.
    on_progress : callable, optional
        Called with the name of a step, how many vectors have gone through it, and all of them.
        Each modality's cells are learned, filled and written, and their recall is measured.

    Raises
    ------
    InputError
        There are no vectors, they have not unit length, or cells need more memory than there is.
    WriteError
        The folder is something else, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> eye, every = np.eye(3, dtype=np.float32), np.ones(3, dtype=np.bool_)
    >>> vectors = AlignedVectors(np.array(["a", "b", "c"], object), eye, eye, every, every)
    >>> path = tempfile.mkdtemp() + "/index"
    >>> cells = index_vectors(vectors, path).modalities["structure"]
    >>> cells.count, cells.cells, cells.nprobe, cells.recall
    (3, 1, (1, 1), 1.0)
    >>> verify_vector_index(path)
    []
    """
    if not has_schema(Path(out) / DOCUMENT, _OLDER):
        check_replaceable(out, DOCUMENT, SCHEMA, "an index of vectors")
    if not isinstance(vectors, AlignedVectors):
        vectors = read_vectors(vectors)
    counts = {m: int(np.count_nonzero(vectors.present(m))) for m in MODALITIES}
    counts = {modality: count for modality, count in counts.items() if count}
    if not counts:
        raise InputError("the vectors: there are none to index", "export some")
    needed = building_bytes(max(counts.values()), vectors.dim)
    if needed > usable_memory():
        raise InputError(
            f"the index: cells of {max(counts.values()):,} vectors need {needed / 1e9:,.1f} GB "
            f"of memory, and this process may use {usable_memory() / 1e9:,.1f} GB",
            "use a larger machine, or search without an index",
        )
    modalities: dict[Modality, CellsRecord] = {}
    with new_folder(out) as folder:
        for modality, count in counts.items():
            both = vectors.candidates(modality)
            report = _reported(modality, on_progress)
            cells, checksums = build_cells(folder, modality, *both, report)
            rescored = RescoredCells(Path(out), cells, (1, 1), *both)
            others = some_vectors(vectors, OTHER[modality])
            nprobe, recall = fitting_nprobe(rescored, exact_of(*both), others, report)
            digest, n_cells = vectors.digest(modality), len(cells.centroids)
            modalities[modality] = CellsRecord(count, n_cells, nprobe, recall, digest, checksums)
        record = VectorIndexRecord(len(vectors), vectors.dim, modalities)
        (folder / DOCUMENT).write_text(record.text(), encoding="utf-8")
    return record


class VectorIndex(Index):
    """An index that ``index_vectors`` wrote, with its vectors, memory-mapped.

    Cells of rounded vectors give 4 candidates for each hit, and at least 64. Their cosines are
    computed from the vectors themselves, so they are those of an exact search; only which entries
    are found is approximate. Threads may share it.

    Parameters
    ----------
    path : str or path
        The index's folder.
    vectors : AlignedVectors, str or path
        The vectors that it was made of, or their Parquet file or folder.

    Raises
    ------
    InputError
        The folder is not an index of vectors, is damaged, or is of other vectors. The sizes of the
        files are checked, the checksums of the small ones, and the rows that a search finds;
        ``verify_vector_index`` checks all.

    Notes
    -----
    All files are mapped at once, so a folder that is replaced later changes no search.

    Examples
    --------
    >>> import tempfile
    >>> eye, every = np.eye(3, dtype=np.float32), np.ones(3, dtype=np.bool_)
    >>> vectors = AlignedVectors(np.array(["a", "b", "c"], object), eye, eye, every, every)
    >>> path = tempfile.mkdtemp() + "/index"
    >>> _ = index_vectors(vectors, path)
    >>> rows, cosines = VectorIndex(path, vectors).search(eye[[2]], 1, against="sequence")
    >>> vectors.ids[rows[0, 0]], float(cosines[0, 0])
    ('c', 1.0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        vectors: AlignedVectors | str | os.PathLike[str],
    ) -> None:
        self.path = Path(path)
        self.record = read_record(self.path)
        super().__init__(vectors if isinstance(vectors, AlignedVectors) else read_vectors(vectors))
        _check_is_of(self.path, self.record, self.vectors)
        for modality, cells in self.record.modalities.items():
            opened = _opened(self.path, modality, cells, self.record.dim)
            both = self.vectors.candidates(modality)
            self._built[modality] = RescoredCells(self.path, opened, cells.nprobe, *both)


def with_index(
    vectors: AlignedVectors | str | os.PathLike[str], index: WordIndex | str | os.PathLike[str]
) -> VectorIndex:
    """Return vectors with their index; raise InputError for an index of words."""
    if isinstance(index, WordIndex) or is_word_index(index):
        path = index.path if isinstance(index, WordIndex) else index
        raise InputError(f"{path}: an index of words has no vectors", "leave --vectors out")
    return VectorIndex(index, vectors)


def is_vector_index(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder has the document of an index of vectors."""
    return (Path(path) / DOCUMENT).is_file()


def read_record(path: Path) -> VectorIndexRecord:
    """Read and check an index's document; raise InputError if it is missing or damaged."""
    if not is_vector_index(path):
        problem = "it is not an index of vectors" if path.exists() else "it does not exist"
        raise InputError(f"{path}: {problem}", "name a folder that `protalign index` wrote")
    value = read_json(path / DOCUMENT, AGAIN, links=False)
    schema = str(value.get("schema") if isinstance(value, dict) else None)[:60]
    if schema != SCHEMA:
        raise InputError(
            f"{path}: an index of the schema {schema}, this version reads {SCHEMA}", AGAIN
        )
    content = unsealed(value)
    if content is None:
        raise damaged(path, f"{DOCUMENT} was changed since it was written")
    try:
        return _record(content)
    except _MISFITS as error:
        raise damaged(path, f"{DOCUMENT}: {' '.join(str(error).split())[:200]}") from None


def verify_vector_index(
    path: str | os.PathLike[str],
    vectors: AlignedVectors | str | os.PathLike[str] | None = None,
) -> list[str]:
    """Return what is wrong with an index of vectors, one line each; nothing if it is whole.

    Reads all of it.

    Parameters
    ----------
    path : str or path
        The index's folder.
    vectors : AlignedVectors, str or path, optional
        The vectors that it was made of, or their Parquet file or folder, to compare their numbers
        and digests with those that it records. It does not record where they are; default: they
        are not compared.
    """
    folder = Path(path)
    try:
        record = read_record(folder)
    except InputError as error:
        return [str(error)]
    problems = []
    for modality, cells in record.modalities.items():
        try:
            _check(folder, modality, cells, record)
        except InputError as error:
            problems.append(str(error))
    if vectors is not None:
        try:
            given = vectors if isinstance(vectors, AlignedVectors) else read_vectors(vectors)
            _check_is_of(folder, record, given)
        except ProtAlignError as error:
            problems.append(str(error))
    return problems


def _check_is_of(path: Path, record: VectorIndexRecord, vectors: AlignedVectors) -> None:
    """Raise InputError unless an index was made of these vectors."""
    shape = record.entries, record.dim
    for modality in MODALITIES:
        cells, present = record.modalities.get(modality), vectors.present(modality)
        if cells is None and not present.any():
            continue
        if (
            cells is None
            or shape != (len(vectors), vectors.dim)
            or cells.count != np.count_nonzero(present)
            or cells.vectors != vectors.digest(modality)
        ):
            raise InputError(
                f"{path}: it is an index of other vectors",
                "name the vectors that it was made of, or build it again",
            )


def _check(folder: Path, modality: Modality, record: CellsRecord, index: VectorIndexRecord) -> None:
    """Raise InputError if an array of a modality's cells is not as it was written."""
    cells = _opened(folder, modality, record, index.dim)
    shape = record.count, record.cells, index.dim
    for name, (kind, _, _) in arrays_of(modality, *shape).items():
        if checksum_of(getattr(cells, kind)) != record.checksums[name]:
            raise damaged(folder, f"{name} is not as it was written")
    if index.entries > usable_memory():
        raise InputError(
            f"{folder}: to check its {index.entries:,} entries needs as many bytes of memory",
            "check it on a larger machine",
        )
    seen = np.zeros(index.entries, dtype=np.bool_)
    for start in range(0, record.count, _AT_ONCE):
        rows = cells.rows[start : start + _AT_ONCE]
        if rows.min() < 0 or rows.max() >= index.entries:
            raise damaged(folder, f"{modality}_rows.npy names entries that the vectors lack")
        seen[rows] = True
        scales = cells.scales[start : start + _AT_ONCE]
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise damaged(folder, f"{modality}_scales.npy has numbers that no vector has")
    if np.count_nonzero(seen) != record.count:
        raise damaged(folder, f"{modality}_rows.npy names an entry twice")


def _reported(modality: Modality, on_progress: Progress | None) -> Progress:
    """Return a function that reports the steps of one modality."""

    def report(name: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(f"{modality}s: {name}", done, total)

    return report


def _opened(folder: Path, modality: Modality, record: CellsRecord, dim: int) -> Cells:
    shape = record.count, record.cells, dim
    return Cells.open(folder, modality, shape, record.checksums)


def _record(value: Mapping[str, Any]) -> VectorIndexRecord:
    if not set(value["modalities"]) <= set(MODALITIES):
        raise ValueError("a modality is unknown")
    entries, dim = (
        whole_number(value["entries"], 1, 1 << 36),
        whole_number(value["dim"], 1, 1 << 16),
    )
    modalities = {}
    for modality in MODALITIES:
        if (cells := value["modalities"].get(modality)) is not None:
            count = whole_number(cells["count"], 1, entries)
            n_cells = whole_number(cells["cells"], 1, count)
            few, many = cells["nprobe"]
            nprobe = whole_number(few, 1, n_cells), whole_number(many, few, n_cells)
            checksums = {
                name: whole_number(cells["checksums"][name], 0, 2**32 - 1)
                for name in arrays_of(modality, count, n_cells, dim)
            }
            recall, digest = cells["recall"], str(cells["vectors"])
            if not 0 <= recall <= 1:
                raise ValueError("a recall is not between 0 and 1")
            modalities[modality] = CellsRecord(count, n_cells, nprobe, recall, digest, checksums)
    return VectorIndexRecord(entries, dim, modalities)
