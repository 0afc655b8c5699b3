"""Tar archives of structures: read in a stream, as their files would be, and never unpacked."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from protalign.core.errors import Failure
from protalign.core.protein import Protein
from protalign.reading import (
    ReadOptions,
    SourceFile,
    SourceResult,
    find_sources,
    read_sources,
    single,
)
from protalign.reading import scan as scanning
from protalign.reading.archives import Member, read_members
from protalign.reading.given import find_given

NAMES = ("1bpi_A.cif", "107l_A.pdb.gz", "1b5m_A.pdb.gz")


def pack(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """Write an archive of names and contents."""
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


@pytest.fixture
def members(sample: Path) -> dict[str, bytes]:
    """Three real structures, in a folder of the archive."""
    return {f"models/{name}": (sample / name).read_bytes() for name in NAMES}


def read(path: Path, processes: int = 2, **options: object) -> list[SourceResult]:
    sources, failures = find_sources([path])
    assert failures == []
    return list(read_sources(sources, ReadOptions(), processes=processes, **options))  # type: ignore[arg-type]


def proteins_of(results: list[SourceResult]) -> dict[str, Protein]:
    return {protein.id: protein for result in results for protein in result.proteins}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")]
)
def test_an_archive_is_read_as_its_files_are(
    name: str, mode: str, members: dict[str, bytes], sample: Path, tmp_path: Path
) -> None:
    """The same ids, sequences and coordinates; nothing is written beside the archive."""
    path = pack(tmp_path / name, members | {"models/": b"", "README.md": b"read me"}, mode)
    found = proteins_of(read(path))
    sources, _ = find_sources([sample / each for each in NAMES])
    expected = proteins_of(list(read_sources(sources, processes=1)))
    assert found.keys() == expected.keys()
    for entry, protein in expected.items():
        ours, theirs = found[entry].structure, protein.structure
        assert ours is not None
        assert theirs is not None
        assert (found[entry].sequences, ours.content_hash) == (
            protein.sequences,
            theirs.content_hash,
        )
        assert found[entry].source == str(path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_processes_read_a_large_archive(
    members: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker processes give what this process gives, in the archive's order, block by block."""
    monkeypatch.setattr(scanning, "ARCHIVE_BLOCK", 2)
    path = pack(tmp_path / "a.tar", members)
    here = read(path)
    monkeypatch.setattr(single, "_NEVER_TOO_LARGE", 0)
    there = read(path)
    assert [len(result.proteins) for result in here] == [2, 1]
    assert [result.last for result in here] == [False, True]
    assert [[p.id for p in r.proteins] for r in here] == [[p.id for p in r.proteins] for r in there]


def test_an_archive_that_is_known_is_not_read(members: dict[str, bytes], tmp_path: Path) -> None:
    """Its hash is asked for, as a file's is."""
    path = pack(tmp_path / "a.tar", members)
    (result,) = read(path, skip=lambda source, sha256: len(sha256) == 32)
    assert result.skipped
    assert result.proteins == []


def test_bad_members_fail_alone(members: dict[str, bytes], tmp_path: Path) -> None:
    """Each in a line of its own; the others are read."""
    bad = {
        "bad/2bad.pdb": b"ATOM  nonsense\n",
        "bad/3bad.pdb.gz": gzip.compress(b"x" * 99)[:-9],
        "bad/with space.pdb": b"ATOM",
        "bad/with two.pdb": b"ATOM",
        "bad/4bad.cif": b"",
    }
    results = read(pack(tmp_path / "a.tar", bad | members))
    failures = {failure.id: failure for result in results for failure in result.failures}
    assert failures.keys() == {"2bad", "3bad", "with space.pdb", "with two.pdb", "4bad"}
    assert all(failure.file == str(tmp_path / "a.tar") for failure in failures.values())
    assert "with space.pdb" in failures["with space.pdb"].reason
    assert len(proteins_of(results)) == 3


