"""Reading of a structure file's content into proteins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gemmi
import numpy as np

from protalign.core.arrays import Bool
from protalign.core.errors import InputError
from protalign.core.protein import Chain, Protein, Structure
from protalign.reading.chains import deposited_chain, observed_chain
from protalign.reading.content import check_content, display_path
from protalign.reading.mmcif import read_bcif, read_mmcif
from protalign.reading.options import ReadOptions
from protalign.reading.pdb_text import read_pdb
from protalign.reading.predicted import (
    KEPT_WHOLE,
    Origin,
    mmcif_origin,
    observed_mask,
    pdb_origin,
)
from protalign.reading.residues import Residues, read_residues
from protalign.reading.sources import SourceFile, is_id


@dataclass(frozen=True, eq=False, slots=True)
class _Parsed:
    structure: gemmi.Structure
    origin: Origin
    has_entities: bool


def read_structure(source: SourceFile, content: bytes, options: ReadOptions) -> list[Protein]:
    """Return the proteins in a PDB, mmCIF or BinaryCIF file's decompressed content.

    One for ``per="protein"``, one for each usable chain for ``per="chain"``; all share one
    Structure. Raises InputError if there is none.
    """
    check_content(content, source.kind)
    parsed = _parse(source, content, options)
    residues = read_residues(parsed.structure, parsed.has_entities)
    if len(residues) == 0:
        raise InputError("it has no protein: none of its residues is an amino acid", "leave it out")
    notes: list[str] = []
    observed = np.ones(len(residues), dtype=np.bool_)
    if options.min_plddt is not None:
        mask = observed_mask(residues, parsed.origin, options.min_plddt)
        if mask is None:
            notes.append(KEPT_WHOLE)
        else:
            observed = mask
    chains, problems = [], set()
    for chain, note in _chains(parsed.structure, residues, observed, options):
        if problem := _problem_of(chain):
            problems.add(problem)
            notes.append(f"chain {chain.id}: {problem}, left out")
        else:
            chains.append(chain)
            if note:
                notes.append(f"chain {chain.id}: {note}")
    if not chains:
        raise _unusable(problems)
    return _proteins(source, tuple(chains), tuple(notes), options)


def _parse(source: SourceFile, content: bytes, options: ReadOptions) -> _Parsed:
    if source.kind == "pdb":
        structure, header = read_pdb(content)
        if options.sequence == "deposited":
            structure.setup_entities()
            structure.assign_label_seq_id()
        return _Parsed(structure, pdb_origin(header), has_entities=False)
    structure, block = (read_mmcif if source.kind == "mmcif" else read_bcif)(content)
    return _Parsed(structure, mmcif_origin(block), has_entities=True)


def _chains(
    structure: gemmi.Structure,
    residues: Residues,
    observed: Bool,
    options: ReadOptions,
) -> Iterator[tuple[Chain, str]]:
    """Yield each chain that has an observed residue, with a note about it or ""."""
    bounds = np.searchsorted(residues.chains, np.arange(len(structure[0]) + 1))
    for index, gemmi_chain in enumerate(structure[0]):
        part = slice(bounds[index], bounds[index + 1])
        mask = observed[part]
        if not mask.any():
            continue
        if options.sequence == "deposited":
            yield deposited_chain(structure, index, residues[part], mask)
        else:
            yield observed_chain(gemmi_chain.name, residues[part], mask), ""


def _problem_of(chain: Chain) -> str:
    """Return why a chain cannot be used, "" if it can."""
    if np.count_nonzero(chain.observed) < 2:
        return "one residue"
    assert chain.backbone is not None
    if not chain.backbone.complete.any():
        present = ~np.isnan(chain.backbone.coordinates[:, :, 0]).all(axis=0)
        return "only CA atoms" if present.tolist() == [False, True, False, False] else "no backbone"
    return ""


def _unusable(problems: set[str]) -> InputError:
    if problems == {"one residue"}:
        return InputError("no chain has more than one residue", "leave it out")
    if problems == {"only CA atoms"}:
        return InputError(
            "it has only CA atoms", "give a full-backbone model, or the sequence alone as FASTA"
        )
    return InputError(
        "no residue has a complete backbone (N, CA, C, O)", "give a full-backbone model"
    )


def _proteins(
    source: SourceFile, chains: tuple[Chain, ...], notes: tuple[str, ...], options: ReadOptions
) -> list[Protein]:
    file = display_path(source.path)
    if options.per == "protein":
        first_of: dict[str, int] = {}
        for index, chain in enumerate(chains):
            first_of.setdefault(chain.sequence, index)
        kept = tuple(first_of.values())
        structure = Structure(chains, kept)
        return [Protein(source.id, file, structure.kept_chains, structure, notes)]
    structure = Structure(chains, tuple(range(len(chains))))
    proteins = []
    for chain in chains:
        id = f"{source.id}_{chain.id}" if chain.id else source.id
        if not is_id(id):
            raise InputError(
                f"the chain name {chain.id!r} cannot be part of an id", "rename the chain"
            )
        of_chain = (f"chain {chain.id}:", KEPT_WHOLE)
        chain_notes = tuple(note for note in notes if note.startswith(of_chain))
        proteins.append(Protein(id, file, (chain,), structure, chain_notes))
    return proteins
