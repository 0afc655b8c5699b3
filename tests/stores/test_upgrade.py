"""Stores of format 1.0: read and added to as they are, and protected after an upgrade."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from protalign.core.errors import StoreError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.format.disk import COMMIT_MARK
from protalign.stores.format.lock import StoreLock
from protalign.stores.format.state import StoreState
from tests.helpers.commands import run
from tests.helpers.stores import OPTIONS, build, tree

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A store of version 0.1.0."""
    with tarfile.open(DATA / "version-0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "store.zarr"


def chunks(path: Path) -> dict[str, bytes]:
    """Every chunk file of a store."""
    return {name: data for name, data in tree(path).items() if Path(name).name.startswith("c.")}


@pytest.fixture
def without_checksums(tmp_path: Path, filled: Path) -> Path:
    """The tests' store as format 1.0 has it."""
    path = Path(shutil.copytree(filled, tmp_path / "old.zarr"))
    as_format_1_0(path)
    return path


def as_format_1_0(path: Path) -> None:
    """Take from a store what format 1.1 added."""
    for file in path.rglob("crc32c"):
        file.unlink()
    root = json.loads((path / "zarr.json").read_text())
    state = StoreState.parse(root["attributes"], "")
    old = StoreState(state.options, state.committed, (), state.encoders, {}, "1.0")
    root["attributes"] = old.attributes()
    (path / "zarr.json").write_text(json.dumps(root, indent=2))


def test_verify_says_what_it_cannot_find(earlier: Path) -> None:
    """A store of format 1.0 is whole, with a remark that names the way on."""
    report = verify(earlier)
    assert report.ok
    (line,) = report.lines()
    assert "exchanged" in line
    assert "`protalign verify --upgrade`" in line
    assert "\n  every chunk is whole" in run("verify", earlier).stdout
    assert EmbeddingStore.open(earlier).info()["format"] == "1.0"


def test_an_upgrade_changes_no_chunk_and_finds_exchanged_ones(earlier: Path) -> None:
    """Ids and rows are the same, and a chunk of another array in place of one is found."""
    before = chunks(earlier)
    assert "every chunk is whole" in run("verify", earlier, "--upgrade").stdout
    assert chunks(earlier) == before
    store = EmbeddingStore.open(earlier)
    assert store.info()["format"] == "1.1"
    assert store.ids.tolist() == ["1bns_C", "1bpi_A", "1gob_A", "fasta"]
    assert list(verify(earlier).lines()) == []
    shutil.copyfile(earlier / "chains/residue/c.0", earlier / "structures/chain/c.0")
    report = verify(earlier)
    assert [(d.array, d.chunk) for d in report.damages] == [("structures/chain", "c.0")]
    assert report.damaged_ids == ("1bns_C", "1bpi_A", "1gob_A")


def test_an_upgrade_ends_with_the_bytes_of_a_new_store(
    without_checksums: Path, filled: Path
) -> None:
    """It makes no difference when the checksums were recorded; a second upgrade does nothing."""
    assert verify(without_checksums).ok
    for _ in range(2):
        assert verify(without_checksums, upgrade=True).ok
        assert tree(without_checksums) == tree(filled)


def test_a_store_of_format_1_0_is_added_to_as_it_is(
    without_checksums: Path, proteins: list[Protein]
) -> None:
    """It keeps its format, so that what wrote it still reads it."""
    build(without_checksums, proteins[:3])
    assert EmbeddingStore.open(without_checksums).info()["format"] == "1.0"
    assert list(without_checksums.rglob("crc32c")) == []


def test_a_damaged_store_is_not_upgraded(without_checksums: Path) -> None:
    """What is recorded must be what was written."""
    chunk = without_checksums / "encoders" / "one_hot" / "values" / "c.1.0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(bytes(data))
    before = tree(without_checksums)
    assert not verify(without_checksums, upgrade=True).ok
    assert tree(without_checksums) == before


def test_an_upgrade_that_is_cut_off_did_nothing(
    without_checksums: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its last write the store is of format 1.0 and whole; the next one ends the same."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("protalign.stores.checking.upgrade.change_state", stop)
        with pytest.raises(KeyboardInterrupt):
            verify(without_checksums, upgrade=True)
    assert verify(without_checksums).ok
    assert EmbeddingStore.open(without_checksums).info()["format"] == "1.0"
    assert verify(without_checksums, upgrade=True).ok
    assert tree(without_checksums) == tree(filled)


def test_an_upgrade_waits_for_no_writer(without_checksums: Path) -> None:
    """Beside a writer it is refused."""
    with StoreLock(without_checksums), pytest.raises(StoreError, match="being written to"):
        verify(without_checksums, upgrade=True)


def test_only_stores_are_upgraded(tmp_path: Path) -> None:
    """Vectors have nothing to upgrade."""
    (tmp_path / "vectors.parquet").write_bytes(b"")
    assert (
        "is not a store" in run("verify", tmp_path / "vectors.parquet", "--upgrade", code=2).stderr
    )


def test_an_interrupted_commit_is_a_remark(tmp_path: Path, filled: Path) -> None:
    """Rows beyond the committed ones are no damage then, and the next writer cuts them off."""
    path = Path(shutil.copytree(filled, tmp_path / "store.zarr"))
    (path / COMMIT_MARK).touch()
    array = path / "entries" / "source" / "zarr.json"
    array.write_text(array.read_text().replace("23", "29"))
    report = verify(path)
    assert report.ok
    assert any("interrupted" in line for line in report.lines())
    with StoreWriter(path, OPTIONS):
        pass
    assert tree(path) == tree(filled)
