"""Linear maps from embeddings to other quantities."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
# Added to the Gram matrix of the standardised inputs, per row. It is so weak that it matters only
# for columns that hardly vary.
_PENALTY = 1e-4


class Ridge(NamedTuple):
    """A linear map of standardised inputs, fitted by least squares with a small penalty."""

    mean: Float32  # (inputs,)
    spread: Float32  # (inputs,)
    weight: Float32  # (inputs, outputs)
    bias: Float32  # (outputs,)

    @classmethod
    def fit(cls, inputs: Float32, targets: Float32) -> "Ridge":
        """Fit on (rows, inputs) and (rows, outputs); rows with NaN targets do not count."""
        known = np.isfinite(targets).all(axis=1)
        x, y = inputs[known], targets[known]
        mean, spread, bias = x.mean(axis=0), x.std(axis=0) + 1e-6, y.mean(axis=0)
        x = (x - mean) / spread
        gram = x.T @ x + _PENALTY * len(x) * np.eye(x.shape[1], dtype=x.dtype)
        weight = np.linalg.solve(gram, x.T @ (y - bias)).astype(np.float32)
        return cls(mean, spread, weight, bias)

    def predict(self, inputs: Float32) -> Float32:
        """Predict: (rows, inputs) -> (rows, outputs)."""
        rows: Float32 = (inputs - self.mean) / self.spread @ self.weight + self.bias
        return rows


def explained_variance(ridge: Ridge, inputs: Float32, targets: Float32) -> float:
    """Return the mean R² of the outputs; rows with NaN targets do not count."""
    known = np.isfinite(targets).all(axis=1)
    error = ((ridge.predict(inputs[known]) - targets[known]) ** 2).sum(axis=0)
    total = ((targets[known] - targets[known].mean(axis=0)) ** 2).sum(axis=0)
    return float((1 - error / total).mean())
