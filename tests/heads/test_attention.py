"""The pooling head equals torch's attention, and does not care what else is in the batch."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from protalign.core.ragged import Ragged
from protalign.heads.attention import AttentionHead
from protalign.heads.kernels import blocks
from protalign.heads.kernels import packed as packed_module
from protalign.heads.kernels.packed import PackedBatch

LENGTHS = [1, 5, 300, 2, 70, 64, 63, 65, 1, 1, 1000, 128]


def head_and_reference(
    dim: int, dtype: torch.dtype, seed: int = 0
) -> tuple[AttentionHead, nn.MultiheadAttention]:
    """A head with random parameters, and torch's own attention with the same ones."""
    torch.manual_seed(seed)
    head = AttentionHead(dim).to(dtype)
    reference = nn.MultiheadAttention(128, 4, kdim=dim, vdim=dim, batch_first=True).to(dtype)
    for parameter in (head.query, head.norm.weight, head.norm.bias, reference.in_proj_bias):
        nn.init.normal_(parameter)
    nn.init.normal_(reference.out_proj.bias)
    head.attention.load_state_dict(reference.state_dict())
    return head, reference


def packed(proteins: list[Tensor]) -> PackedBatch:
    """Proteins' rows, packed."""
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in proteins])])
    return PackedBatch.from_tensor(torch.cat(proteins), offsets)


def by_reference(
    head: AttentionHead, attention: nn.MultiheadAttention, proteins: list[Tensor]
) -> Tensor:
    """nn.MultiheadAttention, LayerNorm and unit length, one protein after another."""
    outputs = [
        attention(head.query[None, None], rows[None], rows[None])[0][0, 0] for rows in proteins
    ]
    return functional.normalize(head.norm(torch.stack(outputs)), dim=-1)


def separate_projections(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take apart the packed projection, which torch uses where kdim == vdim == embed_dim."""
    whole = named.pop("in_proj_weight", None)
    if whole is not None:
        named |= zip(
            ("q_proj_weight", "k_proj_weight", "v_proj_weight"), whole.chunk(3), strict=True
        )
    return named


@pytest.mark.parametrize("dim", [320, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_multihead_attention(dim: int, dtype: torch.dtype) -> None:
    """Values, and gradients by every parameter, are those of torch's module."""
    head, reference = head_and_reference(dim, dtype)
    proteins = [torch.randn(length, dim, dtype=dtype) for length in LENGTHS]
    ours = head(packed(proteins))
    theirs = by_reference(head, reference, proteins)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)

    upstream = torch.randn_like(ours)
    shared = [head.query, *head.norm.parameters()]
    ours_by = torch.autograd.grad(ours, [*shared, *head.attention.parameters()], upstream)
    theirs_by = torch.autograd.grad(theirs, [*shared, *reference.parameters()], upstream)
    pairs = list(zip(ours_by[: len(shared)], theirs_by[: len(shared)], strict=True))
    names = [name for name, _ in head.attention.named_parameters()]
    mine = dict(zip(names, ours_by[len(shared) :], strict=True))
    names = [name for name, _ in reference.named_parameters()]
    other = separate_projections(dict(zip(names, theirs_by[len(shared) :], strict=True)))
    assert set(mine) == set(other)
    pairs += [(mine[name], other[name]) for name in mine]
    for mine_by, other_by in pairs:
        size = max(float(other_by.abs().max()), 1e-3)
        torch.testing.assert_close(mine_by, other_by, atol=tolerance * size, rtol=0)


def test_backward_agrees_with_finite_differences() -> None:
    """Finite differences confirm the hand-written backward pass."""
    torch.manual_seed(0)
    rows = torch.randn(9, 6, dtype=torch.float64)
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    projection = torch.randn(3, 6, 2, dtype=torch.float64, requires_grad=True)
    offsets = np.array([0, 1, 4, 9])

    def pool(weight: Tensor, projection: Tensor) -> Tensor:
        return PackedBatch.from_tensor(rows, offsets).attention_heads(weight, projection)

    assert torch.autograd.gradcheck(pool, (weight, projection))


