"""The fused kernels equal torch's attention and the plain path; without a GPU, interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from protalign.core.ragged import Ragged
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads import rows as training_rows
from protalign.heads.kernels import batch as batches
from protalign.heads.kernels import fused as fused_pooling
from protalign.heads.kernels.fused import RangeBatch
from protalign.heads.kernels.packed import PackedBatch
from tests.heads.test_attention import by_reference, head_and_reference, separate_projections

pytest.importorskip("triton", reason="the fused kernels need Triton, which is not installed")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: First row and number of rows of proteins that overlap, are repeated, or are one row long.
RANGES = [(399, 1), (0, 70), (50, 7), (3, 1), (101, 32), (50, 7), (300, 3)]


def range_batch(values: Tensor, ranges: list[tuple[int, int]]) -> RangeBatch:
    """Make a batch of proteins that are ranges of a tensor."""
    starts, lengths = np.array(ranges, dtype=np.int64).T
    [batch] = RangeBatch.several(values, [starts], [lengths])
    return batch


def pooled(batch: PackedBatch | RangeBatch, weight: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Return the sums, and the weight's gradient for the upstream one."""
    weight = weight.clone().requires_grad_()
    dim, heads = weight.shape
    as_they_are = torch.eye(dim, dtype=weight.dtype, device=weight.device).expand(heads, -1, -1)
    sums = batch.in_order(batch.attention_heads(weight, as_they_are).transpose(0, 1))
    (gradient,) = torch.autograd.grad(sums, weight, upstream)
    return sums.detach(), gradient


def check_equal(values: Tensor, ranges: list[tuple[int, int]], heads: int) -> None:
    """Compare sums, gradients and attention of the fused path with the plain path in float64."""
    fused = range_batch(values, ranges)
    lengths = np.array([length for _, length in ranges])
    plain = PackedBatch.of([rows.double() for rows in fused.proteins], lengths)
    weight = torch.randn(values.shape[1], heads, device=DEVICE) / values.shape[1] ** 0.5
    upstream = torch.randn(len(ranges), heads, values.shape[1], device=DEVICE)
    found = pooled(fused, weight, upstream)
    expected = pooled(plain, weight.double(), upstream.double())
    for ours, theirs in zip(found, expected, strict=True):
        size = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5 * size, rtol=0)
    attention = fused.attention_weights(weight)
    theirs = plain.attention_weights(weight.double())
    torch.testing.assert_close(attention.double(), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("dim", "heads", "dtype"),
    [
        (1, 2, torch.float32),
        (20, 1, torch.bfloat16),
        (128, 4, torch.float32),
        (480, 3, torch.bfloat16),
        (1280, 4, torch.float16),
    ],
)
def test_equals_the_plain_path(dim: int, heads: int, dtype: torch.dtype) -> None:
    """Sums, gradients and attention of rows anywhere, for widths of one block or odd ones."""
    torch.manual_seed(0)
    check_equal(torch.randn(400, dim, device=DEVICE).to(dtype), RANGES, heads)


@pytest.mark.slow
@settings(max_examples=4)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=4),
    st.sampled_from([1, 2, 3, 4, 5]),  # a program works on four at once
)
def test_any_ranges(ranges: list[tuple[int, int]], heads: int) -> None:
    """However long the proteins are and wherever they lie, for any number of heads."""
    torch.manual_seed(0)
    check_equal(torch.randn(80, 7, device=DEVICE).half(), ranges, heads)


