"""Proteins named by texts, aligned in all pairs, and the folder of files that they give."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from protalign.core.errors import Failure, InputError
from protalign.core.files import check_replaceable, json_text, new_folder
from protalign.core.paths import file_stem
from protalign.core.printing import printable
from protalign.core.protein import Modality
from protalign.core.words import AlignFormat, AlignMode
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model, as_model
from protalign.residues.alignment import GAP_EXTEND, GAP_OPEN
from protalign.search.alignment_formats import a3m, as_dict, blocks, fasta, m8, other_score
from protalign.search.alignments import ProteinAlignment, align_proteins
from protalign.search.residue_rows import ResidueRows
from protalign.search.residue_support import (
    ResidueSupport,
    sentences,
    support_of,
    write_support,
)
from protalign.search.row_sources import RowSource, RowSources, choose_modalities
from protalign.stores import EmbeddingStore
from protalign.stores.union.paths import StorePaths

#: The name and the version of the schema of the JSON document (docs/alignments.md).
SCHEMA, SCHEMA_VERSION = "protalign alignments", 1
#: The files of all alignments in a folder.
TEXT, M8, JSON = "alignments.txt", "alignments.m8", "alignments.json"


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of one alignment in a folder of alignments.

    Attributes
    ----------
    file : str
        Its name in the folder.
    form : str
        "a3m", "fasta", "fit" (the table of the structure's residues) or "structure".
    query, target : str
        The names of the two that are aligned in it: ids, or those of chains.
    """

    file: str
    form: str
    query: str
    target: str

    def as_dict(self) -> dict[str, str]:
        """Return JSON values."""
        return {
            "file": self.file,
            "format": self.form,
            "query": self.query,
            "target": self.target,
        }


