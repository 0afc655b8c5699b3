"""Files that the tests of the commands share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def few(tmp_path: Path, sample: Path) -> Path:
    """A folder with four files of the sample."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(sample.glob("*.pdb.gz"))[:4]:
        shutil.copy(path, folder)
    return folder
