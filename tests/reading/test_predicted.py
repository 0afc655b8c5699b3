"""Predicted structures: pLDDT in the B-factors, and a limit on it."""

from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import pytest

from protalign.reading import ReadOptions
from tests.helpers.reading_files import DATA, as_bcif, assert_same_chain, read, read_one, write


@pytest.fixture
def plddt() -> list[float]:
    return [50.0 + index % 50 for index in range(86)]


@pytest.fixture
def predicted(sample: Path, plddt: list[float]) -> gemmi.Structure:
    structure = gemmi.read_pdb_string(gzip.decompress((sample / "1vqb_A.pdb.gz").read_bytes()))
    structure.setup_entities()
    structure.entities[0].full_sequence = [r.name for r in structure[0]["A"]]
    structure.assign_label_seq_id()
    for value, res in zip(plddt, structure[0]["A"], strict=True):
        for one in res:
            one.b_iso = value
    return structure


@pytest.fixture
def modelcif(predicted: gemmi.Structure) -> str:
    """As AlphaFold DB writes it: the metric declared, pLDDT as B-factor."""
    block = predicted.make_mmcif_block()
    block.init_mmcif_loop("_ma_qa_metric.", ["id", "mode", "name", "type"]).add_row(
        ["2", "local", "pLDDT", "pLDDT"]
    )
    return block.as_string()


def test_residues_below_leave_the_observed_sequence(
    modelcif: str, plddt: list[float], tmp_path: Path
) -> None:
    """MmCIF and BinaryCIF alike: what stays is what has at least the limit."""
    whole = write(tmp_path / "m.cif", modelcif)
    expected = "".join(
        letter
        for letter, value in zip(read_one(whole).sequences[0], plddt, strict=True)
        if value >= 70
    )
    assert 0 < len(expected) < 86
    cut = read_one(whole, ReadOptions(min_plddt=70))
    assert cut.sequences == (expected,)
    assert cut.structure is not None
    assert len(cut.structure) == len(expected)
    binary = tmp_path / "b.bcif.gz"
    binary.write_bytes(gzip.compress(as_bcif(modelcif, tmp_path)))
    (tmp_path / "made.bcif").unlink()
    assert_same_chain(cut.chains[0], read_one(binary, ReadOptions(min_plddt=70)).chains[0])


def test_residues_below_stay_in_the_deposited_sequence(
    modelcif: str, plddt: list[float], tmp_path: Path
) -> None:
    """There they are letters without coordinates, not observed."""
    path = write(tmp_path / "m.cif", modelcif)
    options = ReadOptions(sequence="deposited", min_plddt=70)
    protein = read_one(path, options)
    assert protein.sequences == read_one(path).sequences
    assert protein.chains[0].observed.tolist() == [value >= 70 for value in plddt]
    assert protein.chains[0].backbone is not None
    assert (protein.chains[0].backbone.complete == protein.chains[0].observed).all()


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_predictors_bare_pdb_files_are_known_by_their_numbers(
    predicted: gemmi.Structure, tmp_path: Path, scale: float
) -> None:
    """No header: the same value for all atoms of a residue, 0 to 100 or 0 to 1."""
    for res in predicted[0]["A"]:
        for one in res:
            one.b_iso *= scale
    path = write(tmp_path / "m.pdb", predicted.make_minimal_pdb())
    assert 0 < len(read_one(path, ReadOptions(min_plddt=70))) < 86


def test_all_below_is_a_failure(modelcif: str, tmp_path: Path) -> None:
    """Nothing left is said, not stored."""
    result = read(write(tmp_path / "m.cif", modelcif), ReadOptions(min_plddt=100))
    assert result.proteins == []
    assert "no residue has a pLDDT of 100" in result.failures[0].reason


def test_experimental_structures_are_kept_whole_with_a_note() -> None:
    """Their B-factors are no pLDDT and filter nothing."""
    protein = read_one(DATA / "1a8o.pdb.gz", ReadOptions(min_plddt=70))
    assert len(protein) == 70
    assert protein.notes == ("experimental structure: min_plddt not applied",)


def test_structures_of_unknown_origin_are_refused(sample: Path) -> None:
    """B-factors that differ within residues, and no header: nobody knows, so nothing is cut."""
    result = read(sample / "1vqb_A.pdb.gz", ReadOptions(min_plddt=70))
    assert result.proteins == []
    assert "does not declare a predicted structure" in result.failures[0].reason