def test_what_is_not_a_structure_is_passed_over(
    members: dict[str, bytes], sample: Path, tmp_path: Path
) -> None:
    """Hidden files, links, other kinds, PDBbind's pockets, and a model's second format."""
    pdb = (sample / "107l_A.pdb.gz").read_bytes()
    path = tmp_path / "a.tar"
    with tarfile.open(pack(path, {
        "AF-1.cif": members["models/1bpi_A.cif"],
        "AF-1.pdb.gz": pdb,
        "AF-1-predicted_aligned_error.json": b"{}",
        "107l/107l_protein.pdb.gz": pdb,
        "107l/107l_pocket.pdb.gz": pdb,
        ".hidden/1a30.pdb.gz": pdb,
        "._AF-1.cif": b"mac",
    }), "a") as archive:  # fmt: skip
        for kind, name in ((tarfile.SYMTYPE, "link.pdb"), (tarfile.FIFOTYPE, "pipe.pdb")):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
    results = read(path)
    assert list(proteins_of(results)) == ["AF-1", "107l"]
    assert [failure for result in results for failure in result.failures] == []


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_end(data: bytes) -> bytes:
    return data.rstrip(b"\0") + b"\0" * (-len(data.rstrip(b"\0")) % 512)


def damaged_header(data: bytes) -> bytes:
    at = data.index(b"models/107l_A")
    return data[:at] + b"\xff" * 512 + data[at + 512 :]


@pytest.mark.parametrize(
    "damage", [cut, without_end, damaged_header, lambda data: b"", lambda data: b"x" * 2048],
    ids=["cut", "without its end", "a header", "empty", "no archive"],
)  # fmt: skip
def test_a_damaged_archive_is_never_taken_for_a_shorter_one(
    damage: Callable[[bytes], bytes], members: dict[str, bytes], tmp_path: Path
) -> None:
    """What is before the damage is read, and a line says that it ends early."""
    path = pack(tmp_path / "a.tar", members)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    results = read(path)
    (failure,) = [failure for result in results for failure in result.failures]
    assert "damaged or ends early" in failure.reason or "empty" in failure.reason
    assert len(proteins_of(results)) <= 3


def test_damaged_gzip_is_a_line(members: dict[str, bytes], tmp_path: Path) -> None:
    """A flipped bit in a compressed archive is found by its checksum."""
    path = pack(tmp_path / "a.tar.gz", members, "w:gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    failures = [failure for result in read(path) for failure in result.failures]
    assert len(failures) == 1
    assert "gzip data is damaged" in failures[0].reason


def test_hostile_headers_take_no_memory(tmp_path: Path) -> None:
    """A name of 1 GB and a file of 1 TB are refused before they are read."""
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = tarfile.TarInfo("x")
        header.type, header.size = kind, 1 << 30
        path = tmp_path / "long.tar"
        path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"a" * 10_240)
        assert [
            each.reason
            for each in read_members(SourceFile(path, "a", "tar"), 1 << 20)
            if hasattr(each, "reason")
        ] == ["its tar data is damaged or ends early"]
    header = tarfile.TarInfo("big.pdb")
    header.size = 1 << 40
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"a" * 10_240)
    first = next(read_members(SourceFile(path, "a", "tar"), 1 << 20))
    assert "big.pdb in it: it is larger than" in first.reason  # type: ignore[union-attr]


