"""The sample, embedded once and served in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from protalign.searching import Targets, ready_targets
from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.settings import Limits, Settings
from tests.serve.helpers import SMALL, client


@pytest.fixture(scope="session")
def targets(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Targets:
    """The sample's store, with vectors of the model that ships."""
    return ready_targets(finished / "store.zarr", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def library(targets: Targets) -> Library:
    """The library of the sample. Only to be read."""
    return Library(targets.searcher(device="cpu"), targets.name, targets.line)


@pytest.fixture(scope="session")
def served(library: Library) -> Iterator[TestClient]:
    """A client of a server with small limits of bytes."""
    with client(make_app(lambda: library, Settings(Limits(**SMALL)), threads=2)) as asking:
        yield asking