@pytest.mark.parametrize("elements", [64, 4096])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    """However the rows are cut into blocks, values and gradients are the same."""
    head, reference = head_and_reference(16, torch.float64)
    proteins = [torch.randn(length, 16, dtype=torch.float64) for length in LENGTHS]
    monkeypatch.setitem(blocks._BLOCK_ELEMENTS, "cpu", elements)
    ours, theirs = head(packed(proteins)), by_reference(head, reference, proteins)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    upstream = torch.randn_like(ours)
    mine = torch.autograd.grad(ours, head.query, upstream)
    torch.testing.assert_close(mine, torch.autograd.grad(theirs, head.query, upstream))


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums, weights and gradients are the same bits on one thread and three; settings stay."""
    monkeypatch.setitem(blocks._BLOCK_ELEMENTS, "cpu", 1024)
    monkeypatch.setattr(packed_module, "_BLOCKS_AT_ONCE", 2)
    torch.manual_seed(0)
    proteins = [torch.randn(length, 16) for length in LENGTHS]
    weight = torch.randn(16, 4, requires_grad=True)
    projection = torch.randn(4, 16, 5, requires_grad=True)
    lengths = np.array(LENGTHS)
    rows = torch.cat(proteins)
    upstream = torch.randn(4, len(LENGTHS), 5)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            batch = PackedBatch.from_tensor(rows, np.concatenate([[0], np.cumsum(lengths)]))
            workspace = packed_module._Workspace(batch, 4, weight.dtype)
            assert workspace._workers == threads
            pooled = batch.attention_heads(weight, projection)
            again = batch.attention_heads(weight, projection)  # before the first one's way back
            inputs = (weight, projection)
            gradients = torch.autograd.grad(pooled, inputs, upstream, retain_graph=True)
            repeated = torch.autograd.grad(again, inputs, upstream, retain_graph=True)
            assert all(map(torch.equal, gradients, repeated))
            found.append((pooled.detach(), batch.attention_weights(weight), *gradients))
            with torch.inference_mode():
                inferred = batch.attention_heads(weight, projection)
            assert torch.equal(inferred, pooled)
            seen: list[int] = []
            other = Thread(target=lambda seen=seen: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert seen == [torch.get_num_threads()] == [threads]
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        assert torch.equal(one, three)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=30), st.integers(0, 2**31))
def test_a_protein_s_vector_is_its_own(lengths: list[int], seed: int) -> None:
    """A protein's vector is the same, up to rounding, alone and in any batch; its length is 1."""
    head, _ = head_and_reference(24, torch.float32)
    torch.manual_seed(seed)
    proteins = [torch.randn(length, 24) for length in lengths]
    with torch.no_grad():
        together = head(packed(proteins))
        alone = torch.cat([head(packed([rows])) for rows in proteins])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(lengths)))


def test_order_of_residues_does_not_matter() -> None:
    """Attention by one token sums over a set: turned around, the rows give the same vector."""
    head, _ = head_and_reference(24, torch.float64)
    rows = torch.randn(90, 24, dtype=torch.float64)
    torch.testing.assert_close(head(packed([rows])), head(packed([rows.flip(0)])))


def test_half_precision_rows_are_read_as_they_are() -> None:
    """float16 rows, as stores keep them, give what the same numbers in float32 give."""
    head, _ = head_and_reference(320, torch.float32)
    rng = np.random.default_rng(0)
    rows = Ragged.pack([rng.normal(size=(n, 320)).astype(np.float16) for n in (3, 700, 41)])
    half = head(PackedBatch.from_ragged(rows))
    full = head(PackedBatch.from_ragged(Ragged(rows.values.astype(np.float32), rows.offsets)))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=1e-6, rtol=0)


def test_large_scores_do_not_overflow() -> None:
    """Scores in the thousands, which exp() cannot take, still give finite vectors."""
    head, reference = head_and_reference(24, torch.float32)
    proteins = [1e4 * torch.randn(length, 24) for length in (1, 50, 300)]
    ours = head(packed(proteins))
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours, by_reference(head, reference, proteins), atol=1e-4, rtol=0)


def test_a_protein_without_rows_is_refused() -> None:
    """There is nothing to pool in an empty protein: an error, not NaN."""
    with pytest.raises(ValueError, match="at least one row"):
        PackedBatch.from_tensor(torch.zeros(3, 4), np.array([0, 3, 3]))
