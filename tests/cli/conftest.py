"""What the commands' tests start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from protalign.encoders.esm2.shipped import EmbeddedEncoder
from tests.helpers.commands import run


@pytest.fixture(scope="session")
def encoder() -> str:
    """The sequence encoder that ships with the package."""
    return EmbeddedEncoder.models()[0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, sample: Path, encoder: str) -> Path:
    """A folder with the sample's store, model and vectors, made by the public commands."""
    folder = tmp_path_factory.mktemp("finished")
    store, model = folder / "store.zarr", folder / "model"
    run("embed", sample, "--out", store, "--sequence-encoder", encoder)
    run("fit", store, "--out", model, "--max-epochs", "20")
    run("export", store, "--model", model, "--out", folder / "vectors.parquet")
    return folder


@pytest.fixture
def few(tmp_path: Path, sample: Path) -> Path:
    """A folder with four files of the sample."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(sample.glob("*.pdb.gz"))[:4]:
        shutil.copy(path, folder)
    return folder
