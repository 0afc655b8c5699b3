"""What files say about a protein beside its residues."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.annotation import MOST_LETTERS, Annotation
from protalign.reading import ReadOptions, read_fasta
from protalign.reading.annotations import pdb_facts
from protalign.reading.fasta_headers import header_annotation
from tests.helpers.reading_files import DATA, as_bcif, read, read_one, text_of, write

PER_CHAIN = ReadOptions(per="chain")
#: Header, description, organism, taxid, accession.
HEADERS = [
    (
        "sp|P01308|INS_HUMAN Insulin OS=Homo sapiens OX=9606 GN=INS PE=1 SV=1",
        *("Insulin", "Homo sapiens", 9606, "P01308"),
    ),
    (
        "tr|A0A0|A0_ECOLX Heat = shock OS=Escherichia coli (strain K12) OX=83333 PE=4 SV=1",
        *("Heat = shock", "Escherichia coli (strain K12)", 83333, "A0A0"),
    ),
    (
        "UniRef50_P01308 Insulin n=3 Tax=Homo sapiens TaxID=9606 RepID=INS_HUMAN",
        *("Insulin", "Homo sapiens", 9606, "P01308"),
    ),
    (
        "AFDB:AF-P01308-F1 Insulin UA=P01308 UI=INS_HUMAN OS=Homo sapiens OX=9606 GN=INS",
        *("Insulin", "Homo sapiens", 9606, "P01308"),
    ),
    ("NP_000198.1 insulin [Homo sapiens]", "insulin", "Homo sapiens", None, "NP_000198.1"),
    (
        "gi|4557671|ref|NP_000198.1| insulin [Homo sapiens]",
        *("insulin", "Homo sapiens", None, "NP_000198.1"),
    ),
    (
        "WP_1.1 MULTISPECIES: kinase [[Clostridium] symbiosum]",
        *("MULTISPECIES: kinase", "[Clostridium] symbiosum", None, "WP_1.1"),
    ),
    (
        "NP_000198.1 insulin [organism=Homo sapiens] [GeneID=3630]",
        *("insulin", "Homo sapiens", None, "NP_000198.1"),
    ),
    (
        "AAA59172.1 insulin [Homo sapiens]\x01BAA00001.1 other [Mus musculus]",
        *("insulin", "Homo sapiens", None, "AAA59172.1"),
    ),
    (
        "pdb|1ABC|A Chain A, HYDROLASE [Mus musculus]",
        *("Chain A, HYDROLASE", "Mus musculus", None, "1ABC"),
    ),
    (
        "1ABC_1|Chains A, B|Barnase|Bacillus amyloliquefaciens (1390)",
        *("Barnase", "Bacillus amyloliquefaciens", 1390, "1ABC"),
    ),
    (
        "4HHB_2|Chain B[auth X]|Both|Homo sapiens (9606), Mus musculus (10090)",
        *("Both", "Homo sapiens; Mus musculus", None, "4HHB"),
    ),
    ("101m_A mol:protein length:154  MYOGLOBIN", "MYOGLOBIN", None, None, "101m"),
    ("P01308 some protein", "some protein", None, None, "P01308"),
    ("clone_7 my best [design]", "my best [design]", None, None, None),
    ("clone_7\ta tab", "a tab", None, None, None),
    ("clone_7", None, None, None, None),
    ("", None, None, None, None),
]


@pytest.mark.parametrize(("header", "description", "organism", "taxid", "accession"), HEADERS)
def test_headers_of_databases(
    header: str,
    description: str | None,
    organism: str | None,
    taxid: int | None,
    accession: str | None,
) -> None:
    """UniProt, UniRef, AlphaFold DB, NCBI, the PDB's two kinds, and plain text."""
    assert header_annotation(header) == Annotation(description, organism, taxid, accession)


