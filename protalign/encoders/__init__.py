"""Encoders: proteins in, one (L, D) array of residue embeddings each out."""

from protalign.encoders.base import (
    ENTRY_POINT_GROUP,
    Encoder,
    EncoderSpec,
    Sequences,
    WeightsInfo,
    encoder_classes,
    load_encoder,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "Encoder",
    "EncoderSpec",
    "Sequences",
    "WeightsInfo",
    "encoder_classes",
    "load_encoder",
]
