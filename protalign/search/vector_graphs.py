"""Graphs of near vectors on the disk, by usearch: built in blocks, then memory-mapped.

usearch: Vardanian, "USearch by Unum Cloud" (2023); the graph: Malkov and Yashunin, IEEE TPAMI 42,
824 (2020). Vectors are in the graph as int8. Only the angle counts, so each vector is scaled by its
own largest number, which loses least.

usearch trusts its files. Callers compare a checksum before they open one, and ``graph_fault``
checks one of unknown origin.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError, WriteError
from protalign.core.machine import thread_count, threads_here
from protalign.core.printing import one_line
from protalign.core.untrusted import open_regular

#: Links of each vector (twice as many on the lowest level), and candidates that are kept while the
#: graph is built.
LINKS, BUILD = 12, 48
#: usearch's names of the cosine, int8, uint64 and uint32 in a file, and what a file is called.
_KINDS = (99, 23, 14, 15)
_WORD = b"usearch"
#: Before the vectors: rows and bytes of a row. Behind them: the word, the version, the kinds,
#: vectors present and deleted, their numbers, and whether keys repeat.
_SHAPE, _HEAD, _HEAD_BYTES = struct.Struct("<II"), struct.Struct("<7sHHH4BQQQB"), 64
#: Then: nodes, links of a node, those on the lowest level, the highest level, the entry's node.
_GRAPH = struct.Struct("<QQQQQ")
#: A node: its key and its highest level; then a list of links for each level, with its length.
_NODE, _SLOT = 10, 4
#: Links of a node in a file, at most: no index of ours has as many.
_MOST_LINKS = 256
#: Nodes that are checked at once.
_AT_ONCE = 1 << 16

Int8 = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]


def rounded(vectors: Float32) -> Int8:
    """Return (n, dim) int8 of (n, dim) vectors, each scaled so that its largest number is 127.

    Examples
    --------
    >>> rounded(np.array([[0.6, -0.8]], dtype=np.float32)).tolist()
    [[95, -127]]
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=np.finfo(np.float32).tiny)
    numbers: Int8 = np.rint(vectors * (127 / largest)).astype(np.int8)
    return numbers


