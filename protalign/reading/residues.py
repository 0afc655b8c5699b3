"""The amino-acid residues of a model as columns, one conformer each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import gemmi
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import BACKBONE_ATOMS

BACKBONE_INDEX = {name: index for index, name in enumerate(BACKBONE_ATOMS)}
#: A C and an N nearer than this, in Å, are peptide-bonded (the bond is 1.33 Å long).
_BOND = 2.0
_NO_ALTLOC = 0
_HETATM = ord("H")


@dataclass(frozen=True, eq=False, slots=True)
class Residues:
    """n amino-acid residues of one model, in the file's order.

    Attributes
    ----------
    rows : (n,) int64
        The residue's index among all residues of its chain in the model.
    chains : (n,) int64
        Index of its chain in the model.
    letters : (n,) S1
        One-letter code; modified residues have their parent's, unknown ones X.
    numbers : (n,) int32
        The author's numbers.
    insertion_codes : (n,) uint8
        ASCII, 32 (space) for none.
    coordinates : (n, 4, 3) float32
        N, CA, C and O in Å, NaN if an atom is missing.
    b_factors : (n,) float32
        Of CA, NaN if it is missing; pLDDT in a predicted structure.
    same_b_factor : (n,) bool
        True if all of the residue's atoms have the same B-factor.
    """

    rows: Int64
    chains: Int64
    letters: npt.NDArray[np.bytes_]
    numbers: npt.NDArray[np.int32]
    insertion_codes: npt.NDArray[np.uint8]
    coordinates: Float32
    b_factors: Float32
    same_b_factor: Bool

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Bool) -> Residues:
        columns = (getattr(self, name)[index] for name in self.__slots__)
        return Residues(*columns)


@lru_cache(maxsize=100_000)
def residue_letter(name: bytes | str) -> str:
    """Return the letter of an amino acid's standard parent, "" for any other molecule.

    Examples
    --------
    >>> residue_letter("GLY"), residue_letter("MSE"), residue_letter("HOH")
    ('G', 'M', '')
    """
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    info = gemmi.find_tabulated_residue(text)
    if not info.is_amino_acid():
        return ""
    return info.one_letter_code.strip().upper() or "X"


def read_residues(structure: gemmi.Structure, trust_entities: bool) -> Residues:
    """Return the amino-acid residues of the first model: known by name, or with both N and CA.

    Nucleic acids, water, ligands and free amino acids are left out.

    Parameters
    ----------
    structure : gemmi.Structure
    trust_entities : bool
        The file itself declares the polymers (mmCIF). Otherwise HETATM amino acids after a
        chain's last ATOM residue count only if they are peptide-bonded to the chain.

    Raises
    ------
    InputError
        If an atom occurs twice, or its coordinates are not finite.
    """
    atoms = _Atoms(structure)
    indices = np.full((len(atoms.sizes), 4), -1, dtype=np.int64)
    occupancy = np.ones(len(atoms.sizes), dtype=np.float32)
    _resolve(atoms, indices, occupancy)
    letters = np.array([residue_letter(name) for name in atoms.names.tolist()], dtype="S1")
    unnamed = letters == b""
    present = np.flatnonzero(~unnamed | ((indices[:, 0] >= 0) & (indices[:, 1] >= 0)))
    letters[unnamed] = b"X"
    xyz = atoms.coordinates(indices[present])
    keep = _is_polymer(atoms, present, xyz, trust_entities)
    keep &= ~_lesser_heterogeneity(atoms, present, indices[present], occupancy[present])
    present, xyz = present[keep], xyz[keep]
    ca = indices[present, 1]
    return Residues(
        rows=atoms.rows[present],
        chains=atoms.chains[present],
        letters=letters[present],
        numbers=atoms.numbers[present],
        insertion_codes=atoms.insertion_codes[present],
        coordinates=xyz,
        b_factors=np.where(ca >= 0, atoms.b_factors[ca], np.float32(np.nan)),
        same_b_factor=atoms.same_b_factor()[present],
    )


class _Atoms:
    """The columns of a model's atoms and residues, from gemmi's flat view of it."""

    def __init__(self, structure: gemmi.Structure) -> None:
        flat = gemmi.FlatStructure(structure)
        flat.strings_as_numbers = False
        sizes, chain_sizes = [], []
        for chain in structure[0]:
            chain_sizes.append(len(chain))
            sizes += [len(residue) for residue in chain]
        self.chain_names = [chain.name for chain in structure[0]]
        self.sizes = np.array(sizes, dtype=np.int64)
        self.first = np.cumsum(self.sizes) - self.sizes
        counts = np.array(chain_sizes, dtype=np.int64)
        self.chains = np.repeat(np.arange(len(counts)), counts)
        self.rows = np.arange(len(sizes)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.names = np.asarray(flat.residue_names)[self.first]
        self.numbers = flat.resnums[self.first]
        self.insertion_codes = flat.icodes[self.first].astype(np.uint8)
        self.entity_types = flat.entity_type[self.first]
        self.is_het = flat.het_flags[self.first] == _HETATM
        self.atom_names = np.asarray(flat.atom_names)
        self.altlocs = flat.altlocs
        self.occupancies = flat.occ
        self.positions = flat.pos
        self.b_factors = flat.b_iso

    def coordinates(self, indices: Int64) -> Float32:
        """Return (n, 4, 3) float32 of the atoms at ``indices`` (n, 4), NaN for -1."""
        xyz = self.positions[indices].astype(np.float32)
        missing = indices < 0
        xyz[missing] = 0
        if not np.isfinite(xyz).all():
            raise InputError("an atom's coordinates are not finite", "give a file with coordinates")
        xyz[missing] = np.nan
        return xyz

    def same_b_factor(self) -> Bool:
        """Return (residues,) bool: all atoms of the residue have the same B-factor."""
        same: Bool = np.equal(
            np.minimum.reduceat(self.b_factors, self.first),
            np.maximum.reduceat(self.b_factors, self.first),
        )
        return same

    def label(self, residue: int) -> str:
        """Return the residue's name in a message: "chain A, GLY 12"."""
        code = chr(self.insertion_codes[residue]).strip()
        chain = self.chain_names[self.chains[residue]]
        return (
            f"chain {chain}, {self.names[residue].decode('latin-1')} {self.numbers[residue]}{code}"
        )


