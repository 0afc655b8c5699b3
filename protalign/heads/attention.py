"""Attention pooling: residues of one protein in, one unit-length vector out, without padding.

The head is the paper's Eq. 1: one learnable query token attends to the residues (multi-head
attention), then LayerNorm, then unit length. Because the query is one vector per head, no residue
is ever projected:

    scores_h = z (W_k,h^T q_h)          one (D, n_heads) product over all residues of a batch
    pooled_h = sum_t softmax(scores_h)_t z_t
    heads_h  = W_v,h pooled_h + b_v,h   on the pooled rows only

which equals ``torch.nn.MultiheadAttention`` with far fewer operations and no padding. The key's
bias adds the same number to every residue's score, so the softmax removes it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.heads.head import PoolingHead
from protalign.heads.kernels.batch import ProteinBatch


class AttentionHead(PoolingHead):
    """One learnable query token, multi-head attention, LayerNorm, unit length (paper, Eq. 1).

    Equal to ``nn.MultiheadAttention(embed_dim, n_heads, kdim=input_dim, vdim=input_dim)`` with the
    token as query and the residues as keys and values, then ``nn.LayerNorm(embed_dim)``, then
    division by the length. Parameters have that module's names and shapes under ``attention``, and
    its packed form (``in_proj_weight``, used if ``input_dim == embed_dim``) is read too. Scores
    are divided by sqrt(embed_dim / n_heads), as multi-head attention does; the paper's Eq. 1
    prints sqrt(D), which is the same up to the scale of the learned query.

    The parameters are those of ``PoolingHead``; ``n_heads`` must divide ``embed_dim``.

    Examples
    --------
    >>> import numpy as np
    >>> from protalign.core.ragged import Ragged
    >>> from protalign.heads.kernels.batch import batch_of
    >>> proteins = Ragged.pack([np.ones((50, 20), np.float32), np.ones((80, 20), np.float32)])
    >>> head = AttentionHead(input_dim=20, embed_dim=8, n_heads=2)
    >>> head(batch_of(proteins, torch.device("cpu"))).shape
    torch.Size([2, 8])
    """

    attends, wants_means = True, False

    def __init__(self, input_dim: int, embed_dim: int = 128, n_heads: int = 4) -> None:
        super().__init__(input_dim, embed_dim, n_heads)
        self.n_heads = n_heads
        self.embed_dim = embed_dim
        self.query = nn.Parameter(torch.empty(embed_dim))
        self.attention = _AttentionParameters(input_dim, embed_dim, n_heads)
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.normal_(self.query, std=0.02)

    def forward(self, batch: ProteinBatch) -> Tensor:
        """Return (n, E) unit-length vectors in the parameters' dtype."""
        vectors = self.norm(self.attention(self.query, batch))
        return functional.normalize(vectors, dim=-1)

    def residue_weights(self, batch: ProteinBatch) -> Tensor:
        """Return the (R, n_heads) attention of each row; each head's sum to 1 over a protein.

        Equal to ``nn.MultiheadAttention`` with ``average_attn_weights=False``.
        """
        return self.attention.residue_weights(self.query, batch)


class _AttentionParameters(nn.Module):
    """The parameters of ``nn.MultiheadAttention``, for one query token shared by all proteins."""

    def __init__(self, input_dim: int, embed_dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj_weight = nn.Parameter(torch.empty(embed_dim, embed_dim))
        self.k_proj_weight = nn.Parameter(torch.empty(embed_dim, input_dim))
        self.v_proj_weight = nn.Parameter(torch.empty(embed_dim, input_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.out_proj.bias)
        self.register_load_state_dict_pre_hook(_split_in_proj_weight)  # type: ignore[no-untyped-call]

    def forward(self, query: Tensor, batch: ProteinBatch) -> Tensor:
        """Return the attention's output before LayerNorm: query (E,) -> (n, E)."""
        weight = self._score_weight(query)
        values = self.v_proj_weight.view(self.n_heads, len(query) // self.n_heads, -1)
        bias_v = self.in_proj_bias.chunk(3)[2]
        heads = batch.attention_heads(weight, values.transpose(1, 2))
        heads = heads.transpose(0, 1).flatten(1) + bias_v
        vectors: Tensor = self.out_proj(heads)
        return batch.in_order(vectors)

    def residue_weights(self, query: Tensor, batch: ProteinBatch) -> Tensor:
        """Return the softmax of each protein's scores: query (E,) -> (R, n_heads)."""
        return batch.attention_weights(self._score_weight(query))

    def _score_weight(self, query: Tensor) -> Tensor:
        """Return (D, n_heads): a residue's embedding times this is its score for each head."""
        bias_q = self.in_proj_bias.chunk(3)[0]
        head_dim = len(query) // self.n_heads
        q = (self.q_proj_weight @ query + bias_q).view(self.n_heads, head_dim)
        keys = self.k_proj_weight.view(self.n_heads, head_dim, -1)
        return torch.einsum("hk,hkd->dh", q / math.sqrt(head_dim), keys)


def _split_in_proj_weight(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *unused: object
) -> None:
    """Read the packed form that nn.MultiheadAttention has if kdim == vdim == embed_dim."""
    packed = state.pop(prefix + "in_proj_weight", None)
    if packed is not None:
        for name, weight in zip("qkv", packed.chunk(3), strict=True):
            state[f"{prefix}{name}_proj_weight"] = weight.clone()
