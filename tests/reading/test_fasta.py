"""FASTA records, one at a time."""

from __future__ import annotations

import gzip
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protalign.core.errors import Failure
from protalign.core.protein import SEQUENCE_LETTERS, Protein
from protalign.reading import SourceFile, read_fasta, read_source, read_sources

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def read(folder: Path, text: str | bytes, name: str = "a.fasta") -> list[Protein | Failure]:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_fasta(path))


def test_records_become_proteins_without_a_structure(tmp_path: Path) -> None:
    """Id: the header's first word. Lines are joined, numbered 1..L."""
    text = f">sp|P0CG48|UBC_HUMAN Polyubiquitin-C\n{UBIQUITIN[:40]}\n{UBIQUITIN[40:]}\n"
    [protein] = read(tmp_path, text)
    assert isinstance(protein, Protein)
    assert protein.id == "sp|P0CG48|UBC_HUMAN"
    assert protein.sequences == (UBIQUITIN,)
    assert protein.structure is None
    assert protein.chains[0].residue_numbers.tolist() == list(range(1, 77))


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("mkvL", "MKVL"), ("MKVL*", "MKVL"), ("MJVL", "MXVL"), ("MUOBZX", "MUOBZX"), ("M K V", "MKV")],
)
def test_letters_that_are_understood(tmp_path: Path, written: str, read_as: str) -> None:
    """Lower case, a final stop, J; and the letters beyond the twenty that an encoder knows."""
    [protein] = read(tmp_path, f">a\n{written}\n")
    assert isinstance(protein, Protein)
    assert protein.sequences == (read_as,)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (">bad\nMK-VL\n", "- at position 3 is not an amino acid"),
        (">bad\nMK.VL\n", ". at position 3 is not an amino acid"),
        (">bad\nMK*VL\n", "* at position 3 is not an amino acid"),
        (">bad\nMK1VL\n", "1 at position 3 is not an amino acid"),
        (">bad\nMKVL**\n", "* at position 5 is not an amino acid"),
        (">bad\nMKÄVL\n", "Ä at position 3 is not an amino acid"),
        (">bad\n", "the record is empty"),
        (">bad\n*\n", "the record is empty"),
        (">bad\nM\n", "it has only one residue"),
        (">\nMKVL\n", "it has no usable id"),
        (">first\nMKVL\n", "its id is in this file twice"),
    ],
)
def test_bad_record_fails_alone(tmp_path: Path, record: str, reason: str) -> None:
    """The records before and after it are read."""
    before, failure, after = read(tmp_path, f">first\nMKVL\n{record}>last\nMKVI\n")
    assert isinstance(before, Protein)
    assert isinstance(after, Protein)
    assert (before.id, after.id) == ("first", "last")
    assert isinstance(failure, Failure)
    assert failure.reason == reason
    assert failure.advice
    assert failure.id == ("record 2" if record.startswith(">\n") else record[1:].split()[0])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "no FASTA record"),
        (b"; a comment\n", "no FASTA record"),
        (b"MKVL\n>a\nMKVL\n", "it does not begin with >"),
        (b"<html>", "it holds HTML or XML, not FASTA"),
        (b"ATOM      1  N   GLY A   1", "it holds PDB, not FASTA"),
    ],
)
def test_file_that_is_no_fasta(tmp_path: Path, content: bytes, reason: str) -> None:
    """One failure for the file."""
    [failure] = read(tmp_path, content)
    assert isinstance(failure, Failure)
    assert failure.reason == reason


def test_line_endings_marks_and_comments(tmp_path: Path) -> None:
    """CRLF, a byte order mark, comments and empty lines between do no harm."""
    data = b"\xef\xbb\xbf; made by hand\r\n>a one\r\nMKV\r\n\r\nL\r\n;c\r\n>b\r\nMKVI"
    proteins = read(tmp_path, data)
    assert [(p.id, p.sequences) for p in proteins if isinstance(p, Protein)] == [
        ("a", ("MKVL",)),
        ("b", ("MKVI",)),
    ]


def test_damaged_gz_gives_no_record_at_all(tmp_path: Path) -> None:
    """Cut or flipped at the very end, after a thousand good records: nothing is taken."""
    text = "".join(f">r{i}\n{UBIQUITIN}\n" for i in range(1000)).encode()
    whole = gzip.compress(text)
    assert len(read(tmp_path, whole, "a.fa.gz")) == 1000
    flipped = whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]
    for damaged in (whole[:-20], flipped):
        [failure] = read(tmp_path, damaged, "a.fa.gz")
        assert isinstance(failure, Failure)
        assert "gzip" in failure.reason


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    """As bgzip and `cat a.gz b.gz` make them."""
    data = gzip.compress(b">a\nMKV\n") + gzip.compress(b">b\nMKI\n") + b"\0\0"
    assert [p.id for p in read(tmp_path, data, "a.fa.gz")] == ["a", "b"]