def _resolve(atoms: _Atoms, indices: Int64, occupancy: Float32) -> None:
    """Find each residue's backbone atoms, of one conformer, and that conformer's occupancy.

    Fills ``indices`` (residues, 4) with indices of atoms, and ``occupancy`` (residues,) of
    residues with alternate locations.
    """
    kinds = np.full(len(atoms.atom_names), -1, dtype=np.int64)
    for name, index in BACKBONE_INDEX.items():
        kinds[atoms.atom_names == name.encode()] = index
    backbone = np.flatnonzero(kinds >= 0)
    residues = np.repeat(np.arange(len(atoms.sizes)), atoms.sizes)[backbone]
    altlocs = atoms.altlocs[backbone]
    split = np.unique(residues[altlocs != _NO_ALTLOC])
    plain = ~np.isin(residues, split)
    indices[residues[plain], kinds[backbone[plain]]] = backbone[plain]
    if np.count_nonzero(indices >= 0) != np.count_nonzero(plain):
        _raise_twice(atoms, residues[plain], kinds[backbone[plain]])
    begin, end = np.searchsorted(residues, split), np.searchsorted(residues, split, side="right")
    for residue, start, stop in zip(split.tolist(), begin, end, strict=True):
        indices[residue], occupancy[residue] = _conformer(
            atoms, backbone[start:stop], kinds, residue
        )


