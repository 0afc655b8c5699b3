"""Adam's steps equal torch's, and a fit imports no compiler."""

from __future__ import annotations

import subprocess
import sys

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.heads.adam import Adam


@settings(max_examples=20, deadline=None)
@given(
    rate=st.floats(1e-6, 1.0),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_steps_equal_torchs(rate: float, sizes: list[int], seed: int) -> None:
    """Parameters have the same bits as torch's after each step, also one that had no gradient."""
    generator = torch.Generator().manual_seed(seed)
    starts = [torch.randn(size, size + 1, generator=generator) for size in sizes]
    ours = [torch.nn.Parameter(start.clone()) for start in starts]
    theirs = [torch.nn.Parameter(start.clone()) for start in starts]
    optimisers = Adam(ours, rate), torch.optim.Adam(theirs, lr=rate)
    for step in range(4):
        for optimiser in optimisers:
            optimiser.zero_grad()
        for place, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(our.shape, generator=generator)
            if place or step % 2:
                our.grad, their.grad = gradient, gradient.clone()
        for optimiser in optimisers:
            optimiser.step()
        assert all(torch.equal(our, their) for our, their in zip(ours, theirs, strict=True))


def test_no_compiler_is_imported() -> None:
    """Training takes no time for the compiler of torch."""
    program = """
import sys, torch
from protalign.heads.adam import Adam
weight = torch.nn.Parameter(torch.ones(2))
optimiser = Adam([weight], 0.1)
optimiser.zero_grad()
weight.sum().backward()
optimiser.step()
assert weight[0] < 1
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
