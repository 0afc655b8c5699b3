"""The amino-acid residues of a model as columns, one conformer each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import gemmi
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.printing import printable
from protalign.core.protein import BACKBONE_ATOMS
from protalign.core.words import counted
from protalign.reading.residue_names import backbone_letter, residue_letter

BACKBONE_INDEX = {name: index for index, name in enumerate(BACKBONE_ATOMS)}
#: Names of the backbone's oxygen, the usual one first. At a chain's end CHARMM, GROMACS, GROMOS,
#: X-PLOR and others have two oxygens of other names, or OXT alone is left.
OXYGENS = ("O", "OT1", "OC1", "O1", "O'", "OT", "OT2", "OC2", "O2", "O''", "OXT")
#: A C and an N nearer than this, in Å, are peptide-bonded (the bond is 1.33 Å long).
BOND = 2.0
#: A C and an oxygen of another name nearer than this, in Å, are a carbonyl or carboxyl group's
#: (the bond is 1.25 Å long).
_CARBONYL = 1.7
#: CA atoms nearer than this, in Å, cannot be those of two residues of a chain.
_SAME_PLACE = 2.0
#: Largest coordinate in Å. The largest models measure 10,000 Å; beyond this number float32 no
#: longer tells 0.01 Å apart.
MAX_COORDINATE = 100_000.0
_NO_ALTLOC = 0
#: Most letters of a name in gemmi's flat view.
_LONGEST = 7
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
    names : (n,) S8
        The residues' names in the file.
    """

    rows: Int64
    chains: Int64
    letters: npt.NDArray[np.bytes_]
    numbers: npt.NDArray[np.int32]
    insertion_codes: npt.NDArray[np.uint8]
    coordinates: Float32
    b_factors: Float32
    same_b_factor: Bool
    names: npt.NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Bool) -> Residues:
        columns = (getattr(self, name)[index] for name in self.__slots__)
        return Residues(*columns)


def no_protein() -> InputError:
    """Return the error of a file without amino acids."""
    return InputError("it has no protein: none of its residues is an amino acid", "leave it out")


def unknown_note(unknown: list[bytes]) -> str:
    """Return a note that counts and names the residues that are read as X, "" if none is."""
    if not unknown:
        return ""
    names = Counter(unknown)
    shown = ", ".join(
        printable(name.decode("latin-1")) + (f" ({count:,} times)" if count > 1 else "")
        for name, count in names.most_common(5)
    )
    more = f" and {len(names) - 5:,} other names" if len(names) > 5 else ""
    return f"{counted(names.total(), 'residue')} read as X, of unknown type: {shown}{more}"


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
    backbone = _Backbone(atoms)
    letters = np.array([residue_letter(name) for name in atoms.names.tolist()], dtype="S1")
    unnamed = np.flatnonzero((letters == b"") & backbone.has_n_and_ca)
    letters[unnamed] = [backbone_letter(name) for name in atoms.names[unnamed].tolist()]
    candidates = letters != b""
    if trust_entities:
        candidates &= (atoms.entity_types == gemmi.EntityType.Polymer.value) | (
            atoms.entity_types == gemmi.EntityType.Unknown.value
        )
    indices, occupancy = backbone.resolve(candidates)
    present = np.flatnonzero(candidates)
    lesser = _lesser_heterogeneity(atoms, present, indices, occupancy)
    present = present[~lesser]
    xyz = atoms.coordinates(indices[present])
    keep = _is_polymer(atoms, present, xyz, trust_entities)
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
        names=atoms.names[present],
    )


class _Atoms:
    """The columns of a model's atoms and residues, from gemmi's flat view of it."""

    def __init__(self, structure: gemmi.Structure) -> None:
        flat = _flat(structure)
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
        with np.errstate(over="ignore"):  # what does not fit is infinite, and refused below
            xyz = self.positions[indices].astype(np.float32)
        missing = indices < 0
        xyz[missing] = 0
        if not np.isfinite(xyz).all():
            raise InputError("an atom's coordinates are not finite", "give a file with coordinates")
        if np.abs(xyz).max(initial=0) > MAX_COORDINATE:
            raise InputError(
                f"an atom's coordinates exceed {MAX_COORDINATE:,.0f} Å", "give them in Å"
            )
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
        chain = printable(self.chain_names[self.chains[residue]])
        name = printable(self.names[residue].decode("latin-1"))
        return f"chain {chain}, {name} {self.numbers[residue]}{printable(code)}"


def _flat(structure: gemmi.Structure) -> gemmi.FlatStructure:
    """Return gemmi's flat view, also of names longer than the seven letters that it can hold."""
    try:
        flat = gemmi.FlatStructure(structure)
    except (RuntimeError, ValueError):
        structure = structure.clone()
        _shorten(structure)
        flat = gemmi.FlatStructure(structure)
    flat.strings_as_numbers = False
    return flat


def _shorten(structure: gemmi.Structure) -> None:
    """Cut the names in a structure; no amino acid and no atom of a backbone has a long one."""
    for chain in structure[0]:
        chain.name = chain.name[:_LONGEST]
        for residue in chain:
            residue.name = residue.name[:_LONGEST]
            residue.subchain = residue.subchain[:_LONGEST]
            residue.entity_id = residue.entity_id[:_LONGEST]
            residue.segment = residue.segment[:_LONGEST]
            for atom in residue:
                atom.name = atom.name[:_LONGEST]


