"""The fitted attributes of an estimator: what its model and the model's training record say."""

from __future__ import annotations

from protalign.core.encoder_record import EncoderRecord
from protalign.core.protein import Modality
from protalign.heads.model import Model
from protalign.heads.training_record import TrainingRecord


class FittedAttributes:
    """Read-only attributes with scikit-learn's trailing underscore, all read from ``model_``.

    ``ProtAlignEstimator`` describes them. Before a fit they raise AttributeError, as
    scikit-learn's do.
    """

    model_: Model

    @property
    def _record(self) -> TrainingRecord:
        if self.model_.training_record is None:
            raise AttributeError("the model is not trained")
        return self.model_.training_record

    @property
    def loss_curve_(self) -> list[float]:
        """Mean training loss of each epoch."""
        return self._record.loss_curve

    @property
    def validation_curve_(self) -> list[float]:
        """Mean reciprocal rank of the validation pairs after each epoch; empty without any."""
        return self._record.validation_curve

    @property
    def n_iter_(self) -> int:
        """Epochs run."""
        return self._record.n_epochs

    @property
    def best_epoch_(self) -> int:
        """The (1-based) epoch whose parameters were kept."""
        return self._record.best_epoch

    @property
    def best_loss_(self) -> float:
        """Lowest training loss of an epoch."""
        return min(self.loss_curve_)

    @property
    def best_validation_score_(self) -> float | None:
        """Highest mean reciprocal rank of an epoch on the validation pairs."""
        return max(self.validation_curve_, default=None)

    @property
    def n_pairs_(self) -> int:
        """Pairs trained on."""
        return self._record.n_pairs

    @property
    def n_validation_pairs_(self) -> int:
        """Pairs validated on."""
        return self._record.n_validation_pairs

    @property
    def n_skipped_(self) -> int:
        """Entries left out because a modality is missing."""
        return self._record.n_skipped

    @property
    def validation_(self) -> str:
        """The pairs that chose the best epoch, in words."""
        return self._record.validation

    @property
    def source_(self) -> str:
        """Path of the store, "" for arrays."""
        return self._record.source

    @property
    def encoders_(self) -> dict[Modality, EncoderRecord]:
        """Modality -> record of the encoder; empty unless X was a store."""
        return self.model_.encoders

    @property
    def sequence_dim_(self) -> int:
        """D_P, the width of the sequence embeddings."""
        return self.model_.dims["sequence"]

    @property
    def structure_dim_(self) -> int:
        """D_S, the width of the structure embeddings."""
        return self.model_.dims["structure"]

    @property
    def temperature_(self) -> float:
        """The loss's temperature after training."""
        return self.model_.loss.temperature

    @property
    def bias_(self) -> float | None:
        """SigLIP's bias after training; None for CLIP."""
        bias = self.model_.loss.bias
        return None if bias is None else bias.item()
