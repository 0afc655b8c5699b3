"""The sample's store, a split of it and a report on them: made once, by the public commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_files import ODD_ID, PROTALIGN, TEST, Files, run

from protalign.splits import Split, write_split
from protalign.stores import EmbeddingStore


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Files:
    """A store of the sample and of one chain more under an odd id; a split by families."""
    folder = tmp_path_factory.mktemp("reproduce")
    odd = folder / f"{ODD_ID}.pdb.gz"
    shutil.copy(sample / "1vqb_A.pdb.gz", odd)
    found = Files(folder / "store.zarr", folder / "split.csv", folder / "report")
    encoder = ("--sequence-encoder", "protalign_t6_2M")
    run(PROTALIGN, "embed", sample, odd, "--out", found.store, "--quiet", *encoder)
    others = [i for i in EmbeddingStore.open(found.store).ids.tolist() if i not in TEST]
    validation = tuple(others[::3])
    train = tuple(i for i in others if i not in validation)
    write_split(Split(train, validation, TEST, "two families to test on"), found.split)
    return found


@pytest.fixture(scope="session")
def report(files: Files) -> Path:
    """The report's folder. Only to be read."""
    run(*files.words())
    return files.out
