"""X as an estimator is given it, brought to its common form and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import validate_data

from protalign.errors import InputError
from protalign.inputs import (
    MODALITIES,
    ArrayInputs,
    Inputs,
    PairInputs,
    StoreInputs,
    check_fits,
    choose_encoder,
    is_pairs,
)
from protalign.protein import Modality
from protalign.stores import EncoderInfo, Entries

if TYPE_CHECKING:
    from protalign.estimator import ProtAlignEstimator

#: Attributes that scikit-learn sets for a 2-D X.
_ARRAY_ATTRIBUTES = ("n_features_in_", "feature_names_in_")


def fitting_inputs(estimator: ProtAlignEstimator, X: Any) -> Inputs:
    """X to fit on; raises InputError where it lacks a modality."""
    inputs = read_inputs(estimator, X, MODALITIES, None)
    missing = [m for m in MODALITIES if m not in inputs.dims]
    if missing:
        raise InputError(f"X has no {missing[0]} embeddings", "training needs both")
    if not isinstance(inputs, ArrayInputs):
        for name in _ARRAY_ATTRIBUTES:  # of an earlier fit
            if hasattr(estimator, name):
                delattr(estimator, name)
    return inputs


def fitted_inputs(
    estimator: ProtAlignEstimator,
    X: Any,
    modalities: tuple[Modality, ...],
    dims: Mapping[Modality, int],
    encoders: Mapping[Modality, EncoderInfo],
) -> Inputs:
    """X for a model fitted on embeddings of these widths and encoders; ModelError for others."""
    inputs = read_inputs(estimator, X, modalities, encoders)
    check_fits(inputs, modalities, dims, encoders)
    return inputs


def read_inputs(
    estimator: ProtAlignEstimator,
    X: Any,
    modalities: tuple[Modality, ...],
    fitted: Mapping[Modality, EncoderInfo] | None,
) -> Inputs:
    """X in its common form; ``fitted``: the encoders to look for, None where X decides."""
    if isinstance(X, (str, Path)):
        raise InputError("X is a path", "open it first: EmbeddingStore.open(path)")
    if isinstance(X, Entries):
        chosen = {
            m: choose_encoder(X, m, getattr(estimator, f"{m}_encoder"), (fitted or {}).get(m))
            for m in modalities
        }
        return StoreInputs(X, {m: info for m, info in chosen.items() if info is not None})
    if is_pairs(X):
        return PairInputs(X)
    least = 2 if fitted is None else 1
    return ArrayInputs(
        validate_data(
            estimator,
            X,
            reset=fitted is None,
            dtype=np.float32,
            ensure_min_samples=least,
            ensure_min_features=least,
        )
    )