@given(st.sampled_from(["", "sp|P1|x ", "NP_1.1 ", "1ABC_1|Chain A|", "UniRef1_a "]), st.text())
def test_no_header_does_harm(begin: str, rest: str) -> None:
    """Whatever it holds: short texts on one line, without anything that a terminal obeys."""
    found = header_annotation(begin + rest)
    for text in (found.description, found.organism, found.accession):
        assert text is None or (text.isprintable() and 0 < len(text) <= MOST_LETTERS)


def test_a_record_keeps_its_id(tmp_path: Path) -> None:
    """The first word is the id as before; bytes that are not UTF-8 and escapes become text."""
    path = tmp_path / "a.fasta"
    path.write_bytes(b">sp|P1|X_Y N\xe9 \x1b[31m OS=x OX=99999999999\nMKV\n>b\nMKV\n")
    first, second = read_fasta(path)
    assert [first.id, second.id] == ["sp|P1|X_Y", "b"]  # type: ignore[union-attr]
    expected = Annotation("N\\udce9 \\x1b[31m", "x", None, "P1")
    assert first.annotation == expected  # type: ignore[union-attr]
    assert not second.annotation  # type: ignore[union-attr]


def test_the_archives_formats_say_the_same() -> None:
    """The mmCIF and the PDB file of one entry, and the mmCIF and the BinaryCIF file of one."""
    cif, pdb = (read_one(DATA / name).annotation for name in ("1a8o.cif.gz", "1a8o.pdb.gz"))
    assert cif == Annotation(
        "HIV CAPSID C-TERMINAL DOMAIN", "Human immunodeficiency virus 1", 11676, "P12497"
    )
    assert pdb.organism == "HUMAN IMMUNODEFICIENCY VIRUS 1"
    assert (pdb.description, pdb.taxid, pdb.accession) == (
        cif.description,
        cif.taxid,
        cif.accession,
    )
    from_cif = read_one(DATA / "3jqh.cif.gz").annotation
    assert from_cif.accession == "Q9H2X3"
    assert from_cif.description == (
        "C-type lectin domain family 4 member M; "
        "Structure of the neck region of the glycan-binding receptor DC-SIGNR"
    )


def test_bcif_says_what_mmcif_says(tmp_path: Path) -> None:
    """The served file, and one made of the mmCIF file."""
    expected = read_one(DATA / "3jqh.cif.gz").annotation
    binary = tmp_path / "3jqh.bcif"
    binary.write_bytes(gzip.decompress((DATA / "3jqh.bcif.gz").read_bytes()))
    assert read_one(binary).annotation == expected
    binary.write_bytes(as_bcif(text_of("4zhl.cif.gz"), tmp_path))
    assert read_one(binary).annotation == read_one(DATA / "4zhl.cif.gz").annotation


def test_each_chain_has_its_own_molecule() -> None:
    """Of a complex of two molecules the chains differ; the whole has both, and no one taxon."""
    enzyme, peptide = read(DATA / "4zhl.cif.gz", PER_CHAIN).proteins
    assert enzyme.annotation.accession == "P00749"
    assert (enzyme.annotation.organism, enzyme.annotation.taxid) == ("Homo sapiens", 9606)
    assert (peptide.annotation.organism, peptide.annotation.taxid) == ("synthetic construct", 32630)
    assert peptide.annotation.accession is None
    whole = read_one(DATA / "4zhl.cif.gz").annotation
    assert (whole.organism, whole.taxid) == ("Homo sapiens; synthetic construct", None)
    (lac,) = read(DATA / "1lcd.pdb.gz", PER_CHAIN).proteins
    assert (lac.annotation.organism, lac.annotation.accession) == ("ESCHERICHIA COLI", "P03023")


