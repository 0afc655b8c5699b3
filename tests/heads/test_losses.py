"""The losses equal their references' formulas, written out here as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from protalign.core.arrays import Float64
from protalign.heads.losses import ContrastiveLoss


def batch(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make n pairs of unit-length vectors, as similar as a half-trained model's."""
    torch.manual_seed(seed)
    sequence = torch.randn(n, 128, dtype=torch.float64)
    structure = sequence + torch.randn(n, 128, dtype=torch.float64)
    return functional.normalize(sequence, dim=1), functional.normalize(structure, dim=1)


def log_softmax_term(row: Float64, index: int) -> float:
    """Return the log of softmax(row)[index]."""
    shifted = row - row.max()
    return float(shifted[index] - math.log(np.exp(shifted).sum()))


def clip_by_loops(sequence: Tensor, structure: Tensor, temperature: float) -> float:
    """Compute the paper's Eq. 2 term by term."""
    similar = (sequence @ structure.T / temperature).numpy()
    n = len(similar)
    return -sum(
        log_softmax_term(similar[i], i) + log_softmax_term(similar[:, i], i) for i in range(n)
    ) / (2 * n)


def siglip_by_loops(sequence: Tensor, structure: Tensor, temperature: float, bias: float) -> float:
    """Compute -sum log sigmoid(y (s + b)) / N, with the sign of b in SigLIP's code."""
    similar = (sequence @ structure.T / temperature).numpy()
    total = 0.0
    for i in range(len(similar)):
        for j in range(len(similar)):
            logit = (1 if i == j else -1) * (similar[i, j] + bias)
            total += -logit if logit < -30 else math.log1p(math.exp(-logit))
    return total / len(similar)


@pytest.mark.parametrize("temperature", [0.07, 0.035, 0.02, 0.001])
@pytest.mark.parametrize("n", [2, 37])
def test_clip(n: int, temperature: float) -> None:
    """CLIP's loss is Eq. 2, at every temperature that the paper tries."""
    pair = batch(n)
    ours = ContrastiveLoss("clip", temperature).double()(*pair)
    assert ours.item() == pytest.approx(clip_by_loops(*pair, temperature), rel=1e-6)


@pytest.mark.parametrize("bias", [-10.0, 0.0, 3.0])
@pytest.mark.parametrize("n", [2, 37])
def test_siglip(n: int, bias: float) -> None:
    """SigLIP's loss is its own code's formula, for any bias."""
    pair = batch(n)
    ours = ContrastiveLoss("siglip", 0.07, bias).double()(*pair)
    assert ours.item() == pytest.approx(siglip_by_loops(*pair, 0.07, bias), rel=1e-6)


def test_the_bias_starts_by_calling_pairs_negative() -> None:
    """At b = -10 unrelated vectors cost next to nothing; with the sign turned, 10 a pair."""
    torch.manual_seed(0)
    pair = [functional.normalize(torch.randn(64, 128), dim=1) for _ in range(2)]
    low, high = (ContrastiveLoss("siglip", 0.07, bias)(*pair).item() for bias in (-10.0, 10.0))
    assert low < 15  # about 10 for each true pair, all else near 0
    assert high > 500


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_perfect_alignment_is_the_minimum(kind: str) -> None:
    """Loss falls from shuffled to true partners."""
    sequence, structure = batch(50)
    loss = ContrastiveLoss(kind).double()
    assert loss(sequence, structure) < loss(sequence, structure.roll(1, dims=0))


def test_what_is_learned() -> None:
    """The temperature is fixed unless asked for; SigLIP's bias is always learned, CLIP has none."""

    def learned(loss: ContrastiveLoss) -> set[str]:
        return {name for name, value in loss.named_parameters() if value.requires_grad}

    assert learned(ContrastiveLoss("clip")) == set()
    assert learned(ContrastiveLoss("clip", learnable_temperature=True)) == {"log_scale"}
    assert learned(ContrastiveLoss("siglip")) == {"bias"}
    assert ContrastiveLoss("clip", 0.07).temperature == pytest.approx(0.07)


def test_a_learned_temperature_has_a_floor() -> None:
    """1 / tau stops at 100, as in CLIP; or at its start, if that is above 100."""
    loss = ContrastiveLoss("clip", 0.07, learnable_temperature=True)
    with torch.no_grad():
        loss.log_scale.fill_(20.0)
    assert loss.temperature == pytest.approx(0.01)
    assert ContrastiveLoss("clip", 0.001, learnable_temperature=True).temperature == pytest.approx(
        0.001
    )
