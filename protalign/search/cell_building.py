"""Build cells of near vectors: centroids of a sample, then two passes over all vectors.

The same vectors give the same bytes, by any number of threads: a thread multiplies whole blocks,
which are cut in the same places for any number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from protalign.core.arrays import Bool, Float32, Int32, Int64
from protalign.core.errors import InputError
from protalign.core.machine import threads_here
from protalign.core.protein import Modality
from protalign.core.steps import step
from protalign.search.cells import Cells, arrays_of, rounded
from protalign.search.kernels.exact import threads_of_one_core
from protalign.stores.vectors.flat import HEADER, Array, checksum_of, header, map_array

#: Cells for each square root of the number of vectors; and vectors that a cell is learned from: no
#: cell is to have fewer on average.
CELLS, TRAINING = 2, 40
#: Rounds of k-means: more find no better cells.
ROUNDS = 5
#: The seed of the vectors that are drawn.
_SEED = 0
#: Rows that are read at once.
BLOCK = 1 << 17
#: Similarities that a thread computes at once, 4 MB, and how often in one of its tasks.
_PRODUCTS, _TURNS = 1 << 20, 8
#: A vector's length may differ from 1 by so much.
_UNIT = 1e-2

#: Called with the name of a step, the vectors that have gone through it, and all of its vectors.
Progress = Callable[[str, int, int], None]


def number_of_cells(count: int) -> int:
    """Return into how many cells so many vectors are put.

    Examples
    --------
    >>> number_of_cells(10), number_of_cells(4000), number_of_cells(1_000_000)
    (1, 100, 2000)
    """
    return max(1, min(round(CELLS * math.sqrt(count)), count // TRAINING))


def building_bytes(count: int, dim: int) -> int:
    """Return about how many bytes of memory it takes to put so many vectors into cells."""
    sample = min(count, number_of_cells(count) * TRAINING)
    products = 4 * _PRODUCTS * threads_here()
    return 4 * count + 4 * dim * (2 * sample + 4 * min(BLOCK, count)) + products


def build_cells(
    folder: Path,
    modality: Modality,
    vectors: Float32,
    present: Bool,
    on_progress: Progress,
) -> tuple[Cells, dict[str, int]]:
    """Put vectors into cells, and write these; return them, mapped, and a checksum of each file.

    Four bytes for each vector are in memory, and the sample of which centroids are learned.

    Parameters
    ----------
    folder : Path
        A new folder.
    modality : "sequence" or "structure"
        The vectors' modality.
    vectors : (n, dim) float32
        The vectors, which may be mapped.
    present : (n,) bool
        The rows to put into cells, at least one.
    on_progress : callable
        Called in each of three steps: "learning cells", "filling cells" and "writing cells".

    Raises
    ------
    InputError
        A vector has not unit length.
    OSError
        A file cannot be written.
    """
    count, dim = int(np.count_nonzero(present)), vectors.shape[1]
    n_cells = number_of_cells(count)
    sample = vectors[drawn_rows(present, TRAINING * n_cells)]
    _check_lengths(sample, modality)
    centroids = learned_centroids(sample, n_cells, on_progress=on_progress)
    del sample
    cell_of = np.empty(count, dtype=np.int32)
    sizes = np.zeros(n_cells, dtype=np.int64)
    done = 0
    for rows in _blocks(present):
        block = vectors[rows]
        _check_lengths(block, modality)
        nearest = nearest_centroids(block, centroids)
        cell_of[done : done + len(rows)] = nearest
        sizes += np.bincount(nearest, minlength=n_cells)
        done += len(rows)
        on_progress("filling cells", done, count)
        step()
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    _place(folder, modality, (vectors, present), (centroids, offsets), cell_of, on_progress)
    checksums = {
        name: checksum_of(map_array(folder, name, dtype, shape))
        for name, (_, dtype, shape) in arrays_of(modality, count, n_cells, dim).items()
    }
    return Cells.open(folder, modality, (count, n_cells, dim), checksums), checksums


def learned_centroids(
    sample: Float32, count: int, rounds: int = ROUNDS, on_progress: Progress | None = None
) -> Float32:
    """Return (count, dim) float32 centroids of unit length, by k-means with cosines.

    Parameters
    ----------
    sample : (n, dim) float32
        Vectors of unit length, at least as many as centroids.
    count : int
        The number of centroids. One that is nearest to no vector stays where it is.
    rounds : int
        How often centroids move.
    on_progress : callable, optional
        Called after each round; a vector counts once a round.
    """
    rng = np.random.default_rng(_SEED)
    centroids = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    for turn in range(rounds):
        nearest = nearest_centroids(sample, centroids)
        order = np.argsort(nearest, kind="stable")
        cells, first = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], first, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = lengths[:, 0] > _UNIT
        centroids[cells[moved]] = sums[moved] / lengths[moved]
        if on_progress is not None:
            on_progress("learning cells", (turn + 1) * len(sample), rounds * len(sample))
        step()
    return centroids


def nearest_centroids(vectors: Float32, centroids: Float32) -> Int32:
    """Return (n,) int32: the centroid with the largest inner product with each vector."""
    nearest = np.empty(len(vectors), dtype=np.int32)
    across = np.ascontiguousarray(centroids.T)
    at_once = max(64, _PRODUCTS // len(centroids))
    starts = range(0, len(vectors), at_once)
    tasks = [starts[first : first + _TURNS] for first in range(0, len(starts), _TURNS)]

    def compare(task: range) -> None:
        buffer = np.empty((at_once, len(centroids)), dtype=np.float32)
        for start in task:
            block = vectors[start : start + at_once]
            products = np.matmul(block, across, out=buffer[: len(block)])
            nearest[start : start + at_once] = products.argmax(axis=1)

    # Tasks are short: Ctrl-C drops those that wait, and waits for those under way.
    with threads_of_one_core(threads_here(), with_torch=False) as pool:
        list(pool.map(compare, tasks))
    return nearest


def drawn_rows(present: Bool, count: int, seed: int = _SEED) -> Int64:
    """Return (count,) int64, ascending: rows drawn by chance among the present ones, spread evenly.

    All of them if there are not more. However many there are, few numbers are in memory.

    Examples
    --------
    >>> rows = drawn_rows(np.arange(1000) % 2 == 0, 100)
    >>> len(np.unique(rows)), bool((rows % 2 == 0).all())
    (100, True)
    """
    n_present = int(np.count_nonzero(present))
    count = min(count, n_present)
    chance = np.random.default_rng(seed).random(count)
    bounds = np.arange(count + 1) * n_present // max(count, 1)
    wanted = bounds[:-1] + (chance * np.diff(bounds)).astype(np.int64)
    parts = [np.empty(0, dtype=np.int64)]
    before = 0
    for rows in _blocks(present):
        first, last = np.searchsorted(wanted, [before, before + len(rows)])
        parts.append(rows[wanted[first:last] - before])
        before += len(rows)
    return np.concatenate(parts)


def _blocks(present: Bool) -> Iterator[Int64]:
    """Yield the rows that are present, some at a time."""
    for start in range(0, len(present), BLOCK):
        rows = start + np.flatnonzero(present[start : start + BLOCK])
        if len(rows):
            yield rows


def _check_lengths(block: Float32, modality: Modality) -> None:
    if not (np.abs(np.einsum("ij,ij->i", block, block) - 1) < _UNIT).all():
        raise InputError(
            f"the vectors: {modality} vectors have no unit length",
            "check them with `protalign verify`, and export them again",
        )


def _place(
    folder: Path,
    modality: Modality,
    candidates: tuple[Float32, Bool],
    cells: tuple[Float32, Int64],
    cell_of: Int32,
    on_progress: Progress,
) -> None:
    """Write the arrays of cells; vectors of a cell are in the order of their rows."""
    (vectors, present), (centroids, offsets) = candidates, cells
    shape = len(cell_of), len(centroids), vectors.shape[1]
    files = {
        kind: _PlacedArray(folder / name, dtype, form)
        for name, (kind, dtype, form) in arrays_of(modality, *shape).items()
    }
    following, done = offsets[:-1].copy(), 0
    with files["centroids"] as file:
        file.put(0, centroids)
    with files["offsets"] as file:
        file.put(0, offsets)
    with files["rows"] as row_file, files["scales"] as scale_file, files["vectors"] as vector_file:
        for rows in _blocks(present):
            here = cell_of[done : done + len(rows)]
            done += len(rows)
            order = np.argsort(here, kind="stable")
            numbers, scales = rounded(vectors[rows[order]])
            sorted_rows = rows[order]
            changes = 1 + np.flatnonzero(np.diff(here[order]))
            bounds = [0, *changes.tolist(), len(rows)]
            for first, last in pairwise(bounds):
                cell = here[order[first]]
                place = int(following[cell])
                row_file.put(place, sorted_rows[first:last])
                scale_file.put(place, scales[first:last])
                vector_file.put(place, numbers[first:last])
                following[cell] += last - first
            on_progress("writing cells", done, len(cell_of))
            step()


class _PlacedArray:
    """Writes an array of known shape, its rows in any order.

    The file is not mapped: on a full disk, writing to a mapped one would end the process.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self._path, self._dtype, self._shape = path, dtype, shape
        self._row_bytes = np.dtype(dtype).itemsize * int(np.prod(shape[1:], dtype=np.int64))

    def __enter__(self) -> Self:
        self._file = self._path.open("xb", buffering=0)
        self._write(header(self._dtype, self._shape), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def put(self, place: int, values: Array) -> None:
        """Write some rows, the first at a place."""
        data = np.ascontiguousarray(values, dtype=self._dtype).reshape(-1).view(np.uint8).data
        self._write(data, HEADER + place * self._row_bytes)

    def _write(self, data: bytes | memoryview, place: int) -> None:
        while len(data):
            try:
                written = os.pwrite(self._file.fileno(), data, place)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._path)) from None
            data, place = data[written:], place + written
