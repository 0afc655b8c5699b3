"""Mean pooling: the paper's other projection strategies.

A protein's residues are averaged. The average goes through a linear layer ("mean-linear") or a
two-layer perceptron ("mean-mlp"), then LayerNorm and unit length, as behind attention.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from protalign.heads.head import PoolingHead
from protalign.heads.kernels.batch import ProteinBatch, mean_rows


class _MeanHead(PoolingHead):
    """The mean of the residues, projected, then LayerNorm and unit length.

    The parameters are those of ``PoolingHead``; ``n_heads`` is not used.
    """

    attends, wants_means = False, True

    def __init__(self, input_dim: int, embed_dim: int, projection: nn.Module) -> None:
        super().__init__(input_dim, embed_dim, 0)
        self.embed_dim = embed_dim
        self.projection = projection
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, batch: ProteinBatch) -> Tensor:
        """Return (n, E) unit-length vectors in the parameters' dtype."""
        means = mean_rows(batch, self.norm.weight.dtype)
        return functional.normalize(self.norm(self.projection(means)), dim=-1)


class MeanLinearHead(_MeanHead):
    """The mean of the residues through one linear layer."""

    def __init__(self, input_dim: int, embed_dim: int = 128, n_heads: int = 0) -> None:
        super().__init__(input_dim, embed_dim, nn.Linear(input_dim, embed_dim))


class MeanMLPHead(_MeanHead):
    """The mean of the residues through two linear layers with GELU between them.

    The hidden layer is as wide as the embedding, which is the form of SimCLR's head (Chen et al.,
    2020).
    """

    def __init__(self, input_dim: int, embed_dim: int = 128, n_heads: int = 0) -> None:
        last = nn.Linear(input_dim, embed_dim)  # made first: a seed gives the same parameters
        super().__init__(
            input_dim,
            embed_dim,
            nn.Sequential(nn.Linear(input_dim, input_dim), nn.GELU(), last),
        )
