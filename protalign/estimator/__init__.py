"""scikit-learn's interface to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator as ProtAlignEstimator
    from protalign.estimator.lookup import VectorLookup as VectorLookup

__all__ = ["ProtAlignEstimator", "VectorLookup"]


def __getattr__(name: str) -> Any:
    """Import on first use: exporting vectors and writing attention need no scikit-learn."""
    if name == "ProtAlignEstimator":
        from protalign.estimator.estimator import ProtAlignEstimator

        return ProtAlignEstimator
    if name == "VectorLookup":
        from protalign.estimator.lookup import VectorLookup

        return VectorLookup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
