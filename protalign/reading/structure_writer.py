"""Writing of structures to PDB and mmCIF files with a number for each residue as B-factor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import gemmi
import numpy as np

from protalign.core.errors import InputError
from protalign.core.files import write_bytes, write_text
from protalign.core.printing import one_line
from protalign.core.protein import BACKBONE_ATOMS, Chain, Structure
from protalign.reading.content import plain_text, read_file, unpack
from protalign.reading.mmcif import name_molecules
from protalign.reading.pdb_lines import IDENTIFIED, NUMBER, THROUGH_B_FACTOR, PdbLines
from protalign.reading.pdb_residues import PdbResidues
from protalign.reading.sources import split_name

#: A residue by the author's chain name, number, and insertion code (" " for none).
ResidueKey = tuple[str, int, str]
#: The least and the largest number that fit a PDB file's column of B-factors.
MIN_B_FACTOR, MAX_B_FACTOR = -99.99, 999.99
#: Length of a chain name and residue numbers that fit PDB's columns.
_PDB_CHAIN, _PDB_NUMBERS = 1, range(-999, 10000)
#: Coordinates in Å that do not fit any more.
_PDB_LEAST, _PDB_MOST = -999.9995, 9999.9995
#: The forms of a structure's text.
StructureText = Literal["pdb", "mmcif"]


def write_with_b_factors(
    content: bytes, kind: StructureText, values: Mapping[ResidueKey, float], path: Path
) -> Path:
    """Write every atom of a PDB or mmCIF file again, with other B-factors.

    Parameters
    ----------
    content : bytes
        The file's content, decompressed.
    kind : "pdb" or "mmcif"
    values : mapping of ResidueKey to float
        All atoms of a residue get its value, at least ``MIN_B_FACTOR`` and at most
        ``MAX_B_FACTOR``; atoms of other residues get 0.
    path : Path
        The file to write, without its suffix.

    Returns
    -------
    Path
        The file, with .pdb or .cif.

    Raises
    ------
    InputError
        The content cannot be read, lacks a chain, or has molecules with names that PDB cannot hold.
    WriteError
        The file cannot be written.
    """
    if kind == "pdb":
        bounded = {key: _bounded(value) for key, value in values.items()}
        file, _ = with_suffixes(path)
        write_bytes(file, _with_b_factors(plain_text(content), bounded))
        return file
    try:
        block = _atoms_block(gemmi.cif.read_string(plain_text(content)))
        name_molecules(block)
        structure = gemmi.make_structure_from_block(block)
        _check_chains(values, [chain.name for chain in structure[0]])
        _set_b_factors(structure, values)
        _, file = with_suffixes(path)
        write_text(file, structure.make_mmcif_document().as_string())
        return file
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"gemmi cannot read it ({one_line(error)})", "fetch it again") from None


def write_backbone(structure: Structure, values: Mapping[ResidueKey, float], path: Path) -> Path:
    """Write a Structure's backbone atoms; values and path are as in ``write_with_b_factors``.

    The file is PDB, or mmCIF if chain names, residue numbers or coordinates do not fit into PDB's
    columns. Residues without coordinates are left out.
    """
    kind: StructureText = "pdb" if fits_pdb(structure.chains) else "mmcif"
    files = dict(zip(("pdb", "mmcif"), with_suffixes(path), strict=True))
    write_text(files[kind], backbone_text(structure.chains, values, kind, path.name))
    return files[kind]


def fits_pdb(chains: Iterable[Chain]) -> bool:
    """Return whether the names, numbers and coordinates of chains fit into PDB's columns."""
    return all(
        len(chain.id) <= _PDB_CHAIN
        and int(chain.residue_numbers.min()) in _PDB_NUMBERS
        and int(chain.residue_numbers.max()) in _PDB_NUMBERS
        and not (chain.backbone.coordinates <= _PDB_LEAST).any()
        and not (chain.backbone.coordinates >= _PDB_MOST).any()
        for chain in chains
        if chain.backbone is not None and len(chain)
    )


def backbone_text(
    chains: Iterable[Chain],
    values: Mapping[ResidueKey, float],
    kind: StructureText,
    name: str = "backbone",
) -> str:
    """Return the backbone atoms of chains as the text of a structure file.

    Parameters
    ----------
    chains : iterable of Chain
        The chains. Those without a backbone, and residues without coordinates, are left out.
    values : mapping of ResidueKey to float
        The B-factors, as in ``write_with_b_factors``.
    kind : "pdb" or "mmcif"
        The form. Chains that do not fit into PDB's columns (``fits_pdb``) need mmCIF.
    name : str
        The name of the structure in mmCIF.
    """
    model = gemmi.Model(1)
    for chain in chains:
        if chain.backbone is not None:
            model.add_chain(_backbone_of(chain))
    written = gemmi.Structure()
    written.name = name
    written.add_model(model)
    written.setup_entities()
    _set_b_factors(written, values)
    return written.make_pdb_string() if kind == "pdb" else written.make_mmcif_document().as_string()


