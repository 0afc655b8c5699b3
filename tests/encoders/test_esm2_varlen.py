"""ESM2's attention over all chains at once, as it is done on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from protalign.encoders import EncoderSpec, load_encoder
from protalign.encoders.esm2 import network as esm2_packed
from protalign.encoders.esm2.weights import ARCHITECTURES
from tests.helpers.random_esm2 import TINY, random_esm2, save_tensors

varlen = pytest.importorskip("torch.nn.attention.varlen", reason="torch has no varlen_attn")

CHAINS = [("MKTAYIAKQR",), ("GS", "ACDEFGHIKLMNPQRSTVWY"), ("M",)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest architecture with random weights."""
    path = tmp_path_factory.mktemp("esm2") / "tiny.safetensors"
    return save_tensors(random_esm2(ARCHITECTURES[TINY]), path)


def varlen_attn_in_words(
    q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    """What torch documents of ``varlen_attn``: (T, heads, head_dim), attention within a chain."""
    assert ends_q is ends_k
    assert ends_q.dtype == torch.int32
    lengths = ends_q.diff().tolist()
    assert max(lengths) == max_q == max_k
    split = [part.split(lengths) for part in (q, k, v)]
    chains = [
        scaled_dot_product_attention(*(part.transpose(0, 1) for part in chain)).transpose(0, 1)
        for chain in zip(*split, strict=True)
    ]
    return torch.cat(chains)


def test_all_chains_at_once_is_chain_by_chain(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways of attention give the same embeddings."""
    spec = EncoderSpec(TINY, str(weights), device="cpu")
    expected = load_encoder(spec).encode(CHAINS)
    monkeypatch.setattr(esm2_packed, "_varlen_on", lambda device, dtype: True)
    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn_in_words)
    for ours, theirs in zip(load_encoder(spec).encode(CHAINS), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("at_once", [True, False])
def test_half_precision_as_on_an_accelerator(
    weights: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """bfloat16 attention of all chains at once, and of one at a time: near to float32."""
    expected = np.concatenate(
        load_encoder(EncoderSpec(TINY, str(weights), device="cpu")).encode(CHAINS)
    )
    monkeypatch.setattr(esm2_packed, "_wide_attention_on", lambda device: False)
    monkeypatch.setattr(esm2_packed, "_varlen_on", lambda device, dtype: at_once)
    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn_in_words)
    half = load_encoder(EncoderSpec(TINY, str(weights), device="cpu", dtype="bfloat16"))
    found = np.concatenate(half.encode(CHAINS))
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / norms).min() > 0.9998


@pytest.mark.parametrize("model", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_size_is_taken(model: str, dtype: torch.dtype) -> None:
    """torch's operation takes every size's shapes and strides, as its rules for a GPU have it."""
    size = ARCHITECTURES[model]
    assert size.head_dim % 8 == 0  # FlashAttention's condition, up to 256
    assert size.head_dim <= 256
    with FakeTensorMode(), torch.inference_mode():
        qkv = torch.empty(50, 3, size.heads, size.head_dim, dtype=dtype, device="cuda")
        offsets = torch.empty(4, dtype=torch.int32, device="cuda")
        attended = esm2_packed._attend_at_once(*qkv.unbind(1), 30, offsets)
    assert attended.shape == (50, size.heads, size.head_dim)
    assert attended.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_what_a_cpu_gives(weights: Path) -> None:
    """bfloat16 on a GPU, by FlashAttention where it is supported, agrees with float32 on a CPU."""
    expected = np.concatenate(
        load_encoder(EncoderSpec(TINY, str(weights), device="cpu")).encode(CHAINS)
    )
    found = np.concatenate(
        load_encoder(EncoderSpec(TINY, str(weights), device="cuda")).encode(CHAINS)
    )
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    assert ((expected * found).sum(axis=1) / norms).min() > 0.999