def _conformer(
    atoms: _Atoms, backbone: Int64, kinds: Int64, residue: int
) -> tuple[list[int], float]:
    """Return the indices (4) of the best conformer's atoms and its mean occupancy.

    Atoms without a label belong to every conformer. The most complete conformer wins, then the
    highest occupancy, then the first in the file.
    """
    by_label: dict[int, dict[int, int]] = {}
    for atom in backbone.tolist():
        conformer = by_label.setdefault(int(atoms.altlocs[atom]), {})
        if kinds[atom] in conformer:
            _raise_twice(atoms, np.array([residue, residue]), np.array([0, 0]))
        conformer[int(kinds[atom])] = atom
    shared = by_label.get(_NO_ALTLOC, {})
    best: tuple[int, float] = (0, 0.0)
    best_atoms: dict[int, int] = {}
    for labelled in by_label.values():
        whole = shared | labelled
        mean = float(np.mean(atoms.occupancies[list(labelled.values())]))
        if not best_atoms or (len(whole), mean) > best:
            best, best_atoms = (len(whole), mean), whole
    return [best_atoms.get(kind, -1) for kind in range(4)], best[1]


def _raise_twice(atoms: _Atoms, residues: Int64, kinds: Int64) -> None:
    keys, counts = np.unique(residues * 4 + kinds, return_counts=True)
    residue = int(keys[np.argmax(counts)]) // 4
    raise InputError(
        f"{atoms.label(residue)} occurs twice", "give each molecule a chain name of its own"
    )


def _is_polymer(
    atoms: _Atoms,
    present: Int64,
    xyz: Float32,
    trust_entities: bool,
) -> Bool:
    """Return (n,) bool: residues that are part of a chain, not free amino acids beside it."""
    types = atoms.entity_types[present]
    polymer: Bool = types == gemmi.EntityType.Polymer.value
    known = trust_entities & (types != gemmi.EntityType.Unknown.value)
    chains, het = atoms.chains[present], atoms.is_het[present]
    last_atom_record = np.full(len(atoms.chain_names), -1, dtype=np.int64)
    np.maximum.at(last_atom_record, chains[~het], present[~het])
    polymer[~known] = True
    for index in np.flatnonzero(~known & (present > last_atom_record[chains])).tolist():
        others = chains == chains[index]
        others[index] = False
        polymer[index] = _is_bonded(xyz[others], xyz[index])
    return polymer


def _is_bonded(chain: Float32, residue: Float32) -> bool:
    """Return whether a (4, 3) residue has a peptide bond to any other, (n, 4, 3), of its chain.

    Neighbours in the file are not enough: some programs move modified residues to the end of
    their chain.
    """
    with np.errstate(invalid="ignore"):
        before = np.linalg.norm(chain[:, 2] - residue[0], axis=1)
        after = np.linalg.norm(chain[:, 0] - residue[2], axis=1)
    return bool(((before < _BOND) | (after < _BOND)).any())


def _lesser_heterogeneity(
    atoms: _Atoms,
    present: Int64,
    indices: Int64,
    occupancy: Float32,
) -> Bool:
    """Return (n,) bool: residues with a position that another residue type fills better.

    At such a position (microheterogeneity) neighbours share chain, number and insertion code, and
    all have alternate location labels.
    """
    lesser = np.zeros(len(present), dtype=np.bool_)
    for group in _heterogeneous(atoms, present):
        order = sorted(
            group, key=lambda i: (np.count_nonzero(indices[i] >= 0), occupancy[i]), reverse=True
        )
        lesser[order[1:]] = True
    return lesser


def _heterogeneous(atoms: _Atoms, present: Int64) -> Iterator[list[int]]:
    key = np.stack([atoms.chains[present], atoms.numbers[present], atoms.insertion_codes[present]])
    labelled = atoms.altlocs[atoms.first[present]] != _NO_ALTLOC
    same = (key[:, 1:] == key[:, :-1]).all(axis=0) & labelled[1:] & labelled[:-1]
    group: list[int] = []
    for index in np.flatnonzero(same).tolist():
        if group and group[-1] == index:
            group.append(index + 1)
        else:
            if group:
                yield group
            group = [index, index + 1]
    if group:
        yield group
