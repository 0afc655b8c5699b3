"""Checks of an estimator's parameters, and whether they still describe its fitted model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, get_args

from protalign.core.checks import check_between, check_choice, check_whole
from protalign.core.errors import InputError, ModelError
from protalign.core.words import Output
from protalign.heads.losses import LOSSES
from protalign.heads.model import Model
from protalign.heads.poolings import POOLINGS, pooling_head


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise InputError, which lists the accepted values, for a parameter out of its range."""
    check_choice("loss", parameters["loss"], LOSSES)
    check_choice("pooling", parameters["pooling"], POOLINGS)
    check_choice("output", parameters["output"], get_args(Output))
    for name in ("embed_dim", "n_heads", "max_epochs", "n_iter_no_change"):
        check_whole(name, parameters[name], 1)
    check_whole("batch_size", parameters["batch_size"], 2)
    for name in ("temperature", "learning_rate"):
        check_between(name, parameters[name], 0, math.inf)
    check_between("bias", parameters["bias"], -math.inf, math.inf)
    check_between("tol", parameters["tol"], -math.inf, math.inf)
    check_between("validation_fraction", parameters["validation_fraction"], 0, 1)
    embed_dim, n_heads = parameters["embed_dim"], parameters["n_heads"]
    if pooling_head(parameters["pooling"]).attends and embed_dim % n_heads:
        raise InputError(
            f"embed_dim={embed_dim}: it cannot be shared by n_heads={n_heads}", "give a multiple"
        )


def check_not_structures(y: object) -> None:
    """Raise InputError if y is an array with several columns: it may be meant as structures."""
    shape: tuple[int, ...] = getattr(y, "shape", ())
    if len(shape) > 1 and shape[1] > 1:
        raise InputError(
            f"y: it is not used, and an array of {shape[0]:,} x {shape[1]:,} looks like embeddings",
            "give pairs, fit(list(zip(sequences, structures))), or one array X of both, and "
            "sequence_columns",
        )


def checked_columns(given: int | None, columns: int) -> int:
    """Return how many of an array's columns are the sequence's; warn if that is a guess.

    Raise InputError if none is left for the structure.
    """
    if given is None:
        first = (columns + 1) // 2
        warnings.warn(
            f"X: its first {first:,} columns are taken as the sequence's, the other "
            f"{columns - first:,} as the structure's; say so with sequence_columns",
            stacklevel=5,
        )
        return first
    check_whole("sequence_columns", given, 1)
    if given >= columns:
        raise InputError(
            f"sequence_columns={given}: X has {columns:,} columns", "leave some to the structure"
        )
    return given


def check_unchanged(parameters: Mapping[str, Any], model: Model) -> None:
    """Raise ModelError if the parameters are those of another model, as after ``set_params``."""
    fitted: dict[str, Any] = {
        "embed_dim": model.embed_dim,
        "pooling": model.pooling,
        "loss": model.loss.kind,
    }
    if model.n_heads is not None:
        fitted["n_heads"] = model.n_heads
    for name, value in fitted.items():
        if parameters[name] != value:
            raise ModelError(
                f"{name}={parameters[name]!r}: the model was fitted with {value!r}; "
                "set it back, or fit without warm_start"
            )
