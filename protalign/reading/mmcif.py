"""Reading of mmCIF and BinaryCIF into a gemmi structure, both through the same gemmi block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import gemmi
import numpy as np

from protalign.core.arrays import Bool
from protalign.core.errors import InputError
from protalign.core.printing import one_line, printable
from protalign.reading.annotations import CIF_COLUMNS
from protalign.reading.assemblies import (
    ASSEMBLY_CATEGORIES,
    Generator,
    cif_assembly,
    drop_assemblies,
)
from protalign.reading.binary_cif import Category, Values, decoded_columns, unpacked_blocks
from protalign.reading.content import FETCH_AGAIN
from protalign.reading.molecules import molecule_names
from protalign.reading.pdb_text import first_model_note
from protalign.reading.residue_names import residue_letter
from protalign.reading.residues import BACKBONE_INDEX, OXYGENS

#: Categories of a BinaryCIF file that are handed on, and their columns (None: all of them); the
#: others are never decoded.
_CATEGORIES: dict[str, tuple[str, ...] | None] = {
    **CIF_COLUMNS,
    **dict.fromkeys(("entity_poly", "entity_poly_seq", "struct_asym", "exptl", "ma_qa_metric")),
}
_ATOM_COLUMNS = (
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_entity_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "B_iso_or_equiv",
    "auth_seq_id",
    "auth_comp_id",
    "auth_asym_id",
    "auth_atom_id",
    "pdbx_PDB_model_num",
)
#: Columns that change from one row to the next if another residue begins.
_RESIDUE_COLUMNS = (
    "label_comp_id",
    "label_asym_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "auth_seq_id",
    "auth_asym_id",
)
#: Most letters of what damaged files hold in a message.
_MOST_SHOWN = 90
#: Most digits of a residue number: more do not fit 32 bits.
_MOST_DIGITS = 9
#: Values of mmCIF that are not given.
_MISSING = frozenset("?.")
#: mmCIF is ASCII; other bytes occur only in authors' names, which are not read here.
_TO_ASCII = bytes(byte if byte < 128 else ord("x") for byte in range(256))


@dataclass(frozen=True, slots=True)
class CifContent:
    """The first model of mmCIF or BinaryCIF.

    Attributes
    ----------
    structure : gemmi.Structure
        Its one model; each molecule is a chain.
    block : gemmi.cif.Block
        The data block that it comes from.
    notes : list of str
        Remarks about what was divided or left out.
    assembly : list of Generator
        How the assembly that was asked for is made; empty if none was.
    """

    structure: gemmi.Structure
    block: gemmi.cif.Block
    notes: list[str]
    assembly: list[Generator]


def read_mmcif(data: bytes, assembly: str | None = None) -> CifContent:
    """Return the first model in mmCIF text whose line ends are newlines.

    With ``assembly``, the content says how that assembly is made.

    Raises InputError if the text is damaged or has no atoms.
    """
    if not data.isascii():
        data = data.translate(_TO_ASCII)
    _check_end(data)
    try:
        document = gemmi.cif.read_string(data)
    except (RuntimeError, ValueError) as error:
        reason = one_line(error, _MOST_SHOWN).removeprefix("data:")
        raise InputError(
            f"it is truncated or damaged (mmCIF, line {reason})", FETCH_AGAIN
        ) from error
    blocks = [block for block in document if block.find_values("_atom_site.Cartn_x")]
    if not blocks:
        raise _no_atoms()
    block = blocks[0]
    notes = _blocks_note([other.name for other in blocks])
    if _ends_with_atoms(data):
        notes += _cut_note(block)
    return _content(block, notes, assembly)


def read_bcif(data: bytes, assembly: str | None = None) -> CifContent:
    """Return the first model in BinaryCIF data.

    Its block holds the same values as the mmCIF file would, of the categories needed here and of
    the rows needed here: backbone atoms, and each residue's first atom. Raises InputError if the
    data are damaged, or claim more than they can hold.
    """
    try:
        blocks = unpacked_blocks(data)
        with_atoms = [name for name, categories in blocks if "atom_site" in categories]
        if not with_atoms:
            raise _no_atoms()
        categories = next(categories for _, categories in blocks if "atom_site" in categories)
        block = gemmi.cif.Block(with_atoms[0])
        wanted = _CATEGORIES if assembly is None else _CATEGORIES | ASSEMBLY_CATEGORIES
        for category, names in wanted.items():
            if category in categories:
                _add_loop(block, category, decoded_columns(categories[category], len(data), names))
        columns = decoded_columns(categories["atom_site"], len(data), _ATOM_COLUMNS, _wanted_rows)
        _add_loop(block, "atom_site", columns)
        models = _count_models(categories["atom_site"], len(data))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # the decoders raise whatever damaged bytes lead them to
        raise InputError("it is truncated or damaged (BinaryCIF)", FETCH_AGAIN) from error
    notes = _blocks_note(with_atoms)
    if models > 1:
        notes.append(first_model_note(models))
    return _content(block, notes, assembly)


def _check_end(data: bytes) -> None:
    """Raise InputError if the text stops within its last category.

    The archives' files close every category with a line "#", the first right after data_.
    """
    head = data[:4096].splitlines()[:2]
    closes = len(head) == 2 and head[0].startswith(b"data_") and head[1].strip() == b"#"
    if closes and not _last_line(data).startswith(b"#"):
        raise InputError("it is truncated: the file ends early", FETCH_AGAIN)


def _last_line(data: bytes) -> bytes:
    return data.rstrip().rpartition(b"\n")[2].strip()


def _ends_with_atoms(data: bytes) -> bool:
    """Return whether nothing follows the last atom, so that more atoms could be missing."""
    last_tag = data.rfind(b"\n_")
    return data[last_tag + 1 :].startswith(b"_atom_site.") and not _last_line(data).startswith(b"#")


def _cut_note(block: gemmi.cif.Block) -> list[str]:
    """Return a note if atoms may be missing at the end; raise InputError if some are.

    The table of observed residues tells, if the file has one, else the sequence of the last chain.
    """
    present = set(
        zip(
            map(gemmi.cif.as_string, block.find_values("_atom_site.label_asym_id")),
            block.find_values("_atom_site.label_seq_id"),
            strict=False,
        )
    )
    observed = {
        (row.str(0), row.str(1))
        for row in block.find("_pdbx_poly_seq_scheme.", ["asym_id", "seq_id", "pdb_mon_id"])
        if row.str(2)
    }
    if observed:
        if missing := len(observed - present):
            raise InputError(
                f"it is truncated: {missing:,} residues that it lists have no atoms", FETCH_AGAIN
            )
        return []
    lengths: dict[str, int] = defaultdict(int)
    for row in block.find("_entity_poly_seq.", ["entity_id", "num"]):
        lengths[row.str(0)] += 1
    chains = [
        (row.str(0), lengths[row.str(1)])
        for row in block.find("_struct_asym.", ["id", "entity_id"])
        if row.str(1) in lengths
    ]
    if chains and all(any(asym == chain for asym, _ in present) for chain, _ in chains):
        last, length = chains[-1]
        if (last, str(length)) in present:
            return []
    return ["nothing marks the end of its atoms (#): if it was cut there, residues are missing"]


def _blocks_note(names: list[str]) -> list[str]:
    """Return a note about all data blocks but the first."""
    if len(names) < 2:
        return []
    others = ", ".join(printable(name) for name in names[1:4]) + (", …" if len(names) > 4 else "")
    return [
        f"the data block {printable(names[0])} was read and {others} left out; to read the others, "
        "write each to a file of its own"
    ]


def _content(block: gemmi.cif.Block, notes: list[str], assembly: str | None) -> CifContent:
    _check_numbers(block)
    generators = [] if assembly is None else cif_assembly(block, assembly)
    drop_assemblies(block)
    notes = [*notes, *name_molecules(block)]
    try:
        structure = gemmi.make_structure_from_block(block)
    except (RuntimeError, ValueError, IndexError) as error:
        try:  # it may be something about water or a ligand
            _keep_amino_acids(block)
            structure = gemmi.make_structure_from_block(block)
        except (RuntimeError, ValueError, IndexError):
            reason = one_line(error, _MOST_SHOWN)
            raise InputError(f"it is damaged (mmCIF: {reason})", FETCH_AGAIN) from error
    if len(structure) == 0:
        raise _no_atoms()
    if len(structure) > 1:
        notes.append(first_model_note(len(structure)))
    del structure[1:]
    structure.merge_chain_parts()
    return CifContent(structure, block, notes, generators)


def _check_numbers(block: gemmi.cif.Block) -> None:
    """Raise InputError for a residue number that is too large or missing: gemmi makes one up."""
    names = block.find_values("_atom_site.label_comp_id")
    for tag in ("auth_seq_id", "label_seq_id"):
        values = block.find_values(f"_atom_site.{tag}")
        if max(map(len, values), default=0) <= _MOST_DIGITS:
            continue
        for name, value in zip(names, values, strict=False):
            if len(value) > _MOST_DIGITS and residue_letter(gemmi.cif.as_string(name)):
                raise InputError(
                    f"the residue number {printable(value)[:_MOST_SHOWN]} is too large",
                    "renumber its residues",
                )
    numbers = block.find_values("_atom_site.auth_seq_id")
    if not len(numbers):  # then gemmi takes these
        numbers = block.find_values("_atom_site.label_seq_id")
    if not _MISSING.isdisjoint(numbers):
        _fill_in_numbers(block, numbers, list(map(gemmi.cif.as_string, names)))


def _fill_in_numbers(block: gemmi.cif.Block, numbers: gemmi.cif.Column, names: list[str]) -> None:
    """Take label_seq_id for the numbers of amino acids if none has an author's number.

    Raise InputError if only some have one, or if a number is still missing.
    """
    rows = [row for row, name in enumerate(names) if residue_letter(name)]
    if all(numbers[row] in _MISSING for row in rows):
        labels = block.find_values("_atom_site.label_seq_id")
        for row in rows[: len(labels)]:
            numbers[row] = labels[row]
    for row in rows:
        if numbers[row] in _MISSING:
            raise InputError(
                f"an atom of {printable(names[row])[:_MOST_SHOWN]} has no residue number",
                "number its residues",
            )


def name_molecules(block: gemmi.cif.Block) -> list[str]:
    """Give each polymer of a block its own auth_asym_id, which gemmi takes for the chain's name.

    In the archive each polymer has one. Other programs' files have polymers that differ in
    label_asym_id only. Returns a note for each chain that was divided.
    """
    labels = list(block.find_values("_atom_site.label_asym_id"))
    column = block.find_values("_atom_site.auth_asym_id")
    authors = list(column)
    if len(labels) != len(authors):
        return []
    pairs = dict.fromkeys(zip(authors, labels, strict=True))  # as they are written: perhaps quoted
    if len(pairs) == len({author for author, _ in pairs}):
        return []
    polymers = _polymers(block, labels)
    of_chain: dict[str, list[str]] = defaultdict(list)
    for author, label in pairs:
        if label in polymers:
            of_chain[author].append(label)
    if all(len(own) < 2 for own in of_chain.values()):
        return []
    units = [(author, label) for author, own in of_chain.items() for label in own]
    alone = dict.fromkeys(author for author, _ in pairs if author not in of_chain)
    names, notes = molecule_names(
        [gemmi.cif.as_string(author) for author in (*(author for author, _ in units), *alone)],
        [gemmi.cif.as_string(label) for _, label in units] + [""] * len(alone),
    )
    renamed = dict(zip(units, names, strict=False))
    for row, pair in enumerate(zip(authors, labels, strict=True)):
        if pair in renamed:
            column[row] = gemmi.cif.quote(renamed[pair])
    return notes


def _polymers(block: gemmi.cif.Block, labels: list[str]) -> set[str]:
    """Return which ``labels``, label_asym_ids, are proteins': by the entities, else by ATOM."""
    types = {row.str(0): row.str(1) for row in block.find("_entity.", ["id", "type"])}
    entities = block.find_values("_atom_site.label_entity_id")
    if types and len(entities) == len(labels):
        return {
            label
            for label, entity in set(zip(labels, entities, strict=True))
            if types.get(gemmi.cif.as_string(entity)) == "polymer"
        }
    groups = block.find_values("_atom_site.group_PDB")
    names = block.find_values("_atom_site.label_comp_id")
    rows = set(zip(labels, groups, names, strict=False))
    return {label for label, group, name in rows if group == "ATOM" and residue_letter(name)}


