"""An index of vectors that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.indexed_vectors import make_index


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors as a file and as a folder, and the folder's index. Only to be read."""
    return make_index(tmp_path_factory.mktemp("indexed"))
