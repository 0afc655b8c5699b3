"""An index of vectors in a folder: a graph for each modality finds candidates, which are rescored.

The folder has ``vector-index.json`` and a file for each graph. The document says which vectors the
graphs are of, and has the size and the checksum of each file, which are compared before usearch
opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError
from protalign.core.files import check_replaceable, json_text, new_folder
from protalign.core.machine import usable_memory
from protalign.core.protein import MODALITIES, Modality
from protalign.core.untrusted import open_regular, read_json, whole_number
from protalign.search.index import Index, Nearest
from protalign.search.rescored import (
    EXPANSIONS,
    RescoredGraph,
    exact_of,
    fitting_expansion,
    some_vectors,
)
from protalign.search.vector_graphs import VectorGraph, build_graph, graph_bytes, graph_fault
from protalign.search.word_files import is_index as is_word_index
from protalign.search.word_index import WordIndex
from protalign.stores import AlignedVectors, read_vectors

DOCUMENT, SCHEMA = "vector-index.json", "protalign-vector-index/1"
#: Vectors that are added to a graph at once.
BLOCK = 1 << 16
#: Bytes that are read at once for a checksum.
_READ = 1 << 22
#: A vector's length may differ from 1 by so much.
_UNIT = 1e-2
AGAIN = "build it again with `protalign index`"
_MISFITS = (LookupError, TypeError, ValueError, AttributeError)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GraphRecord:
    """A graph, as the index's document describes it.

    Attributes
    ----------
    count : int
        Vectors in it.
    bytes, crc32c : int
        Size and CRC-32C of its file.
    vectors : str
        Digest of the vectors that it is of (``AlignedVectors.digest``).
    expansion : int
        Candidates that a search of it keeps.
    recall : float
        Recall@10 with that many, beside an exact search: of queries near its vectors, or of vectors
        of the other modality, whichever is lower.
    """

    count: int
    bytes: int
    crc32c: int
    vectors: str
    expansion: int
    recall: float


@dataclass(frozen=True)
class VectorIndexRecord:
    """The document of an index of vectors.

    Attributes
    ----------
    entries, dim : int
        Rows of the vectors, and numbers of each.
    graphs : mapping
        Modality -> its graph. One that no entry has is left out.
    """

    entries: int
    dim: int
    graphs: Mapping[Modality, GraphRecord]

    def text(self) -> str:
        """Return the text of the document."""
        graphs = {modality: vars(graph) for modality, graph in self.graphs.items()}
        value = {"entries": self.entries, "dim": self.dim, "graphs": graphs}
        return json_text(sealed({"schema": SCHEMA, **value}))


def index_vectors(
    vectors: AlignedVectors | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    on_progress: Progress | None = None,
) -> VectorIndexRecord:
    """Index vectors for searches among many millions; return what the index's document says.

    When a graph is built, queries near some of its vectors, and vectors of the other modality, are
    searched exactly too, and its searches will keep as many candidates as it takes to find 99 % of
    their ten nearest.

    Parameters
    ----------
    vectors : AlignedVectors, str or path
        The vectors, or their Parquet file or folder.
    out : str or path
        The index's folder. It appears whole or not at all, and replaces an index of vectors.
    on_progress : callable, optional
        Called with the vectors that are added, and all.

    Raises
    ------
    InputError
        There are no vectors, they have not unit length, usearch is missing, or a graph needs more
        memory than there is.
    WriteError
        The folder is something else, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> eye, every = np.eye(3, dtype=np.float32), np.ones(3, dtype=np.bool_)
    >>> vectors = AlignedVectors(np.array(["a", "b", "c"], object), eye, eye, every, every)
    >>> path = tempfile.mkdtemp() + "/index"
    >>> record = index_vectors(vectors, path)
    >>> record.graphs["structure"].count, record.graphs["structure"].recall
    (3, 1.0)
    >>> verify_vector_index(path)
    []
    """
    check_replaceable(out, DOCUMENT, SCHEMA, "an index of vectors")
    if not isinstance(vectors, AlignedVectors):
        vectors = read_vectors(vectors)
    counts = {m: int(np.count_nonzero(vectors.present(m))) for m in MODALITIES}
    counts = {modality: count for modality, count in counts.items() if count}
    if not counts:
        raise InputError("the vectors: there are none to index", "export some")
    needed = graph_bytes(max(counts.values()), vectors.dim)
    if needed > usable_memory():
        raise InputError(
            f"the index: a graph of {max(counts.values()):,} vectors needs {needed / 1e9:,.1f} GB "
            f"of memory, and this process may use {usable_memory() / 1e9:,.1f} GB",
            "use a larger machine, or search without an index",
        )
    added = _Added(sum(counts.values()), on_progress)
    graphs: dict[Modality, GraphRecord] = {}
    with new_folder(out) as folder:
        for modality, count in counts.items():
            path = folder / _file(modality)
            build_graph(path, vectors.dim, _blocks(vectors, modality, added))
            with open_regular(path) as handle:
                size, checksum = _size_and_checksum(handle)
            both = vectors.candidates(modality)
            rescored = RescoredGraph(Path(out), VectorGraph(path, count, vectors.dim), *both)
            other: Modality = "structure" if modality == "sequence" else "sequence"
            others = some_vectors(*vectors.candidates(other))
            expansion, recall = fitting_expansion(rescored, exact_of(*both), others)
            digest = vectors.digest(modality)
            graphs[modality] = GraphRecord(count, size, checksum, digest, expansion, recall)
        record = VectorIndexRecord(len(vectors), vectors.dim, graphs)
        (folder / DOCUMENT).write_text(record.text(), encoding="utf-8")
    return record


class VectorIndex(Index):
    """An index that ``index_vectors`` wrote, with its vectors, memory-mapped.

    A graph of rounded vectors gives 4 candidates for each hit, and at least 64. Their cosines are
    computed from the vectors themselves, so they are those of an exact search; only which entries
    are found is approximate.

    Parameters
    ----------
    path : str or path
        The index's folder.
    vectors : AlignedVectors, str or path
        The vectors that it was made of, or their Parquet file or folder.

    Raises
    ------
    InputError
        The folder is not an index of vectors, is damaged, or is of other vectors. A graph's file is
        read once to compare its checksum, when its modality is searched first.

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
        shape = self.record.entries, self.record.dim
        for modality in MODALITIES:
            graph, present = self.record.graphs.get(modality), self.vectors.present(modality)
            if graph is None and not present.any():
                continue
            if (
                graph is None
                or shape != (len(self.vectors), self.vectors.dim)
                or graph.count != np.count_nonzero(present)
                or graph.vectors != self.vectors.digest(modality)
            ):
                raise InputError(
                    f"{path}: it is an index of other vectors",
                    "name the vectors that it was made of, or build it again",
                )

    def _build(self, against: Modality) -> Nearest:
        graph = self.record.graphs.get(against)
        if graph is None:
            return super()._build(against)  # there is none to find
        if fault := _file_fault(self.path, against, graph):
            raise _damaged(self.path, fault)
        vectors, present = self.vectors.candidates(against)
        opened = VectorGraph(self.path / _file(against), graph.count, self.record.dim)
        opened.expansion = graph.expansion
        return RescoredGraph(self.path, opened, vectors, present)


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
        raise _damaged(path, f"{DOCUMENT} was changed since it was written")
    try:
        return _record(content)
    except _MISFITS as error:
        raise _damaged(path, f"{DOCUMENT}: {' '.join(str(error).split())[:200]}") from None