@pytest.mark.parametrize("dim", [320, 128])
def test_equals_multihead_attention(dim: int) -> None:
    """Vectors, and gradients by every parameter, are those of torch's module."""
    head, reference = (part.to(DEVICE) for part in head_and_reference(dim, torch.float32))
    proteins = [torch.randn(length, dim, device=DEVICE) for length in (1, 5, 90, 2, 33)]
    offsets = np.cumsum([0, *map(len, proteins)])
    [batch] = RangeBatch.several(torch.cat(proteins), [offsets[:-1]], [np.diff(offsets)])
    ours, theirs = head(batch), by_reference(head, reference, proteins)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    upstream = torch.randn_like(ours)
    mine = torch.autograd.grad(ours, [head.query, *head.attention.parameters()], upstream)
    others = torch.autograd.grad(theirs, [head.query, *reference.parameters()], upstream)
    names = [name for name, _ in head.attention.named_parameters()]
    by_name = dict(zip([name for name, _ in reference.named_parameters()], others[1:], strict=True))
    expected = separate_projections(by_name) | {"query": others[0]}
    for name, gradient in zip(["query", *names], mine, strict=True):
        size = max(float(expected[name].abs().max()), 1e-3)
        torch.testing.assert_close(gradient, expected[name], atol=1e-5 * size, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(DEVICE.type == "cuda", reason="a GPU sets the number of programs")
@pytest.mark.parametrize("shares", [1, 2, 9])
def test_shares_change_nothing(monkeypatch: pytest.MonkeyPatch, shares: int) -> None:
    """The number of shares does not matter, even if it is larger than the number of proteins."""
    monkeypatch.setattr(fused_pooling, "_SHARES_INTERPRETED", shares)
    torch.manual_seed(0)
    check_equal(torch.randn(400, 24).half(), RANGES, 4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_gradients_of_any_size_are_exact(size: float) -> None:
    """float16 operands hold gradients far below and above what float16 holds."""
    torch.manual_seed(0)
    batch = range_batch(torch.randn(400, 24, device=DEVICE).half(), RANGES)
    weight = torch.randn(24, 4, device=DEVICE)
    upstream = torch.randn(len(RANGES), 4, 24, device=DEVICE)
    upstream[1:3] *= 1e-6
    _, whole = pooled(batch, weight, upstream)
    _, scaled = pooled(batch, weight, size * upstream)
    torch.testing.assert_close(scaled / size, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


def test_large_scores_do_not_overflow() -> None:
    """Scores in the thousands, which exp() cannot take, still give finite sums."""
    torch.manual_seed(0)
    values = 1e3 * torch.randn(400, 24, device=DEVICE)
    weight = 24 * torch.randn(24, 4, device=DEVICE)
    assert torch.isfinite(range_batch(values, RANGES).attention_sums(weight)).all()


def test_what_is_not_finite_stays_with_its_protein() -> None:
    """A protein with NaN or infinity has no finite sum; the other sums stay as they were."""
    values = torch.randn(400, 24, device=DEVICE)
    weight = torch.randn(24, 4, device=DEVICE)
    whole = range_batch(values, RANGES).attention_sums(weight)
    values[399, 3], values[302, 5] = torch.nan, torch.inf
    broken = range_batch(values, RANGES).attention_sums(weight)
    finite = torch.isfinite(broken).all(dim=2).all(dim=1)
    assert finite.tolist() == [False, True, True, True, True, True, False]
    assert torch.equal(broken[finite], whole[finite])


def test_a_protein_without_rows_is_refused() -> None:
    """There is nothing to pool in an empty protein: an error, not NaN."""
    rows = Ragged(np.zeros((3, 4), dtype=np.float16), np.array([0, 3, 3]))
    with pytest.raises(ValueError, match="at least one row"):
        RangeBatch.from_ragged(rows, DEVICE)


def use_fused_kernels(monkeypatch: pytest.MonkeyPatch, *, use: bool) -> None:
    """Choose the kind of every batch, on any device."""
    for module in (batches, training_rows):
        monkeypatch.setattr(module, "runs_triton", lambda device: use)


@pytest.mark.slow
def test_training_ends_where_the_plain_path_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit by fused kernels, rows held or streamed, has the plain path's losses and attention."""
    rng = np.random.default_rng(0)
    pairs = [
        tuple(rng.normal(size=(length, 8)).astype(np.float16) for _ in range(2))
        for length in rng.integers(1, 20, 6)
    ]

    def fitted() -> ProtAlignEstimator:
        model = ProtAlignEstimator(
            max_epochs=1, batch_size=2, random_state=0, device=str(DEVICE), validation_fraction=0.3
        )
        return model.fit(pairs)

    use_fused_kernels(monkeypatch, use=False)
    plain = fitted()
    use_fused_kernels(monkeypatch, use=True)
    held = fitted()
    monkeypatch.setattr(training_rows, "memory_for_rows", lambda device: 0.0)
    streamed = fitted()
    assert streamed.loss_curve_ == held.loss_curve_
    np.testing.assert_allclose(held.loss_curve_, plain.loss_curve_, atol=1e-5)
    assert streamed.validation_curve_ == held.validation_curve_ == plain.validation_curve_
    attention = held.attention(pairs)["sequence"]
    for ours, theirs in zip(attention, plain.attention(pairs)["sequence"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_kernels_compile_for_gpus() -> None:
    """Every kernel compiles for A100 and H100, within the memory that these have on chip."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compile_kernels.py"
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    assert len(lines) == 12
    assert max(int(line.split()[-1]) for line in lines) <= 160 * 1024
