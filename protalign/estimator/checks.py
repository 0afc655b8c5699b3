"""What an estimator's parameters may be, and whether they still describe its fitted heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from protalign.core.checks import check_between, check_choice, check_whole
from protalign.core.errors import InputError, ModelError
from protalign.heads.losses import LOSSES
from protalign.heads.model import POOLINGS

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator

OUTPUTS = ("sequence", "structure", "both")


def check_parameters(estimator: ProtAlignEstimator) -> None:
    """Raise InputError, saying what would do, for a parameter out of its range."""
    check_choice("loss", estimator.loss, LOSSES)
    check_choice("pooling", estimator.pooling, POOLINGS)
    check_choice("output", estimator.output, OUTPUTS)
    for name in ("embed_dim", "n_heads", "max_epochs", "n_iter_no_change"):
        check_whole(name, getattr(estimator, name), 1)
    check_whole("batch_size", estimator.batch_size, 2)
    for name in ("temperature", "learning_rate"):
        check_between(name, getattr(estimator, name), 0, math.inf)
    check_between("bias", estimator.bias, -math.inf, math.inf)
    check_between("tol", estimator.tol, -math.inf, math.inf)
    check_between("validation_fraction", estimator.validation_fraction, 0, 1)
    if estimator.pooling == "attention" and estimator.embed_dim % estimator.n_heads:
        raise InputError(
            f"embed_dim={estimator.embed_dim} cannot be shared by n_heads={estimator.n_heads}",
            "give a multiple",
        )


def check_unchanged(estimator: ProtAlignEstimator) -> None:
    """Raise ModelError where set_params made the parameters those of other heads."""
    heads = estimator.heads_
    fitted = {"embed_dim": heads.embed_dim, "pooling": heads.pooling, "loss": heads.loss.kind}
    if heads.n_heads is not None:
        fitted["n_heads"] = heads.n_heads
    for name, value in fitted.items():
        if getattr(estimator, name) != value:
            raise ModelError(
                f"{name} is {getattr(estimator, name)!r} now, the heads are fitted with "
                f"{value!r}: set it back, or fit without warm_start"
            )
