"""Queries: proteins that are read, embedded and pooled, or vectors that a file has already."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from protalign.core.arrays import Float32
from protalign.core.checks import did_you_mean
from protalign.core.errors import Failure, InputError
from protalign.core.files import sha256
from protalign.core.paths import path_of
from protalign.core.protein import MODALITIES, OTHER, Chain, Modality, Protein
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model
from protalign.reading import ReadOptions, find_sources, read_sources
from protalign.reading.fasta import parse_sequence
from protalign.residues import ResidueStage
from protalign.residues.proteins import ProteinRows
from protalign.search.rerank import StoredResidues
from protalign.search.residue_rows import StoredProtein, has_coordinates, positions
from protalign.search.superposition import backbone_of
from protalign.stores import AlignedVectors, EmbeddingStore, read_vectors
from protalign.stores.vectors.folder import is_vector_folder

#: Proteins read, embedded and pooled at once.
QUERIES_AT_ONCE = 64
#: A text that is not an id or a file is a sequence if it is letters, at least this many.
_SHORTEST_SEQUENCE = 10
_SEQUENCE = re.compile(rf"[A-Za-z\s]{{{_SHORTEST_SEQUENCE},}}\*?")

#: One query: an id, a file or folder, a sequence, a protein, residue embeddings, or vectors of
#: another file.
Query = str | os.PathLike[str] | Protein | Float32 | AlignedVectors


@dataclass(frozen=True, eq=False)
class Queries:
    """Pooled queries.

    Attributes
    ----------
    ids : list of str
        n ids.
    modality : list of str
        The modality that each was pooled from: a FASTA record from its sequence, a structure file
        from its structure.
    lengths : list of int or None
        Residues of each; None if unknown.
    vectors : (n, dim) float32
        Vectors of unit length.
    proteins : list of Protein, StoredProtein or None
        The protein behind each query, for its residues' names and its coordinates; None for bare
        embeddings, and for vectors whose store is missing.
    residues : list of ProteinRows or None
        Residue rows of each query for a second stage; None if they were not asked for, or if they
        are unknown.
    failures : list of Failure
        Inputs that could not be read.
    digests : dict
        The SHA-256 of each structure file that was read, by the ``source`` of its proteins.
    """

    ids: list[str]
    modality: list[Modality]
    lengths: list[int | None]
    vectors: Float32
    proteins: list[Protein | StoredProtein | None]
    residues: list[ProteinRows | None]
    failures: list[Failure] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, places: Sequence[int]) -> Queries:
        """Return some of the queries, in the order of their places, without failures."""
        return Queries(
            [self.ids[place] for place in places],
            [self.modality[place] for place in places],
            [self.lengths[place] for place in places],
            self.vectors[list(places)],
            [self.proteins[place] for place in places],
            [self.residues[place] for place in places],
            [],
            self.digests,
        )

    @classmethod
    def joined(cls, parts: Sequence[Queries], dim: int) -> Queries:
        """Return several sets of queries as one, in order."""
        vectors = np.concatenate(
            [np.empty((0, dim), dtype=np.float32), *(part.vectors for part in parts)]
        )
        return cls(
            [id for part in parts for id in part.ids],
            [modality for part in parts for modality in part.modality],
            [length for part in parts for length in part.lengths],
            vectors,
            [protein for part in parts for protein in part.proteins],
            [rows for part in parts for rows in part.residues],
            [failure for part in parts for failure in part.failures],
            {source: digest for part in parts for source, digest in part.digests.items()},
        )


@dataclass(frozen=True, eq=False)
class SortedQueries:
    """Queries by kind; each kind in the order given.

    Attributes
    ----------
    files : list of str
        Files and folders of proteins.
    sequences : list of str
        Sequences given as text.
    proteins : list of Protein
        Proteins in memory.
    embeddings : list of (L, D) arrays
        Residue embeddings.
    ids : list of str
        Ids of the vectors that are searched.
    tables : list of AlignedVectors
        Vectors of other files.
    """

    files: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    proteins: list[Protein] = field(default_factory=list)
    embeddings: list[Any] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    tables: list[AlignedVectors] = field(default_factory=list)

    @property
    def needs_model(self) -> bool:
        """Whether any of them must be embedded or pooled."""
        return bool(self.files or self.sequences or self.proteins or self.embeddings)

    @property
    def have_modalities(self) -> bool:
        """Whether any of them may be of both modalities, so that one must be chosen."""
        return bool(self.embeddings or self.ids or self.tables)

    @property
    def may_have_coordinates(self) -> bool:
        """Whether the coordinates of any of them may be known."""
        return bool(self.files or self.proteins or self.ids or self.tables)


def sort_queries(
    given: Query | Iterable[Query], known: AlignedVectors | EmbeddingStore
) -> SortedQueries:
    """Sort queries by kind; ``known`` has the ids that can be named.

    A text is an id if it is known, else a file or folder if it exists, else a sequence if
    it is at least 10 letters. Raise InputError for anything else.
    """
    if isinstance(given, (str, os.PathLike, AlignedVectors, Protein)) or _is_embedding(given):
        given = [given]
    result = SortedQueries()
    for query in given:
        if isinstance(query, AlignedVectors):
            result.tables.append(query)
        elif isinstance(query, Protein):
            result.proteins.append(query)
        elif isinstance(query, (str, os.PathLike)):
            text = os.fspath(query)
            # os.path: Path("") is a folder, and a name that is too long is an error to it.
            if isinstance(query, str) and text in known:
                result.ids.append(text)
            elif os.path.exists(text):  # noqa: PTH110
                if Path(text).suffix == ".parquet" or is_vector_folder(text):
                    result.tables.append(read_vectors(text))
                else:
                    result.files.append(text)
            elif isinstance(query, str) and _SEQUENCE.fullmatch(text):
                result.sequences.append(text)
            else:
                has_ids = "vectors" if isinstance(known, AlignedVectors) else "store"
                raise InputError(
                    f"{text[:60]!r}: not an id of the {has_ids}, and no file or folder has this "
                    "name",
                    _similar(text, known) or "give an id, a file, or a sequence of 10 letters",
                )
        elif _is_embedding(query):
            result.embeddings.append(query)
        else:
            raise InputError(
                f"a query of type {type(query).__name__}",
                "give ids, files, sequences, proteins, (L, D) residue embeddings or AlignedVectors",
            )
    return result


def _similar(name: str, known: AlignedVectors | EmbeddingStore) -> str:
    """Return "did you mean …?" with the known id that is most like a name; "" if none is."""
    if isinstance(known, AlignedVectors):
        return known.similar_id(name)
    return did_you_mean(name, known.ids)


def _is_embedding(query: Any) -> TypeGuard[Float32]:
    """Return whether a query is an (L, D) array; an array of ids has one dimension."""
    return getattr(query, "ndim", 0) == 2


def stored_queries(
    vectors: AlignedVectors,
    ids: Sequence[str],
    modality: Modality = "sequence",
    store: EmbeddingStore | None = None,
    residues: StoredResidues | None = None,
) -> Queries:
    """Return queries with vectors that a file has: no model is needed.

    Parameters
    ----------
    vectors : AlignedVectors
        The file's vectors.
    ids : sequence of str
        Ids of the file; InputError for others.
    modality : "sequence" or "structure"
        The vector to query with; the other one if that is missing.
    store : EmbeddingStore, optional
        The store that the vectors are of, for the queries' proteins.
    residues : StoredResidues, optional
        The residue rows of that store, for a second stage.
    """
    subset = vectors.select(ids)
    values, present = subset.candidates(modality)
    names = [str(entry_id) for entry_id in ids]
    kinds = [modality if has_it else OTHER[modality] for has_it in present.tolist()]
    rows: list[ProteinRows | None] = [None] * len(names)
    for kind in MODALITIES:
        if residues is None:
            break
        indices = [index for index, each in enumerate(kinds) if each == kind]
        for index, each in zip(
            indices, residues.rows(kind, [names[i] for i in indices]), strict=True
        ):
            rows[index] = each
    return Queries(
        names,
        kinds,
        [None] * len(ids) if subset.lengths is None else subset.lengths.tolist(),
        np.where(present[:, None], values, subset.candidates(OTHER[modality])[0]),
        [None if store is None else StoredProtein(store, name) for name in names],
        rows,
    )


def embed_queries(
    paths: Iterable[str | os.PathLike[str]],
    model: Model,
    encoders: RecordedEncoders,
    *,
    options: ReadOptions | None = None,
    stage: ResidueStage | None = None,
) -> Queries:
    """Read proteins and pool them with the encoders that a model was fitted on.

    Parameters
    ----------
    paths : iterable of str or path
        FASTA or structure files, or folders of them.
    model : Model
        The model.
    encoders : RecordedEncoders
        Its encoders.
    options : ReadOptions, optional
        The options that the store's structure files were read with.
    stage : ResidueStage, optional
        Makes the residue rows for a second stage.

    Raises
    ------
    ModelError
        The model was not fitted on a store, or the weights found are others.
    WeightsError
        An encoder's weights are missing.
    """
    sources, failures = find_sources([Path(path) for path in paths])

    def proteins() -> Iterator[Protein]:
        for result in read_sources(sources, options or ReadOptions()):
            failures.extend(result.failures)
            yield from result.proteins

    parts = []
    stream = proteins()
    while block := list(islice(stream, QUERIES_AT_ONCE)):
        parts.append(protein_queries(block, model, encoders, stage))
    queries = Queries.joined(parts, model.embed_dim)
    queries.failures.extend(failures)
    read = [each for each in queries.proteins if isinstance(each, Protein)]
    for source in dict.fromkeys(each.source for each in read if each.structure is not None):
        with suppress(OSError):  # a pipe, or a file that is gone again
            queries.digests[source] = sha256(path_of(source))
    return queries


def sequence_queries(
    texts: Sequence[str],
    model: Model,
    encoders: RecordedEncoders,
    stage: ResidueStage | None = None,
) -> Queries:
    """Return queries of sequences given as text, named query_1, query_2, …."""
    proteins = []
    for number, text in enumerate(texts, start=1):
        try:
            chain = Chain.from_sequence(parse_sequence(text))
        except InputError as error:
            raise InputError(f"sequence {number}: {error.reason}", error.advice) from None
        proteins.append(Protein(f"query_{number}", "", (chain,)))
    return protein_queries(proteins, model, encoders, stage)


def embedding_queries(
    embeddings: Sequence[Any],
    model: Model,
    modality: Modality,
    stage: ResidueStage | None = None,
) -> Queries:
    """Return queries of (L, D) residue embeddings, named embedding_1, embedding_2, ….

    A query's modality is the one with the model's D; ``modality`` decides if both have it.
    """
    modalities = []
    for rows in embeddings:
        fitting = [m for m in MODALITIES if model.dims[m] == np.shape(rows)[1]]
        modalities.append(modality if modality in fitting or not fitting else fitting[0])
    vectors = [model.pool(m, [rows]) for m, rows in zip(modalities, embeddings, strict=True)]
    return Queries(
        [f"embedding_{number}" for number in range(1, len(embeddings) + 1)],
        modalities,
        [len(rows) for rows in embeddings],
        np.concatenate([np.empty((0, model.embed_dim), dtype=np.float32), *vectors]),
        [None] * len(embeddings),
        [
            None if stage is None else stage.protein_rows(m, rows, np.array([len(rows)]))
            for m, rows in zip(modalities, embeddings, strict=True)
        ],
    )


def stored_backbone(store: EmbeddingStore, entry_id: str) -> Float32 | None:
    """Return (L, 4, 3) float32 in Å of an entry's residues; None if it has no structure."""
    if entry_id not in store or not store[entry_id].has_structure[0]:
        return None
    kept = store.structure(entry_id).kept_chains
    first, count = store.log.chains(int(store.log.rows_of([entry_id])[0]))
    return backbone_of(kept[first : first + count])


