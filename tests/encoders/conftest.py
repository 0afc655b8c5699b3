"""Random weights of ESM2's smallest size, in both kinds of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from esm.model.esm2 import ESM2

from protalign.encoders.esm2.weights import ARCHITECTURES
from tests.helpers.random_esm2 import TINY, random_esm2, save_published, save_tensors


@pytest.fixture(scope="session")
def tiny_model() -> ESM2:
    """fair-esm's ESM2 of the 8M size with random weights."""
    return random_esm2(ARCHITECTURES[TINY])


@pytest.fixture(scope="session")
def tiny_weights(tiny_model: ESM2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights in safetensors."""
    return save_tensors(tiny_model, tmp_path_factory.mktemp("esm2") / "tiny.safetensors")


@pytest.fixture(scope="session")
def published(tiny_model: ESM2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights in a .pt as fair-esm publishes them."""
    return save_published(tiny_model, tmp_path_factory.mktemp("esm2") / f"{TINY}.pt")


@pytest.fixture
def torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """An empty torch hub for one test; gives its folder of checkpoints."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return lambda: Path(torch.hub.get_dir()) / "checkpoints"
