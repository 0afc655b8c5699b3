"""An index of the sample's store, and small stores that grow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from protalign import EmbeddingStore, Model, ProtAlignEstimator
from protalign.core.protein import Protein
from protalign.search import index_store
from tests.helpers.estimator_stores import build, read
from tests.search.words import WORDS


@pytest.fixture(scope="module")
def model(fitted: ProtAlignEstimator) -> Model:
    """A model with a residue stage."""
    return fitted.model_


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Model, store: EmbeddingStore) -> Path:
    """An index of the store. Only to be read."""
    path = tmp_path_factory.mktemp("words") / "index"
    index_store(model, store, path, n_words=WORDS)
    return path


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Path:
    """The index, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def chains(sample: Path) -> list[Protein]:
    """The sample's chains, short ones first: they are embedded soonest."""
    return sorted(read(sample), key=len)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, chains: list[Protein]) -> Path:
    """A store of 8 chains. Only to be read."""
    return build(tmp_path_factory.mktemp("small") / "store.zarr", chains[:8])


@pytest.fixture
def grown(
    small: Path, chains: list[Protein], tmp_path: Path
) -> tuple[Path, Callable[[], EmbeddingStore]]:
    """A store of 8 chains, and what makes it one of 11."""
    path = Path(shutil.copytree(small, tmp_path / "grown.zarr"))
    return path, lambda: EmbeddingStore.open(build(path, chains[8:11]))