def test_endless_record_is_refused(tmp_path: Path) -> None:
    """Neither one line nor many lines may fill the memory."""
    for text in (">a\n" + "M" * 2000 + "\n", ">a\n" + "MKVLMKVL\n" * 200):
        path = tmp_path / "a.fasta"
        path.write_text(text)
        [failure] = read_fasta(path, max_record=1000)
        assert isinstance(failure, Failure)
        assert "more than" in failure.reason


def test_long_file_is_streamed_in_blocks(tmp_path: Path) -> None:
    """Each result holds a bounded number of records; only the final one is the last."""
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">r{i}\n{UBIQUITIN}\n" for i in range(10)))
    source = SourceFile(path, "a", "fasta")
    results = list(read_sources([source], block=4))
    assert [len(result.proteins) for result in results] == [4, 4, 2]
    assert [result.last for result in results] == [False, False, True]
    assert len({result.sha256 for result in results}) == 1
    assert [p.id for r in results for p in r.proteins] == [f"r{i}" for i in range(10)]
    assert len(read_source(source).proteins) == 10


ids = st.text(string.ascii_letters + string.digits + "|_.-", min_size=1, max_size=12)
sequences = st.text(sorted(SEQUENCE_LETTERS), min_size=2, max_size=200)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    records=st.lists(st.tuples(ids, sequences), min_size=1, unique_by=lambda r: r[0]),
    width=st.integers(1, 90),
    newline=st.sampled_from(["\n", "\r\n"]),
    compress=st.booleans(),
)
def test_whatever_is_written_is_read_back(
    tmp_path: Path, records: list[tuple[str, str]], width: int, newline: str, compress: bool
) -> None:
    """Any ids and sequences, in lines of any width, compressed or not."""
    lines = []
    for id, sequence in records:
        lines.append(f">{id} description")
        lines += [sequence[at : at + width] for at in range(0, len(sequence), width)]
    data = (newline.join(lines) + newline).encode()
    name = "a.fa.gz" if compress else "a.fa"
    found = read(tmp_path, gzip.compress(data) if compress else data, name)
    assert [(p.id, p.sequences) for p in found if isinstance(p, Protein)] == [
        (id, (sequence,)) for id, sequence in records
    ]
    assert len(found) == len(records)


def test_dna_has_a_note(tmp_path: Path) -> None:
    """It could be read as a protein, so it is; but not without a word. Peptides have none."""
    dna = "ATGGCTAGCAAAGGAGAAGAACTTTTCACTGGAGTTGTCC"
    texts = {
        "dna": dna,
        "rna": dna.replace("T", "U"),
        "unknown": dna + "NNNNN",
        "coded": dna * 3 + "RYK",
        "protein": UBIQUITIN,
        "silk": "GAGAGSGAGAGSGAGAGSGAGAGS",
        "glycines": "GGGGGGGGGGGGGGGGGGGGGGGGGGGG",
        "short": "GATTACA",
        "some": "MTACGTAGGTACACGGTCATTNKAAG" * 2,
    }
    found = read(tmp_path, "".join(f">{name}\n{text}\n" for name, text in texts.items()))
    noted = {p.id for p in found if isinstance(p, Protein) and "looks like DNA" in "".join(p.notes)}
    assert len(found) == len(texts)
    assert noted == {"dna", "rna", "unknown", "coded"}


def test_j_is_noted(tmp_path: Path) -> None:
    """Leucine or isoleucine becomes X: counted."""
    [protein] = read(tmp_path, ">a\nMJVLj\n")
    assert isinstance(protein, Protein)
    assert protein.notes == ("2 J read as X",)


@pytest.mark.parametrize("end", ["\x1a", "\n\x1a", "\x1a\r\n", "\n\x1a\x1a\n"])
def test_ctrl_z_ends_a_file_of_dos(tmp_path: Path, end: str) -> None:
    """After the last letter, or on a line of its own."""
    [protein] = read(tmp_path, f">a\r\nMKVL{end}")
    assert isinstance(protein, Protein)
    assert protein.sequences == ("MKVL",)
    [failure] = read(tmp_path, ">a\nMK\x1aVL\n")
    assert isinstance(failure, Failure)