def write_values(
    source: Path,
    source_sha256: bytes,
    structure: Structure,
    values: Mapping[ResidueKey, float],
    path: Path,
) -> tuple[Path, bool]:
    """Write a structure file with numbers as B-factors: all atoms of the source if possible.

    Parameters
    ----------
    source : Path
        The file that the structure was read from.
    source_sha256 : bytes
        Its SHA-256 at that time, 32 bytes. If the file is another one now, is missing, is neither
        PDB nor mmCIF, or lacks a chain of an assembly, the structure's backbone atoms are written.
    structure : Structure
        The structure, as it was read.
    values, path
        As for ``write_with_b_factors``.

    Returns
    -------
    (Path, bool)
        The file, with .pdb or .cif, and whether it holds all atoms.
    """
    kind = split_name(source.name)[1]
    try:
        if kind == "pdb" or kind == "mmcif":
            data = read_file(source)
            if hashlib.sha256(data).digest() == source_sha256:
                return write_with_b_factors(unpack(data, source.name), kind, values, path), True
    except InputError:  # it is missing, or has lines that our reader skips and gemmi does not
        pass
    return write_backbone(structure, values, path), False


def _with_b_factors(data: bytes, values: Mapping[ResidueKey, float]) -> bytes:
    """Return PDB text with other B-factors, and all else as it is.

    Parameters
    ----------
    data : bytes
        The text; its line ends are newlines.
    values : mapping
        (chain, residue number, insertion code or " ") to the number of all the residue's atoms.
        Atoms of other residues have 0.

    Raises
    ------
    InputError
        The text cannot be read, or its molecules have names that it cannot hold.
    """
    lines = PdbLines(data)
    atoms = np.flatnonzero(lines.is_atom)
    first = atoms[atoms < lines.end_of_first_model(atoms)]
    residues = PdbResidues(lines, first)
    molecules = residues.molecules()
    names, _ = molecules.names
    if names != molecules.chains:
        raise InputError("its chains have names that PDB cannot hold", "write mmCIF")
    _check_chains(values, names)
    of_residue = residues.values(molecules, names, values)
    run_of = np.searchsorted(residues.runs, np.arange(len(first)), side="right") - 1
    of_line = dict.fromkeys(atoms.tolist(), 0.0)
    of_line |= {
        line: of_residue[run]
        for line, run, kept in zip(
            first.tolist(), run_of.tolist(), residues.in_kept.tolist(), strict=True
        )
        if kept
    }
    text = lines.data.split(b"\n")
    for line in atoms[len(first) :].tolist():  # later models
        of_line[line] = values.get(_key_of_line(text[line]), 0.0)
    for line, value in of_line.items():
        row = text[line]
        field = f"{value:6.2f}".encode()
        text[line] = row[: THROUGH_B_FACTOR - 6].ljust(60) + field + row[THROUGH_B_FACTOR:]
    return b"\n".join(text)


def _check_chains(values: Mapping[ResidueKey, float], names: Iterable[str]) -> None:
    """Raise InputError for a value of a chain that a file lacks, as copies in an assembly are."""
    if {chain for chain, _, _ in values} - set(names):
        raise InputError("it lacks a chain", "write the structure's backbone")


def _key_of_line(row: bytes) -> ResidueKey:
    """Return chain, number and insertion code of an atom's line; number 0 if it is not one."""
    number = row[22:26]
    text = row.ljust(IDENTIFIED).decode("latin-1")
    return text[20:22].strip(), int(number) if NUMBER.fullmatch(number) else 0, text[26]


def _bounded(value: float) -> float:
    return min(max(value, MIN_B_FACTOR), MAX_B_FACTOR)


def _key(chain: gemmi.Chain, residue: gemmi.Residue) -> ResidueKey:
    number = residue.seqid.num
    assert number is not None  # gemmi refuses files with unnumbered residues
    return chain.name, number, residue.seqid.icode


def _set_b_factors(structure: gemmi.Structure, values: Mapping[ResidueKey, float]) -> None:
    for model in structure:
        for chain in model:
            for residue in chain:
                value = _bounded(values.get(_key(chain, residue), 0.0))
                for atom in residue:
                    atom.b_iso = value


def _atoms_block(document: gemmi.cif.Document) -> gemmi.cif.Block:
    """Return the first block that has atoms."""
    for block in document:
        if block.find_values("_atom_site.Cartn_x"):
            return block
    raise ValueError("no atoms")


def _backbone_of(chain: Chain) -> gemmi.Chain:
    made = gemmi.Chain(chain.id)
    assert chain.backbone is not None
    rows = zip(
        chain.sequence,
        chain.residue_numbers.tolist(),
        chain.insertion_codes.tolist(),
        chain.backbone.coordinates,
        strict=True,
    )
    for letter, number, code, coordinates in rows:
        residue = gemmi.Residue()
        residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) or "UNK"
        residue.seqid = gemmi.SeqId(number, chr(code))
        residue.entity_type = gemmi.EntityType.Polymer
        for name, xyz in zip(BACKBONE_ATOMS, coordinates, strict=True):
            if np.isfinite(xyz).all():
                atom = gemmi.Atom()
                atom.name, atom.element = name, gemmi.Element(name[0])
                atom.pos = gemmi.Position(*map(float, xyz))
                residue.add_atom(atom)
        if len(residue):
            made.add_residue(residue)
    return made


def with_suffixes(path: Path) -> tuple[Path, Path]:
    """Return the PDB and the mmCIF file that a path without a suffix may become."""
    return path.with_name(f"{path.name}.pdb"), path.with_name(f"{path.name}.cif")
