"""X as an estimator is given it, brought to its common form and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import validate_data

from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.inputs import (
    ArrayInputs,
    Inputs,
    PairInputs,
    StoreInputs,
    check_fits,
    choose_encoder,
    is_pairs,
)
from protalign.heads.mean import MeanInputs
from protalign.stores import EncoderInfo, Entries

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator

#: Attributes that scikit-learn sets for a 2-D X.
_ARRAY_ATTRIBUTES = ("n_features_in_", "feature_names_in_")


def fitting_inputs(estimator: ProtAlignEstimator, X: Any) -> Inputs:
    """X to fit on; raises InputError where it lacks a modality.

    Where residues only count by their mean, the means: no residue is read again in training.
    """
    inputs = read_inputs(estimator, X, MODALITIES, None)
    missing = [m for m in MODALITIES if m not in inputs.dims]
    if missing:
        raise InputError(f"X has no {missing[0]} embeddings", "training needs both")
    if not isinstance(inputs, ArrayInputs):
        for name in _ARRAY_ATTRIBUTES:  # of an earlier fit
            if hasattr(estimator, name):
                delattr(estimator, name)
    return _averaged(estimator, inputs)


def validation_inputs(estimator: ProtAlignEstimator, X_val: Any, fitting: Inputs) -> Inputs:
    """X_val beside the X that is fitted on; raises ModelError where it was embedded otherwise."""
    inputs = read_inputs(estimator, X_val, MODALITIES, fitting.encoders)
    check_fits(inputs, MODALITIES, fitting.dims, fitting.encoders)
    return _averaged(estimator, inputs)


def _averaged(estimator: ProtAlignEstimator, inputs: Inputs) -> Inputs:
    return inputs if estimator.pooling == "attention" else MeanInputs(inputs)


def fitted_inputs(
    estimator: ProtAlignEstimator, X: Any, modalities: tuple[Modality, ...] = MODALITIES
) -> Inputs:
    """X for a fitted estimator; raises ModelError for embeddings of another kind."""
    inputs = read_inputs(estimator, X, modalities, estimator.encoders_)
    check_fits(inputs, modalities, dims_of(estimator), estimator.encoders_)
    return inputs


def dims_of(estimator: ProtAlignEstimator) -> dict[Modality, int]:
    """D_P and D_S that an estimator is fitted on."""
    return {"sequence": estimator.sequence_dim_, "structure": estimator.structure_dim_}


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
