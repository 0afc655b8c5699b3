"""What a structure file becomes."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import biotite.structure as struc
import gemmi
import numpy as np
import pytest
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFFile, get_structure

from protalign.core.errors import InputError
from protalign.reading import ReadOptions, find_sources, read_sources
from tests.helpers.reading_files import (
    DATA,
    as_bcif,
    assert_same_chain,
    atom,
    read,
    read_one,
    residue,
    text_of,
    write,
)

DEPOSITED = ReadOptions(sequence="deposited")
PER_CHAIN = ReadOptions(per="chain")


def test_development_data_gives_exactly_the_manifests_sequences(shared: Path) -> None:
    """Unique chains in order: 285 complexes, 215 test sequences, a quarter of the pool."""
    with (shared / "data" / "manifest.csv").open() as handle:
        expected = {row["id"]: row["sequence"] for row in csv.DictReader(handle)}
    sources, failures = find_sources([shared / "data" / "casf2016", shared / "data" / "pool"])
    assert failures == []
    assert len(sources) == 285 + 3211
    casf = set()
    for result in read_sources([*sources[:285], *sources[285::4]]):
        assert result.failures == []
        [protein] = result.proteins
        is_casf = result.source.path.name.endswith("_protein.pdb.gz")
        sequence = "|".join(protein.sequences)
        assert sequence == expected["casf_" + protein.id if is_casf else protein.id], protein.id
        if is_casf:
            casf.add(sequence)
    assert len(casf) == 215


def test_sample_reads_whole(sample: Path) -> None:
    """All 40 shipped chains are proteins with a structure; nothing else in the folder is taken."""
    sources, failures = find_sources([sample])
    assert failures == []
    proteins = [read_one(source.path) for source in sources]
    assert len({protein.id for protein in proteins}) == 40
    assert all(
        protein.structure is not None and len(protein.structure) > 50 for protein in proteins
    )


@pytest.mark.filterwarnings("ignore:Attribute .* not found:UserWarning")
def test_coordinates_equal_those_of_an_independent_reader(sample: Path) -> None:
    """Biotite's own PDB and mmCIF readers give the same backbone atoms, residue by residue."""
    for source in find_sources([sample])[0]:
        protein = read_one(source.path)
        data = source.path.read_bytes()
        text = (gzip.decompress(data) if source.path.suffix == ".gz" else data).decode()
        if source.kind == "pdb":
            atoms = PDBFile.read(io.StringIO(text)).get_structure(model=1)
        else:
            atoms = get_structure(CIFFile.read(io.StringIO(text)), model=1)
        atoms = atoms[struc.filter_amino_acids(atoms)]
        [chain] = protein.chains
        assert chain.backbone is not None
        starts = struc.get_residue_starts(atoms)
        np.testing.assert_array_equal(atoms.res_id[starts], chain.residue_numbers)
        row_of = np.searchsorted(starts, np.arange(len(atoms)), side="right") - 1
        theirs = np.full((len(starts), 4, 3), np.nan)
        for column, name in enumerate(("N", "CA", "C", "O")):
            (named,) = np.nonzero(atoms.atom_name == name)
            rows, first = np.unique(row_of[named], return_index=True)
            theirs[rows, column] = atoms.coord[named[first]]
        np.testing.assert_allclose(chain.backbone.coordinates, theirs, atol=1e-4)


@pytest.mark.parametrize("options", [ReadOptions(), DEPOSITED], ids=lambda o: o.sequence)
def test_pdb_and_mmcif_of_an_entry_are_the_same_protein(options: ReadOptions) -> None:
    """1A8O: MSE is M in both; letters, numbers and coordinates are equal."""
    pdb = read_one(DATA / "1a8o.pdb.gz", options)
    cif = read_one(DATA / "1a8o.cif.gz", options)
    assert pdb.sequences[0].startswith("MDIRQGPKEPFRDYVDRFYKTLRAEQASQEVKNWMTETLLVQNANPDCKTILKALG")
    assert_same_chain(pdb.chains[0], cif.chains[0])


