"""ESM2's attention over all chains at once, as it is done on a GPU."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import esm
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from protalign.encoders import EncoderSpec, load_encoder
from protalign.encoders.esm2.network import PackedESM2, attend_at_once
from protalign.encoders.esm2.weights import ARCHITECTURES
from tests.helpers.random_esm2 import TINY, random_esm2

pytestmark = pytest.mark.skipif(
    find_spec("torch.nn.attention.varlen") is None, reason="torch has no varlen_attn"
)

CHAINS = [("MKTAYIAKQR",), ("GS", "ACDEFGHIKLMNPQRSTVWY"), ("M",)]


def packed(chains: list[tuple[str, ...]]) -> tuple[Tensor, list[int]]:
    """fair-esm's own tokens of all chains, one after another, and how many each has."""
    convert = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()
    tokens = [convert([("", chain)])[2][0] for item in chains for chain in item]
    return torch.cat(tokens), [len(each) for each in tokens]


def embed(dtype: torch.dtype, **attention: bool) -> Tensor:
    """Embed the chains with random weights of the smallest size."""
    size = ARCHITECTURES[TINY]
    network = PackedESM2(
        size,
        random_esm2(size).state_dict(),
        layer=size.layers,
        device=torch.device("cpu"),
        dtype=dtype,
        **attention,
    )
    return network(*packed(CHAINS))


@pytest.fixture(scope="module")
def expected() -> Tensor:
    """The embeddings in float32, one chain at a time."""
    return embed(torch.float32)


@pytest.fixture
def varlen_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's operation, which needs a GPU, in words."""
    module = import_module("torch.nn.attention.varlen")  # which imports torch's compiler
    monkeypatch.setattr(module, "varlen_attn", varlen_attn_in_words)


def varlen_attn_in_words(
    q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    """Attend as torch documents ``varlen_attn``: (T, heads, head_dim), within a chain."""
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


@pytest.mark.usefixtures("varlen_on_a_cpu")
def test_all_chains_at_once_is_chain_by_chain(expected: Tensor) -> None:
    """Both ways of attention give the same embeddings."""
    torch.testing.assert_close(embed(torch.float32, at_once=True), expected, atol=1e-5, rtol=1e-7)


@pytest.mark.usefixtures("varlen_on_a_cpu")
@pytest.mark.parametrize("at_once", [True, False])
def test_half_precision_as_on_an_accelerator(expected: Tensor, at_once: bool) -> None:
    """bfloat16 attention of all chains at once, and of one at a time: near to float32."""
    half = embed(torch.bfloat16, at_once=at_once, wide_attention=False)
    assert torch.nn.functional.cosine_similarity(half, expected).min() > 0.9998


@pytest.mark.parametrize("model", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_size_is_taken(model: str, dtype: torch.dtype) -> None:
    """Torch's operation takes every size's shapes and strides, as its rules for a GPU have it."""
    size = ARCHITECTURES[model]
    assert size.head_dim % 8 == 0  # FlashAttention's condition, up to 256
    assert size.head_dim <= 256
    with FakeTensorMode(), torch.inference_mode():
        qkv = torch.empty(50, 3, size.heads, size.head_dim, dtype=dtype, device="cuda")
        offsets = torch.empty(4, dtype=torch.int32, device="cuda")
        attended = attend_at_once(*qkv.unbind(1), 30, offsets)
    assert attended.shape == (50, size.heads, size.head_dim)
    assert attended.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_what_a_cpu_gives(tiny_weights: Path) -> None:
    """bfloat16 on a GPU, by FlashAttention where it is supported, agrees with float32 on a CPU."""
    expected = np.concatenate(
        load_encoder(EncoderSpec(TINY, str(tiny_weights), device="cpu")).encode(CHAINS)
    )
    found = np.concatenate(
        load_encoder(EncoderSpec(TINY, str(tiny_weights), device="cuda")).encode(CHAINS)
    )
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    assert ((expected * found).sum(axis=1) / norms).min() > 0.999
