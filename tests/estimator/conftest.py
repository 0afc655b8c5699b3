"""The stores and the fitted model that the estimator's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from estimator_stores import build, read, renamed, sequence_only, shaken

from protalign.estimator import ProtAlignEstimator
from protalign.stores import EmbeddingStore


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches are small here: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """The sample's 40 chains, and three entries more.

    ``copy`` is the first chain again, ``shaken`` has the second one's sequence in another
    structure, ``fasta`` has no structure.
    """
    chains = read(sample)
    others = [
        renamed(chains[0], "copy"),
        shaken(chains[1], "shaken"),
        sequence_only("fasta", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"),
    ]
    return build(tmp_path_factory.mktemp("stores") / "store.zarr", [*chains, *others])


@pytest.fixture(scope="session")
def store(store_path: Path) -> EmbeddingStore:
    """The store, opened. Only to be read."""
    return EmbeddingStore.open(store_path)


@pytest.fixture(scope="session")
def fitted(store: EmbeddingStore) -> ProtAlignEstimator:
    """A model fitted on the whole store. Only to be used, not to be changed."""
    return ProtAlignEstimator(max_epochs=30, random_state=0, device="cpu").fit(store)