def sized(name: str, size: int, /, **pax: str) -> bytes:
    """Return a header, with a PAX header before it if keywords of one are given."""
    header = tarfile.TarInfo(name)
    header.size, header.pax_headers = size, {key.replace("_", "."): pax[key] for key in pax}
    return header.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize(
    "header",
    [
        sized("a.json", 1 << 62),
        sized("a.pdb", 1 << 62),
        sized("a.json", -(1 << 40)),
        sized("a.pdb", 9, size=str(10**30)),
        sized("a.pdb", 9, size="-5000"),
        sized("a.json", 9, size=str(1 << 62)),
    ],
    ids=["huge", "huge structure", "negative", "PAX huge", "PAX negative", "PAX passed over"],
)
def test_a_size_that_is_not_there_ends_the_archive(
    header: bytes, compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """No loop goes on behind the end of the data: the last word is that it is damaged."""
    path = tmp_path / ("a.tar" if compress is bytes else "a.tar.gz")
    path.write_bytes(compress(header + b"a" * 10_240))
    last = list(read_members(SourceFile(path, "a", "tar"), 1 << 20))[-1]
    assert isinstance(last, Failure)
    assert last.id == ""
    assert last.reason.startswith("its tar data is damaged or ends early")


def old_sparse(blocks: int) -> bytes:
    """Return an old GNU sparse header whose map goes on for so many blocks."""
    header = tarfile.TarInfo("s.pdb")
    header.type = tarfile.GNUTYPE_SPARSE
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    raw[482] = 1
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    entry = b"00000000001\0" * 42
    return bytes(raw) + (entry + b"\1" + b"\0" * 7) * (blocks - 1) + entry + b"\0" * 8


def new_sparse(lines: int) -> bytes:
    """Return a GNU sparse 1.0 file whose map has so many lines."""
    data = b"%d\n" % (lines // 2) + b"1\n" * lines
    data += b"\0" * (-len(data) % 512)
    return sized("s.pdb", len(data), GNU_sparse_major="1", GNU_sparse_minor="0") + data


@pytest.mark.parametrize(
    "sparse",
    [
        old_sparse(8000),
        new_sparse(2_000_000),
        sized("s.pdb", 0, GNU_sparse_map="0,1,2,3", GNU_sparse_size="4"),
        sized("s.pdb", 0, GNU_sparse_size="4", GNU_sparse_offset="0", GNU_sparse_numbytes="1"),
    ],
    ids=["old", "1.0", "0.1", "0.0"],
)
def test_maps_of_sparse_files_take_no_memory(
    sparse: bytes, members: dict[str, bytes], tmp_path: Path
) -> None:
    """A sparse file of any flavour fails alone, its map is not kept, and the rest is read."""
    rest = pack(tmp_path / "rest.tar", members).read_bytes()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(sparse + rest))
    tracemalloc.start()
    first, *others = read_members(SourceFile(path, "a", "tar"), 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(first, Failure)
    assert first.reason == "s.pdb in it is a sparse file"
    assert [other.source.id for other in others if isinstance(other, Member)] == [
        name.split(".")[0] for name in NAMES
    ]
    assert peak < 16 << 20


def test_headers_before_headers_end_the_archive(tmp_path: Path) -> None:
    """Thousands of PAX headers in a row are damage, not a traceback."""
    path = tmp_path / "a.tar.gz"
    one = sized("a.pdb", 0, comment="x")[:1024]
    path.write_bytes(gzip.compress(one * 20_000))
    (failure,) = read_members(SourceFile(path, "a", "tar"), 1 << 20)
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("its tar data is damaged or ends early")


def test_names_that_lead_out_are_only_names(members: dict[str, bytes], tmp_path: Path) -> None:
    """An id comes from the last part of the name; nothing is opened or written there."""
    data = members["models/1bpi_A.cif"]
    path = pack(tmp_path / "a.tar", {"../../etc/1evil.cif": data, "/etc/2evil.cif": data})
    before = sorted(tmp_path.parent.iterdir())
    assert list(proteins_of(read(path))) == ["1evil", "2evil"]
    assert sorted(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_of_an_archive_have_every_file_once(count: int, sample: Path, tmp_path: Path) -> None:
    """The archive is in every part, and each of its entries and failures in one."""
    files = {path.name: path.read_bytes() for path in sorted(sample.glob("*.pdb.gz"))}
    path = pack(tmp_path / "a.tar", files | {"bad.pdb": b"ATOM", "\udcff.pdb": b"ATOM"})
    given = find_given([path])
    seen: list[str] = []
    hashes = set()
    for number in range(1, count + 1):
        results = list(read_sources(given.part(number, count).sources, processes=1))
        seen += proteins_of(results)
        seen += [failure.id for result in results for failure in result.failures]
        hashes |= {result.sha256 for result in results}
    assert len(hashes) == count
    whole = read(path)
    failed = [failure.id for result in whole for failure in result.failures]
    assert len(failed) == 2
    assert sorted(seen) == sorted([*proteins_of(whole), *failed])


@pytest.mark.parametrize("names", [(), ("inner.tar", "some.fasta", "notes.json")])
def test_an_archive_without_structures_fails(names: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing was read, and a line says so."""
    [result] = read(pack(tmp_path / "a.tar", dict.fromkeys(names, b"x")))
    [failure] = result.failures
    assert failure.reason.startswith("it holds no structure file among")


@pytest.mark.parametrize(("mode", "packer"), [("w:gz", "gzip"), ("w:xz", "xz"), ("w:bz2", "bzip2")])
def test_a_compressed_archive_named_tar_is_named(
    mode: str, packer: str, members: dict[str, bytes], tmp_path: Path
) -> None:
    """The line says which program packed it, not that it is damaged."""
    [result] = read(pack(tmp_path / "a.tar", members, mode))
    [failure] = result.failures
    assert failure.reason == f"it is compressed with {packer}, which its name does not say"