@dataclass(frozen=True, eq=False)
class AlignResults:
    """Alignments of some queries with some targets.

    Attributes
    ----------
    alignments : tuple of (ProteinAlignment, ResidueSupport)
        Query by query, each with every target, and the fit of the structure's residues.
    failures : tuple of Failure
        Proteins that could not be read, and pairs that could not be aligned.
    settings : dict
        The model and the options, as JSON values.
    files : tuple of tuple of WrittenFile
        For each of the alignments its files, in the folder that they were written to; empty before.
    """

    alignments: tuple[tuple[ProteinAlignment, ResidueSupport], ...]
    failures: tuple[Failure, ...]
    settings: Mapping[str, Any]
    files: tuple[tuple[WrittenFile, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document; docs/alignments.md has its schema."""
        return {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            **self.settings,
            "results": [
                {
                    "whole": as_dict(aligned.whole),
                    "chains": [as_dict(each) for each in aligned.chains],
                    "matched": [[each.query.name, each.target.name] for each in aligned.matched],
                    "fit": support.as_dict(),
                    "files": [file.as_dict() for file in files],
                }
                for (aligned, support), files in zip(
                    self.alignments, self.files or ((),) * len(self.alignments), strict=True
                )
            ],
            "failures": [asdict(failure) for failure in self.failures],
        }


def align_texts(
    query: str,
    target: str,
    model: Model | str | os.PathLike[str],
    *,
    mode: AlignMode = "local",
    gap_open: float = GAP_OPEN,
    gap_extend: float = GAP_EXTEND,
    query_by: Modality | None = None,
    store: EmbeddingStore | StorePaths | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
) -> AlignResults:
    """Align each protein that one text means with each that another means.

    Parameters
    ----------
    query, target : str
        A FASTA file, a structure file, a folder of them, an id of the store, or a sequence.
    model : Model, str or path
        A model with a residue stage, or its folder.
    mode, gap_open, gap_extend
        As for ``align_proteins``.
    query_by : "sequence" or "structure", optional
        The query's modality; the target has the other one.
    store : EmbeddingStore, path or paths, optional
        The store whose ids the texts may be.
    weights : mapping, optional
        Modality -> weights file of the model's encoder, if it is not found by itself.
    device : str
        "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".

    Raises
    ------
    InputError
        A text is not an id, a file or a sequence.
    ModelError
        The model has no residue stage, or was fitted on other embeddings than the store has.
    WeightsError
        The weights of an encoder are missing.
    """
    model = Model.load(model, device) if isinstance(model, (str, os.PathLike)) else as_model(model)
    model.residue_scorer()  # raises if there is none
    if store is not None and not isinstance(store, EmbeddingStore):
        store = EmbeddingStore.open(store)
    sources = RowSources(model, RecordedEncoders(model.encoders, weights, device), store)
    failures: list[Failure] = []
    sides: list[list[RowSource]] = []
    for text in (query, target):
        found, failed = sources.find(text)
        sides.append(found)
        failures += [failure for failure in failed if failure not in failures]
    rows: dict[tuple[int, Modality], ResidueRows] = {}

    def rows_of(source: RowSource, modality: Modality) -> ResidueRows:
        key = id(source), modality
        if key not in rows:
            rows[key] = sources.rows(source, modality)
        return rows[key]

    alignments = []
    for one in sides[0]:
        for other in sides[1]:
            try:
                by, against = choose_modalities(one, other, query_by)
                aligned = align_proteins(
                    model,
                    rows_of(one, by),
                    rows_of(other, against),
                    mode,
                    gap_open=gap_open,
                    gap_extend=gap_extend,
                )
            except InputError as error:
                if len(sides[0]) == len(sides[1]) == 1:
                    raise
                failures.append(Failure(f"{one.id}, {other.id}", "", error.reason, error.advice))
                continue
            alignments.append((aligned, support_of(model, aligned)))
    settings = {
        "model": model.weights_sha256,
        "mode": mode,
        "gap_open": gap_open if mode == "local" else None,
        "gap_extend": gap_extend if mode == "local" else None,
    }
    return AlignResults(tuple(alignments), tuple(failures), settings)


def shown(results: AlignResults, form: AlignFormat) -> str:
    """Return the alignments in one form, as text that ends in a line break if it is not empty.

    "text" has the alignment of each chain with the one that it fits best; of proteins of several
    chains it begins with a list of all of them.
    """
    if form == "json":
        return json_text(results.as_dict())
    if form == "text":
        return "\n".join(_text(*each) for each in results.alignments)
    write = {"m8": m8, "a3m": a3m, "fasta": fasta}[form]
    parts = [write(each) for aligned, _ in results.alignments for each in aligned.all]
    return "".join(part if part.endswith("\n") else f"{part}\n" for part in parts if part)


def _text(aligned: ProteinAlignment, support: ResidueSupport) -> str:
    lines = []
    if aligned.chains:
        best = set(map(id, aligned.matched))
        local = other_score(aligned.whole.alignment) is not None
        scores = "score and global score" if local else "score"
        lines.append(
            f"query, target, pairs, {scores} in nats (* each chain on the one it fits best):"
        )
        for each in aligned.all:
            star = " *" if id(each) in best else ""
            names = printable(f"{each.query.name}  {each.target.name}")
            other = other_score(each.alignment)
            shown = f"{each.alignment.score:.1f}" + ("" if other is None else f"  {other:.1f}")
            lines.append(f"  {names}  {len(each):,}  {shown}{star}")
        lines.append("")
    lines += [blocks(each) for each in aligned.matched]
    if not aligned.matched:
        lines.append(blocks(aligned.whole))
    return "\n".join([*lines, *sentences(support), ""])


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise WriteError if something is at a path that ``write_folder`` must not replace."""
    check_replaceable(path, JSON, SCHEMA, "a folder of alignments")


def write_folder(results: AlignResults, path: str | os.PathLike[str]) -> AlignResults:
    """Write a folder of the alignments; it appears whole or not at all.

    It holds all alignments as text, m8 and JSON, and for each ``query_target.a3m`` and ``.fasta``,
    ``query_target.fit.tsv`` and the structure with the ratios as B-factors. A folder of alignments
    at the path is replaced.

    Returns
    -------
    AlignResults
        The results with their ``files``, as the folder's JSON document has them.

    Raises
    ------
    WriteError
        Something else is at the path, or it cannot be written.
    """
    check_folder(path)
    with new_folder(path) as folder:
        taken: set[str] = set()
        files = tuple(_write_files(*each, folder, taken) for each in results.alignments)
        written = replace(results, files=files)
        forms: dict[str, AlignFormat] = {TEXT: "text", M8: "m8", JSON: "json"}
        for name, form in forms.items():
            (folder / name).write_text(shown(written, form), encoding="utf-8")
    return written


def _write_files(
    aligned: ProteinAlignment, support: ResidueSupport, folder: Path, taken: set[str]
) -> tuple[WrittenFile, ...]:
    """Write the files of one result, under names that are not taken; return them."""
    files = []
    for each in aligned.all:
        base = file_stem([each.query.name, each.target.name], taken)
        paths = {}
        for form, write in (("a3m", a3m), ("fasta", fasta)):
            if len(each):
                paths[form] = folder / f"{base}.{form}"
                paths[form].write_text(write(each), encoding="utf-8")
        if each is aligned.whole:
            (paths["fit"], paths["structure"]), _ = write_support(support, folder / base)
        names = each.query.name, each.target.name
        files += [WrittenFile(path.name, form, *names) for form, path in paths.items()]
    return tuple(files)
