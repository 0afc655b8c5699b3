"""What a model was trained on, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from protalign.core.encoder_record import is_count


@dataclass(frozen=True)
class TrainingRecord:
    """A model's training, as it is saved with the model.

    Attributes
    ----------
    n_pairs, n_validation_pairs : int
        Pairs trained on, and pairs validated on.
    n_skipped : int
        Entries left out because a modality is missing.
    loss_curve, validation_curve : list of float
        Mean training loss of each epoch, and mean reciprocal rank of the validation pairs (empty
        without validation pairs).
    best_epoch : int
        The 1-based epoch whose parameters were kept.
    source : str
        Path of the store; "" for arrays.
    validation : str
        The validation pairs in words; "none" without any.
    """

    n_pairs: int
    n_validation_pairs: int
    n_skipped: int
    loss_curve: list[float]
    validation_curve: list[float]
    best_epoch: int
    source: str = ""
    validation: str = "not recorded"  # as in models of format 1.0

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the record in a config; raise ValueError unless its values are of their kinds."""
        if not isinstance(value, dict):
            raise ValueError("the training is not an object")
        known = {field.name for field in fields(cls)}
        record = cls(**{name: value[name] for name in known & set(value)})
        counts = record.n_pairs, record.n_validation_pairs, record.n_skipped, record.best_epoch
        texts = record.source, record.validation
        curves = record.loss_curve, record.validation_curve
        if not (
            all(map(is_count, counts))
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(curve, list) for curve in curves)
            and all(type(loss) in (int, float) for curve in curves for loss in curve)
        ):
            raise ValueError("the training holds what no training does")
        return record

    @property
    def n_epochs(self) -> int:
        """The epochs run."""
        return len(self.loss_curve)

    @property
    def in_a_line(self) -> str:
        """What it was trained on, and how well it did on its validation pairs."""
        line = f"trained on {self.n_pairs:,} pairs"
        if not self.validation_curve:
            return f"{line}; no validation pairs say how well it does"
        return (
            f"{line}; it finds a sequence's own structure among {self.n_validation_pairs:,} "
            f"validation pairs with a mean reciprocal rank of {max(self.validation_curve):.2f}"
        )
