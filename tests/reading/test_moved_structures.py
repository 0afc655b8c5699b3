"""Structure files whose atoms are moved."""

from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest

from protalign.core.errors import InputError
from protalign.reading.moved_structures import move_structure

OPERATORS = """
_struct_ncs_oper.id 1
_struct_ncs_oper.code generate
_struct_ncs_oper.matrix[1][1] 0
_struct_ncs_oper.matrix[1][2] 1
_struct_ncs_oper.matrix[1][3] 0
_struct_ncs_oper.vector[1] 5
_struct_ncs_oper.matrix[2][1] 1
_struct_ncs_oper.matrix[2][2] 0
_struct_ncs_oper.matrix[2][3] 0
_struct_ncs_oper.vector[2] 0
_struct_ncs_oper.matrix[3][1] 0
_struct_ncs_oper.matrix[3][2] 0
_struct_ncs_oper.matrix[3][3] 1
_struct_ncs_oper.vector[3] 0
"""
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def places(path: Path) -> np.ndarray:
    """Coordinates of all atoms of all models, by gemmi."""
    structure = gemmi.read_structure(str(path))
    return np.array([a.pos.tolist() for model in structure for c in model for r in c for a in r])


@pytest.fixture
def pdb(tmp_path: Path, sample: Path) -> Path:
    """A real chain twice as two models, with a crystal, tensors and an operator."""
    lines = gzip.decompress((sample / "1bpt_A.pdb.gz").read_bytes()).decode().splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM", "TER"))]
    anisou = atoms[0].replace("ATOM  ", "ANISOU")
    remarks = ["REMARK 350   BIOMT1   1  0.0  1.0  0.0  0.0", "REMARK   2 RESOLUTION. 1.9"]
    crystal = "CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1 21 1"
    both = ["MODEL        1", atoms[0], anisou, *atoms[1:], "ENDMDL", "MODEL        2", *atoms]
    file = tmp_path / "two.pdb"
    file.write_text("\n".join([*remarks, crystal, *both, "ENDMDL", "END", ""]))
    return file


def test_every_atom_of_every_model_moves(pdb: Path) -> None:
    """What else is in the lines stays; what holds for the old place alone is left out."""
    before, text = places(pdb), pdb.read_text()
    assert move_structure(pdb, TURN, np.array([1.0, -2.0, 3.0])) == pdb
    np.testing.assert_allclose(places(pdb), before @ TURN.T + [1, -2, 3], atol=6e-4)
    moved = pdb.read_text()
    assert [line[:30] + line[54:] for line in moved.splitlines() if line[:4] == "ATOM"] == [
        line[:30] + line[54:] for line in text.splitlines() if line[:4] == "ATOM"
    ]
    assert "REMARK   2 RESOLUTION" in moved
    for name in ("CRYST1", "ANISOU", "REMARK 350"):
        assert name in text
        assert name not in moved


def test_atoms_that_leave_the_columns_make_mmcif(pdb: Path) -> None:
    """PDB ends at -999.999 and 9999.999; nothing is cut off."""
    before = places(pdb)
    far = np.array([-2000.0, 0.0, 0.0])
    moved = move_structure(pdb, np.eye(3), far)
    assert moved == pdb.with_suffix(".cif")
    assert not pdb.exists()
    np.testing.assert_allclose(places(moved), before + far, atol=1e-3)


def test_mmcif_moves(tmp_path: Path, sample: Path) -> None:
    """All atoms, without the crystal and operators, which are of the old place."""
    file = copied(sample / "1bpi_A.cif", tmp_path)
    text = file.read_text()
    assert "_cell.length_a" in text
    file.write_text(text + OPERATORS)
    before = places(file)
    assert move_structure(file, TURN, np.zeros(3)) == file
    np.testing.assert_allclose(places(file), before @ TURN.T, atol=1e-4)
    moved = file.read_text()
    for name in ("_cell.", "_symmetry.", "_struct_ncs_oper.", "_pdbx_struct_oper_list."):
        assert name not in moved


def copied(source: Path, folder: Path) -> Path:
    """The copy of a file in a folder."""
    copy = folder / source.name
    copy.write_bytes(source.read_bytes())
    return copy


def test_an_atom_without_numbers_is_refused(pdb: Path) -> None:
    """The file stays as it was."""
    text = pdb.read_text()
    first = next(line for line in text.splitlines() if line.startswith("ATOM"))
    broken = text.replace(first, first[:30] + "   x.xxx" + first[38:], 1)
    pdb.write_text(broken)
    with pytest.raises(InputError, match="an atom has no coordinates"):
        move_structure(pdb, TURN, np.zeros(3))
    assert pdb.read_text() == broken
