"""Where the tests find real proteins."""

from __future__ import annotations

import gc

gc.disable()  # until the tests are collected: imports make a million objects, all of which stay

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from protalign.encoders.esm2.shipped import EmbeddedEncoder
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.splits import Split, write_split
from protalign.stores import EmbeddingStore
from tests.helpers.commands import run
from tests.helpers.estimator_stores import build, read, renamed, sequence_only, shaken
from tests.helpers.once import made_once

# Without a GPU Triton's kernels are interpreted. Triton looks when it is imported, which an
# optimiser of torch's does as well: before any test.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A property is about what comes out, not about how long it takes on a busy machine.
# In CI a change is not held up by an example that was drawn by chance: those are found elsewhere.
IN_CI = "CI" in os.environ
settings.register_profile(
    "protalign", deadline=None, max_examples=100 if IN_CI else 15, derandomize=IN_CI
)
settings.load_profile("protalign")

#: Browsers that the tests of pages drive, the first that is here.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REPOSITORY = Path(__file__).resolve().parent.parent


#: Files whose fixtures take longest, first: none is left when the other worker has ended.
LONGEST_FIRST = (
    "tests/report/test_reproduce.py",
    "tests/test_tutorial.py",
    "tests/test_embedding.py",
    "tests/test_docstrings.py",
    "tests/cli/test_embed.py",
    "tests/stores/test_filling.py",
    "tests/serve/test_page.py",
    "tests/search/test_hit_page.py",
    "tests/test_searching.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST_FIRST))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later search for garbage."""
    gc.freeze()
    gc.enable()


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


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """The sample's 40 chains, and three entries more.

    ``copy`` is the first chain again, ``shaken`` has the second one's sequence in another
    structure, ``fasta`` has no structure.
    """

    def make(folder: Path) -> None:
        chains = read(sample)
        others = [
            renamed(chains[0], "copy"),
            shaken(chains[1], "shaken"),
            sequence_only("fasta", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"),
        ]
        build(folder / "store.zarr", [*chains, *others])

    return made_once(tmp_path_factory, "sample", make) / "store.zarr"


@pytest.fixture(scope="session")
def store(store_path: Path) -> EmbeddingStore:
    """The store, opened. Only to be read."""
    return EmbeddingStore.open(store_path)


@pytest.fixture(scope="session")
def fitted(store: EmbeddingStore) -> ProtAlignEstimator:
    """A model fitted on the whole store. Only to be used, not to be changed."""
    return ProtAlignEstimator(max_epochs=30, random_state=0, device="cpu").fit(store)


@pytest.fixture(scope="session")
def encoder() -> str:
    """The name of the sequence encoder that ships with the package."""
    return EmbeddedEncoder.models()[0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, sample: Path, encoder: str) -> Path:
    """A folder of the sample's store, a split, a model fitted on it, vectors and labels.

    Only to be read. The split has the first 20 ids for training, the next 10 for validation and
    the rest for testing.
    """

    def make(folder: Path) -> None:
        store, model, split = folder / "store.zarr", folder / "model", folder / "split.csv"
        run("embed", sample, "--out", store, "--sequence-encoder", encoder)
        ids = EmbeddingStore.open(store).ids.tolist()
        write_split(
            Split(
                tuple(ids[:20]), tuple(ids[20:30]), tuple(ids[30:]), how="in the order of the ids"
            ),
            split,
        )
        run("fit", store, "--out", model, "--split", split, "--max-epochs", "15")
        run("export", store, "--model", model, "--out", folder / "vectors.parquet")
        with (folder / "labels.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "group", "sccs"])
            rows.writerows([i, place % 3, f"a.1.{place % 2 + 1}.1"] for place, i in enumerate(ids))

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def embedded_few(tmp_path_factory: pytest.TempPathFactory, sample: Path, encoder: str) -> Path:
    """A store of four files of the sample, to be copied by tests that change it."""
    folder = tmp_path_factory.mktemp("few")
    files = sorted(sample.glob("*.pdb.gz"))[:4]
    run("embed", *files, "--out", folder / "store.zarr", "--sequence-encoder", encoder)
    return folder / "store.zarr"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine.

    For one file of tests: while playwright runs, no other event loop can run in this thread.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()
