"""The encoders that a model was trained with: loaded again, and checked to be the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import ModelError
from protalign.core.protein import Modality
from protalign.encoders import Encoder, EncoderSpec, load_encoder

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator


class ModelEncoders:
    """A model's encoders, each loaded when it is first needed.

    Parameters
    ----------
    estimator : fitted on a store, or loaded.
    weights : files for encoders whose weights are not found by themselves.
    device : as for ``EncoderSpec``.
    """

    def __init__(
        self,
        estimator: ProtAlignEstimator,
        weights: Mapping[Modality, str] | None = None,
        device: str = "auto",
    ) -> None:
        self._fitted = estimator.encoders_
        self._weights = dict(weights or {})
        self._device = device
        self._loaded: dict[Modality, Encoder] = {}

    def encode(self, modality: Modality, items: Sequence[Any]) -> list[npt.NDArray[np.float32]]:
        """(L, D) embeddings of items as ``Encoder.encode`` takes them.

        Raises ModelError where the model was not trained on a store, or where the weights found
        are others; WeightsError where there are none to be had.
        """
        if modality not in self._loaded:
            fitted = self._fitted.get(modality)
            if fitted is None:
                raise ModelError(
                    "the model does not say which encoders it was trained on; fit it on a store"
                )
            self._loaded[modality] = self._load(modality, fitted)
        return self._loaded[modality].encode(items)

    def _load(self, modality: Modality, fitted: EncoderRecord) -> Encoder:
        layer = fitted.settings.get("layer")
        spec = EncoderSpec(
            fitted.model,
            weights=self._weights.get(modality, ""),
            layer=None if layer is None else int(layer),
            device=self._device,
        )
        encoder = load_encoder(spec)
        differences = fitted.differences(_info(fitted, encoder), precision=False)
        if differences:
            raise ModelError(
                f"the model was trained with {'; '.join(differences)}: name the file with "
                f"--{modality}-weights"
            )
        return encoder


def _info(fitted: EncoderRecord, encoder: Encoder) -> EncoderRecord:
    return replace(
        fitted,
        model=encoder.name,
        dim=encoder.dim,
        weights_sha256=encoder.weights_sha256,
        settings=dict(encoder.settings),
    )
