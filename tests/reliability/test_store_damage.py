"""Random damage in every kind of a store's files is found, and no reader differs silently."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from protalign.core.annotation import Annotation
from protalign.core.errors import Failure, ProtAlignError, StoreError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.format.layout import ARRAYS
from protalign.stores.format.lock import LOCK_FILE
from tests.helpers.stores import OPTIONS, build, read_protein, sequence_only
from tests.reliability import times

Record = Callable[[str, object], None]

#: Rows of every chunk of the index: small enough for arrays of several chunks.
CHUNK_ROWS = 16


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    """Cut every array into many chunks, as the arrays of a large store are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in list(ARRAYS.items()):
            patch.setitem(ARRAYS, name, replace(spec, chunk_rows=CHUNK_ROWS))
        yield


@pytest.fixture(scope="module")
def two_commits(
    tmp_path_factory: pytest.TempPathFactory, sample: Path, small_chunks: None
) -> tuple[Path, Path]:
    """A store, and the same before its last proteins were added. Only to be copied."""
    folder = tmp_path_factory.mktemp("damage")
    files = ["1bpi_A.cif", "1a2p_A.pdb.gz"]
    chains = [read_protein(sample / name) for name in files]
    texts = [sequence_only(f"s{n}", chains[n % 2].sequences[0][n:]) for n in range(1, 24)]
    newer = build(folder / "newer.zarr", [*_with_notes(texts[:11]), chains[0]])
    with StoreWriter(newer, OPTIONS) as writer:
        writer.add_failure(Failure("x", "x.pdb", "truncated", "fetch it again"))
    older = shutil.copytree(newer, folder / "older.zarr")
    build(newer, [*_with_notes(texts[11:]), chains[1]])
    with StoreWriter(newer, OPTIONS) as writer:
        for name in ("y", "z"):
            writer.add_failure(Failure(name, f"{name}.pdb", "truncated", "fetch it again"))
    return newer, older


def _with_notes(proteins: list[Protein]) -> list[Protein]:
    annotation = Annotation("a protein", "Homo sapiens", 9606, "P01308")
    return [
        replace(protein, notes=("of a sequence file",), annotation=annotation)
        for protein in proteins
    ]


@pytest.fixture
def store(tmp_path: Path, two_commits: tuple[Path, Path]) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(two_commits[0], tmp_path / "store.zarr"))


def read_everything(path: Path | str) -> list[object]:
    """Everything that the reading API gives of each entry."""
    store = EmbeddingStore.open(path)
    facts = store.info()
    content: list[object] = [store.ids.tolist(), facts["encoders"], facts["failures"]]
    content.append(store.embeddings("one_hot").values.tobytes())
    content.append(store[store.has_structure].embeddings("from_centre").values.tobytes())
    for entry_id, has_structure in zip(store.ids, store.has_structure, strict=True):
        content += [store.sequence(entry_id), store.notes(entry_id), store.source(entry_id)]
        content.append(store.source_sha256(entry_id))
        if has_structure:
            content.append(store.structure(entry_id).content_hash)
            content.append(store.residue_map(entry_id).sequence_index.tobytes())
    return content


class Damaged:
    """Checks one damage after another on a copy of a store; counts those that were missed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.expected = read_everything(path)
        files = (file for file in path.rglob("*") if file.is_file() and file.name != LOCK_FILE)
        self.files = sorted(files)

    def check(self, *files: Path) -> None:
        """It is found, in one line, and read as an error or as if nothing had happened."""
        places = " and ".join(str(file.relative_to(self.path)) for file in files)
        assert self._found(), f"not found: {places}"
        try:
            same = read_everything(self.path) == self.expected
        except ProtAlignError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert same, f"silently different: {places}"

    def _found(self) -> bool:
        try:
            report = verify(self.path)
        except StoreError as error:
            return "\n" not in str(error)
        assert all("\n" not in line for line in report.lines())
        return not report.ok

    def restore(self, contents: dict[Path, bytes]) -> None:
        for file, data in contents.items():
            file.write_bytes(data)


@pytest.fixture
def damaged(store: Path) -> Damaged:
    return Damaged(store)


def kinds(files: list[Path]) -> list[list[Path]]:
    """Files by kind: chunks, checksums, descriptions."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(file.name.partition(".")[0] + file.suffix[:5], []).append(file)
    merged: dict[str, list[Path]] = {}
    for name, some in parts.items():
        merged.setdefault("c" if name.startswith("c.") else name, []).extend(some)
    return list(merged.values())


def some_files(damaged: Damaged, rng: random.Random, count: int) -> list[Path]:
    """Files to damage: each kind equally often."""
    groups = kinds(damaged.files)
    assert {group[0].name.partition(".")[0] for group in groups} == {"c", "zarr", "crc32c"}
    return [rng.choice(groups[place % len(groups)]) for place in range(count)]


