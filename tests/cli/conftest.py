"""Files that the tests of the commands share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import run


@pytest.fixture
def few(tmp_path: Path, sample: Path) -> Path:
    """A folder with four files of the sample."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(sample.glob("*.pdb.gz"))[:4]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def embedded_few(tmp_path_factory: pytest.TempPathFactory, sample: Path, encoder: str) -> Path:
    """A store of four files of the sample, to be copied by tests that change it."""
    folder = tmp_path_factory.mktemp("few")
    files = sorted(sample.glob("*.pdb.gz"))[:4]
    run("embed", *files, "--out", folder / "store.zarr", "--sequence-encoder", encoder)
    return folder / "store.zarr"
