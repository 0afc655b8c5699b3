"""An index of aligned vectors: exact, or approximate by faiss."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_choice, check_whole
from protalign.core.errors import InputError
from protalign.core.machine import free_memory
from protalign.core.protein import MODALITIES, Modality
from protalign.search.kernels.exact import ExactIndex
from protalign.search.kernels.sizes import ExactSizes
from protalign.stores import AlignedVectors, MappedVectors
from protalign.stores.vectors.unit import UNIT, odd_rows

#: The kinds of index.
KINDS = ("exact", "hnsw", "ivf")


class Index:
    """Nearest neighbours by cosine among the vectors of a file.

    Parameters
    ----------
    vectors : AlignedVectors
        Ids and unit-length vectors.
    kind : "exact", "hnsw" or "ivf"
        "exact" compares every vector, in blocks of bounded memory. "hnsw" and "ivf" are
        faiss's and find nearly all neighbours (``pip install "protalign[faiss]"``): a graph is
        quickest to search and slow to build, and takes 1.5 times the vectors' memory; cells are
        quick to build.

    Notes
    -----
    What a kind needs of a modality is built at its first search. On a processor that has hardware
    for bfloat16 (AMX, AVX-512), exact searches of 32 queries and more among 131,072 vectors and
    more use a copy of the vectors in bfloat16, if a timing says that it is quicker. It is made
    once, and takes half as much memory again. They stay exact. Vectors of a folder are read where
    they lie, and have such a copy only if all of them would fit into the free memory.

    Raises
    ------
    InputError
        The kind is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> eye = np.eye(3, dtype=np.float32)
    >>> every = np.ones(3, dtype=np.bool_)
    >>> ids = np.array(["1a30", "3ebp", "1bcu"], dtype=object)
    >>> index = Index(AlignedVectors(ids, eye, eye, every, every))
    >>> rows, cosine = index.search(eye[[2]], k=1)
    >>> index.vectors.ids[rows[0, 0]], float(cosine[0, 0])
    ('1bcu', 1.0)
    """

    def __init__(
        self, vectors: AlignedVectors, kind: Literal["exact", "hnsw", "ivf"] = "exact"
    ) -> None:
        check_choice("kind", kind, KINDS)
        self.vectors = vectors
        self.kind = kind
        self._built: dict[Modality, Nearest] = {}

    def search(
        self, queries: Float32, k: int = 5, *, against: Modality = "structure"
    ) -> tuple[Int64, Float32]:
        """Find the k nearest entries to each query.

        Parameters
        ----------
        queries : (q, dim) float32
            Query vectors of unit length.
        k : int
            Hits per query, at least 1; fewer if there are fewer vectors.
        against : "sequence" or "structure"
            The vectors to rank.

        Returns
        -------
        rows : (q, k) int64
            Indices into ``vectors.ids``, best first; -1 if an approximate index found fewer.
        cosine : (q, k) float32
            The cosines; -inf at -1.

        Raises
        ------
        InputError
            The queries do not fit the vectors, a query is not finite, or a vector that was found
            is not, or is much too long.
        """
        check_choice("against", against, MODALITIES)
        check_whole("k", k, 1)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        dim = self.vectors.dim
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise InputError(
                f"queries of shape {queries.shape}: they do not fit vectors of {dim} numbers",
                "pool them with the model that made the vectors",
            )
        if against not in self._built:
            self._built[against] = self._build(against)
        rows, cosines = self._built[against].nearest(queries, k)
        self._check_cosines(queries, rows, cosines, against)
        return rows, cosines

    def _check_cosines(
        self, queries: Float32, rows: Int64, cosines: Float32, against: Modality
    ) -> None:
        """Raise InputError if a cosine is larger than vectors of unit length can have.

        Kinds of index give infinity for what is not a number, so it comes first and is seen here.
        """
        largest = (1 + UNIT) * np.linalg.norm(queries, axis=1, keepdims=True)
        odd = (rows >= 0) & ~(np.abs(cosines) <= largest + np.finfo(np.float32).tiny)
        if odd.any():
            raise self.vectors.odd_vector(against, int(rows[odd][0]))

    def _build(self, against: Modality) -> Nearest:
        vectors, present = self.vectors.candidates(against)
        if self.kind == "exact":
            sizes = ExactSizes()
            if isinstance(self.vectors, MappedVectors) and vectors.nbytes > free_memory():
                sizes = replace(sizes, rounded=None)  # the copy would not fit beside them
            return ExactIndex(vectors, present, sizes)
        odd = odd_rows(vectors, present)  # faiss reads all of them anyway
        if odd.any():
            raise self.vectors.odd_vector(against, int(np.argmax(odd)))
        from protalign.search.approximate import FaissIndex

        return FaissIndex(vectors, present, self.kind)


class Nearest(Protocol):
    """Vectors of one modality that can be searched."""

    def nearest(self, queries: Float32, k: int) -> tuple[Int64, Float32]:
        """Return (rows, cosines), (q, k) each, best first."""
