"""Foldcomp's files and databases: restored, and refused if they are damaged or had a gap."""

from __future__ import annotations

import gzip
import os
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from protalign.core.errors import Failure, InputError
from protalign.core.protein import Protein
from protalign.reading import (
    ReadOptions,
    SourceResult,
    find_sources,
    read_content,
    read_source,
    read_sources,
    scan,
)
from protalign.reading.foldcomp import restore
from protalign.reading.given import find_given
from protalign.reading.processes import one_by_one
from protalign.reading.single import read_structure_file
from tests.reading.test_archives import pack

foldcomp = pytest.importorskip("foldcomp")

NAMES = ("107l_A", "1b5m_A", "1vqb_A")


def pdb(sample: Path, name: str) -> str:
    return gzip.decompress((sample / f"{name}.pdb.gz").read_bytes()).decode()


@pytest.fixture(scope="module")
def packed(sample: Path) -> dict[str, bytes]:
    """Three structures of the sample, compressed."""
    return {name: foldcomp.compress(f"a title\nof {name}", pdb(sample, name)) for name in NAMES}


def database(path: Path, entries: dict[str, bytes], kind: int = 12) -> Path:
    """Write a database as Foldcomp's program does."""
    index, lookup, data = "", "", b""
    for key, (name, content) in enumerate(entries.items()):
        index += f"{key}\t{len(data)}\t{len(content) + 1}\n"
        lookup += f"{key}\t{name}\t0\n"
        data += content + b"\0"
    path.write_bytes(data)
    path.with_name(f"{path.name}.index").write_text(index)
    path.with_name(f"{path.name}.lookup").write_text(lookup)
    path.with_name(f"{path.name}.dbtype").write_bytes(struct.pack("<i", kind))
    return path


def read(path: Path) -> list[SourceResult]:
    sources, failures = find_sources([path])
    assert failures == []
    return list(read_sources(sources, ReadOptions(), processes=1))


def backbone(protein: Protein) -> np.ndarray:
    assert protein.structure is not None
    [chain] = protein.structure.chains
    assert chain.backbone is not None
    return chain.backbone.coordinates[:, :3]


def test_a_database_is_read_as_the_originals_are(
    packed: dict[str, bytes], sample: Path, tmp_path: Path
) -> None:
    """The same sequences and residue numbers; N, CA and C lie within 0.2 Å (RMSD)."""
    path = database(tmp_path / "db", {f"{name}.pdb": data for name, data in packed.items()})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    [result] = read(path)
    assert result.failures == []
    assert [protein.id for protein in result.proteins] == list(NAMES)
    for protein in result.proteins:
        [original] = read_source(find_sources([sample / f"{protein.id}.pdb.gz"])[0][0]).proteins
        assert protein.sequences == original.sequences
        assert protein.source == str(path)
        difference = backbone(protein) - backbone(original)
        assert np.sqrt((difference**2).sum(axis=-1).mean()) < 0.2
    [known] = read_sources(find_sources([path])[0], skip=lambda source, sha256: len(sha256) == 32)
    assert known.skipped
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_b_factors_are_kept(packed: dict[str, bytes], sample: Path) -> None:
    """Those of CA, to the step of Foldcomp's scale; they may be pLDDT."""
    texts = (restore(packed["1b5m_A"]).decode(), pdb(sample, "1b5m_A"))
    ours, theirs = (
        [float(line[60:66]) for line in text.splitlines() if line[:4] + line[12:16] == "ATOM CA "]
        for text in texts
    )
    np.testing.assert_allclose(ours, theirs, atol=0.5)


def test_files_and_archives_of_them(packed: dict[str, bytes], tmp_path: Path) -> None:
    """A .fcz file in a folder, and in a tar archive."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.fcz").write_bytes(packed["1vqb_A"])
    (tmp_path / "folder" / "two.fcz").write_bytes(packed["1vqb_A"][:-1])
    bad, good = sorted(read(tmp_path / "folder"), key=lambda result: len(result.proteins))
    assert [protein.id for protein in good.proteins] == ["one"]
    assert bad.failures[0].reason == "its Foldcomp data is damaged"
    [result] = read(pack(tmp_path / "a.tar", {"x/three.fcz": packed["1vqb_A"]}))
    assert [protein.id for protein in result.proteins] == ["three"]


def test_bad_entries_fail_alone(packed: dict[str, bytes], tmp_path: Path) -> None:
    """A gap, damage, an offset beyond the end, a name that is no id; the others are read."""
    # As a chain is stored whose pieces lie 9 Å apart: one anchor is not where its angles lead to.
    moved = bytearray(packed["107l_A"])
    place = 76 + 4 * moved[12] + len("a title\nof 107l_A") + 3 * 36
    for at in range(place, place + 36, 12):
        struct.pack_into("<f", moved, at, struct.unpack_from("<f", moved, at)[0] + 9)
    entries = {
        "gap": bytes(moved),
        "cut": packed["1b5m_A"][:-9],
        "a b": b"FCMP",
        "text": b"ATOM",
        "container": b"FCZC" + bytes(99),
        "good": packed["1vqb_A"],
    }
    path = database(tmp_path / "db", entries)
    index = path.with_name("db.index")
    index.write_text(index.read_text() + "9\t0\t5\n0\t999999999\t5\nx\ty\n")
    [result] = read(path)
    assert [protein.id for protein in result.proteins] == ["good"]
    assert sorted((each.id, each.reason.partition(":")[0]) for each in result.failures) == [
        ("container", "it is a container of several of Foldcomp's chains, which is not read"),
        ("cut", "its Foldcomp data is damaged"),
        ("entry 2", "entry 2 in it"),
        ("entry 9", "entry 9 in it"),
        ("gap", "gap in it lies beyond the end of the data"),
        ("gap", "its chain has a gap or is damaged"),
        ("line 9 of the index", "its index is damaged in line 9"),
        ("text", "it is not Foldcomp's data"),
    ]
    assert {each.file for each in result.failures} == {str(path)}


def test_parts_of_a_database_have_every_entry_once(
    packed: dict[str, bytes], tmp_path: Path
) -> None:
    """The database is in every part, and each of its entries in one.

    A part has a hash of its own: who has read it has not read the others.
    """
    given = find_given([database(tmp_path / "db", packed)])
    whole, *parts = (
        list(read_sources(sources, processes=1))
        for sources in (given.sources, given.part(1, 2).sources, given.part(2, 2).sources)
    )
    seen = [protein.id for part in parts for result in part for protein in result.proteins]
    assert sorted(seen) == sorted(packed)
    hashes = [{result.sha256 for result in read} for read in (whole, *parts)]
    assert len(set.union(*hashes)) == len(hashes)


def test_a_missing_library_is_one_failure_that_is_not_remembered(
    packed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database and a file have no hash then, so both are read once the library is there."""
    path = database(tmp_path / "db", packed)
    file = tmp_path / "one.fcz"
    file.write_bytes(packed["107l_A"])
    [source], _ = find_sources([file])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "foldcomp", None)
        [result] = read(path)
        single = read_structure_file(source, ReadOptions())
    for each in (result, single):
        assert (each.sha256, each.proteins, each.last) == (b"", [], True)
        assert [f.reason for f in each.failures] == [
            "the library that reads Foldcomp's files is not installed"
        ]
    assert len(read(path)[0].proteins) == 3


