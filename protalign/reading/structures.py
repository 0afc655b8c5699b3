"""Reading of a structure file's content into proteins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import gemmi
import numpy as np

from protalign.core.arrays import Bool
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.protein import Chain, Protein, Structure
from protalign.reading.annotations import HeaderFacts, cif_facts, pdb_facts
from protalign.reading.assemblies import Generator, assembled, pdb_assembly
from protalign.reading.chains import deposited_chain, observed_chain
from protalign.reading.content import check_content, plain_text
from protalign.reading.foldcomp import restore
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
from protalign.reading.residues import Residues, no_protein, read_residues, unknown_note
from protalign.reading.sources import SourceFile, is_id

_LEFT_OUT = ", left out"
#: Atoms within so many Å, in each direction, have no coordinates but a stand-in, as 0 or 9999.999.
_POINT = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class _Parsed:
    """A file's content; ``letters`` are the chains' in a PDB file, empty for mmCIF."""

    structure: gemmi.Structure
    letters: list[str]
    origin: Origin
    facts: HeaderFacts
    assembly: list[Generator]
    notes: list[str]

    @property
    def has_entities(self) -> bool:
        return not self.letters


@dataclass(frozen=True, eq=False, slots=True)
class _Read:
    """A chain, and what is known of it.

    Attributes
    ----------
    chain : Chain
    unknown : list of bytes
        Names of its residues that are read as X.
    notes : list of str
    molecule : str
        Its key in the facts of the header: the entity's id, or the chain's letter.
    label : str
        Its label_asym_id in mmCIF.
    """

    chain: Chain
    unknown: list[bytes]
    notes: list[str]
    molecule: str
    label: str


def read_structure(source: SourceFile, content: bytes, options: ReadOptions) -> list[Protein]:
    """Return the proteins in a PDB, mmCIF, BinaryCIF or Foldcomp file's decompressed content.

    One for ``per="protein"``, one for each usable chain for ``per="chain"``; all share one
    Structure. Raises InputError if there is none.
    """
    if source.kind == "foldcomp":
        content, source = restore(content), replace(source, kind="pdb")
    check_content(content, source.kind)
    parsed = _parse(source, content, options)
    residues = read_residues(parsed.structure, parsed.has_entities)
    if len(residues) == 0:
        raise no_protein()
    notes = parsed.notes
    observed = np.ones(len(residues), dtype=np.bool_)
    if options.min_plddt is not None:
        mask = observed_mask(residues, parsed.origin, options.min_plddt)
        if mask is None:
            notes.append(KEPT_WHOLE)
        else:
            observed = mask
    reads, problems = [], set()
    for read in _chains(parsed, residues, observed, options):
        if problem := _problem_of(read.chain):
            problems.add(problem)
            notes.append(f"chain {printable(read.chain.id)}: {problem}{_LEFT_OUT}")
        else:
            reads.append(read)
    if not reads:
        raise _unusable(problems)
    if options.assembly is not None:
        reads = _assembly(parsed, reads, options.assembly)
    return _proteins(source, reads, parsed.facts, notes, options)


def _parse(source: SourceFile, content: bytes, options: ReadOptions) -> _Parsed:
    deposited, assembly = options.sequence == "deposited", options.assembly
    if source.kind == "pdb":
        pdb = read_pdb(plain_text(content), with_seqres=deposited)
        if deposited:
            pdb.structure.setup_entities()
            pdb.structure.assign_label_seq_id()
        generators = [] if assembly is None else pdb_assembly(pdb.header, assembly)
        origin, facts = pdb_origin(pdb.header), pdb_facts(pdb.header)
        return _Parsed(pdb.structure, pdb.letters, origin, facts, generators, pdb.notes)
    if source.kind == "mmcif":
        cif = read_mmcif(plain_text(content), assembly)
    else:
        cif = read_bcif(content, assembly)
    origin, facts = mmcif_origin(cif.block), cif_facts(cif.block)
    return _Parsed(cif.structure, [], origin, facts, cif.assembly, cif.notes)


def _chains(
    parsed: _Parsed,
    residues: Residues,
    observed: Bool,
    options: ReadOptions,
) -> Iterator[_Read]:
    """Yield each chain that has an observed residue."""
    structure = parsed.structure
    bounds = np.searchsorted(residues.chains, np.arange(len(structure[0]) + 1))
    for index, gemmi_chain in enumerate(structure[0]):
        part = slice(bounds[index], bounds[index + 1])
        mask = observed[part]
        if not mask.any():
            continue
        of_chain, note = residues[part], ""
        if options.sequence == "deposited":
            chain, note = deposited_chain(structure, index, of_chain, mask)
        else:
            chain = observed_chain(gemmi_chain.name, of_chain, mask)
        unknown = of_chain.names[mask & (of_chain.letters == b"X")].tolist()
        notes = [f"chain {printable(chain.id)}: {note}"] if note else []
        first = gemmi_chain[int(of_chain.rows[0])]
        molecule = parsed.letters[index] if parsed.letters else first.entity_id
        yield _Read(chain, unknown, notes, molecule, first.subchain)


def _assembly(parsed: _Parsed, reads: list[_Read], name: str) -> list[_Read]:
    """Return the chains of an assembly, each with what is known of the chain that it copies."""
    copies = assembled(
        [read.chain for read in reads],
        [read.label for read in reads],
        [read.molecule if parsed.letters else "" for read in reads],
        parsed.assembly,
        name,
    )
    return [replace(reads[copy.index], chain=copy.chain) for copy in copies]


def _problem_of(chain: Chain) -> str:
    """Return why a chain cannot be used, "" if it can."""
    if np.count_nonzero(chain.observed) < 2:
        return "one residue"
    assert chain.backbone is not None
    if not chain.backbone.complete.any():
        present = ~np.isnan(chain.backbone.coordinates[:, :, 0]).all(axis=0)
        return "only CA atoms" if present.tolist() == [False, True, False, False] else "no backbone"
    atoms = chain.backbone.coordinates[chain.backbone.complete].reshape(-1, 3)
    return "atoms on one point" if np.ptp(atoms, axis=0).max() < _POINT else ""


def _unusable(problems: set[str]) -> InputError:
    if problems == {"one residue"}:
        return InputError("no chain has more than one residue", "leave it out")
    if problems == {"only CA atoms"}:
        return InputError(
            "it has only CA atoms", "give a full-backbone model, or the sequence alone as FASTA"
        )
    if "atoms on one point" in problems:  # whatever else is wrong, these have no coordinates
        return InputError("its atoms lie on one point", "give a file with coordinates")
    return InputError(
        "no residue has a complete backbone (N, CA, C, O)", "give a full-backbone model"
    )


def _proteins(
    source: SourceFile,
    reads: list[_Read],
    facts: HeaderFacts,
    notes: list[str],
    options: ReadOptions,
) -> list[Protein]:
    file = path_text(source.path)
    chains = tuple(read.chain for read in reads)
    if options.per == "protein":
        first_of: dict[str, int] = {}
        for index, chain in enumerate(chains):
            first_of.setdefault(chain.sequence, index)
        kept = tuple(first_of.values())
        structure = Structure(chains, kept)
        notes = [*notes, *_notes_of([reads[index] for index in kept])]
        annotation = facts.annotation(reads[index].molecule for index in kept)
        return [
            Protein(source.id, file, structure.kept_chains, structure, tuple(notes), annotation)
        ]
    structure = Structure(chains, tuple(range(len(chains))))
    annotations = {key: facts.annotation([key]) for key in {read.molecule for read in reads}}
    proteins = []
    for read in reads:
        chain = read.chain
        id = f"{source.id}_{chain.id}" if chain.id else source.id
        if not is_id(id):
            raise InputError(
                f"the chain name {chain.id!r} cannot be part of an id", "rename the chain"
            )
        of_file = [note for note in notes if not note.endswith(_LEFT_OUT)]
        own = (*of_file, *_notes_of([read]))
        annotation = annotations[read.molecule]
        proteins.append(Protein(id, file, (chain,), structure, own, annotation))
    return proteins


def _notes_of(reads: list[_Read]) -> list[str]:
    """Return the notes about these chains."""
    unknown = unknown_note([name for read in reads for name in read.unknown])
    return [*(note for read in reads for note in read.notes), *([unknown] if unknown else [])]