@pytest.mark.parametrize("options", [ReadOptions(), DEPOSITED], ids=lambda o: o.sequence)
def test_archives_binarycif_is_the_same_protein_as_its_mmcif(options: ReadOptions) -> None:
    """3JQH as the RCSB serves it in both formats, alternate locations and all."""
    cif = read_one(DATA / "3jqh.cif.gz", options)
    bcif = read_one(DATA / "3jqh.bcif.gz", options)
    assert_same_chain(cif.chains[0], bcif.chains[0])


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".bcif", ".ent.gz", ".mmcif.gz", ".bcif.gz"])
def test_every_format_of_a_sample_chain_is_the_same_protein(
    sample: Path, tmp_path: Path, suffix: str
) -> None:
    """One chain, written in each format and compressed, reads to equal values."""
    original = sample / "1vqb_A.pdb.gz"
    structure = gemmi.read_pdb_string(gzip.decompress(original.read_bytes()))
    structure.setup_entities()
    path = tmp_path / f"1vqb_A{suffix}"
    if "cif" in suffix:
        text = structure.make_mmcif_document().as_string()
        data = text.encode()
        if "bcif" in suffix:
            data = as_bcif(text, tmp_path)
    else:
        data = structure.make_pdb_string().encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    before, after = read_one(original), read_one(path)
    assert before.id == after.id
    assert_same_chain(before.chains[0], after.chains[0])
    assert before.structure is not None
    assert after.structure is not None
    assert before.structure.content_hash == after.structure.content_hash


def test_first_model_of_an_ensemble_without_its_dna() -> None:
    """1LCD: three models, chains B and C are DNA; one chain of 51 residues comes out."""
    protein = read_one(DATA / "1lcd.pdb.gz")
    assert [chain.id for chain in protein.chains] == ["A"]
    assert len(protein) == 51
    first = gemmi.read_pdb_string(text_of("1lcd.pdb.gz"))[0]["A"]
    assert protein.chains[0].backbone is not None
    np.testing.assert_allclose(
        protein.chains[0].backbone.coordinates[:, 1],
        [r["CA"][0].pos.tolist() for r in first.get_polymer()],
        atol=1e-4,
    )


def test_insertion_codes_and_authors_numbers_are_kept() -> None:
    """4ZHL: chymotrypsin numbering, 37A to 37D, is there as the authors gave it."""
    urokinase = read_one(DATA / "4zhl.cif.gz").chains[0]
    labels = [
        f"{number}{chr(code)}".strip()
        for number, code in zip(
            urokinase.residue_numbers.tolist(), urokinase.insertion_codes.tolist(), strict=True
        )
    ]
    assert labels[0] == "16"
    assert {"37A", "37B", "37C", "37D"} <= set(labels)
    assert len(set(labels)) == len(labels) == 247


def test_per_chain_entries_share_one_structure() -> None:
    """One entry for each usable chain, named after file and chain; all in one complex."""
    proteins = read(DATA / "2beg.pdb.gz", PER_CHAIN).proteins
    assert [protein.id for protein in proteins] == [f"2beg_{c}" for c in "ABCDE"]
    structure = proteins[0].structure
    assert structure is not None
    assert all(protein.structure is structure for protein in proteins)
    assert structure.kept == (0, 1, 2, 3, 4)
    assert [p.chains[0] for p in proteins] == list(structure.chains)


def test_identical_chains_count_once_but_stay_in_the_complex() -> None:
    """2BEG: five equal chains; the first is the protein, all five are what an encoder sees."""
    protein = read_one(DATA / "2beg.pdb.gz")
    assert [chain.id for chain in protein.chains] == ["A"]
    assert protein.structure is not None
    assert len(protein.structure.chains) == 5
    assert protein.structure.kept == (0,)


@pytest.mark.parametrize(
    ("name", "deposited", "observed"), [("2beg.pdb.gz", 42, 26), ("3jqh.cif.gz", 167, 23)]
)
def test_deposited_sequence_holds_the_observed_one_at_its_places(
    name: str, deposited: int, observed: int
) -> None:
    """SEQRES or entity sequence whole; unobserved residues have number 0 and no coordinates."""
    whole = read_one(DATA / name, DEPOSITED).chains[0]
    part = read_one(DATA / name).chains[0]
    assert (len(whole), len(part)) == (deposited, observed)
    assert "".join(np.array(list(whole.sequence))[whole.observed]) == part.sequence
    assert whole.backbone is not None
    assert part.backbone is not None
    np.testing.assert_array_equal(
        whole.backbone.coordinates[whole.observed], part.backbone.coordinates
    )
    np.testing.assert_array_equal(whole.residue_numbers[whole.observed], part.residue_numbers)
    assert np.isnan(whole.backbone.coordinates[~whole.observed]).all()
    assert (whole.residue_numbers[~whole.observed] == 0).all()


