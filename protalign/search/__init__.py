"""Vectors or residue words to hits: ``protalign.search(queries, vectors)``.

The package can be called: ``protalign.search`` is the name of this room and of its one function.
"""

from __future__ import annotations

import sys
from inspect import signature
from types import ModuleType

from protalign.search.hit import Hit
from protalign.search.hit_list import Hits
from protalign.search.hits import search
from protalign.search.index import Index
from protalign.search.search_options import SearchOptions
from protalign.search.searcher import Searcher
from protalign.search.vector_index import VectorIndex, index_vectors
from protalign.search.word_building import index_store
from protalign.search.word_index import WordIndex

__all__ = [
    "Hit",
    "Hits",
    "Index",
    "SearchOptions",
    "Searcher",
    "VectorIndex",
    "WordIndex",
    "index_store",
    "index_vectors",
    "search",
]


class _CallablePackage(ModuleType):
    """A package that answers a call as ``search`` does."""

    __call__ = staticmethod(search)


sys.modules[__name__].__class__ = _CallablePackage
__signature__ = signature(search)
