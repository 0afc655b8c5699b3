"""ESM2's forward pass over packed sequences: no padding, no logits, memory linear in length.

The numbers are those of ``esm.model.esm2.ESM2.forward`` (fair-esm 2.0.0; Lin et al., Science 379,
1123, 2023). Only the order of the work differs: linear layers take all residues of a batch at
once; attention takes one sequence at a time through ``scaled_dot_product_attention``, or on a GPU
all of them through ``varlen_attn``; rotary embeddings (Su et al., arXiv:2104.09864) are computed
once for a batch; and only the layers that the answer needs are held and run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate

import torch
from torch import Tensor, nn

from protalign.core import devices
from protalign.core.steps import step, watched

#: In inference no token is masked, so ESM2's token dropout scales every embedding by the share of
#: tokens that are not masked in training: 15 % are selected, and 80 % of those become <mask>.
TOKEN_DROPOUT_SCALE = 1 - 0.15 * 0.8
#: Rows that go through a feed-forward block at once: its hidden layer is four times as wide, and
#: stays in a core's cache between the two products. An accelerator needs more rows to be busy.
FEED_FORWARD_ROWS = {"cpu": 256}
FEED_FORWARD_ROWS_ACCELERATOR = 16384
#: Queries of a chain that attend at once, in work that is run in steps.
_QUERY_ROWS = 1024
#: The oldest NVIDIA GPUs that FlashAttention, and so ``varlen_attn``, supports.
_FLASH_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The three numbers that define an ESM2.

    Attributes
    ----------
    layers : int
    dim : int
        D, the width of a residue's representation.
    heads : int
        Attention heads.
    """

    layers: int
    dim: int
    heads: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads

    def parameters(self, layers: int | None = None, alphabet: int = 33) -> int:
        """Return the number of parameters used for the output of a layer (the final one)."""
        layers = self.layers if layers is None else layers
        per_layer = 12 * self.dim**2 + 13 * self.dim  # attention 4 D², feed-forward 8 D², biases
        return alphabet * self.dim + layers * per_layer + 2 * self.dim


@dataclass(frozen=True, slots=True, eq=False)
class _Chains:
    """The positions of a batch's chains among its tokens.

    Attributes
    ----------
    lengths : sequence of int
        Tokens of each chain.
    offsets : (n + 1,) int32 or None
        On the device: tokens before each chain, and all. None if attention takes one chain at a
        time.
    """

    lengths: Sequence[int]
    offsets: Tensor | None


@dataclass(frozen=True, slots=True)
class _Affine:
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class _Attention:
    """Multi-head attention: ``norm``, ``qkv``, attention, ``out``.

    In half precision the norm's scale and shift are part of ``qkv``. Its bias is then float32, and
    that of queries and keys alone: the values' bias adds the same to every residue, so it is part
    of ``out``.

    Attributes
    ----------
    norm : _Affine or None
    qkv : _Affine
        Weight (3 D, D); bias (3 D,), in half precision (2, heads, head_dim) float32.
    out : _Affine
    """

    norm: _Affine | None
    qkv: _Affine
    out: _Affine


@dataclass(frozen=True, slots=True)
class _Layer:
    attention: _Attention
    feed_forward_norm: _Affine
    fc1: _Affine
    fc2: _Affine