def test_without_seqres_the_observed_sequence_is_taken_and_said_so(sample: Path) -> None:
    """A file without a deposited sequence still reads; a note tells."""
    path = sample / "1vqb_A.pdb.gz"
    protein = read_one(path, DEPOSITED)
    assert protein.sequences == read_one(path).sequences
    assert protein.notes == ("chain A: no SEQRES: observed sequence taken",)


def test_seqres_that_contradicts_the_coordinates_is_not_used(tmp_path: Path) -> None:
    """A SEQRES of another protein must not be laid over the residues."""
    text = "SEQRES   1 A    3  TRP TRP TRP\n" + residue(1) + residue(2) + residue(3) + "TER\nEND\n"
    protein = read_one(write(tmp_path / "a.pdb", text), DEPOSITED)
    assert protein.sequences == ("GGG",)
    assert "does not fit" in protein.notes[0]


def test_alternate_locations_resolve_to_one_conformer_per_residue(tmp_path: Path) -> None:
    """The one of highest occupancy, whole: never N of one conformer beside CA of another."""
    text = residue(1)
    for name in ("N", "CA", "C", "O"):
        text += atom(2, name, x=1.0, altloc="A", occupancy=0.4)
        text += atom(2, name, x=2.0, altloc="B", occupancy=0.6)
    text += atom(3, "N") + atom(3, "C") + atom(3, "O")
    text += atom(3, "CA", x=3.0, altloc="A", occupancy=0.5)
    text += atom(3, "CA", x=4.0, altloc="B", occupancy=0.5)
    chain = read_one(write(tmp_path / "a.pdb", text)).chains[0]
    assert chain.backbone is not None
    assert chain.backbone.coordinates[1, :, 0].tolist() == [2, 2, 2, 2]
    assert chain.backbone.coordinates[2, :, 0].tolist() == [0, 3, 0, 0]


def test_real_alternate_locations_equal_gemmis_main_conformer() -> None:
    """3JQH, all of whose residues have alternates: A leads, and no residue is lost or doubled."""
    chain = read_one(DATA / "3jqh.cif.gz").chains[0]
    model = gemmi.make_structure_from_block(gemmi.cif.read_string(text_of("3jqh.cif.gz"))[0])[0]
    polymer = model["A"].get_polymer().first_conformer()
    best = [
        max((a for a in r if a.name == "CA"), key=lambda a: a.occ).pos.tolist() for r in polymer
    ]
    assert chain.backbone is not None
    np.testing.assert_allclose(chain.backbone.coordinates[:, 1], best, atol=1e-4)


def test_microheterogeneity_gives_one_residue(tmp_path: Path) -> None:
    """Two residue types at one place: the one of higher occupancy."""
    text = residue(1)
    for name in ("N", "CA", "C", "O"):
        text += atom(2, name, "SER", altloc="A", occupancy=0.3)
        text += atom(2, name, "THR", altloc="B", occupancy=0.7)
    text += residue(3)
    assert read_one(write(tmp_path / "a.pdb", text)).sequences == ("GTG",)


def test_modified_and_unknown_residues(tmp_path: Path) -> None:
    """MSE, SEP and D-alanine read as M, S, A; what nobody knows but has N and CA reads as X."""
    text = "".join(residue(i, n) for i, n in enumerate(("MSE", "SEP", "DAL", "QQQ", "UNK"), 1))
    assert read_one(write(tmp_path / "a.pdb", text)).sequences == ("MSAXX",)


def test_free_amino_acid_beside_a_chain_is_no_residue(tmp_path: Path) -> None:
    """A GLU ligand after the chain is left out; a modified residue moved there is kept."""
    text = residue(1) + residue(2) + residue(3)
    ligand = residue(400, "GLU", record="HETATM")
    bonded = residue(4, "TPO", record="HETATM")
    bonded = bonded.replace(bonded[30:54], f"{0.0:8.3f}{4.0:8.3f}{0.0:8.3f}")
    assert read_one(write(tmp_path / "a.pdb", text + "TER\n" + ligand)).sequences == ("GGG",)
    assert read_one(write(tmp_path / "b.pdb", text + bonded)).sequences == ("GGGT",)


