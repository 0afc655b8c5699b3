"""Structure files whose atoms are moved: rotated, and then shifted."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np

from protalign.core.arrays import Float64
from protalign.core.errors import InputError
from protalign.core.files import write_bytes, write_text
from protalign.core.printing import one_line
from protalign.reading.pdb_lines import SHORTEST, PdbLines

#: Records of a PDB file that do not hold for moved atoms: crystals, operators, and tensors.
_OF_THE_PLACE = (
    *(b"CRYST1", b"ANISOU", b"SIGATM", b"SIGUIJ", b"TVECT "),
    *(name + digit for name in (b"ORIGX", b"SCALE", b"MTRIX") for digit in (b"1", b"2", b"3")),
)
_REMARKS_OF_THE_PLACE = (b"REMARK 290", b"REMARK 350")
#: The same of mmCIF, as gemmi names its groups of categories.
_GROUPS_OF_THE_PLACE = ("cell", "symmetry", "scale", "ncs", "origx", "assembly", "tls")
#: The columns of x, y and z.
_X, _WIDTH = 30, 8


def move_structure(file: Path, rotation: Float64, translation: Float64) -> Path:
    """Move all atoms of a PDB or mmCIF file, and replace the file.

    What holds only where the atoms were is left out: the crystal, symmetry operators, assemblies,
    and in PDB also anisotropic displacements.

    Parameters
    ----------
    file : Path
        A file with .pdb or .cif, as ``structure_writer`` writes it.
    rotation : (3, 3) float64
        An atom at x moves to ``rotation @ x + translation``.
    translation : (3,) float64
        In Å.

    Returns
    -------
    Path
        The file; with .cif if the moved atoms do not fit PDB's columns.

    Raises
    ------
    InputError
        The file cannot be read.
    WriteError
        It cannot be written.
    """
    if file.suffix == ".pdb":
        data = _moved_pdb(file.read_bytes(), rotation, translation)
        if data is not None:
            write_bytes(file, data)
            return file
    try:
        structure = gemmi.read_structure(str(file))
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"gemmi cannot read it ({one_line(error)})", "fetch it again") from None
    motion = gemmi.Transform()
    motion.mat.fromlist(rotation.tolist())
    motion.vec.fromlist(translation.tolist())
    for model in structure:
        model.transform_pos_and_adp(motion)
    structure.setup_entities()
    groups = gemmi.MmcifOutputGroups(True)
    for group in _GROUPS_OF_THE_PLACE:
        setattr(groups, group, False)
    # gemmi does not know the types of components, and "unknown" makes Mol* draw no cartoon.
    groups.chem_comp = False
    moved = file.with_suffix(".cif")
    write_text(moved, structure.make_mmcif_document(groups).as_string())
    if moved != file:
        file.unlink()
    return moved


def _moved_pdb(data: bytes, rotation: Float64, translation: Float64) -> bytes | None:
    """Return PDB text with its atoms moved; None if they do not fit the columns.

    Raise InputError if an atom has no numbers there.
    """
    lines = PdbLines(data)
    atoms = np.flatnonzero(lines.is_atom).tolist()
    text = lines.data.split(b"\n")
    fields = [
        [text[line][_X + _WIDTH * axis : _X + _WIDTH * (axis + 1)] for axis in range(3)]
        for line in atoms
    ]
    try:
        points = np.array([[float(field) for field in row] for row in fields])
    except ValueError:
        raise InputError("an atom has no coordinates", "fetch it again") from None
    moved = points.reshape(-1, 3) @ rotation.T + translation
    if len(moved) and not (moved.min() > -999.9995 and moved.max() < 9999.9995):
        return None  # NaN too
    for line, point in zip(atoms, moved.tolist(), strict=True):
        row = text[line]
        text[line] = row[:_X] + b"".join(b"%8.3f" % value for value in point) + row[SHORTEST:]
    is_atom = set(atoms)
    kept = (
        row
        for line, row in enumerate(text)
        if line in is_atom or not row.startswith((*_OF_THE_PLACE, *_REMARKS_OF_THE_PLACE))
    )
    return b"\n".join(kept)