def graph_bytes(count: int, dim: int) -> int:
    """Return about how many bytes a graph of ``count`` vectors takes, in memory and on the disk."""
    return count * (dim + _NODE + 2 + _list_bytes(2 * LINKS) + _list_bytes(LINKS) // LINKS)


def build_graph(path: Path, dim: int, blocks: Iterable[tuple[Int64, Float32]]) -> None:
    """Build the graph of some vectors, and write it.

    The graph is in memory until it is written. With several threads, each building gives another
    graph, which finds as much.

    Parameters
    ----------
    path : Path
        The file.
    dim : int
        Numbers of a vector.
    blocks : iterable of (rows, vectors)
        (n,) int64 keys, and (n, dim) float32.

    Raises
    ------
    InputError
        usearch is missing.
    WriteError
        The file cannot be written.
    """
    graph = _usearch().Index(
        ndim=dim,
        metric="cos",
        dtype="i8",
        connectivity=LINKS,
        expansion_add=BUILD,
        enable_key_lookups=False,
    )
    for rows, vectors in blocks:
        graph.add(rows.astype(np.uint64), rounded(vectors), copy=True, threads=thread_count())
    try:
        graph.save(str(path))
    except (RuntimeError, OSError) as error:
        raise WriteError(
            f"{path.name}: it cannot be written ({one_line(error, 100)}); make some room, or name "
            "another place"
        ) from None


class VectorGraph:
    """A graph that ``build_graph`` wrote, memory-mapped. Threads may share it.

    Parameters
    ----------
    path : Path
        The file, which is known to be whole.
    count, dim : int
        Vectors in it, and numbers of each.

    Attributes
    ----------
    count : int
        Vectors in it.

    Raises
    ------
    InputError
        usearch is missing, or the file is another graph.
    """

    def __init__(self, path: Path, count: int, dim: int) -> None:
        usearch = _usearch()
        other = InputError(
            f"{path}: it is not the graph that the index describes", "build it again"
        )
        try:
            head = usearch.Index.metadata(str(path)) or {}
            names = ("count_present", "count_deleted", "dimensions")
            if tuple(head.get(name) for name in names) != (count, 0, dim):
                raise other
            self._graph = usearch.Index.restore(str(path), view=True, enable_key_lookups=False)
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise other from None
        if self._graph is None or len(self._graph) != count or self._graph.ndim != dim:
            raise other
        self.count = count
        self._searching = Lock()  # two searches would share usearch's places of work

    @property
    def expansion(self) -> int:
        """Candidates that a search keeps: more are slower and find more."""
        return int(self._graph.expansion_search)

    @expansion.setter
    def expansion(self, value: int) -> None:
        self._graph.expansion_search = value

    def nearest(self, queries: Float32, count: int) -> Int64:
        """Return (q, count) int64: keys of the nearest vectors by rounded numbers, best first.

        There are -1 behind the last if fewer are found.
        """
        count = min(count, self.count)
        threads = min(threads_here(), max(1, len(queries) // 4))
        with self._searching:
            found = self._graph.search(rounded(queries), count, threads=threads)
        keys = np.asarray(found.keys).reshape(len(queries), -1)
        result = np.full((len(queries), count), -1, dtype=np.int64)
        result[:, : keys.shape[1]] = keys.astype(np.int64)
        if len(queries) > 1:  # of a single one there are no more keys than were found
            result[np.arange(count)[None] >= np.asarray(found.counts)[:, None]] = -1
        return result


def graph_fault(path: Path, count: int, dim: int, entries: int) -> str:
    """Return what is wrong with a graph's file, "" if usearch can walk it without harm.

    All counts, keys and links are checked: none leads out of the file or of the vectors.

    Parameters
    ----------
    path : Path
        The file.
    count, dim : int
        Vectors that should be in it, and numbers of each.
    entries : int
        Keys must be below.
    """
    with open_regular(path, links=False) as handle:
        size = os.fstat(handle).st_size
        first = _SHAPE.size + count * dim
        levels_at = first + _HEAD_BYTES + _GRAPH.size
        if size < levels_at + 2 * count:
            return "it is too short"
        content = mmap.mmap(handle, size, access=mmap.ACCESS_READ)
    data = np.frombuffer(content, dtype=np.uint8)
    if _SHAPE.unpack_from(content, 0) != (count, dim):
        return "it holds other vectors"
    head = _HEAD.unpack_from(content, first)
    if head[0] != _WORD or head[1] != 2 or head[4:] != (*_KINDS, count, 0, dim, 0):
        return "its head is another graph's"
    nodes, links, low_links, top, entry = _GRAPH.unpack_from(content, first + _HEAD_BYTES)
    if nodes != count or not 1 < links <= _MOST_LINKS or low_links != 2 * links or entry >= count:
        return "its nodes are not its vectors"
    levels = np.frombuffer(content, dtype="<i2", offset=levels_at, count=count).astype(np.int64)
    if levels.min() < 0 or levels.max() != top or levels[entry] != top:
        return "its levels contradict each other"
    sizes = _NODE + _list_bytes(low_links) + levels * _list_bytes(links)
    ends = np.cumsum(sizes) + levels_at + 2 * count
    if ends[-1] != size:
        return "its nodes do not fill it"
    for start in range(0, count, _AT_ONCE):
        block = np.arange(start, min(start + _AT_ONCE, count))
        if fault := _node_fault(
            data, ends[block] - sizes[block], levels[block], levels, links, entries
        ):
            return fault
    return ""


def _node_fault(
    data: Bytes, places: Int64, own: Int64, levels: Int64, links: int, entries: int
) -> str:
    """Return what is wrong with some nodes, whose places and levels are given."""
    heads = _gathered(data, places, _NODE)
    if (heads[:, :8].copy().view("<u8") >= entries).any():
        return "a key is not an entry's"
    if (heads[:, 8:].copy().view("<i2")[:, 0] != own).any():
        return "a node has another level"
    places = places + _NODE
    for level in range(int(own.max()) + 1):
        width = 2 * links if level == 0 else links
        here = own >= level
        lists = _gathered(data, places[here], _list_bytes(width)).view("<u4").astype(np.int64)
        lengths, slots = lists[:, 0], lists[:, 1:]
        used = np.arange(width)[None] < lengths[:, None]
        if (lengths > width).any() or (slots[used] >= len(levels)).any():
            return "a link leads out of it"
        if (levels[slots[used]] < level).any():
            return "a link leads to a node that its level has not"
        places = places + _list_bytes(width)
    return ""


def _gathered(data: Bytes, places: Int64, count: int) -> Bytes:
    windows = np.lib.stride_tricks.sliding_window_view(data, count)
    return np.ascontiguousarray(windows[places])


def _list_bytes(links: int) -> int:
    return _SLOT * (1 + links)


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise InputError(
            "usearch: it is not installed", 'pip install "protalign[usearch]"'
        ) from None
    return usearch.index
