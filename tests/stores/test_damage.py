"""Damaged stores: every flipped byte, cut or lost chunk is found, and never read as numbers."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protalign.core.errors import StoreError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.format.append import Appender
from tests.helpers.stores import OPTIONS, add_all, tree


@pytest.fixture
def copied(tmp_path: Path, filled: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "store.zarr"))


def read_everything(path: Path | str) -> list[bytes]:
    """Return everything that the reading API gives, as bytes to compare."""
    store = EmbeddingStore.open(path)
    content = [repr(store.ids.tolist()).encode(), repr(store.failures).encode()]
    content.append(repr(store.info()["encoders"]).encode())
    content.append(store.embeddings("one_hot").values.tobytes())
    content.append(store[store.has_structure].embeddings("from_centre").values.tobytes())
    for entry_id, has_structure in zip(store.ids, store.has_structure, strict=True):
        content.append(repr((store.sequence(entry_id), store.notes(entry_id))).encode())
        content.append(store.source(entry_id).encode())
        if has_structure:
            content.append(store.structure(entry_id).content_hash)
            content.append(store.residue_map(entry_id).sequence_index.tobytes())
    return content


def _flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))


def test_a_whole_store_is_whole(filled: Path) -> None:
    """Nothing is wrong, every chunk was read, and progress was reported to the end."""
    reported: list[tuple[int, int]] = []
    report = verify(filled, on_progress=lambda done, total: reported.append((done, total)))
    assert report.ok
    assert report.damages == []
    assert list(report.lines()) == []
    assert reported[-1] == (report.chunks, report.chunks)
    chunks = [file for file in filled.rglob("c.*") if file.is_file()]
    assert report.chunks == len(chunks)
    assert report.bytes == sum(file.stat().st_size for file in chunks)


def test_flipped_bits_are_found(copied: Path) -> None:
    """Any flipped bit in any chunk is found by verify, which names the array and the chunk."""
    rng = random.Random(0)
    chunks = sorted(file for file in copied.rglob("c.*") if file.is_file())
    for _ in range(20):
        file = rng.choice(chunks)
        before = file.read_bytes()
        _flip(file, rng)
        found = [(damage.array, damage.chunk) for damage in verify(copied).damages]
        assert found == [(str(file.parent.relative_to(copied)), file.name)]
        file.write_bytes(before)
    assert verify(copied).ok


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_flipped_bits_are_never_read(scheme: str, copied: Path) -> None:
    """Memory-mapped or through Zarr, reading refuses a damaged chunk, or never needed it."""
    expected = read_everything(scheme + str(copied))
    rng = random.Random(1)
    chunks = sorted(file for file in copied.rglob("c.*") if file.is_file())
    refused = 0
    for _ in range(25 if not scheme else 8):
        file = rng.choice(chunks)
        before = file.read_bytes()
        _flip(file, rng)
        try:
            assert read_everything(scheme + str(copied)) == expected, file
        except StoreError as error:
            refused += 1
            assert str(file.parent.relative_to(copied)) in str(error)  # noqa: PT017
        file.write_bytes(before)
    assert refused > 0


def test_flipped_embeddings_are_always_refused(copied: Path) -> None:
    """60 of 60 flips in embeddings are found by reading them."""
    rng = random.Random(2)
    chunks = sorted(copied.glob("encoders/*/values/c.*"))
    for _ in range(60):
        file = rng.choice(chunks)
        before = file.read_bytes()
        _flip(file, rng)
        store = EmbeddingStore.open(copied)
        with pytest.raises(StoreError, match=f"chunk {file.name} of array .* checksum"):
            store.embeddings("one_hot"), store[:21].embeddings("from_centre")
        file.write_bytes(before)


def test_flipped_bits_in_the_root_are_found(copied: Path) -> None:
    """Counts, provenance and options have a checksum of their own."""
    rng = random.Random(3)
    root = copied / "zarr.json"
    before = root.read_bytes()
    begin, end = before.index(b'"protalign"'), before.rindex(b'"zarr_format"')
    for _ in range(60):
        data = bytearray(before)
        data[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
        root.write_bytes(bytes(data))
        for act in (EmbeddingStore.open, verify):
            with pytest.raises(StoreError):
                act(copied)


def _delete(file: Path) -> None:
    file.unlink()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_delete, _truncate, _empty])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_lost_and_cut_chunks(scheme: str, damage: Callable[[Path], None], copied: Path) -> None:
    """A lost chunk is an error, never zeros; verify names it, and the ids with rows in it."""
    file = copied / "encoders" / "one_hot" / "values" / "c.1.0"
    store = EmbeddingStore.open(copied)
    start, length = store.rows("one_hot")
    inside = (start < 512) & (start + length > 256)
    expected = store[~inside].embeddings("one_hot").values
    damage(file)
    hurt = EmbeddingStore.open(scheme + str(copied))
    with pytest.raises(StoreError, match="encoders/one_hot/values"):
        hurt[inside].embeddings("one_hot")
    np.testing.assert_array_equal(hurt[~inside].embeddings("one_hot").values, expected)
    report = verify(copied)
    assert [(d.array, d.chunk) for d in report.damages] == [("encoders/one_hot/values", "c.1.0")]
    assert set(report.damaged_ids) == set(store.ids[inside])


def test_damage_names_the_ids(copied: Path) -> None:
    """Damage in coordinates, letters or rows is traced to the entries that need them."""
    store = EmbeddingStore.open(copied)
    file = copied / "residues" / "backbone" / "c.0.0.0"
    _flip(file, random.Random(4))
    report = verify(copied)
    assert set(report.damaged_ids) == set(store.ids[store.has_structure])
    line = next(report.lines())
    assert line.startswith("residues/backbone c.0.0.0: does not match its checksum; ids: ")
    assert line.endswith(" and 11 more")
    assert report.as_dict()["ok"] is False


def test_rows_of_one_chunk_name_only_their_ids(copied: Path) -> None:
    """A structure encoder's chunk affects only the entries with rows in it."""
    store = EmbeddingStore.open(copied)
    start, length = store.rows("from_centre")
    _flip(copied / "encoders" / "from_centre" / "values" / "c.2.0", random.Random(5))
    inside = (start < 768) & (start + length > 512) & (start >= 0)
    assert set(verify(copied).damaged_ids) == set(store.ids[inside])
    assert 0 < inside.sum() < len(store) / 2


