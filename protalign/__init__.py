"""ProtAlign: embed proteins once, align sequence and structure, use the vectors anywhere.

Names are imported when they are first used, so that ``import protalign`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protalign.core.version import __version__ as __version__

if TYPE_CHECKING:
    from protalign.core.errors import ProtAlignError as ProtAlignError
    from protalign.embedding import embed as embed
    from protalign.estimator.estimator import ProtAlignEstimator as ProtAlignEstimator
    from protalign.estimator.lookup import VectorLookup as VectorLookup
    from protalign.evaluation.evaluate import evaluate as evaluate
    from protalign.heads.model import Model as Model
    from protalign.search.hits import search as search
    from protalign.searching import easy_search as easy_search
    from protalign.stores import AlignedVectors as AlignedVectors
    from protalign.stores import EmbeddingStore as EmbeddingStore
    from protalign.stores import read_vectors as read_vectors

_HOMES = {
    "AlignedVectors": "protalign.stores",
    "EmbeddingStore": "protalign.stores",
    "Model": "protalign.heads.model",
    "ProtAlignError": "protalign.core.errors",
    "ProtAlignEstimator": "protalign.estimator.estimator",
    "VectorLookup": "protalign.estimator.lookup",
    "easy_search": "protalign.searching",
    "embed": "protalign.embedding",
    "evaluate": "protalign.evaluation.evaluate",
    "read_vectors": "protalign.stores",
    "search": "protalign.search",  # a package that can be called
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'protalign' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if name == "search" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
