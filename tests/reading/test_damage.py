"""Files that cannot be used: each is one short failure, and nothing partial comes out."""

from __future__ import annotations

import gzip
import io
import re
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.reading import ReadOptions, SourceFile, SourceResult, read_source
from protalign.reading.content import gunzip, gunzip_blocks
from protalign.reading.structures import read_structure

DATA = Path(__file__).parent / "data"
SAMPLE = Path(__file__).parents[2] / "examples" / "sample"
PDB = gzip.decompress((SAMPLE / "1vqb_A.pdb.gz").read_bytes())
FULL_PDB = gzip.decompress((DATA / "1a8o.pdb.gz").read_bytes())
CIF = (SAMPLE / "1bpi_A.cif").read_bytes()
FULL_CIF = gzip.decompress((DATA / "1a8o.cif.gz").read_bytes())
BCIF = gzip.decompress((DATA / "3jqh.bcif.gz").read_bytes())
ENSEMBLE = gzip.decompress((DATA / "1lcd.pdb.gz").read_bytes())
OF_KIND = {"pdb": PDB, "mmcif": CIF, "bcif": BCIF}
SUFFIX = {"pdb": ".pdb", "mmcif": ".cif", "bcif": ".bcif", "fasta": ".fasta"}
reuse_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


def read(folder: Path, data: bytes, kind: str = "pdb", gz: bool = False) -> SourceResult:
    path = folder / f"entry{SUFFIX[kind]}{'.gz' if gz else ''}"
    path.write_bytes(data)
    return read_source(SourceFile(path, "entry", kind), ReadOptions())  # type: ignore[arg-type]


def reason_of(result: SourceResult) -> str:
    assert result.proteins == []
    [failure] = result.failures
    assert failure.id == "entry"
    assert Path(failure.file) == result.source.path
    assert failure.advice
    assert "\n" not in failure.reason
    assert len(failure.reason) < 160
    return failure.reason


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", "pdb", "the file is empty"),
        (b"\n\n", "pdb", "no ATOM records"),
        (b"REMARK only\nEND\n", "pdb", "no ATOM records"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "pdb", "holds HTML or XML"),
        (b"  <html>", "mmcif", "holds HTML or XML"),
        (b'{"error": "no such entry"}', "mmcif", "holds JSON"),
        (b"PK\x03\x04rest of a zip", "pdb", "holds a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "bcif", "a Git LFS pointer"),
        (gzip.compress(PDB), "pdb", "holds gzip data"),
        (CIF, "pdb", "holds mmCIF, not PDB"),
        (PDB, "mmcif", "holds PDB, not mmCIF"),
        (BCIF, "mmcif", "holds BinaryCIF, not mmCIF"),
        (CIF, "bcif", "holds mmCIF, not BinaryCIF"),
        (b">id\nMKV\n", "pdb", "holds FASTA, not PDB"),
        (PDB.decode().encode("utf-16"), "pdb", "holds UTF-16 text"),
        (PDB[:999] + b"\0" * 9 + PDB[999:], "pdb", "holds binary data"),
        (b"data_x\n_entry.id x\n", "mmcif", "no atom sites"),
        (b"data_x\nloop_\n_chem_comp.id\n_chem_comp.name\nALA alanine\n", "mmcif", "no atom sites"),
        (b"\x81\xa7version\xa30.3", "bcif", "BinaryCIF"),
    ],
)
def test_content_of_another_kind_is_named(
    tmp_path: Path, content: bytes, kind: str, reason: str
) -> None:
    """A download gone wrong, a wrong suffix, an archive: said as what it is."""
    assert reason in reason_of(read(tmp_path, content, kind))


@pytest.mark.parametrize("content", [PDB, b"<html></html>"])
def test_gz_name_without_gzip_data(tmp_path: Path, content: bytes) -> None:
    """Named .gz but not compressed is a failure, not a guess."""
    assert "not gzip data" in reason_of(read(tmp_path, content, gz=True))


def test_gunzip_stops_at_its_limit() -> None:
    """A small file that would unpack to more than the limit is refused before it has."""
    bomb = gzip.compress(bytes(64 << 20))
    with pytest.raises(InputError, match="larger than"):
        gunzip(bomb, limit=1 << 20)


