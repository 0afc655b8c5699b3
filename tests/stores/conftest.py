"""Stores that many tests read, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign.core.protein import Protein
from protalign.stores import StoreWriter
from tests.helpers.stores import OPTIONS, build, complex_of, read_protein, sequence_only


@pytest.fixture(scope="session")
def proteins(sample: Path) -> list[Protein]:
    """20 real chains, a complex of two of them, and two entries that have no structure.

    ``twin`` has the sequence of a structure's; ``long`` takes several chunks of its own.
    """
    files = sorted(path for path in sample.iterdir() if ".pdb" in path.name or ".cif" in path.name)
    chains = [read_protein(path) for path in files[:20]]
    others = [
        complex_of("dimer", chains[3], chains[8]),
        sequence_only("twin", *chains[5].sequences),
        sequence_only("long", "".join(p.sequences[0] for p in chains[:6])),
    ]
    return chains + others


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without entries. Only to be copied: making one takes longer."""
    path = tmp_path_factory.mktemp("empty") / "store.zarr"
    with StoreWriter(path, OPTIONS):
        pass
    return path


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, proteins: list[Protein]) -> Path:
    """A store of them with both test encoders' embeddings. Only to be read."""
    return build(tmp_path_factory.mktemp("filled") / "store.zarr", proteins)


@pytest.fixture(scope="session")
def shards(filled: Path, proteins: list[Protein]) -> Path:
    """A folder of three stores of the same proteins, beside it. Only to be read."""
    folder = filled.parent / "shards"
    folder.mkdir()
    for name, part in (("9", proteins[:9]), ("10", proteins[9:10]), ("11", proteins[10:])):
        build(folder / f"{name}.zarr", part)
    return folder