def verify_vector_index(path: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with an index of vectors, one line each; nothing if it is whole.

    Reads all of it. Beside checksums, every count, key and link of a graph is checked, so that a
    whole index of unknown origin can be searched without harm. Its vectors are not needed.

    Parameters
    ----------
    path : str or path
        The index's folder.
    """
    folder = Path(path)
    try:
        record = read_record(folder)
    except InputError as error:
        return [str(error)]
    problems = []
    for modality, graph in record.graphs.items():
        fault = _file_fault(folder, modality, graph)
        if not fault:
            inside = graph_fault(folder / _file(modality), graph.count, record.dim, record.entries)
            fault = inside and f"{_file(modality)}: {inside}"
        if fault:
            problems.append(str(_damaged(folder, fault)))
    return problems


class _Added:
    """Counts vectors that are added."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def more(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _blocks(
    vectors: AlignedVectors, modality: Modality, added: _Added
) -> Iterator[tuple[Int64, Float32]]:
    """Yield the rows that are present and their vectors, a block at a time."""
    values, present = vectors.candidates(modality)
    for start in range(0, len(vectors), BLOCK):
        rows = start + np.flatnonzero(present[start : start + BLOCK])
        block = values[rows]
        if not (np.abs(np.einsum("ij,ij->i", block, block) - 1) < _UNIT).all():
            raise InputError(
                f"the vectors: {modality} vectors have no unit length",
                "check them with `protalign verify`, and export them again",
            )
        if len(rows):
            yield rows, block
            added.more(len(rows))


def _file(modality: Modality) -> str:
    return f"{modality}.usearch"


def _size_and_checksum(handle: int) -> tuple[int, int]:
    """Return the bytes of an open file and their CRC-32C."""
    size = checksum = 0
    while block := os.read(handle, _READ):
        checksum = google_crc32c.extend(checksum, block)
        size += len(block)
    return size, int(checksum)


def _file_fault(folder: Path, modality: Modality, graph: GraphRecord) -> str:
    """Return what is wrong with a graph's file; "" if it is the one that was written."""
    name = _file(modality)
    try:
        with open_regular(folder / name, links=False) as handle:
            if os.fstat(handle).st_size != graph.bytes:
                return f"{name} has another size than was written"
            if _size_and_checksum(handle) != (graph.bytes, graph.crc32c):
                return f"{name} is not as it was written"
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    return ""


def _record(value: Mapping[str, Any]) -> VectorIndexRecord:
    if not set(value["graphs"]) <= set(MODALITIES):
        raise ValueError("a modality is unknown")
    entries = whole_number(value["entries"], 1, 1 << 36)
    graphs = {}
    for modality in MODALITIES:
        if (graph := value["graphs"].get(modality)) is not None:
            count = whole_number(graph["count"], 1, entries)
            size, checksum = (
                whole_number(graph["bytes"], 1, 1 << 48),
                whole_number(graph["crc32c"], 0, 2**32 - 1),
            )
            expansion = whole_number(graph["expansion"], 1, EXPANSIONS[-1])
            recall = float(graph["recall"])
            graphs[modality] = GraphRecord(
                count, size, checksum, str(graph["vectors"]), expansion, recall
            )
    return VectorIndexRecord(entries, whole_number(value["dim"], 1, 1 << 16), graphs)


def _damaged(path: object, problem: str) -> InputError:
    return InputError(f"{path}: it is damaged ({problem})", AGAIN)
