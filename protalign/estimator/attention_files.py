"""Attention in structure files: a residue's weight as its B-factor, for any viewer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protalign.core.arrays import Float32
from protalign.core.checks import check_choice
from protalign.core.errors import Failure, InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.reading.content import read_file, unpack
from protalign.reading.sources import split_name
from protalign.reading.structure_writer import (
    MAX_B_FACTOR,
    ResidueKey,
    with_suffixes,
    write_backbone,
    write_with_b_factors,
)
from protalign.stores import EmbeddingStore, Entries


@dataclass(frozen=True, slots=True)
class Written:
    """One file.

    Attributes
    ----------
    id : the entry's.
    path : the file.
    all_atoms : whether it holds all atoms of the source file, or the store's backbone atoms.
    highest : highest weight in it, as written.
    """

    id: str
    path: Path
    all_atoms: bool
    highest: float


def write_attention(
    estimator: ProtAlignEstimator,
    entries: Entries,
    folder: Path,
    *,
    head: int | None = None,
    modality: Modality = "structure",
    overwrite: bool = False,
) -> tuple[list[Written], list[Failure]]:
    """Write a structure file per entry, each residue's attention in its B-factors.

    The number is the weight times the entry's rows: 1 where a head looks at every residue alike,
    10 for a residue that draws ten times its share; at most 999.99. Residues that have no weight
    (no complete backbone, other molecules, other copies of a chain) have 0. The file is the
    entry's source with all its atoms, where that is still there and still the same; else the
    backbone atoms that the store holds.

    Parameters
    ----------
    entries : of a store; those without a structure are failures.
    folder : made where it is not there; files are named by id.
    head : attention head, from 0; None for the mean over heads.
    modality : "structure", what the structures' head looks at; "sequence", the sequences' head, on
        the same residues.
    overwrite : replace files that are there already; without it they are failures. A file that the
        store was made from, or one of this call's, is never replaced.

    Raises
    ------
    InputError : the model's pooling has no attention; no such head or modality.
    """
    check_choice("modality", modality, MODALITIES)
    weights = estimator.attention(entries)
    n_heads = estimator.heads_.n_heads or 0
    if head is not None and not 0 <= head < n_heads:
        raise InputError(f"head={head}", f"the model has heads 0 to {n_heads - 1}")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Written] = []
    failures: list[Failure] = []
    never = set(map(str, entries.store.log.source_paths))
    for place, entry_id in enumerate(map(str, entries.ids)):
        own = weights[modality][place]
        if own is None or weights["structure"][place] is None:
            source = entries.store.source(entry_id)
            failures.append(Failure(entry_id, source, "no structure embedded", "leave it out"))
            continue
        shares = len(own) * (own.mean(axis=1) if head is None else own[:, head])
        base = folder / entry_id.replace("/", "_")
        there = [path for path in with_suffixes(base) if path.exists()]
        if there and not (overwrite and never.isdisjoint(str(path.resolve()) for path in there)):
            advice = "name another folder, or overwrite it unless it is a source"
            failures.append(Failure(entry_id, str(there[0]), "it is there already", advice))
            continue
        values = _by_residue(entries.store, entry_id, shares, modality)
        path, all_atoms = _write(entries.store, entry_id, values, base)
        never.add(str(path.resolve()))
        highest = min(max(values.values()), MAX_B_FACTOR)
        written.append(Written(entry_id, path, all_atoms, highest))
    return written, failures


def _by_residue(
    store: EmbeddingStore, entry_id: str, shares: Float32, modality: Modality
) -> dict[ResidueKey, float]:
    """Residues of the structure's rows, with their shares."""
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


def _write(
    store: EmbeddingStore, entry_id: str, values: Mapping[ResidueKey, float], path: Path
) -> tuple[Path, bool]:
    """(the file, whether it holds all atoms)."""
    source = Path(store.source(entry_id))
    kind = split_name(source.name)[1]
    try:
        data = read_file(source)
        same = hashlib.sha256(data).digest() == store.source_sha256(entry_id)
        if same and (kind == "pdb" or kind == "mmcif"):
            return write_with_b_factors(unpack(data, source.name), kind, values, path), True
    except InputError:  # it is gone, or has lines that our reader passes over and gemmi does not
        pass
    return write_backbone(store.structure(entry_id), values, path), False