def test_the_store_has_every_kind(damaged: Damaged) -> None:
    """Full chunks, recorded checksums, partly filled chunks, groups and arrays; and it is whole."""
    assert verify(damaged.path).lines
    assert verify(damaged.path).ok
    names = {file.name for file in damaged.files}
    assert {"zarr.json", "crc32c", "c.0", "c.1", "c.1.0", "c.1.0.0"} <= names


def test_flips(damaged: Damaged, record_property: Record) -> None:
    """A flipped bit, in any file at all."""
    rng = random.Random(0)
    files = some_files(damaged, rng, times(12, 700))
    record_property("flips", len(files))
    for file in files:
        before = file.read_bytes()
        data = bytearray(before)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(data))
        damaged.check(file)
        file.write_bytes(before)


def test_truncations_and_growth(damaged: Damaged, record_property: Record) -> None:
    """A file that is shorter, empty, or longer."""
    rng = random.Random(1)
    files = some_files(damaged, rng, times(6, 140))
    record_property("truncations", len(files))
    for file in files:
        before = file.read_bytes()
        length = rng.choice([0, rng.randrange(len(before)), len(before) + rng.randrange(1, 20)])
        file.write_bytes((before + bytes(20))[:length])
        damaged.check(file)
        file.write_bytes(before)


def test_deletions(damaged: Damaged, record_property: Record) -> None:
    """A file that is gone."""
    rng = random.Random(2)
    files = some_files(damaged, rng, times(6, 120))
    record_property("deletions", len(files))
    for file in files:
        before = file.read_bytes()
        file.unlink()
        damaged.check(file)
        file.write_bytes(before)


def test_swaps(damaged: Damaged, record_property: Record) -> None:
    """Two files of equal size in each other's place: of one array, or of two."""
    rng = random.Random(3)
    by_size: dict[int, list[Path]] = {}
    for file in damaged.files:
        by_size.setdefault(file.stat().st_size, []).append(file)
    pairs = [
        (first, second)
        for files in by_size.values()
        for place, first in enumerate(files)
        for second in files[:place]
        if first.read_bytes() != second.read_bytes()
    ]
    assert len(pairs) > 1000
    within = [pair for pair in pairs if pair[0].parent == pair[1].parent]
    some = [*rng.sample(within, times(4, 50)), *rng.sample(pairs, times(3, 50))]
    record_property("swaps", len(some))
    for first, second in some:
        contents = {first: first.read_bytes(), second: second.read_bytes()}
        first.write_bytes(contents[second])
        second.write_bytes(contents[first])
        damaged.check(first, second)
        damaged.restore(contents)


def test_files_of_an_older_commit(
    damaged: Damaged, two_commits: tuple[Path, Path], record_property: Record
) -> None:
    """Any one file of the store as it was before the last proteins were added."""
    older = two_commits[1]
    copies = {file: older / file.relative_to(damaged.path) for file in damaged.files}
    differing = [
        file
        for file, copy in copies.items()
        if copy.exists() and copy.read_bytes() != file.read_bytes()
    ]
    assert len(differing) > 50
    root = damaged.path / "zarr.json"
    assert root in differing
    some = random.Random(5).sample(differing, min(len(differing), times(6, 80)))
    record_property("files of an older commit", 1 + len(some))
    for file in [root, *some]:
        before = file.read_bytes()
        shutil.copyfile(copies[file], file)
        damaged.check(file)
        file.write_bytes(before)


def test_chunks_of_an_older_commit_together_with_their_checksums(
    damaged: Damaged, two_commits: tuple[Path, Path]
) -> None:
    """A whole array's folder of an older commit: its counts are not those of the root."""
    older = two_commits[1]
    folders = sorted({file.parent for file in damaged.files if file.name.startswith("c.")})
    for folder in random.Random(4).sample(folders, min(len(folders), times(2, 30))):
        aside = damaged.path / "aside"
        folder.rename(aside)
        shutil.copytree(older / folder.relative_to(damaged.path), folder)
        if {f.name: f.read_bytes() for f in folder.iterdir()} != {
            f.name: f.read_bytes() for f in aside.iterdir()
        }:
            damaged.check(folder)
        shutil.rmtree(folder)
        aside.rename(folder)


def test_lost_checksums_are_recorded_again(tmp_path: Path, two_commits: tuple[Path, Path]) -> None:
    """Verify names the chunks without one, and an upgrade ends with the same bytes."""
    path = Path(shutil.copytree(two_commits[0], tmp_path / "copy.zarr"))
    (path / "entries" / "source" / "crc32c").unlink()
    report = verify(path)
    assert {damage.array for damage in report.damages} == {"entries/source"}
    assert set(report.damaged_ids) == set(EmbeddingStore.open(path).ids[:16])
    assert verify(path, upgrade=True).ok
    for file in two_commits[0].rglob("*"):
        if file.is_file() and file.name != LOCK_FILE:
            assert (path / file.relative_to(two_commits[0])).read_bytes() == file.read_bytes()