def protein_queries(
    proteins: Sequence[Protein],
    model: Model,
    encoders: RecordedEncoders,
    stage: ResidueStage | None = None,
) -> Queries:
    """Embed and pool proteins in memory: those with a backbone by their structure.

    Parameters
    ----------
    proteins : sequence of Protein
        The proteins, which are encoded at once.
    model : Model
        The model.
    encoders : RecordedEncoders
        Its encoders.
    stage : ResidueStage, optional
        Makes the residue rows for a second stage.
    """
    modality: list[Modality] = [
        "structure" if has_coordinates(protein) else "sequence" for protein in proteins
    ]
    vectors = np.empty((len(proteins), model.embed_dim), dtype=np.float32)
    residues: list[ProteinRows | None] = [None] * len(proteins)
    for kind in MODALITIES:
        indices = [index for index, m in enumerate(modality) if m == kind]
        if not indices:
            continue
        if kind == "sequence":
            rows = encoders.encode(kind, [proteins[index].sequences for index in indices])
        else:
            rows = _structure_rows([proteins[index] for index in indices], encoders)
        vectors[indices] = model.pool(kind, rows)
        if stage is not None:
            for index, embeddings in zip(indices, rows, strict=True):
                chains = proteins[index].chain_rows(kind)
                made = stage.protein_rows(kind, embeddings, chains)
                residues[index] = made.placed(positions(proteins[index].chains, kind))
    return Queries(
        [protein.id for protein in proteins],
        modality,
        [len(protein) for protein in proteins],
        vectors,
        list(proteins),
        residues,
    )


def _structure_rows(proteins: Sequence[Protein], encoders: RecordedEncoders) -> list[Any]:
    """Return the (rows, D) of each protein's chains; a complex is encoded once."""
    structures = {id(protein.structure): protein.structure for protein in proteins}
    encoded: Mapping[int, Float32] = dict(
        zip(structures, encoders.encode("structure", list(structures.values())), strict=True)
    )
    rows = []
    for protein in proteins:
        assert protein.structure is not None
        chains = {id(chain) for chain in protein.chains}
        kept = [
            np.full(len(chain.structure_rows), id(chain) in chains)
            for chain in protein.structure.kept_chains
        ]
        rows.append(encoded[id(protein.structure)][np.concatenate(kept)])
    return rows