def test_gunzip_equals_gzips_own_on_several_members_and_padding() -> None:
    """Concatenated members are one content, as gzip reads them."""
    data = gzip.compress(PDB[:1000]) + gzip.compress(PDB[1000:]) + b"\0" * 100
    assert gunzip(data) == gzip.decompress(data) == PDB


@pytest.mark.parametrize("blocks", [False, True])
def test_many_members_take_time_in_proportion(blocks: bool) -> None:
    """A megabyte of tiny members is no way to keep a program busy; the limit counts all of them."""
    data = gzip.compress(b"\n", 1) * 40_000
    began = time.process_time()
    stream = io.BufferedReader(io.BytesIO(data))
    content = b"".join(gunzip_blocks(stream)) if blocks else gunzip(data)
    assert content == b"\n" * 40_000
    assert time.process_time() - began < 4
    with pytest.raises(InputError, match="larger than"):
        gunzip(data[:21_000], limit=999)


@reuse_folder
@given(share=st.floats(0, 0.9999))
@example(share=0.9999)
def test_truncated_gzip_gives_nothing(tmp_path: Path, share: float) -> None:
    """Wherever a .gz file is cut off, no part of its protein comes out."""
    data = gzip.compress(PDB, mtime=0)
    result = read(tmp_path, data[: int(share * len(data))], gz=True)
    assert reason_of(result)


@reuse_folder
@given(place=st.integers(10, len(zlib.compress(PDB)) - 1), bit=st.integers(0, 7))
@example(place=128, bit=6)
def test_flipped_bit_in_gzip_gives_no_other_protein(tmp_path: Path, place: int, bit: int) -> None:
    """A damaged .gz file fails its checksum, or gives the undamaged protein.

    The latter if the data do not depend on the bit: it may belong to the code of an absent byte.
    """
    data = bytearray(gzip.compress(PDB, mtime=0))
    place = min(place, len(data) - 1)
    data[place] ^= 1 << bit
    result = read(tmp_path, bytes(data), gz=True)
    if not result.proteins:
        assert "gzip" in reason_of(result)
        return
    [protein], [whole] = result.proteins, read(tmp_path, PDB).proteins
    assert gzip.decompress(bytes(data)) == PDB
    assert protein.structure is not None
    assert whole.structure is not None
    assert protein.structure.content_hash == whole.structure.content_hash


@pytest.mark.parametrize("cut", [20, 27, 40, 53, 60])
@pytest.mark.parametrize("atoms", [1, 2, 100])
def test_pdb_cut_within_an_atom_record(tmp_path: Path, atoms: int, cut: int) -> None:
    """Plain PDB text that ends in the middle of a line is truncated, not a smaller protein."""
    start = PDB.index(b"ATOM") + (atoms - 1) * 81
    reason = reason_of(read(tmp_path, PDB[: start + cut]))
    assert "truncated" in reason or "cut short" in reason


def test_pdb_with_a_short_line_inside(tmp_path: Path) -> None:
    """A line cut short anywhere names its number."""
    lines = PDB.splitlines(keepends=True)
    lines[9] = lines[9][:40] + b"\n"
    assert reason_of(read(tmp_path, b"".join(lines))) == "line 10 is cut short"


@pytest.mark.parametrize("column", [5, 60])
def test_pdb_that_lost_a_part_inside(column: int, tmp_path: Path) -> None:
    """The line that holds the halves of two atoms is noted: a residue is missing there."""
    lines = gzip.decompress((SAMPLE / "1vqb_A.pdb.gz").read_bytes()).splitlines(keepends=True)
    side_chain = next(n for n in range(100, 200) if lines[n][12:15] == b" CB")
    at = sum(map(len, lines[:side_chain])) + column
    text = b"".join(lines)
    [protein] = read(tmp_path, text[:at] + text[at + 1000 :]).proteins
    where = f"line {side_chain + 1} is not as long as an atom's: if a part of the file was lost"
    assert where in protein.notes[0]
    [protein] = read(tmp_path, b"".join(line.rstrip().ljust(90) + b"\n" for line in lines)).proteins
    assert protein.notes == ()


def test_archive_pdb_without_its_end(tmp_path: Path) -> None:
    """The archive's own files end in END; one that stops after a whole line before is truncated."""
    lines = FULL_PDB.splitlines(keepends=True)
    cut = [index for index, line in enumerate(lines) if line.startswith(b"ATOM")][200]
    assert "truncated" in reason_of(read(tmp_path, b"".join(lines[:cut])))


