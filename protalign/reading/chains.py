"""Assembly of residues into chains, by the observed or the deposited sequence."""

from __future__ import annotations

import gemmi
import numpy as np

from protalign.core.arrays import Bool, Int64
from protalign.core.protein import Backbone, Chain
from protalign.reading.residue_names import CAPS, parent_name, residue_letter
from protalign.reading.residues import Residues

_NO_SEQRES = "no SEQRES: observed sequence taken"
_MISFIT = "SEQRES does not fit the coordinates: observed sequence taken"


def observed_chain(name: str, part: Residues, observed: Bool) -> Chain:
    """Return the chain of those residues that are ``observed`` (n,) bool."""
    if not observed.all():
        part = part[observed]
    return Chain(
        id=name,
        sequence=part.letters.tobytes().decode("ascii"),
        residue_numbers=part.numbers,
        insertion_codes=part.insertion_codes,
        observed=np.ones(len(part), dtype=np.bool_),
        backbone=Backbone(part.coordinates),
    )


def deposited_chain(
    structure: gemmi.Structure, index: int, part: Residues, observed: Bool
) -> tuple[Chain, str]:
    """Return the chain with its whole deposited sequence, and a note ("" if it fits).

    ``index`` is the chain's in the first model, ``part`` its n residues. If the deposited
    sequence is missing, or does not fit the residues, the observed one is taken.
    """
    members = list(structure[0][index])
    name = structure[0][index].name
    deposited, positions, note = _alignment(structure, members, part.rows.tolist())
    if note:
        return observed_chain(name, part, observed), note
    subchain = members[int(part.rows[0])].subchain
    present = {member.label_seq for member in members if member.subchain == subchain}
    letters: list[str] = []
    row_of: dict[int, int] = {}
    for position, monomer in enumerate(deposited, start=1):
        if position not in positions and (position in present or _is_other_group(monomer)):
            continue
        row_of[position] = len(letters)
        letters.append(residue_letter(monomer) or "X")
    rows = np.array([row_of[position] for position in positions], dtype=np.int64)[observed]
    return _with_gaps(name, "".join(letters), rows, part[observed]), ""


def _alignment(
    structure: gemmi.Structure, members: list[gemmi.Residue], rows: list[int]
) -> tuple[list[str], list[int], str]:
    """Return the deposited monomers, each residue's 1-based position in them, and a note."""
    residues = [members[row] for row in rows]
    subchain = residues[0].subchain
    sequences = [e.full_sequence for e in structure.entities if subchain in e.subchains]
    if not sequences or not sequences[0]:
        return [], [], _NO_SEQRES
    choices = [monomers.split(",") for monomers in sequences[0]]
    positions: list[int] = []
    for residue in residues:
        position = residue.label_seq
        after = positions[-1] if positions else 0
        if residue.subchain != subchain or position is None or not after < position <= len(choices):
            return [], [], _MISFIT
        if {residue.name, parent_name(residue.name)}.isdisjoint(choices[position - 1]):
            return [], [], _MISFIT
        positions.append(position)
    return [monomers[0] for monomers in choices], positions, ""


def _is_other_group(monomer: str) -> bool:
    """Return whether an unobserved monomer is known to be other than an amino acid."""
    if residue_letter(monomer):
        return False
    return monomer in CAPS or gemmi.find_tabulated_residue(monomer).found()


def _with_gaps(name: str, sequence: str, rows: Int64, part: Residues) -> Chain:
    """Return the chain of a deposited sequence; ``rows`` are its residues that have coordinates."""
    length = len(sequence)
    numbers = np.zeros(length, dtype=np.int32)
    codes = np.full(length, ord(" "), dtype=np.uint8)
    observed = np.zeros(length, dtype=np.bool_)
    xyz = np.full((length, 4, 3), np.nan, dtype=np.float32)
    numbers[rows], codes[rows], observed[rows] = part.numbers, part.insertion_codes, True
    xyz[rows] = part.coordinates
    return Chain(name, sequence, numbers, codes, observed, Backbone(xyz))