class PackedESM2:
    """The first ``layer`` layers of an ESM2, on one device, in one compute dtype.

    The residual stream and the layer norms are float32 in every dtype; weights are cast once. Most
    of half precision's error comes from queries and keys, which have large biases if scores are
    sharp. So their biases, the norm's shift among them, are added in float32 after the product. On
    a CPU half precision makes attention little faster, so there attention is float32.

    Parameters
    ----------
    architecture : Architecture
        Of the whole model.
    state : mapping of str to Tensor
        By fair-esm's names, any float dtype; checked to fit before.
    layer : int
        The layer wanted, as fair-esm counts: 0 is the token embedding, ``architecture.layers`` the
        final layer (with the layer norm after it).
    device : torch.device
    dtype : torch.dtype
        Compute dtype.
    at_once : bool, optional
        Attend within all chains in one kernel. By default if the device has FlashAttention.
    wide_attention : bool, optional
        Attend in float32 in every dtype. By default on a CPU.
    """

    def __init__(
        self,
        architecture: Architecture,
        state: Mapping[str, Tensor],
        *,
        layer: int,
        device: torch.device,
        dtype: torch.dtype,
        at_once: bool | None = None,
        wide_attention: bool | None = None,
    ) -> None:
        self.architecture = architecture
        self.dtype = dtype
        self.device = device
        self._embedding = state["embed_tokens.weight"].to(device, torch.float32, copy=True)
        self._layers = [self._layer(state, index) for index in range(layer)]
        self._last_norm = None
        if layer == architecture.layers:
            self._last_norm = self._norm(state, "emb_layer_norm_after")
        self._file_bytes = state["embed_tokens.weight"].itemsize * architecture.parameters(layer)
        self._frequencies = _inverse_frequencies(architecture, state)
        self._rows = FEED_FORWARD_ROWS.get(device.type, FEED_FORWARD_ROWS_ACCELERATOR)
        self._varlen = _has_varlen(device, dtype) if at_once is None else at_once
        self._wide_attention = device.type == "cpu" if wide_attention is None else wide_attention

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the representations of packed sequences.

        Parameters
        ----------
        tokens : (T,) int64
            <cls> sequence <eos> of one chain after another.
        lengths : sequence of int
            Tokens of each chain; they add up to T.

        Returns
        -------
        (T, D) float32
            On the device.
        """
        x = self._embedding[tokens.to(self.device)] * TOKEN_DROPOUT_SCALE
        rotation = self._rotation(lengths) if self._layers else None
        chains = self._chains(lengths)
        for layer in self._layers:
            step()
            assert rotation is not None
            self._add_attention(layer.attention, x, chains, rotation)
            for rows in torch.split(x, self._rows):
                step()
                self._add_feed_forward(layer, rows)
        return x if self._last_norm is None else self._normalised(x, self._last_norm)

    def memory_bytes(self, longest: int, tokens: int, at_once: int = 1) -> int:
        """Predict the peak in bytes: weights, and the tokens' activations at their widest point.

        That is inside attention: the residual stream, queries, keys and values, the mixed values,
        their projection, and one chain's intermediate values (all chains', if they are attended
        to at once). On a CPU loading counts too: there the file is mapped beside the weights made
        from it.

        Parameters
        ----------
        longest : int
            Tokens of the longest chain.
        tokens : int
            Tokens of all calls that run at once.
        at_once : int
            The number of calls that run at once.
        """
        size, dim = self.dtype.itemsize, self.architecture.dim
        weights = size * self.architecture.parameters(len(self._layers))
        per_token = dim * (4 + 5 * size + 4) + 4 * self.architecture.head_dim
        # Queries and keys while they are turned; for wide attention also values.
        in_float32 = 0 if size == 4 else (10 if self._wide_attention else 8) * dim
        feed_forward = at_once * self._rows * 4 * dim * 2 * size
        attended = (
            (tokens if self._varlen else at_once * longest)
            * dim
            * (4 if self._wide_attention else size)
        )
        batch = tokens * (per_token + in_float32) + attended + feed_forward
        mapped = self._file_bytes if self.device.type == "cpu" else 0
        return devices.WORKSPACE_BYTES + weights + max(mapped, batch)

    def _chains(self, lengths: Sequence[int]) -> _Chains:
        if not self._varlen:
            return _Chains(lengths, None)
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return _Chains(lengths, offsets.to(self.device))

    def _add_attention(
        self, layer: _Attention, x: Tensor, chains: _Chains, rotation: Tensor
    ) -> None:
        """Add to x (T, D) float32 its multi-head self-attention within each chain."""
        hidden = self._normalised(x, layer.norm).to(self.dtype)
        _add_linear(x, self._attended(layer, hidden, chains, rotation), layer.out)

    def _attended(
        self, layer: _Attention, hidden: Tensor, chains: _Chains, rotation: Tensor
    ) -> Tensor:
        """Mix the values of each chain; hidden (T, D), which it may overwrite, to (T, D)."""
        shape = (len(hidden), 3, self.architecture.heads, self.architecture.head_dim)
        if self.dtype == torch.float32:
            qkv = nn.functional.linear(hidden, layer.qkv.weight, layer.qkv.bias).view(shape)
            _rotate(qkv[:, :2], rotation)
            q, k, v = qkv.unbind(1)
        else:
            qkv = (hidden @ layer.qkv.weight.T).view(shape)
            q, k, v = self._half_attention_inputs(qkv, layer.qkv.bias, rotation)
        if chains.offsets is None:
            # q, k and v are made from the normalised rows, so their memory is free again.
            mixed = hidden.view(q.shape)
            _attend_one_by_one(q, k, v, chains.lengths, mixed)
        else:
            mixed = attend_at_once(q, k, v, max(chains.lengths), chains.offsets)
        return mixed.flatten(1)

    def _half_attention_inputs(
        self, qkv: Tensor, bias: Tensor, rotation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys, values, (T, heads, head_dim) each, from (T, 3, heads, head_dim)."""
        wide = self._wide_attention
        # On a CPU the sum of two dtypes would make another copy.
        turned = qkv[:, :2].float().add_(bias) if wide else qkv[:, :2] + bias
        _rotate(turned, rotation)
        if wide:
            return turned[:, 0], turned[:, 1], qkv[:, 2].float()
        qkv[:, :2] = turned
        return qkv[:, 0], qkv[:, 1], qkv[:, 2]

    def _add_feed_forward(self, layer: _Layer, x: Tensor) -> None:
        hidden = self._normalised(x, layer.feed_forward_norm).to(self.dtype)
        hidden = nn.functional.linear(hidden, layer.fc1.weight, layer.fc1.bias)
        _add_linear(x, nn.functional.gelu(hidden), layer.fc2)

    def _normalised(self, x: Tensor, norm: _Affine | None) -> Tensor:
        scale, shift = (None, None) if norm is None else (norm.weight, norm.bias)
        return nn.functional.layer_norm(x, (self.architecture.dim,), scale, shift)

    def _rotation(self, lengths: Sequence[int]) -> Tensor:
        """Return exp(i angle) of each token's position: (T, 1, 1, head_dim / 2) complex64."""
        angles = torch.outer(torch.arange(max(lengths)).float(), self._frequencies)
        turns = torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turns[:length] for length in lengths])[:, None, None].to(self.device)

    def _layer(self, state: Mapping[str, Tensor], index: int) -> _Layer:
        name = f"layers.{index}"
        return _Layer(
            attention=self._attention(state, f"{name}.self_attn"),
            feed_forward_norm=self._norm(state, f"{name}.final_layer_norm"),
            fc1=self._linear(state, f"{name}.fc1"),
            fc2=self._linear(state, f"{name}.fc2"),
        )

    def _attention(self, state: Mapping[str, Tensor], name: str) -> _Attention:
        norm, out = self._norm(state, f"{name}_layer_norm"), self._linear(state, f"{name}.out_proj")
        order = _interleaved(self.architecture)
        projections = [(f"{name}.{letter}_proj", letter != "v") for letter in "qkv"]
        weight, bias = (
            torch.cat(
                [
                    state[f"{each}.{kind}"][order] if turned else state[f"{each}.{kind}"]
                    for each, turned in projections
                ]
            )
            for kind in ("weight", "bias")
        )
        if self.dtype == torch.float32:
            return _Attention(norm, _Affine(self._cast(weight), self._cast(bias)), out)
        dim = self.architecture.dim
        weight, bias = self._wide(weight), self._wide(bias)
        bias += weight @ norm.bias
        shift = bias[: 2 * dim].view(2, self.architecture.heads, -1)
        of_values = self._wide(state[f"{name}.out_proj.weight"]) @ bias[2 * dim :]
        out_bias = self._wide(state[f"{name}.out_proj.bias"]) + of_values
        return _Attention(
            None,
            _Affine(self._cast(weight * norm.weight), shift),
            _Affine(out.weight, self._cast(out_bias)),
        )

    def _linear(self, state: Mapping[str, Tensor], name: str) -> _Affine:
        return _Affine(self._cast(state[f"{name}.weight"]), self._cast(state[f"{name}.bias"]))

    def _norm(self, state: Mapping[str, Tensor], name: str) -> _Affine:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return _Affine(self._wide(weight), self._wide(bias))

    # Always a copy: the file is memory-mapped, and may change or vanish while the model runs.

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype, copy=True)

    def _wide(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, torch.float32, copy=True)


