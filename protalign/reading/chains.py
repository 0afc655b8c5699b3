"""Residues to chains, by the observed or the deposited sequence."""

from __future__ import annotations

import gemmi
import numpy as np
import numpy.typing as npt

from protalign.core.protein import Backbone, Chain
from protalign.reading.residues import Residues, residue_letter

#: Groups that close a chain's end and are no residues, where gemmi's table does not know them.
_CAPS = frozenset({"FOR", "NME"})
_NO_SEQRES = "no SEQRES: observed sequence taken"
_MISFIT = "SEQRES does not fit the coordinates: observed sequence taken"


def observed_chain(name: str, part: Residues, observed: npt.NDArray[np.bool_]) -> Chain:
    """The chain of those residues that are ``observed`` (n,) bool."""
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
    structure: gemmi.Structure, index: int, part: Residues, observed: npt.NDArray[np.bool_]
) -> tuple[Chain, str]:
    """The chain with its whole deposited sequence, and a note ("" where all went well).

    ``index`` is the chain's in the first model, ``part`` its n residues. Where the file has no
    deposited sequence, or one that the residues do not fit into, the observed one is taken.
    """
    members = list(structure[0][index])
    name = structure[0][index].name
    full, places, note = _alignment(structure, members, part.rows.tolist())
    if note:
        return observed_chain(name, part, observed), note
    present = {
        member.label_seq for member in members if member.subchain == _subchain(members, part)
    }
    letters: list[str] = []
    slots: dict[int, int] = {}
    for place, monomer in enumerate(full, start=1):
        letter = residue_letter(monomer)
        if place not in places and (place in present or _is_no_residue(monomer)):
            continue
        slots[place] = len(letters)
        letters.append(letter or "X")
    rows = np.array([slots[place] for place in places], dtype=np.int64)[observed]
    return _with_gaps(name, "".join(letters), rows, part[observed]), ""


def _subchain(members: list[gemmi.Residue], part: Residues) -> str:
    return members[int(part.rows[0])].subchain


def _alignment(
    structure: gemmi.Structure, members: list[gemmi.Residue], rows: list[int]
) -> tuple[list[str], list[int], str]:
    """The deposited monomers, each residue's 1-based place among them, and a note."""
    chosen = [members[row] for row in rows]
    subchain = chosen[0].subchain
    sequences = [e.full_sequence for e in structure.entities if subchain in e.subchains]
    if not sequences or not sequences[0]:
        return [], [], _NO_SEQRES
    choices = [monomers.split(",") for monomers in sequences[0]]
    full = [monomers[0] for monomers in choices]
    places: list[int] = []
    for residue in chosen:
        place = residue.label_seq
        after = places[-1] if places else 0
        if residue.subchain != subchain or place is None or not after < place <= len(full):
            return [], [], _MISFIT
        if residue.name not in choices[place - 1]:
            return [], [], _MISFIT
        places.append(place)
    return full, places, ""


def _is_no_residue(monomer: str) -> bool:
    """Whether an unobserved monomer is known to be something else than an amino acid."""
    if residue_letter(monomer):
        return False
    return monomer in _CAPS or gemmi.find_tabulated_residue(monomer).found()


def _with_gaps(name: str, sequence: str, rows: npt.NDArray[np.int64], part: Residues) -> Chain:
    length = len(sequence)
    numbers = np.zeros(length, dtype=np.int32)
    codes = np.full(length, ord(" "), dtype=np.uint8)
    observed = np.zeros(length, dtype=np.bool_)
    xyz = np.full((length, 4, 3), np.nan, dtype=np.float32)
    numbers[rows], codes[rows], observed[rows] = part.numbers, part.insertion_codes, True
    xyz[rows] = part.coordinates
    return Chain(name, sequence, numbers, codes, observed, Backbone(xyz))
