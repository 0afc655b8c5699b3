"""ProteinMPNN's encoder, which embeds structures."""

from protalign.encoders.proteinmpnn.encoder import ProteinMPNNEncoder

__all__ = ["ProteinMPNNEncoder"]
