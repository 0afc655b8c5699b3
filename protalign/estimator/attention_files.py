"""Attention in structure files: each residue's weight as its B-factor, for any viewer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from protalign.core.arrays import Float32
from protalign.core.checks import check_choice
from protalign.core.errors import Failure, InputError
from protalign.core.files import make_folder
from protalign.core.paths import path_of, path_text
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.model import Model
from protalign.reading.structure_writer import (
    MAX_B_FACTOR,
    ResidueKey,
    with_suffixes,
    write_values,
)
from protalign.stores import EmbeddingStore, Entries

#: Bytes of a file's name without its suffix, at most.
_LONGEST_NAME = 240


@dataclass(frozen=True, slots=True)
class AttentionFile:
    """A structure file with attention in its B-factors.

    Attributes
    ----------
    id : str
        The entry's id.
    path : Path
        The file.
    all_atoms : bool
        True for all atoms of the source file, False for the store's backbone atoms.
    highest : float
        The highest weight in it, as written.
    """

    id: str
    path: Path
    all_atoms: bool
    highest: float


def write_attention(
    model: Model,
    entries: Entries,
    folder: Path,
    *,
    head: int | None = None,
    modality: Modality = "structure",
    overwrite: bool = False,
) -> tuple[list[AttentionFile], list[Failure]]:
    """Write a structure file per entry, with each residue's attention as its B-factor.

    The number is the weight times the entry's rows: 1 if a head weighs every residue alike, 10 for
    a residue with ten times its share; at most 999.99. Residues without a weight (incomplete
    backbone, other molecules, other copies of a chain) have 0. The file is the entry's source with
    all its atoms, if that still exists and is unchanged; else the backbone atoms in the store.

    Parameters
    ----------
    model : Model
        A model that attends.
    entries : EmbeddingStore or StoreView
        The entries. Those without a structure are failures.
    folder : Path
        The folder of the files, which are named by id. It is made if it is missing.
    head : int, optional
        Attention head, from 0; None for the mean over heads.
    modality : "structure" or "sequence"
        The head of the structures, or the head of the sequences on the same residues.
    overwrite : bool
        Replace files that exist; without it they are failures. A source file of the store, or a
        file of this call, is never replaced.

    Returns
    -------
    (list of AttentionFile, list of Failure)

    Raises
    ------
    InputError
        The model's pooling has no attention; the head or the modality is unknown.
    WriteError
        A file cannot be written, for example because the disk is full.
    """
    check_choice("modality", modality, MODALITIES)
    weights = {m: model.residue_weights(entries, m) for m in MODALITIES}
    n_heads = model.n_heads or 0
    if head is not None and not 0 <= head < n_heads:
        raise InputError(f"head={head}: it does not exist", f"give 0 to {n_heads - 1}")
    make_folder(folder)
    written: list[AttentionFile] = []
    failures: list[Failure] = []
    never = set(map(str, entries.store.log.source_paths))
    for position, entry_id in enumerate(map(str, entries.ids)):
        rows = weights[modality][position]
        if rows is None or weights["structure"][position] is None:
            source = entries.store.source(entry_id)
            failures.append(
                Failure(
                    entry_id, source, "the structure is missing or not embedded", "leave it out"
                )
            )
            continue
        name = entry_id.replace("/", "_")
        if not name.isprintable() or name.startswith(".") or len(os.fsencode(name)) > _LONGEST_NAME:
            failures.append(
                Failure(
                    entry_id,
                    entries.store.source(entry_id),
                    "its id cannot be the name of a file",
                    "embed it under another name",
                )
            )
            continue
        shares = len(rows) * (rows.mean(axis=1) if head is None else rows[:, head])
        base = folder / name
        existing = [path for path in with_suffixes(base) if path.exists()]
        may_replace = overwrite and never.isdisjoint(path_text(path.resolve()) for path in existing)
        if existing and not may_replace:
            advice = "name another folder, or overwrite it unless it is a source"
            failures.append(Failure(entry_id, str(existing[0]), "it exists", advice))
            continue
        values = _by_residue(entries.store, entry_id, shares, modality)
        store = entries.store
        path, all_atoms = write_values(
            path_of(store.source(entry_id)),
            store.source_sha256(entry_id),
            store.structure(entry_id),
            values,
            base,
        )
        never.add(path_text(path.resolve()))
        highest = min(max(values.values()), MAX_B_FACTOR)
        written.append(AttentionFile(entry_id, path, all_atoms, highest))
    return written, failures


def _by_residue(
    store: EmbeddingStore, entry_id: str, shares: Float32, modality: Modality
) -> dict[ResidueKey, float]:
    """Return the share of each residue that has a row in the structure."""
    residues = store.residue_map(entry_id)
    if modality == "sequence":
        shares = shares[residues.sequence_index]
    keys = zip(
        residues.chain_ids.tolist(),
        residues.residue_numbers.tolist(),
        map(chr, residues.insertion_codes.tolist()),
        strict=True,
    )
    return dict(zip(keys, shares.tolist(), strict=True))
