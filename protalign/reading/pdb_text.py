"""Reading of PDB text into a gemmi structure: records are checked, and only those needed kept.

gemmi reads bad PDB text in silence: ``******`` becomes the coordinate 0.0, and a residue number
that is not a number becomes 0. So the columns are checked here, for all lines at once. What is not
a protein (water, lipids, ions, ligands) is dropped first, so its lines may hold anything. Columns
67 to 80 are looked at only if molecules of one chain must be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np

from protalign.core.arrays import Int64
from protalign.core.errors import InputError
from protalign.core.printing import one_line
from protalign.reading.content import FETCH_AGAIN
from protalign.reading.molecules import chain_code
from protalign.reading.pdb_lines import SHORTEST, THROUGH_B_FACTOR, WIDTH, PdbLines
from protalign.reading.pdb_residues import PdbResidues
from protalign.reading.residue_names import residue_letter
from protalign.reading.residues import no_protein


@dataclass(frozen=True, slots=True)
class PdbContent:
    """The first model of a PDB text.

    Attributes
    ----------
    structure : gemmi.Structure
        Its backbone atoms and every residue's first atom; each molecule is a chain.
    letters : list of str
        The letter of each chain in the file: molecules of one letter have names of their own.
    header : str
        The text before its first atom.
    notes : list of str
        Remarks about what was divided or left out.
    """

    structure: gemmi.Structure
    letters: list[str]
    header: str
    notes: list[str]


def read_pdb(data: bytes, with_seqres: bool = False) -> PdbContent:
    """Read the first model of PDB text (line ends are newlines), with SEQRES if it is wanted.

    Raises InputError for text that is truncated or damaged, or has no atoms.
    """
    lines = PdbLines(data)
    atoms = np.flatnonzero(lines.is_atom)
    if len(atoms) == 0:
        raise InputError("it has no ATOM records", "give a file with coordinates")
    _check_end(lines, atoms)
    header = lines.data[: lines.starts[atoms[0]]].decode("latin-1")
    first_model = lines.end_of_first_model(atoms)
    notes = _left_out(lines, atoms, first_model)
    atoms = atoms[atoms < first_model]
    residues = PdbResidues(lines, atoms)
    if len(residues.runs) == 0:
        raise no_protein()
    notes += _joined(lines, atoms)
    if lines.is_last(residues.last_line):
        notes.append(
            "nothing marks the end of its atoms (TER, END): if it was cut there, residues are "
            "missing"
        )
    molecules = residues.molecules()
    names, of_chains = molecules.names
    notes += of_chains
    text = residues.text(molecules)
    if with_seqres:
        text = residues.seqres(molecules) + text
    if not text.isascii():
        raise InputError("its PDB records are damaged (bytes that are not ASCII)", FETCH_AGAIN)
    try:
        structure = gemmi.read_pdb_string(text)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"its PDB records are damaged ({one_line(error)})", FETCH_AGAIN) from error
    structure.merge_chain_parts()
    by_code = {chain_code(index).decode(): index for index in range(len(names))}
    indices = [by_code[chain.name] for chain in structure[0]]
    for chain, index in zip(structure[0], indices, strict=True):
        chain.name = names[index]
    letters = [molecules.chains[index] for index in indices]
    return PdbContent(structure, letters, header, notes)


def _joined(lines: PdbLines, atoms: Int64) -> list[str]:
    """Return a note if a line holds the beginning of one atom and the end of another."""
    lengths = lines.ends[atoms] - lines.starts[atoms]
    odd = (lengths > WIDTH) | (lengths < SHORTEST)
    if not 0 < np.count_nonzero(odd) <= max(1, len(atoms) // 100):  # else its writer's habit
        return []
    return [
        f"line {atoms[np.argmax(odd)] + 1} is not as long as an atom's: if a part of the file was "
        "lost there, residues are missing"
    ]


def _left_out(lines: PdbLines, atoms: Int64, first_model: int) -> list[str]:
    """Return a note if proteins follow the first model."""
    rest = atoms[np.searchsorted(atoms, first_model) :]
    if len(rest) == 0:
        return []
    models = len(lines.of(b"MODEL"))
    if models > 1:
        return [first_model_note(models)]
    names = np.unique(lines.columns(lines.starts[rest], 17, 20).copy().view("S3"))
    if not any(residue_letter(name.strip()) for name in names.tolist()):
        return []
    mark = lines.text(first_model)[:6].decode("latin-1").strip()
    return [
        f"the atoms after its first {mark} were left out ({len(rest):,}); to read them, delete "
        f"that line, or write them to a file of their own"
    ]


def first_model_note(models: int) -> str:
    """Return the note of a file with several models."""
    return (
        f"the first of its {models:,} models was read; to read the others, write each to a file "
        "of its own"
    )


def _check_end(lines: PdbLines, atoms: Int64) -> None:
    """Raise InputError if the text plainly stops before its end."""
    truncated = InputError("it is truncated: the file ends early", FETCH_AGAIN)
    lengths = lines.ends[atoms] - lines.starts[atoms]
    last_is_atom = atoms[-1] == len(lines.ends) - 1
    if not lines.whole and last_is_atom:
        usual = lengths[-2] if len(lengths) > 1 else THROUGH_B_FACTOR
        if lengths[-1] < min(usual, THROUGH_B_FACTOR):
            raise truncated
    if len(lines.of(b"END")):
        return
    if len(lines.of(b"MODEL")) > len(lines.of(b"ENDMDL")):
        raise truncated
    # The archive's own files say so in REMARK 4, and always end in END.
    if b" COMPLIES WITH FORMAT V." in lines.data[: lines.starts[atoms[0]]]:
        raise truncated
