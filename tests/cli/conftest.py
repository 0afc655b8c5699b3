"""Files that the tests of the commands share."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from protalign import EmbeddingStore
from protalign.encoders.esm2.shipped import EmbeddedEncoder
from protalign.splits import Split, write_split
from tests.helpers.commands import run
from tests.helpers.once import made_once


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