def _keep_amino_acids(block: gemmi.cif.Block) -> None:
    """Drop the atoms of all residues that are not amino acids by name."""
    # gemmi's types do not say so: None for a single atom, and without names.
    found: gemmi.cif.Loop | None = block.find_values("_atom_site.label_comp_id").get_loop()
    if found is None:
        return
    loop = found
    width, values = loop.width(), list(loop.values)
    place = loop.tags.index("_atom_site.label_comp_id")
    rows = [
        values[start : start + width]
        for start in range(0, len(values), width)
        if residue_letter(gemmi.cif.as_string(values[start + place]))
    ]
    loop.set_all_values([list(column) for column in zip(*rows, strict=True)])


def _no_atoms() -> InputError:
    return InputError("it has no atom sites", "give a file with coordinates")


def _add_loop(block: gemmi.cif.Block, category: str, columns: dict[str, list[str]]) -> None:
    if columns:
        loop = block.init_mmcif_loop(f"_{category}.", list(columns))
        loop.set_all_values([_quoted(column) for column in columns.values()])


def _quoted(values: list[str]) -> list[str]:
    """Return the column as CIF values, quoted if a text needs it ("." and "?" stay null)."""
    quotes = {v: v if v in (".", "?") else gemmi.cif.quote(v) for v in set(values)}
    return [quotes[value] for value in values]


def _count_models(atoms: Category, size: int) -> int:
    if "pdbx_PDB_model_num" not in atoms.columns:
        return 1
    return len(set(decoded_columns(atoms, size, ("pdbx_PDB_model_num",))["pdbx_PDB_model_num"]))


def _wanted_rows(column: Callable[[str], Values | None]) -> Bool:
    """Return a mask of the first model's backbone atoms and residues' first atoms."""
    names = column("label_atom_id")
    assert names is not None
    keep = np.isin(names, [*BACKBONE_INDEX, *OXYGENS])
    keep[:1] = True
    for tag in _RESIDUE_COLUMNS:
        values = column(tag)
        if values is not None:
            keep[1:] |= values[1:] != values[:-1]
    models = column("pdbx_PDB_model_num")
    if models is not None:
        keep &= models == models[:1]
    return keep
