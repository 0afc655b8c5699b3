"""An ESM-2 with fair-esm's parameters that runs without padding, also in bfloat16.

The results equal those of `esm.model.esm2.ESM2.forward` (in float32, to rounding). The computation
differs: all windows of a batch have one length, the linear layers see all tokens as one matrix,
attention is `scaled_dot_product_attention`, and the language-model head runs only on the predicted
tokens.
"""

import math

import torch
from esm.model.esm2 import ESM2
from esm.modules import TransformerLayer
from torch import Tensor, nn
from torch.nn import functional

from language_model.batches import MASKED, PREDICTED
from language_model.sequences import ALPHABET

STRUCTURE_DIM = 128


class Linear:
    """A linear map in a given precision; the parameters stay in float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.linear(x.to(self.dtype), weight.to(self.dtype), bias.to(self.dtype))


def rotary_tables(length: int, head_dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary position embedding, (length, head_dim) each."""
    frequency = 10000.0 ** (-torch.arange(0, head_dim, 2, device=like.device) / head_dim)
    angle = torch.outer(torch.arange(length, device=like.device).float(), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = tables
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Network(nn.Module):
    """An ESM-2 and, for structure states, one linear layer on its last representation."""

    def __init__(
        self, layers: int, dim: int, heads: int, precision: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if dim % heads or (dim // heads) % 2:
            raise ValueError(f"{dim} dimensions cannot be split into {heads} heads of even size")
        self.esm = ESM2(layers, dim, heads, ALPHABET, token_dropout=True)
        self.structure_head = nn.Linear(dim, STRUCTURE_DIM)
        self.heads = heads
        self._linear = Linear(precision)
        self._initialise()

    def _initialise(self) -> None:
        """Set small weights; those that add to the residual stream are smaller in deep networks."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                continue
            scale = parameter.shape[-1] ** -0.5
            if name.endswith(("out_proj.weight", "fc2.weight")):
                scale /= math.sqrt(2 * self.esm.num_layers)
            nn.init.normal_(parameter, std=scale)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embed tokens with ESM-2's token dropout: (rows, length) -> (rows * length, dim)."""
        masked = tokens == self.esm.mask_idx
        x = functional.embedding(tokens, self.esm.embed_tokens.weight).masked_fill(
            masked[..., None], 0.0
        )
        observed = masked.float().mean(dim=1)
        x = x * ((1 - PREDICTED * MASKED) / (1 - observed))[:, None, None]
        flat: Tensor = x.flatten(0, 1)
        return flat

    def _attend(
        self, layer: TransformerLayer, x: Tensor, rows: int, tables: tuple[Tensor, Tensor]
    ) -> Tensor:
        attention = layer.self_attn
        parts = attention.q_proj, attention.k_proj, attention.v_proj
        weight = torch.cat([part.weight for part in parts])
        bias = torch.cat([part.bias for part in parts])
        qkv = self._linear(x, weight, bias).view(rows, -1, 3, self.heads, x.shape[1] // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, tables), _rotate(key, tables), value
        )
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        return self._linear(mixed, attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return last representations: (rows, length) tokens -> (rows * length, dim) float32."""
        rows, length = tokens.shape
        x = self._embed(tokens)
        cos, sin = rotary_tables(length, x.shape[1] // self.heads, x)
        tables = cos.to(self._linear.dtype), sin.to(self._linear.dtype)
        for layer in self.esm.layers:
            x = x + self._attend(layer, layer.self_attn_layer_norm(x), rows, tables)
            hidden = self._linear(layer.final_layer_norm(x), layer.fc1.weight, layer.fc1.bias)
            x = x + self._linear(functional.gelu(hidden), layer.fc2.weight, layer.fc2.bias)
        last: Tensor = self.esm.emb_layer_norm_after(x)
        return last

    def logits(self, representation: Tensor) -> Tensor:
        """Return token scores: (n, dim) -> (n, alphabet) float32."""
        scores: Tensor = self.esm.lm_head(representation)
        return scores

    def structure_states(self, representation: Tensor) -> Tensor:
        """Predict the structure encoder's states: (n, dim) -> (n, 128) float32."""
        states: Tensor = self.structure_head(representation)
        return states
