"""Proteins whose residue rows can be had: entries of a store, records of files, sequences."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.checks import did_you_mean
from protalign.core.errors import Failure, InputError
from protalign.core.protein import MODALITIES, Chain, Modality, Protein
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model
from protalign.reading import ReadOptions, find_sources, read_sources
from protalign.reading.content import read_file
from protalign.reading.fasta import parse_sequence
from protalign.search.residue_rows import ResidueRows, stored_rows
from protalign.stores import EmbeddingStore

#: A text that is neither an id nor a file is a sequence if it is letters, at least this many.
_SHORTEST_SEQUENCE = 10
_SEQUENCE = re.compile(rf"[A-Za-z\s]{{{_SHORTEST_SEQUENCE},}}\*?")


@dataclass(frozen=True, eq=False)
class RowSource:
    """A protein that was read, or an entry of a store.

    Attributes
    ----------
    id : str
        Its id.
    modalities : tuple of str
        Those that it has rows of, or can have.
    protein : Protein or None
        The protein that was read; None for an entry.
    source_sha256 : bytes
        The SHA-256 of the protein's file.
    """

    id: str
    modalities: tuple[Modality, ...]
    protein: Protein | None = None
    source_sha256: bytes = b""


@dataclass
class RowSources:
    """Texts of a command line to proteins, and proteins to rows.

    Parameters
    ----------
    model : Model
        The model that the rows are for.
    encoders : RecordedEncoders
        Its encoders, for proteins that are in no store.
    store : EmbeddingStore, optional
        The store whose ids are known. Files are read with its options, but for an assembly.

    Examples
    --------
    >>> from protalign.heads.losses import ContrastiveLoss
    >>> model = Model({"sequence": 160, "structure": 128}, ContrastiveLoss("clip"))
    >>> sources = RowSources(model, RecordedEncoders(model.encoders))
    >>> (protein,), failures = sources.find("examples/sample/1bpi_A.cif")
    >>> protein.id, protein.modalities
    ('1bpi_A', ('sequence', 'structure'))
    """

    model: Model
    encoders: RecordedEncoders
    store: EmbeddingStore | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if self.store is not None:
            names = {option.name for option in fields(ReadOptions)} - {"assembly"}
            known: dict[str, Any] = {
                name: value for name, value in self.store.options.items() if name in names
            }
            self.options = ReadOptions(**known)

    def find(self, text: str) -> tuple[list[RowSource], list[Failure]]:
        """Return the proteins that a text means.

        It is an id if the store has it, else a file or folder if it exists, else a sequence if it
        is at least 10 letters. Raise InputError for anything else.
        """
        if self.store is not None and text in self.store:
            return [self._entry(self.store, text)], []
        if os.path.exists(text):  # noqa: PTH110 - Path("") is a folder
            return self._files(text)
        if _SEQUENCE.fullmatch(text):
            chain = Chain.from_sequence(parse_sequence(text))
            return [RowSource("sequence", ("sequence",), Protein("sequence", "", (chain,)))], []
        ids: Iterable[str] = () if self.store is None else self.store.ids.tolist()
        known = "an id of the store" if self.store else "an id (without --store)"
        raise InputError(
            f"{text[:60]!r}: not {known}, and no file or folder has this name",
            did_you_mean(text, ids) or "give a FASTA or structure file, or an id and --store",
        )

    def rows(self, source: RowSource, modality: Modality) -> ResidueRows:
        """Return a protein's rows of one modality: the store's, or embedded now."""
        if source.protein is None:
            assert self.store is not None
            rows = stored_rows(self.model, self.store, source.id, modality)
            assert rows is not None
            return rows
        protein = source.protein
        if modality == "sequence":
            (values,) = self.encoders.encode(modality, [protein.sequences])
        else:
            assert protein.structure is not None
            (whole,) = self.encoders.encode(modality, [protein.structure])
            chains = {id(chain) for chain in protein.chains}
            kept = [
                np.full(len(chain.structure_rows), id(chain) in chains)
                for chain in protein.structure.kept_chains
            ]
            values = whole[np.concatenate(kept)]
        return ResidueRows.of(
            protein.id,
            modality,
            protein.chains,
            values,
            structure=protein.structure,
            source=protein.source,
            source_sha256=source.source_sha256,
        )

    def _entry(self, store: EmbeddingStore, entry_id: str) -> RowSource:
        inputs = self.model.inputs(store[entry_id])
        present = tuple(m for m in MODALITIES if m in inputs.dims and inputs.items(m)[0] >= 0)
        return RowSource(entry_id, present)

    def _files(self, text: str) -> tuple[list[RowSource], list[Failure]]:
        sources, failures = find_sources([Path(text)])
        found: list[RowSource] = []
        for source in sources:
            try:
                digest = hashlib.sha256(read_file(source.local)).digest()
            except InputError:  # reading it says why
                digest = b""
            for result in read_sources([source], self.options, processes=1):
                failures.extend(result.failures)
                found += [
                    RowSource(protein.id, _modalities(protein), protein, digest)
                    for protein in result.proteins
                ]
        return found, failures


def _modalities(protein: Protein) -> tuple[Modality, ...]:
    has_backbone = any(len(chain.structure_rows) for chain in protein.chains)
    return ("sequence", "structure") if has_backbone else ("sequence",)


def choose_modalities(
    query: RowSource, target: RowSource, query_by: Modality | None = None
) -> tuple[Modality, Modality]:
    """Return the modalities to compare two proteins by: one by its sequence, one by its structure.

    Parameters
    ----------
    query, target : RowSource
        The proteins.
    query_by : "sequence" or "structure", optional
        The query's; default: the sequence if the target has a structure, else the structure.

    Raises
    ------
    InputError
        A modality is missing.

    Examples
    --------
    >>> both, one = RowSource("1abc", ("sequence", "structure")), RowSource("q", ("sequence",))
    >>> choose_modalities(both, both), choose_modalities(both, one)
    (('sequence', 'structure'), ('structure', 'sequence'))
    """
    wanted: tuple[tuple[Modality, Modality], ...] = (
        ("sequence", "structure"),
        ("structure", "sequence"),
    )
    if query_by is not None:
        wanted = tuple(pair for pair in wanted if pair[0] == query_by)
    for q, t in wanted:
        if q in query.modalities and t in target.modalities:
            return q, t
    if query_by is None:
        raise InputError(
            f"{query.id} and {target.id}: neither has a structure"
            if "structure" not in {*query.modalities, *target.modalities}
            else f"{query.id} and {target.id}: a sequence and a structure are needed",
            "give a structure file or an entry with a structure for one of them",
        )
    q, t = wanted[0]
    at_fault, missing = (query, q) if q not in query.modalities else (target, t)
    raise InputError(f"{at_fault.id}: it has no {missing}", f"leave out --query-by {query_by}")
