"""Reading of mmCIF and BinaryCIF into a gemmi structure, both through the same gemmi block."""

from __future__ import annotations

import io
from typing import Any

import gemmi
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool
from protalign.core.errors import InputError
from protalign.reading.content import FETCH_AGAIN
from protalign.reading.residues import BACKBONE_INDEX

#: Categories of a BinaryCIF file that are handed on; the others are never decoded.
_CATEGORIES = ("entity", "entity_poly", "entity_poly_seq", "struct_asym", "exptl", "ma_qa_metric")
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
#: mmCIF is ASCII; other bytes occur only in authors' names, which are not read here.
_TO_ASCII = bytes(byte if byte < 128 else ord("x") for byte in range(256))


def read_mmcif(data: bytes) -> tuple[gemmi.Structure, gemmi.cif.Block]:
    """Return the first model in mmCIF text, and its block; raise InputError if it is damaged."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.isascii():
        data = data.translate(_TO_ASCII)
    _check_end(data)
    try:
        document = gemmi.cif.read_string(data)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix("data:")
        raise InputError(
            f"it is truncated or damaged (mmCIF, line {reason})", FETCH_AGAIN
        ) from error
    for block in document:
        if block.find_values("_atom_site.Cartn_x"):
            return _structure(block), block
    raise _no_atoms()


def read_bcif(data: bytes) -> tuple[gemmi.Structure, gemmi.cif.Block]:
    """Return the first model in BinaryCIF data, decoded by biotite, and its block.

    The block holds the same values as the mmCIF file would, of the categories needed here and
    of the rows needed here: backbone atoms, and each residue's first atom. Raises InputError if
    the data are damaged.
    """
    from biotite.structure.io.pdbx import BinaryCIFFile  # 0.8 s to import

    try:
        source = BinaryCIFFile.read(io.BytesIO(data))
        for name in source:
            if "atom_site" in source[name]:
                block = _gemmi_block(name, source[name])
                break
        else:
            raise _no_atoms()
    except InputError:
        raise
    except Exception as error:  # the decoders raise whatever damaged bytes lead them to
        raise InputError("it is truncated or damaged (BinaryCIF)", FETCH_AGAIN) from error
    return _structure(block), block


def _check_end(data: bytes) -> None:
    """Raise InputError if the text stops within its last category.

    The archives' files close every category with a line "#", the first right after data_.
    """
    head = data[:4096].splitlines()[:2]
    closes = len(head) == 2 and head[0].startswith(b"data_") and head[1].strip() == b"#"
    if closes and data.rstrip().rpartition(b"\n")[2].strip() != b"#":
        raise InputError("it is truncated: the file ends early", FETCH_AGAIN)


def _structure(block: gemmi.cif.Block) -> gemmi.Structure:
    try:
        structure = gemmi.make_structure_from_block(block)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"it is damaged (mmCIF: {reason})", FETCH_AGAIN) from error
    if len(structure) == 0:
        raise _no_atoms()
    del structure[1:]
    structure.merge_chain_parts()
    return structure


def _no_atoms() -> InputError:
    return InputError("it has no atom sites", "give a file with coordinates")


def _gemmi_block(name: str, source: Any) -> gemmi.cif.Block:
    block = gemmi.cif.Block(name)
    for category in _CATEGORIES:
        if category in source:
            columns = {tag: column.as_array(str) for tag, column in source[category].items()}
            _add_loop(block, category, columns)
    atoms = source["atom_site"]
    columns = {tag: atoms[tag].as_array(str) for tag in _ATOM_COLUMNS if tag in atoms}
    keep = _wanted_rows(columns)
    _add_loop(block, "atom_site", {tag: column[keep] for tag, column in columns.items()})
    return block


def _add_loop(
    block: gemmi.cif.Block, category: str, columns: dict[str, npt.NDArray[np.str_]]
) -> None:
    loop = block.init_mmcif_loop(f"_{category}.", list(columns))
    loop.set_all_values([_quoted(column) for column in columns.values()])


def _quoted(column: npt.NDArray[np.str_]) -> list[str]:
    """Return the column as CIF values, quoted if a text needs it ("." and "?" stay null)."""
    values: list[str] = column.tolist()
    quotes = {v: v if v in (".", "?") else gemmi.cif.quote(v) for v in set(values)}
    return [quotes[value] for value in values]


def _wanted_rows(columns: dict[str, npt.NDArray[np.str_]]) -> Bool:
    """Return a mask of the first model's backbone atoms and residues' first atoms."""
    keep = np.isin(columns["label_atom_id"], list(BACKBONE_INDEX))
    keep[:1] = True
    for tag in _RESIDUE_COLUMNS:
        if tag in columns:
            keep[1:] |= columns[tag][1:] != columns[tag][:-1]
    if "pdbx_PDB_model_num" in columns:
        models = columns["pdbx_PDB_model_num"]
        keep &= models == models[:1]
    return keep
