"""Encoders loaded again from their records, and checked to be the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from protalign.core.arrays import Float32
from protalign.core.devices import resolve_device
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import ModelError
from protalign.core.protein import Modality
from protalign.encoders.base import Encoder, EncoderSpec, load_encoder


class RecordedEncoders:
    """The encoders that a model was trained with, each loaded when it is first needed.

    Parameters
    ----------
    records : mapping of modality to EncoderRecord
        ``Model.encoders``.
    weights : mapping of modality to str, optional
        Weights files of encoders whose weights are neither in the package nor in the cache.
    device : str
        As for ``EncoderSpec``.
    """

    def __init__(
        self,
        records: Mapping[Modality, EncoderRecord],
        weights: Mapping[Modality, str] | None = None,
        device: str = "auto",
    ) -> None:
        self._records = dict(records)
        self._weights = dict(weights or {})
        self._device = device
        self._loaded: dict[Modality, Encoder] = {}

    def __reduce__(self) -> tuple[object, ...]:
        # Another process loads them again, on the device that this one would use.
        device = str(resolve_device(self._device))
        return type(self), (self._records, self._weights, device)

    def encode(self, modality: Modality, items: Sequence[Any]) -> list[Float32]:
        """Return an (L, D) embedding for each item.

        Parameters
        ----------
        modality : "sequence" or "structure"
        items : sequence
            As ``Encoder.encode`` takes them.

        Raises
        ------
        ModelError
            If there is no record for the modality, or if the weights found are not those that
            the model was trained with.
        WeightsError
            If no weights are found.
        """
        return self.load(modality).encode(items)

    def load(self, modality: Modality) -> Encoder:
        """Return the encoder of a modality, loaded now if it is not yet; raise as ``encode``."""
        if modality not in self._loaded:
            if modality not in self._records:
                raise ModelError(
                    f"the model does not record its {modality} encoder; fit it on a store"
                )
            self._loaded[modality] = self._load(modality, self._records[modality])
        return self._loaded[modality]

    def _load(self, modality: Modality, record: EncoderRecord) -> Encoder:
        spec = spec_of(record, self._weights.get(modality, ""), self._device)
        encoder = load_encoder(spec)
        loaded = replace(
            record,
            model=encoder.name,
            dim=encoder.dim,
            weights_sha256=encoder.weights_sha256,
            settings=dict(encoder.settings),
        )
        differences = record.differences(loaded, precision=False)
        if differences:
            raise ModelError(
                f"the model was trained with {'; '.join(differences)}: name the weights file with "
                f"--{modality}-weights"
            )
        return encoder


def spec_of(record: EncoderRecord, weights: str = "", device: str = "auto") -> EncoderSpec:
    """Return the spec that loads a recorded encoder: its model, and its layer if it has several.

    ``weights`` and ``device`` are as for ``EncoderSpec``.
    """
    layer = record.settings.get("layer")
    return EncoderSpec(
        record.model, weights=weights, layer=None if layer is None else int(layer), device=device
    )
