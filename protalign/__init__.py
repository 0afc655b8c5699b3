"""ProtAlign: embed proteins once, align sequence and structure, use the vectors anywhere.

Names are imported when they are first used, so that ``import protalign`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protalign.embedding import embed as embed
    from protalign.errors import ProtAlignError as ProtAlignError
    from protalign.estimator import ProtAlignEstimator as ProtAlignEstimator
    from protalign.evaluation import evaluate as evaluate
    from protalign.lookup import VectorLookup as VectorLookup
    from protalign.stores import AlignedVectors as AlignedVectors
    from protalign.stores import EmbeddingStore as EmbeddingStore
    from protalign.stores import read_vectors as read_vectors

__version__ = "0.1.0"

_HOMES = {
    "AlignedVectors": "protalign.stores",
    "EmbeddingStore": "protalign.stores",
    "ProtAlignError": "protalign.errors",
    "ProtAlignEstimator": "protalign.estimator",
    "VectorLookup": "protalign.lookup",
    "embed": "protalign.embedding",
    "evaluate": "protalign.evaluation",
    "read_vectors": "protalign.stores",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'protalign' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
