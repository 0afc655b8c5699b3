"""An index of aligned vectors by faiss, for more of them than exact search is quick enough for.

faiss: Douze et al., "The Faiss library" (2024); HNSW: Malkov and Yashunin, IEEE TPAMI 42, 824
(2020).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.stores.vectors.vectors import AlignedVectors

KINDS = ("hnsw", "ivf", "flat")
#: HNSW: links of each vector, and how many are kept in view while the index is built and searched.
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 80, 128
#: IVF: vectors to learn each cell from, and the part of all cells that a search visits.
IVF_TRAINING, IVF_VISITED = 64, 1 / 16


class VectorIndex:
    """A faiss index of one modality's vectors; ``search`` as ``AlignedVectors.search``.

    Parameters
    ----------
    vectors : ids and vectors; they are copied into the index.
    kind : "hnsw", a graph: quickest to search, slow to build, some 1.5 times the vectors' memory;
        "ivf", cells: quick to build; "flat": exact. The first two find nearly all neighbours.
    against : whose vectors are indexed, "sequence" or "structure".

    Raises
    ------
    InputError : an unknown kind, no vectors of the modality, or faiss is not installed.
    """

    def __init__(
        self, vectors: AlignedVectors, kind: str = "hnsw", *, against: Modality = "structure"
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"kind={kind!r}", f"give one of {', '.join(KINDS)}")
        candidates, present = vectors.candidates(against)
        self.rows = np.flatnonzero(present)
        if not len(self.rows):
            raise InputError(f"there are no {against} vectors", "nothing can be indexed")
        indexed = candidates if present.all() else candidates[self.rows]
        self._index = _built(kind, np.ascontiguousarray(indexed, dtype=np.float32))

    def search(self, queries: Float32, k: int = 5) -> tuple[npt.NDArray[np.int64], Float32]:
        """The k nearest entries to each query.

        Parameters
        ----------
        queries : (q, dim) float32, of unit length.
        k : hits for each, at least 1; fewer where there are fewer vectors.

        Returns
        -------
        rows : (q, k) int64 indices into the vectors' ``ids``, best first; -1 where an approximate
            index came upon fewer than k.
        cosine : (q, k) float32; -inf at -1.
        """
        if queries.ndim != 2 or queries.shape[1] != self._index.d or k < 1:
            raise InputError(
                f"queries of shape {queries.shape}, k={k!r}",
                f"give (q, {self._index.d}) float32 and a k of at least 1",
            )
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        cosine, found = self._index.search(asked, min(k, len(self.rows)))
        missing = found < 0
        return (
            np.where(missing, -1, self.rows[found]),
            np.where(missing, np.float32(-np.inf), cosine),
        )


def _built(kind: str, vectors: Float32) -> Any:
    try:
        import faiss
    except ImportError:
        raise InputError("faiss is not installed", 'pip install "protalign[faiss]"') from None
    count, dim = vectors.shape
    index: Any
    if kind == "flat":
        index = faiss.IndexFlatIP(dim)
    elif kind == "hnsw":
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
