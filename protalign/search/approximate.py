"""Approximate nearest neighbours by faiss, for more vectors than exact search is quick for.

faiss: Douze et al., "The Faiss library" (2024); HNSW: Malkov and Yashunin, IEEE TPAMI 42, 824
(2020).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError

#: HNSW: links of each vector, and candidates kept while the index is built and searched.
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 80, 128
#: IVF: vectors to learn each cell from, and the part of all cells that a search visits.
IVF_TRAINING, IVF_VISITED = 64, 1 / 16


class FaissIndex:
    """A faiss index of one modality's vectors.

    Parameters
    ----------
    vectors : (n, dim) float32
        Vectors of unit length. They are copied into the index.
    present : (n,) bool
        The rows to index.
    kind : "hnsw" or "ivf"
        A graph or cells; see ``protalign.search.Index``.

    Raises
    ------
    InputError
        No row is present, or faiss is missing.
    """

    def __init__(self, vectors: Float32, present: Bool, kind: Literal["hnsw", "ivf"]) -> None:
        self._rows = np.flatnonzero(present)
        if not len(self._rows):
            raise InputError("the index: all vectors of the modality are missing", "export others")
        indexed = vectors if present.all() else vectors[self._rows]
        self._index = _built(kind, np.ascontiguousarray(indexed, dtype=np.float32))

    def nearest(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """Return the k nearest rows to each query and their cosines, (q, k) each, best first.

        If fewer than k are found, the others are -1 and -inf.
        """
        cosine, neighbours = self._index.search(queries, min(k, len(self._rows)))
        missing = neighbours < 0
        return (
            np.where(missing, -1, self._rows[neighbours]),
            np.where(missing, np.float32(-np.inf), cosine),
        )


def _built(kind: str, vectors: Float32) -> Any:
    try:
        import faiss
    except ImportError:
        raise InputError("faiss: it is not installed", 'pip install "protalign[faiss]"') from None
    count, dim = vectors.shape
    index: Any
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
    else:
        cells = max(1, min(int(4 * math.sqrt(count)), count // IVF_TRAINING))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = math.ceil(cells * IVF_VISITED)
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
    index.add(vectors)
    return index