def _has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch's attention over packed sequences can be used."""
    return (
        device.type == "cuda"
        and torch.version.cuda is not None  # not AMD's GPUs, which have the device's name too
        and dtype in (torch.float16, torch.bfloat16)
        and find_spec("torch.nn.attention.varlen") is not None  # since torch 2.10
        and torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY
    )


def _attend_one_by_one(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], out: Tensor
) -> None:
    """Write the attention within each chain to its rows of out; all (T, heads, head_dim)."""
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        one = [part[rows].transpose(0, 1)[None] for part in (q, k, v)]  # (1, heads, length, …)
        # Elsewhere a chain stays whole, so that its embedding is the same to the bit.
        for queries in torch.split(one[0], _QUERY_ROWS if watched() else length, dim=2):
            step()
            attended = nn.functional.scaled_dot_product_attention(queries, one[1], one[2])
            out[start : start + queries.shape[2]] = attended[0].transpose(0, 1)
            start += queries.shape[2]


def attend_at_once(q: Tensor, k: Tensor, v: Tensor, longest: int, offsets: Tensor) -> Tensor:
    """Return the attention within each chain, in one kernel; all (T, heads, head_dim).

    Like ``scaled_dot_product_attention``, it divides scores by sqrt(head_dim).
    """
    from torch.nn.attention.varlen import varlen_attn  # older torch has none

    attended = varlen_attn(q, k, v, offsets, offsets, longest, longest)
    assert isinstance(attended, Tensor)  # not a pair, as the normalisers are not requested
    return attended


