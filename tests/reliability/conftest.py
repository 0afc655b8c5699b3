"""A process that runs commands, and what they work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protalign.core.protein import Protein
from tests.helpers.commands import run
from tests.helpers.forks import Forks
from tests.helpers.once import made_once
from tests.helpers.poisoned import write_plugin
from tests.helpers.stores import read_protein


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs commands in forks."""
    with Forks() as running:
        yield running


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that announces an encoder."""
    folder = tmp_path_factory.mktemp("plugin")
    write_plugin(folder)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, store_path: Path) -> Path:
    """A model of the sample's store, its vectors, a split and a table. Only to be read."""

    def make(folder: Path) -> None:
        ids = (f"{chain},{'train' if place % 3 else 'test'}\n" for place, chain in enumerate(IDS))
        (folder / "parts.csv").write_text("id,part\n" + "".join(ids))
        run("split", store_path, "--by", "column", folder / "parts.csv", "--out", folder / "s.csv")
        run("fit", store_path, "--out", folder / "model", "--max-epochs", "2", "--embed-dim", "16")
        vectors = folder / "vectors.parquet"
        run("export", store_path, "--model", folder / "model", "--out", vectors)

    return made_once(tmp_path_factory, "reliability", make)


#: Every third is a test protein: four different ones, as a report needs.
IDS = (
    *("107l_A", "108l_A", "1a2p_A", "1bpi_A", "1bns_C", "1gob_A"),
    *("1b5m_A", "109l_A", "1bti_A", "1vqb_A", "1ban_A", "110l_A"),
)


@pytest.fixture(scope="session")
def proteins(sample: Path) -> list[Protein]:
    """20 real chains."""
    files = sorted(path for path in sample.iterdir() if ".pdb" in path.name or ".cif" in path.name)
    return [read_protein(path) for path in files[:20]]
