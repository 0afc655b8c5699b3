"""Where the tests find real proteins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Without a GPU Triton's kernels are interpreted. Triton looks when it is imported, which an
# optimiser of torch's does as well: before any test.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A property is about what comes out, not about how long it takes on a busy machine.
settings.register_profile("protalign", deadline=None)
settings.load_profile("protalign")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample() -> Path:
    """The 40 real chains that ship with the project."""
    return REPOSITORY / "examples" / "sample"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the repository: larger, and not part of the project."""
    path = REPOSITORY.parent / "shared"
    if not (path / "data" / "manifest.csv").is_file():
        pytest.skip("the development data (../shared/data) is not here")
    return path
