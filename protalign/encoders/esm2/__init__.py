"""ESM2: protein language models that embed sequences."""

from protalign.encoders.esm2.encoder import ESM2Encoder

__all__ = ["ESM2Encoder"]