def test_chain_split_in_the_file_is_one_chain(tmp_path: Path) -> None:
    """Parts of a chain before and after another chain are one chain, in the file's order."""
    text = residue(1) + residue(2) + "TER\n" + residue(1, "ALA", "B") + residue(2, "ALA", "B")
    text += "TER\n" + residue(3, "SER") + residue(4, "SER")
    assert read_one(write(tmp_path / "a.pdb", text)).sequences == ("GGSS", "AA")


def test_incomplete_backbone_stays_in_the_sequence_without_a_row(tmp_path: Path) -> None:
    """A residue without O is a letter, and no structure row."""
    text = residue(1) + atom(2, "N") + atom(2, "CA") + atom(2, "C") + residue(3)
    protein = read_one(write(tmp_path / "a.pdb", text))
    assert protein.sequences == ("GGG",)
    assert protein.chains[0].structure_rows.tolist() == [0, 2]


def test_residue_with_side_chain_atoms_only_stays_in_the_sequence(tmp_path: Path) -> None:
    """No backbone atom at all, and still one letter."""
    text = residue(1) + atom(2, "CB", "ALA") + atom(2, "XX", "ALA") + residue(3)
    assert read_one(write(tmp_path / "a.pdb", text)).sequences == ("GAG",)


def test_unusable_chains_are_left_out_with_a_note(tmp_path: Path) -> None:
    """One residue, or CA atoms only, beside a good chain: the good chain is the protein."""
    text = residue(1) + residue(2) + residue(9, "ALA", "B")
    text += atom(1, "CA", "SER", "C") + atom(2, "CA", "SER", "C") + "END\n"
    protein = read_one(write(tmp_path / "a.pdb", text))
    assert protein.sequences == ("GG",)
    assert protein.notes == ("chain B: one residue, left out", "chain C: only CA atoms, left out")


def test_line_endings_marks_and_letters_outside_ascii_do_no_harm(
    sample: Path, tmp_path: Path
) -> None:
    """CRLF, a byte order mark, Latin-1 in the header: the same protein."""
    original = sample / "1vqb_A.pdb.gz"
    text = gzip.decompress(original.read_bytes())
    data = b"\xef\xbb\xbfREMARK   1 AUTH   J.M\xfcller\r\n" + text.replace(b"\n", b"\r\n")
    path = tmp_path / "1vqb_A.pdb"
    path.write_bytes(data)
    assert_same_chain(read_one(original).chains[0], read_one(path).chains[0])
    cif = (sample / "1bpi_A.cif").read_bytes()
    path = tmp_path / "1bpi_A.cif"
    path.write_bytes(cif.replace(b"_entry.id", b"_a.author 'J.M\xfcller'\n_entry.id", 1))
    assert_same_chain(read_one(sample / "1bpi_A.cif").chains[0], read_one(path).chains[0])


def test_six_digit_serial_numbers_are_atoms_too(sample: Path, tmp_path: Path) -> None:
    """The record "ATOM 100000" reaches into the record name and is an atom all the same."""
    original = sample / "1vqb_A.pdb.gz"
    lines = gzip.decompress(original.read_bytes()).decode().splitlines(keepends=True)
    shifted = [
        f"ATOM {100000 + i}{line[11:]}" if line.startswith("ATOM") else line
        for i, line in enumerate(lines)
    ]
    path = write(tmp_path / "1vqb_A.pdb", "".join(shifted))
    assert_same_chain(read_one(original).chains[0], read_one(path).chains[0])


@pytest.mark.parametrize(
    "bad", [{"per": "residue"}, {"sequence": "seqres"}, {"min_plddt": 101}, {"min_plddt": -1}]
)
def test_options_are_checked_when_made(bad: dict[str, object]) -> None:
    """A wrong value is an InputError that names it."""
    with pytest.raises(InputError, match=next(iter(bad))):
        ReadOptions(**bad)  # type: ignore[arg-type]
