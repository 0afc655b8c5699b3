"""The four readers on mutated files: only the project's own errors come out.

PROTALIGN_FUZZ sets the number of files for each reader; by default a few seconds' worth.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protalign.core.errors import Failure, InputError
from protalign.reading import ReadOptions, SourceFile
from protalign.reading.content import unpack
from protalign.reading.fasta import read_fasta
from protalign.reading.structures import read_structure
from tests.helpers.reading_files import DATA

SAMPLE = Path(__file__).parents[2] / "examples" / "sample"
COUNT = int(os.environ.get("PROTALIGN_FUZZ", "60"))


@pytest.fixture(autouse=True)
def counted(record_property: Callable[[str, object], None]) -> None:
    """The number of files, for the record of the reliability tests."""
    record_property("files", COUNT)


def _lines(data: bytes, most: int) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:most])


PDB = gzip.decompress((SAMPLE / "1vqb_A.pdb.gz").read_bytes())
ARCHIVE_PDB = gzip.decompress((DATA / "1a8o.pdb.gz").read_bytes())
SEEDS = {
    "pdb": [_lines(PDB, 60) + b"END\n", PDB, ARCHIVE_PDB],
    "mmcif": [
        (SAMPLE / "1bpi_A.cif").read_bytes(),
        gzip.decompress((DATA / "3jqh.cif.gz").read_bytes()),
    ],
    "bcif": [gzip.decompress((DATA / "3jqh.bcif.gz").read_bytes())],
    "fasta": [b">a one\nMKVLAGIVEQCC\n>b\nMKV\nLAG*\n;c\n>c\nmkv\n" * 3],
}
#: Pieces that readers stumble over: numbers, marks, records, separators.
PIECES = [
    *(b"", b"\0", b"\xff", b"\r", b"\x1a", b"'", b'"', b";", b"#", b"loop_\n", b"data_x\n", b"_"),
    *(b"****", b"nan", b"1e30", b"-", b"99999999999999", b"1_0", b".", b"?", b"TER\n", b"END\n"),
    *(b"MODEL        2\n", b"ENDMDL\n", b"ATOM  ", b"HETATM", b"SEQRES", b">", b"\n>a\n", b"\xc1"),
    *(b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff", b"\xce\xff\xff"),
]


def mutated(seed: bytes, chance: random.Random, size: int) -> bytes:
    """Bytes overwritten, pieces put in, parts taken out, doubled or exchanged, lines as well."""
    data = bytearray(seed)
    for _ in range(size):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice([1, 2, 8, 80, 400]))
        way = chance.randrange(7)
        if way == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif way == 1:
            data[at:at] = chance.choice(PIECES)
        elif way == 2:
            del data[at:end]
        elif way == 3:
            data[at:at] = data[at:end]
        elif way == 4:
            data[at:end] = chance.choice(PIECES)
        elif way == 5 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        else:
            lines = data.splitlines(keepends=True)
            if len(lines) > 1:
                one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
                lines[one] = lines[other]
                data = bytearray(b"".join(lines))
    return bytes(data)


@pytest.mark.parametrize("kind", ["pdb", "mmcif", "bcif"])
@settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    number=st.integers(0, 2**32),
    size=st.integers(1, 12),
    which=st.integers(0, 2),
    sequence=st.sampled_from(["observed", "deposited"]),
    plddt=st.sampled_from([None, 50.0]),
)
def test_structure_readers_raise_only_our_errors(
    kind: str, number: int, size: int, which: int, sequence: str, plddt: float | None
) -> None:
    """Below the boundary that turns any exception into a file's failure."""
    seeds = SEEDS[kind]
    data = mutated(seeds[which % len(seeds)], random.Random(number), size)
    options = ReadOptions(sequence=sequence, min_plddt=plddt)  # type: ignore[arg-type]
    source = SourceFile(Path(f"entry.{kind}"), "entry", kind)  # type: ignore[arg-type]
    try:
        proteins = read_structure(source, unpack(data, "entry"), options)
    except InputError:
        return
    for protein in proteins:
        assert protein.sequences
        assert all(len(chain) > 1 for chain in protein.chains)


@settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 2**32), size=st.integers(1, 12), packed=st.booleans())
def test_fasta_reader_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory, number: int, size: int, packed: bool
) -> None:
    """Records or failures come out."""
    chance = random.Random(number)
    data = mutated(SEEDS["fasta"][0], chance, size)
    path = tmp_path_factory.getbasetemp() / ("fuzz.fasta.gz" if packed else "fuzz.fasta")
    path.write_bytes(mutated(gzip.compress(data), chance, size // 4) if packed else data)
    for record in read_fasta(path):
        assert isinstance(record, Failure) or record.sequences