def test_a_predicted_model_names_its_target(sample: Path, tmp_path: Path) -> None:
    """AlphaFold DB's tables: the reference sequence with its organism; "?" is unknown."""
    tables = (
        "_entity.pdbx_description Barnase\n_struct.title ?\n"
        "_ma_target_ref_db_details.target_entity_id A\n_ma_target_ref_db_details.db_name UNP\n"
        "_ma_target_ref_db_details.db_accession P00648\n"
        "_ma_target_ref_db_details.organism_scientific 'Bacillus amyloliquefaciens'\n"
        "_ma_target_ref_db_details.ncbi_taxonomy_id 1390\n#\n"
    )
    text = (sample / "1bpi_A.cif").read_text()
    text = text.replace(
        "loop_\n_entity.id\n_entity.type\nA polymer", "_entity.id A\n_entity.type polymer"
    )
    path = write(tmp_path / "model.cif", text.replace("loop_", tables + "loop_", 1))
    expected = Annotation("Barnase", "Bacillus amyloliquefaciens", 1390, "P00648")
    assert read_one(path).annotation == expected
    other = path.read_text().replace("details.db_name UNP", "details.db_name OTHER")
    assert read_one(write(tmp_path / "other.cif", other)).annotation.accession is None


def test_pdb_records() -> None:
    """Continued lines, long accessions in two records, chains without a letter, and before 1996."""
    facts = pdb_facts(
        "TITLE     A LONG\nTITLE    2 TITLE\n"
        "COMPND    MOL_ID: 1;\nCOMPND   2 MOLECULE: KINASE,\nCOMPND   3 ALPHA; CHAIN: A, B;\n"
        "COMPND   4 MOL_ID: 2; MOLECULE: TAIL; CHAIN: NULL\n"
        "SOURCE    MOL_ID: 1; ORGANISM_SCIENTIFIC: MUS MUSCULUS, HOMO SAPIENS;\n"
        "SOURCE   2 ORGANISM_TAXID: 10090, 9606\n"
        "DBREF1 1ABC A    1    10  UNP                  A0A024RBG1_HUMAN\n"
        "DBREF2 1ABC A     A0A024RBG1                          1          10\n"
        "DBREF  1ABC B    1    10  GB     12345    12345            1     10\n"
    )
    kinase = facts.annotation(["A"])
    assert kinase == Annotation(
        "KINASE, ALPHA; A LONG TITLE", "MUS MUSCULUS; HOMO SAPIENS", None, "A0A024RBG1"
    )
    assert facts.annotation(["B"]).accession is None
    assert facts.annotation([""]).description == "TAIL; A LONG TITLE"
    assert facts.annotation(["A", ""]).description == "KINASE, ALPHA; TAIL; A LONG TITLE"
    old = "COMPND    MYOGLOBIN (FERRIC)".ljust(72) + "1MBN   4\n"
    assert pdb_facts(old).annotation(["A"]).description == "MYOGLOBIN (FERRIC)"
    assert not pdb_facts("REMARK 350 none\n").annotation(["A"])


def test_a_title_is_no_part_of_a_protein(tmp_path: Path) -> None:
    """Another title, organism or accession: the same sequence and the same structure hash."""
    text = text_of("1a8o.cif.gz")
    other = text.replace("HIV CAPSID", "SOMETHING").replace("11676", "9606")
    before, after = (
        read_one(write(tmp_path / f"{n}.cif", each)) for n, each in enumerate((text, other))
    )
    assert before.annotation != after.annotation
    assert before.sequences == after.sequences
    assert before.structure is not None
    assert after.structure is not None
    assert before.structure.content_hash == after.structure.content_hash


def test_several_texts_are_joined_and_cut() -> None:
    """Each once; a taxon only if there is one; 500 letters at most; signs of "unknown" are."""
    assert Annotation.of(["a", "b", "a", "?"], ["."], ["9606", "9606"]) == Annotation(
        "a; b", None, 9606
    )
    assert Annotation.of("", taxid=["1", "2"], accession="-") == Annotation()
    assert Annotation.of(["x" * 400, "y" * 400]).description == "x" * 400 + "; " + "y" * 98
    for taxid in ("0", "-5", "9606.0", "٣", str(2**31)):
        assert Annotation.of(taxid=taxid).taxid is None
