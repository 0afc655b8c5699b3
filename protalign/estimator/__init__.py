"""scikit-learn's interface to the model."""

from protalign.estimator.estimator import ProtAlignEstimator
from protalign.estimator.lookup import VectorLookup

__all__ = ["ProtAlignEstimator", "VectorLookup"]