def test_pdb_without_end_and_final_newline_is_fine(tmp_path: Path) -> None:
    """Many programs write neither END nor a last newline: that alone is no damage."""
    atoms = b"".join(line for line in PDB.splitlines(True) if line.startswith(b"ATOM"))
    [protein] = read(tmp_path, atoms.rstrip(b"\n")).proteins
    assert len(protein) == 86


def test_model_without_endmdl(tmp_path: Path) -> None:
    """An ensemble cut off inside a model is truncated."""
    lines = ENSEMBLE.splitlines(keepends=True)
    models = [index for index, line in enumerate(lines) if line.startswith(b"MODEL")]
    cut = b"".join(line for line in lines[: models[1] - 50] if b"COMPLIES" not in line)
    assert "truncated" in reason_of(read(tmp_path, cut))


@pytest.mark.parametrize("field", [b"********", b"     nan", b"     inf", b"        ", b"  1.2 34"])
@pytest.mark.parametrize("column", [30, 38, 46])
def test_coordinates_that_are_no_numbers(tmp_path: Path, column: int, field: bytes) -> None:
    """Gemmi reads these as 0.0 or NaN; here they are a failure that names the line."""
    lines = PDB.splitlines(keepends=True)
    line = next(index for index, text in enumerate(lines) if text.startswith(b"ATOM"))
    lines[line] = lines[line][:column] + field + lines[line][column + 8 :]
    reason = reason_of(read(tmp_path, b"".join(lines)))
    assert reason == f"line {line + 1} has a coordinate that is not a number"


def test_residue_number_that_is_no_number(tmp_path: Path) -> None:
    """Gemmi reads it as 0."""
    reason = reason_of(read(tmp_path, PDB.replace(b" A  10 ", b" A  *0 ")))
    assert "residue number that is not a number" in reason


def test_usual_number_formats_of_other_programs_are_taken(tmp_path: Path) -> None:
    """Fewer decimals, without a zero or with a plus sign: the point is in its column."""
    line = next(text for text in PDB.splitlines(True) if text.startswith(b"ATOM"))
    for field in (b"  12.5  ", b"  +1.250", b"  12.   ", b"   -.250"):
        data = PDB.replace(line, line[:30] + field + line[38:])
        [protein] = read(tmp_path, data).proteins
        assert protein.chains[0].backbone is not None
        assert protein.chains[0].backbone.coordinates[0, 0, 0] == float(field)


def test_repeated_numbering_within_a_chain(tmp_path: Path) -> None:
    """Two molecules under one chain name and numbering cannot be told apart: said, not merged."""
    atoms = b"".join(line for line in PDB.splitlines(True) if line.startswith(b"ATOM"))
    reason = reason_of(read(tmp_path, atoms + b"TER\n" + atoms))
    assert reason == "chain A, MET 1 occurs twice"


@pytest.mark.parametrize("stand_in", [b"   0.000", b"9999.999"])
def test_atoms_without_coordinates(tmp_path: Path, stand_in: bytes) -> None:
    """All of them have one number in place of coordinates."""
    atoms = [
        line[:30] + 3 * stand_in + line[54:]
        for line in PDB.splitlines(True)
        if line.startswith(b"ATOM")
    ]
    assert reason_of(read(tmp_path, b"".join(atoms))) == "its atoms lie on one point"
    ligand = [line[:21] + b"B" + line[22:] for line in atoms if line[22:26] == atoms[0][22:26]]
    assert reason_of(read(tmp_path, b"".join(atoms + ligand))) == "its atoms lie on one point"


def test_all_ca_model(tmp_path: Path) -> None:
    """A trace of CA atoms has no backbone to encode."""
    atoms = [line for line in PDB.splitlines(True) if line[12:16] == b" CA "]
    assert reason_of(read(tmp_path, b"".join(atoms))) == "it has only CA atoms"


def test_single_residue(tmp_path: Path) -> None:
    """One residue is no protein."""
    atoms = [line for line in PDB.splitlines(True) if line[22:26] == b"   5"]
    assert reason_of(read(tmp_path, b"".join(atoms))) == "no chain has more than one residue"