@pytest.mark.parametrize(
    ("file", "words"),
    [("lookup", "its .lookup file: it cannot be opened"), ("dbtype", "another kind")],
)
def test_a_database_that_is_not_one(
    file: str, words: str, packed: dict[str, bytes], tmp_path: Path
) -> None:
    """Its names are missing, or another program made it: one line for all."""
    path = database(tmp_path / "db", packed, kind=0 if file == "dbtype" else 12)
    if file == "lookup":
        path.with_name("db.lookup").unlink()
    [result] = read(path)
    assert [words in failure.reason for failure in result.failures] == [True]


def test_the_server_reads_none(packed: dict[str, bytes]) -> None:
    """What is sent to it is read in its own process, which the library might end."""
    [failure] = read_content("1vqb_A.fcz", packed["1vqb_A"]).failures
    assert failure.reason == "its suffix is unknown"


def test_a_process_that_dies_is_one_failure(
    packed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent lives on."""
    (tmp_path / "one.fcz").write_bytes(packed["1vqb_A"])
    monkeypatch.setattr(scan, "_read_tasks", _die)
    monkeypatch.setattr(scan, "_read_task", _die)
    [result] = read(tmp_path / "one.fcz")
    assert "the process that read it died" in result.failures[0].reason


def _die(*words: object) -> list[SourceResult]:
    os._exit(1)


def test_a_member_that_may_end_the_process_is_read_in_another(
    packed: dict[str, bytes], sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small archive is read in this process, but not what the library reads."""
    monkeypatch.setattr(scan, "_parse_members", _name_the_process)
    members = {"1bpi_A.cif": (sample / "1bpi_A.cif").read_bytes()}
    here, apart = (
        read(pack(tmp_path / name, content))[0].failures[-1].reason
        for name, content in (("a.tar", members), ("b.tar", members | {"x.fcz": packed["1vqb_A"]}))
    )
    assert here == str(os.getpid()) != apart


def test_one_file_alone_is_read_in_another_process(
    packed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nothing else is read."""
    (tmp_path / "one.fcz").write_bytes(packed["1vqb_A"])
    [source], _ = find_sources([tmp_path / "one.fcz"])
    monkeypatch.setattr(scan, "read_structure_file", None)  # this process could not call it
    assert [protein.id for protein in read_source(source).proteins] == ["one"]


def _name_the_process(options: ReadOptions, members: object) -> list[Failure]:
    return [Failure("", "", str(os.getpid()), "")]


def test_processes_that_die_hide_no_failure(
    packed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that could not be read has its own reason still."""
    path = database(tmp_path / "db", {"good": packed["1vqb_A"], "a b": b"FCMP"})
    monkeypatch.setattr(scan, "_parse_members", _die)
    [result] = read(path)
    died, unnamed = result.failures
    assert "the process that read it died" in died.reason
    assert (unnamed.id, unnamed.reason.partition(":")[0]) == ("entry 1", "entry 1 in it")


def _restored(data: bytes) -> str:
    try:
        return "" if restore(data) else "empty"
    except InputError as error:
        return error.reason


@pytest.mark.slow
def test_no_damage_ends_the_process(packed: dict[str, bytes]) -> None:
    """Bytes changed anywhere: restored or refused; the library is never led astray."""
    chance = random.Random(0)
    seed = packed["1vqb_A"]
    damaged = []
    for _ in range(3000):
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 2, 5))):
            place = chance.randrange(chance.choice((90, len(data))))
            data[place] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
        damaged.append(bytes(data))
    answers = list(one_by_one(_restored, lambda data: "died", damaged))
    assert "died" not in answers
    assert answers.count("") > 100