class _Backbone:
    """The backbone atoms of every residue of a model.

    Attributes
    ----------
    has_n_and_ca : (residues,) bool
    """

    def __init__(self, atoms: _Atoms) -> None:
        self._atoms = atoms
        self._kinds = np.full(len(atoms.atom_names), -1, dtype=np.int64)
        for name, index in BACKBONE_INDEX.items():
            self._kinds[atoms.atom_names == name.encode()] = index
        self._residue_of = np.repeat(np.arange(len(atoms.sizes)), atoms.sizes)
        has = np.zeros((len(BACKBONE_ATOMS), len(atoms.sizes)), dtype=np.bool_)
        for index in BACKBONE_INDEX.values():
            has[index, self._residue_of[self._kinds == index]] = True
        self.has_n_and_ca = has[0] & has[1]
        self._take_other_oxygens(has[1] & has[2] & ~has[3])

    def _take_other_oxygens(self, lack: Bool) -> None:
        """Take an oxygen of another name for O in the residues (residues,) bool that lack it."""
        for residue in np.flatnonzero(lack).tolist():
            start = self._atoms.first[residue]
            own = np.arange(start, start + self._atoms.sizes[residue])
            carbons = self._atoms.positions[own[self._kinds[own] == BACKBONE_INDEX["C"]]]
            for name in OXYGENS[1:]:
                named = own[self._atoms.atom_names[own] == name.encode()]
                near = [
                    atom
                    for atom in named.tolist()
                    if (
                        np.linalg.norm(carbons - self._atoms.positions[atom], axis=1) < _CARBONYL
                    ).any()
                ]
                if near:
                    self._kinds[near] = BACKBONE_INDEX["O"]
                    break

    def resolve(self, candidates: Bool) -> tuple[Int64, Float32]:
        """Return each candidate's backbone atoms, of one conformer, and its occupancy.

        (residues, 4) int64, -1 for a missing atom, and (residues,) float32, 1 for a residue
        without alternate locations.
        """
        atoms = self._atoms
        indices = np.full((len(atoms.sizes), 4), -1, dtype=np.int64)
        occupancy = np.ones(len(atoms.sizes), dtype=np.float32)
        backbone = np.flatnonzero((self._kinds >= 0) & candidates[self._residue_of])
        residues = self._residue_of[backbone]
        altlocs = atoms.altlocs[backbone]
        split = np.unique(residues[altlocs != _NO_ALTLOC])
        plain = ~np.isin(residues, split)
        kinds = self._kinds[backbone]
        indices[residues[plain], kinds[plain]] = backbone[plain]
        if np.count_nonzero(indices >= 0) != np.count_nonzero(plain):
            _raise_twice(atoms, residues[plain], kinds[plain])
        begin = np.searchsorted(residues, split)
        end = np.searchsorted(residues, split, side="right")
        for residue, start, stop in zip(split.tolist(), begin, end, strict=True):
            indices[residue], occupancy[residue] = _conformer(
                atoms, backbone[start:stop], self._kinds, residue
            )
        return indices, occupancy


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
    return bool(((before < BOND) | (after < BOND)).any())


def _lesser_heterogeneity(
    atoms: _Atoms, present: Int64, indices: Int64, occupancy: Float32
) -> Bool:
    """Return (n,) bool: residues with a position that another residue type fills better.

    At such a position (microheterogeneity) neighbours share chain, number and insertion code.
    Atoms without a label of alternate locations belong to each of them: ``indices`` (residues, 4)
    is filled up with them.
    """
    lesser = np.zeros(len(present), dtype=np.bool_)
    for group in _heterogeneous(atoms, present, indices):
        for kind in range(indices.shape[1]):
            own = indices[present[group], kind]
            shared = own[(own >= 0) & (atoms.altlocs[own] == _NO_ALTLOC)]
            if len(shared):
                indices[present[group], kind] = np.where(own >= 0, own, shared[0])
        order = sorted(
            group,
            key=lambda i: (np.count_nonzero(indices[present[i]] >= 0), occupancy[present[i]]),
            reverse=True,
        )
        lesser[order[1:]] = True
    return lesser


def _heterogeneous(atoms: _Atoms, present: Int64, indices: Int64) -> Iterator[list[int]]:
    """Yield the neighbours that are at one position, as indices of ``present``."""
    key = np.stack([atoms.chains[present], atoms.numbers[present], atoms.insertion_codes[present]])
    same = (key[:, 1:] == key[:, :-1]).all(axis=0)
    if not same.any():
        return
    group: list[int] = []
    for index in np.flatnonzero(same).tolist():
        if not _at_one_place(atoms, indices, int(present[index]), int(present[index + 1])):
            continue
        if group and group[-1] == index:
            group.append(index + 1)
        else:
            if group:
                yield group
            group = [index, index + 1]
    if group:
        yield group


def _at_one_place(atoms: _Atoms, indices: Int64, one: int, other: int) -> bool:
    """Return whether two residues of one number are alternatives, and not neighbours.

    Files whose insertion codes were lost have neighbours of one number. So their CA atoms decide;
    without these, the labels of alternate locations.
    """
    alphas = indices[[one, other], 1]
    if (alphas >= 0).all():
        return bool(np.linalg.norm(np.diff(atoms.positions[alphas], axis=0)) < _SAME_PLACE)
    return any(
        (atoms.altlocs[atoms.first[i] : atoms.first[i] + atoms.sizes[i]] != _NO_ALTLOC).any()
        for i in (one, other)
    )