def test_damaged_ids_themselves(copied: Path) -> None:
    """If the texts of the ids are damaged, entries are named by number."""
    _flip(copied / "entries" / "id" / "values" / "c.0", random.Random(6))
    report = verify(copied)
    assert report.damaged_ids[:2] == ("entry 0", "entry 1")
    with pytest.raises(StoreError, match=r"chunk c\.0 of array entries/id/values"):
        EmbeddingStore.open(copied)


def test_lost_marks_and_metadata(copied: Path) -> None:
    """A lost ``done`` mark, plan, or array description is damage too."""
    (copied / "encoders" / "one_hot" / "done" / "c.0").unlink()
    (copied / "encoders" / "from_centre" / "plan" / "row" / "c.0").unlink()
    (copied / "sequences" / "hash" / "zarr.json").write_text("{}")
    found = {damage.array for damage in verify(copied).damages}
    assert found == {"encoders/one_hot/done", "encoders/from_centre/plan/row", "sequences/hash"}


def test_verify_changes_nothing(copied: Path) -> None:
    """Verifying only reads, of a damaged store too."""
    _flip(copied / "residues" / "letter" / "c.0", random.Random(7))
    before = tree(copied)
    verify(copied)
    assert tree(copied) == before


def test_verify_wants_a_local_store(tmp_path: Path) -> None:
    """A URL, or a folder that is not a store, is refused in one line."""
    with pytest.raises(StoreError, match="only a local store"):
        verify("memory://copied/store.zarr")
    with pytest.raises(StoreError, match="is not a ProtAlign store"):
        verify(tmp_path)


def forge(monkeypatch: pytest.MonkeyPatch, column: str, value: int) -> None:
    """Make stores be written with one value in all rows of a column."""
    append = Appender.append

    def forged(appender: Appender, name: str, rows: np.typing.ArrayLike) -> None:
        append(appender, name, [value] * len(np.asarray(rows)) if name == column else rows)

    monkeypatch.setattr(Appender, "append", forged)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("structures/chains", -1), ("structures/chains", 10**6), ("structures/chain", 2**62)),
        *(("chains/residues", -1), ("chains/residues", 10**6), ("chains/residue", 2**62)),
        *(("entries/structure_chains", 0), ("entries/structure_chains", 2**31 - 1)),
        *(("entries/structure_chain", -1), ("entries/structure_chain", 5)),
        *(("entries/structure_length", 3), ("entries/structure_length", -1)),
    ],
)
def test_forged_counts_are_no_pairs_of_residues(
    tmp_path: Path,
    proteins: list[Protein],
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    value: int,
) -> None:
    """Whoever wrote the store: rows of one protein are never taken for another's."""
    forge(monkeypatch, column, value)
    with StoreWriter(tmp_path / "store.zarr", OPTIONS) as writer:
        add_all(writer, [protein for protein in proteins if protein.structure is not None][:4])
    store = EmbeddingStore.open(tmp_path / "store.zarr")
    with pytest.raises(StoreError, match="inconsistent"):
        store.sequence_rows(store.entry_rows)
    if (column, value) != ("entries/structure_length", 3):  # only the coordinates tell
        assert not verify(tmp_path / "store.zarr").ok


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("structures/chains", -1), ("structures/chain", 2**62), ("chains/residues", -1)),
        *(("chains/residues", 10), ("chains/residues", 10**6), ("chains/residue", 2**62)),
        *(("entries/structure_chains", 0), ("entries/structure_chains", 2**31 - 1)),
        *(("entries/structure_chain", -1), ("entries/structure_chain", 5)),
        *(("entries/structure_length", 3), ("entries/structure_length", 0)),
        *(("sequences/chain_length/values", 3), ("sequences/chain_length/values", -1)),
        *(("sequences/chain_length/length", 1), ("sequences/chain_length/start", 2**62)),
        ("sequences/letters/length", 5),
    ],
)
def test_forged_chains_are_no_rows(
    tmp_path: Path,
    proteins: list[Protein],
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    value: int,
) -> None:
    """Chains that do not fit the rows of a complex are never scored."""
    forge(monkeypatch, column, value)
    with StoreWriter(tmp_path / "store.zarr", OPTIONS) as writer:
        add_all(writer, [protein for protein in proteins if protein.id == "dimer"])
    store = EmbeddingStore.open(tmp_path / "store.zarr")
    with pytest.raises(StoreError, match="inconsistent") as caught:
        store.chain_rows("sequence" if column.startswith("sequences") else "structure")
    assert "\n" not in str(caught.value)