def test_dna_only(tmp_path: Path) -> None:
    """The DNA of 1LCD without its protein."""
    dna = [line for line in ENSEMBLE.splitlines(True) if line[21:22] != b"A"]
    reason = reason_of(read(tmp_path, b"".join(dna)))
    assert reason == "it has no protein: none of its residues is an amino acid"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("whole", [FULL_CIF, CIF], ids=["archive", "gemmi"])
def test_mmcif_cut_within_a_row(tmp_path: Path, whole: bytes, share: float) -> None:
    """Cut in the middle of a row of any category."""
    end = whole.index(b"\n", int(share * len(whole)))
    reason = reason_of(read(tmp_path, whole[: end - 3].rstrip(), "mmcif"))
    assert "truncated" in reason or "no atom sites" in reason


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_archive_mmcif_cut_between_rows(tmp_path: Path, share: float) -> None:
    """The archives close every category with #, so a cut at the end of a row is seen too."""
    end = FULL_CIF.index(b"\n", int(share * len(FULL_CIF))) + 1
    if FULL_CIF[:end].rstrip().endswith(b"#"):
        end = FULL_CIF.index(b"\n", end) + 1
    assert "truncated" in reason_of(read(tmp_path, FULL_CIF[:end], "mmcif"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [b"?", b"1e300"])
def test_mmcif_coordinates_that_are_no_numbers(tmp_path: Path, value: bytes) -> None:
    """A backbone atom without coordinates in mmCIF, or with huge ones, fails without a warning."""
    damaged = CIF.replace(b"31.718 13.292 -12.188", b"31.718 " + value + b" -12.188")
    assert damaged != CIF
    assert "not finite" in reason_of(read(tmp_path, damaged, "mmcif"))


@pytest.mark.parametrize("tag", sorted(set(re.findall(rb"_atom_site\.\w+", CIF))))
def test_mmcif_with_a_column_of_another_name(tmp_path: Path, tag: bytes) -> None:
    """It is read without it, or refused in a line; no exception but the project's own."""
    source = SourceFile(tmp_path / "1.cif", "1", "mmcif")
    with suppress(InputError):
        (protein, *_) = read_structure(source, CIF.replace(tag, tag + b"nan"), ReadOptions())
        assert len(protein) > 0


@reuse_folder
@given(share=st.floats(0, 0.999))
def test_truncated_binarycif_gives_nothing(tmp_path: Path, share: float) -> None:
    """BinaryCIF cut anywhere does not decode."""
    assert reason_of(read(tmp_path, BCIF[: int(share * len(BCIF))], "bcif"))


@settings(reuse_folder, max_examples=150)
@given(
    kind=st.sampled_from(["pdb", "mmcif", "bcif"]),
    places=st.lists(
        st.tuples(st.floats(0, 0.999999), st.integers(0, 255)), min_size=1, max_size=20
    ),
    cut=st.floats(0.3, 1),
)
def test_no_damage_raises(
    tmp_path: Path, kind: str, places: list[tuple[float, int]], cut: float
) -> None:
    """Any bytes overwritten, then cut: proteins or failures come out, never an exception."""
    data = bytearray(OF_KIND[kind])
    for place, byte in places:
        data[int(place * len(data))] = byte
    result = read(tmp_path, bytes(data[: int(cut * len(data))]), kind)
    assert result.proteins or result.failures
    for protein in result.proteins:
        assert protein.sequences


@reuse_folder
@given(data=st.binary(max_size=300), kind=st.sampled_from(sorted(SUFFIX)), gz=st.booleans())
def test_any_bytes_are_no_protein(tmp_path: Path, data: bytes, kind: str, gz: bool) -> None:
    """Random bytes under any name are failures."""
    result = read(tmp_path, data, kind, gz)
    assert result.failures or kind == "fasta"


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """A missing file, a broken link, a folder in a file's place: a failure with the reason."""
    result = read_source(SourceFile(tmp_path / "gone.pdb", "entry", "pdb"))
    assert "no such file" in reason_of(result)
    assert result.sha256 == b""
    (tmp_path / "folder.pdb").mkdir()
    result = read_source(SourceFile(tmp_path / "folder.pdb", "entry", "pdb"))
    assert reason_of(result) == "it is not a regular file"
