"""Random parameters come from their seed alone, in any number of threads."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.heads.poolings import POOLINGS
from protalign.heads.seeded import seeded, sizes_only


def model(pooling: str) -> dict[str, torch.Tensor]:
    """The parameters of a new model."""
    made = Model(
        {"sequence": 20, "structure": 12}, ContrastiveLoss("siglip"), pooling=pooling, embed_dim=16
    )
    return made.state_dict()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether all parameters are the same to the bit."""
    return all(torch.equal(first[name], second[name]) for name in first)


def state() -> tuple[Any, ...]:
    """The generators that all of a process's code shares."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_numbers_are_those_of_torchs_own_seed(pooling: str) -> None:
    """So that a seed gives the model that it gave before, and the shared generators stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = model(pooling)
    before = state()
    with seeded(7):
        made = model(pooling)
    assert equal(made, expected)
    assert state() == before
    with seeded(8):
        assert not equal(model(pooling), expected)


@pytest.mark.parametrize(
    "draw",
    [
        *(lambda: torch.rand(9), lambda: torch.randn(9), lambda: torch.randperm(9)),
        *(lambda: torch.empty(9).normal_(), lambda: torch.empty(9).uniform_()),
        *(lambda: torch.bernoulli(torch.full((9,), 0.5)), lambda: torch.randint(99, (9,))),
        *(lambda: nn.init.trunc_normal_(torch.empty(9)), lambda: nn.Linear(3, 3).weight.detach()),
        *(
            lambda: nn.init.orthogonal_(torch.empty(3, 3)),
            lambda: nn.Embedding(3, 3).weight.detach(),
        ),
        *(lambda: nn.init.kaiming_normal_(torch.empty(3, 3)), lambda: torch.normal(0.0, 1.0, (9,))),
    ],
)
def test_every_kind_of_draw(draw: Any) -> None:
    """Whatever a head of one's own draws its parameters with."""
    before = state()
    with seeded(3):
        first = draw()
    with seeded(3):
        second = draw()
    assert torch.equal(first, second)
    assert state() == before


def test_threads_do_not_meet() -> None:
    """Each draws from its seed while the others draw, and while one uses torch's own generator."""
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            torch.manual_seed(0)
            torch.rand(100)

    def make(seed: int) -> dict[str, torch.Tensor]:
        with seeded(seed):
            return model("attention")

    expected = [make(seed) for seed in range(4)]
    with ThreadPoolExecutor(5) as pool:
        pool.submit(disturb)
        try:
            made = list(pool.map(make, [0, 1, 2, 3] * 20))
        finally:
            done.set()
    for number, parameters in enumerate(made):
        assert equal(parameters, expected[number % 4])


def test_sizes_alone_draw_nothing() -> None:
    """Every kind of head is made without memory, and torch's generator is left as it was."""
    before = torch.get_rng_state()
    for pooling in POOLINGS:
        with sizes_only():
            parameters = model(pooling)
        assert all(tensor.is_meta for tensor in parameters.values())
    assert torch.equal(torch.get_rng_state(), before)