def _add_linear(x: Tensor, hidden: Tensor, affine: _Affine) -> None:
    """Add a linear layer's output to x, which is float32 in every dtype."""
    if hidden.dtype == x.dtype:
        x += affine.bias
        x.addmm_(hidden, affine.weight.T)  # the sum is part of the product
    else:
        x += nn.functional.linear(hidden, affine.weight, affine.bias)


def _inverse_frequencies(architecture: Architecture, state: Mapping[str, Tensor]) -> Tensor:
    """Return (head_dim / 2,) float32 angles per position: the file's, as in fair-esm, or new."""
    stored = state.get("layers.0.self_attn.rot_emb.inv_freq")
    if stored is not None:
        return stored.float()
    width = architecture.head_dim
    inverse: Tensor = 1.0 / 10000 ** (torch.arange(0, width, 2).float() / width)
    return inverse


def _interleaved(architecture: Architecture) -> Tensor:
    """Return (D,) int64: the order of a projection's rows that puts rotated pairs side by side.

    Rotary embeddings turn elements i and i + head_dim / 2 of a head together. Side by side, a pair
    is one complex number, and one multiplication turns it: 3 to 9 times faster. Queries and keys
    are reordered alike, so that their products stay the same.
    """
    rows = torch.arange(architecture.dim).view(architecture.heads, 2, -1)
    return rows.transpose(1, 2).flatten()


def _rotate(qk: Tensor, rotation: Tensor) -> None:
    """Turn queries and keys (T, 2, heads, head_dim) float32 in place."""
    pairs = torch.view_as_complex(torch.unflatten(qk, -1, (-1, 2)))
    pairs *= rotation
