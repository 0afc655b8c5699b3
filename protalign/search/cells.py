"""Cells of near vectors on the disk (an inverted file): mapped arrays, and the search in them.

Each vector is in the cell of the centroid that is nearest to it (Jégou, Douze and Schmid, IEEE
TPAMI 33, 117 (2011)). A search reads the cells whose centroids are nearest to a query. Vectors are
int8 in them, each scaled by its own largest number, which loses least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError
from protalign.core.machine import threads_here
from protalign.core.protein import Modality
from protalign.core.ragged import ascend
from protalign.stores.vectors.flat import Array, checksum_of, map_array

#: Comparisons of a query and a vector for a thread, at least: fewer are not worth a second thread.
THREAD_PAIRS = 1 << 14
#: Products of whole numbers are below 2^31 if the query's numbers sum up to less than this.
_LARGEST_SUM = 1 << 24
_LARGEST_NUMBER = 32767
AGAIN = "build it again with `protalign index`"

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]


def rounded(vectors: Float32) -> tuple[Int8, Float32]:
    """Return (n, dim) int8 and (n,) float32: numbers, the largest 127, and what to multiply by.

    Examples
    --------
    >>> numbers, scales = rounded(np.array([[0.6, -0.8]], dtype=np.float32))
    >>> numbers.tolist(), (numbers * scales.astype(float)[:, None]).round(2).tolist()
    ([[95, -127]], [[0.6, -0.8]])
    """
    tiny = np.finfo(np.float32).tiny
    largest = np.maximum(np.abs(vectors).max(axis=1, initial=0), tiny)
    numbers = vectors * (np.float32(127) / largest)[:, None]
    np.rint(numbers, out=numbers)
    return numbers.astype(np.int8), largest / np.float32(127)


def whole_queries(queries: Float32) -> Int16:
    """Return (q, dim) int16 of (q, dim) finite queries, in proportion.

    They are as large as sums of their products with int8 allow in 32 bits.

    Examples
    --------
    >>> whole_queries(np.array([[0.5, -1.0]], dtype=np.float32)).tolist()
    [[16384, -32767]]
    """
    sizes = np.abs(queries.astype(np.float64))
    least = 1e-60  # below any float32
    highest = np.maximum(sizes.max(axis=1, initial=0), least)
    sums = np.maximum(sizes.sum(axis=1), least)
    scale = np.minimum(_LARGEST_NUMBER / highest, (_LARGEST_SUM - queries.shape[1]) / sums)
    whole: Int16 = np.rint(queries * scale[:, None]).astype(np.int16)
    return whole


def arrays_of(modality: Modality, count: int, cells: int, dim: int) -> dict[str, tuple[Any, ...]]:
    """Return the arrays of a modality's cells: file -> what it holds, dtype and shape."""
    kinds = {
        "centroids": ("<f4", (cells, dim)),
        "offsets": ("<i8", (cells + 1,)),
        "rows": ("<i8", (count,)),
        "scales": ("<f4", (count,)),
        "vectors": ("|i1", (count, dim)),
    }
    return {f"{modality}_{kind}.npy": (kind, *form) for kind, form in kinds.items()}


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one modality's vectors.

    Attributes
    ----------
    folder : Path
        The index's folder, for errors.
    centroids : (cells, dim) float32
        The centroids, of unit length.
    offsets : (cells + 1,) int64
        The vectors before each cell, and all.
    rows : (n,) int64
        The row of each vector, cell by cell; mapped.
    scales : (n,) float32
        What its numbers are multiplied by; mapped.
    vectors : (n, dim) int8
        Its numbers; mapped.
    """

    folder: Path
    centroids: Float32
    offsets: Int64
    rows: Int64
    scales: Float32
    vectors: Int8

    @classmethod
    def open(
        cls,
        folder: Path,
        modality: Modality,
        shape: tuple[int, int, int],
        checksums: Mapping[str, int] | None = None,
    ) -> Cells:
        """Map the arrays of some cells. Sizes, and all of the two small arrays, are checked.

        Parameters
        ----------
        folder : Path
            The index's folder.
        modality : "sequence" or "structure"
            The vectors' modality.
        shape : (n, cells, dim)
            Vectors, cells, and numbers of a vector.
        checksums : mapping, optional
            File -> CRC-32C of its numbers, of which those of the small arrays are compared.

        Raises
        ------
        InputError
            A file is missing, is a link, or is not as it was written.
        """
        mapped: dict[str, Array] = {}
        for name, (kind, dtype, form) in arrays_of(modality, *shape).items():
            try:
                mapped[kind] = map_array(folder, name, dtype, form)
            except InputError as error:
                raise InputError(error.reason, AGAIN) from None
            if kind in ("centroids", "offsets"):
                mapped[kind] = mapped[kind].copy()  # what is checked stays as it is
                if checksums is not None and checksum_of(mapped[kind]) != checksums[name]:
                    raise damaged(folder, f"{name} is not as it was written")
        cells = cls(folder, **mapped)
        ends = int(cells.offsets[0]), int(cells.offsets[-1])
        if ends != (0, shape[0]) or not ascend(cells.offsets):
            raise damaged(folder, f"{modality}_offsets.npy does not rise to the last vector")
        if not np.isfinite(cells.centroids).all():
            raise damaged(folder, f"{modality}_centroids.npy has numbers that are not finite")
        return cells

    def nearest(self, queries: Float32, nprobe: int, count: int) -> Int64:
        """Return (q, count) int64: rows of the best vectors by rounded numbers, in no order.

        Parameters
        ----------
        queries : (q, dim) float32
            Finite queries.
        nprobe : int
            Cells that are read for each, the nearest ones; more if these have fewer vectors than
            are wanted.
        count : int
            Vectors that are wanted, at most all.
        """
        from protalign.search.kernels.cell_loops import find_best

        asked = self._nearest_cells(queries, nprobe, count)
        cell = np.concatenate(asked)
        query = np.repeat(np.arange(len(asked)), [len(each) for each in asked])
        order = np.argsort(cell, kind="stable")
        cells, first = np.unique(cell[order], return_index=True)
        first, asking = np.append(first, len(cell)), query[order]
        whole = whole_queries(queries)

        def search(share: slice) -> tuple[Float32, Int64]:
            scores = np.full((len(queries), count), -np.inf, dtype=np.float32)
            places = np.full((len(queries), count), -1, dtype=np.int64)
            here = cells[share], first[share.start : share.stop + 1], asking, whole
            filled = np.zeros(len(queries), dtype=np.int64)
            find_best(self.vectors, self.scales, self.offsets, *here, scores, places, filled)
            return scores, places

        pairs = np.diff(self.offsets)[cells] * np.diff(first)
        parts = _in_threads(search, list(_shares(pairs)))
        scores, places = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        if not np.isfinite(scores[places >= 0]).all():
            raise damaged(self.folder, "it has numbers that are not finite")
        if len(parts) > 1:  # each has its own best: any of them may be among the best of all
            best = np.lexsort((places, -scores), axis=-1)[:, :count]
            places = np.take_along_axis(places, best, axis=1)
        rows: Int64 = self.rows[places]
        return rows

    def _nearest_cells(self, queries: Float32, nprobe: int, count: int) -> list[Int64]:
        """Return, for each query, the cells that are read for it."""
        from protalign.search.kernels.cell_loops import add_similarities

        similarity = np.zeros((len(queries), len(self.centroids)), dtype=np.float32)

        def compare(share: slice) -> None:
            add_similarities(queries[share], self._across, similarity[share])

        _in_threads(compare, list(_shares(np.full(len(queries), len(self.centroids)))))
        sizes = np.diff(self.offsets)
        if nprobe >= len(sizes):
            return [np.arange(len(sizes))] * len(queries)
        cells: list[Int64] = []
        for each in similarity:
            nearest = np.argpartition(-each, nprobe - 1)[:nprobe]
            if sizes[nearest].sum() < count:
                nearest = np.argsort(-each, kind="stable")
                enough = 1 + int(np.searchsorted(np.cumsum(sizes[nearest]), count))
                nearest = nearest[: max(nprobe, enough)]
            cells.append(nearest)
        return cells

    @cached_property
    def _across(self) -> Float32:
        return np.ascontiguousarray(self.centroids.T)


def _shares(pairs: Int64) -> Iterator[slice]:
    """Yield parts of some work, one for a thread: neighbours with about as many comparisons."""
    done = np.cumsum(pairs)
    threads = max(1, min(threads_here(), int(done[-1]) // THREAD_PAIRS))
    ends = np.searchsorted(done, done[-1] * np.arange(1, threads + 1) / threads) + 1
    begin = 0
    for end in np.minimum(ends, len(pairs)).tolist():
        if end > begin:
            yield slice(begin, end)
            begin = end


def _in_threads(work: Callable[[slice], Any], shares: list[slice]) -> list[Any]:
    if len(shares) == 1:
        return [work(shares[0])]
    from protalign.core.threads import run_single_threaded

    return run_single_threaded(len(shares), lambda number: work(shares[number]))


def damaged(path: object, problem: str) -> InputError:
    """Return the error of an index of vectors that is not as it was written."""
    return InputError(f"{path}: it is damaged ({problem})", AGAIN)
