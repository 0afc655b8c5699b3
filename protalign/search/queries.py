"""Queries: read, embedded and pooled with a saved model's encoders, or vectors that are there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import Failure, InputError, ModelError
from protalign.core.protein import MODALITIES, Modality, Protein
from protalign.encoders.recorded import RecordedEncoders
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.model_files import weights_sha256
from protalign.reading import ReadOptions, find_sources, read_sources
from protalign.search.superposition import backbone_of
from protalign.stores import AlignedVectors, EmbeddingStore

#: Proteins read, embedded and pooled at once.
QUERIES_AT_ONCE = 64
_READ_OPTIONS = {option.name for option in fields(ReadOptions)}


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Pooled queries.

    Attributes
    ----------
    ids : n ids.
    modality : what each was pooled from: a FASTA record from its sequence, a structure file from
        its structure.
    lengths : residues of each, None where vectors were given without.
    vectors : (n, dim) float32, unit length.
    backbones : (L, 4, 3) float32 in Å of each query whose coordinates are known, else None.
    failures : inputs that could not be read.
    """

    ids: list[str]
    modality: list[Modality]
    lengths: list[int | None]
    vectors: npt.NDArray[np.float32]
    backbones: list[npt.NDArray[np.float32] | None]
    failures: list[Failure]

    def and_also(self, others: Queries) -> Queries:
        """These queries, then the others."""
        return Queries(
            self.ids + others.ids,
            self.modality + others.modality,
            self.lengths + others.lengths,
            np.concatenate([self.vectors, others.vectors]),
            self.backbones + others.backbones,
            self.failures + others.failures,
        )


def check_made_by(vectors: AlignedVectors, estimator: ProtAlignEstimator) -> None:
    """Raise ModelError where exported vectors are another model's: no cosine would mean a thing."""
    theirs = vectors.metadata.get("model", {}).get("weights_sha256")
    ours = weights_sha256(estimator.heads_.state_dict())
    if theirs != ours:
        raise ModelError(
            f"the vectors were made by another model (weights {str(theirs)[:12]}… and not "
            f"{ours[:12]}…); search with that one, or export them again with this one"
        )


def embed_queries(
    paths: Iterable[str | os.PathLike[str]],
    estimator: ProtAlignEstimator,
    *,
    options: ReadOptions | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
) -> Queries:
    """Read proteins and pool them with the encoders that a model was trained on.

    Parameters
    ----------
    paths : FASTA or structure files, or folders of them.
    estimator : fitted on a store, or loaded.
    options : how structure files are read: as the store's were (``read_options``).
    weights : files for encoders whose weights are not found by themselves.

    Raises
    ------
    ModelError : the model was not trained on a store, or the weights found are others.
    WeightsError : an encoder's weights are not to be had.
    """
    sources, failures = find_sources([Path(path) for path in paths])
    encoders = RecordedEncoders(estimator.encoders_, weights, device)
    ids: list[str] = []
    modality: list[Modality] = []
    lengths: list[int | None] = []
    backbones: list[npt.NDArray[np.float32] | None] = []
    vectors: list[npt.NDArray[np.float32]] = []

    def proteins() -> Iterator[Protein]:
        for result in read_sources(sources, options or ReadOptions()):
            failures.extend(result.failures)
            yield from result.proteins

    stream = proteins()
    while block := list(islice(stream, QUERIES_AT_ONCE)):
        for protein in block:
            ids.append(protein.id)
            backbone = backbone_of(protein.chains)
            modality.append("structure" if len(backbone) else "sequence")
            lengths.append(len(protein))
            backbones.append(backbone if len(backbone) else None)
        vectors.append(_pooled(block, modality[-len(block) :], estimator, encoders))
    empty = np.empty((0, estimator.embed_dim), dtype=np.float32)
    pooled = np.concatenate([empty, *vectors])
    return Queries(ids, modality, lengths, pooled, backbones, failures)


def stored_queries(
    vectors: AlignedVectors,
    ids: Sequence[str],
    modality: Modality = "sequence",
    coordinates: EmbeddingStore | None = None,
) -> Queries:
    """Queries whose vectors are there already: no model is needed.

    Parameters
    ----------
    vectors : an exported file's.
    ids : some of its ids; raises InputError for others.
    modality : which of an entry's two vectors to search with; the other one where it lacks that.
    coordinates : the store that the vectors are of, for the queries' backbones.
    """
    chosen = vectors.select(ids)
    values, there = chosen.candidates(modality)
    other: Modality = "structure" if modality == "sequence" else "sequence"
    return Queries(
        [str(entry_id) for entry_id in ids],
        [modality if own else other for own in there.tolist()],
        [None] * len(ids) if chosen.lengths is None else chosen.lengths.tolist(),
        np.where(there[:, None], values, chosen.candidates(other)[0]),
        [None if coordinates is None else stored_backbone(coordinates, str(i)) for i in ids],
        [],
    )


def check_same_model(queries: AlignedVectors, vectors: AlignedVectors) -> None:
    """Raise ModelError where two exported files are of different models."""
    theirs, ours = (v.metadata.get("model", {}).get("weights_sha256") for v in (queries, vectors))
    if theirs != ours or queries.sequence.shape[1] != vectors.sequence.shape[1]:
        raise ModelError(
            f"the two files' vectors were made by different models (weights {str(theirs)[:12]}… "
            f"and {str(ours)[:12]}…): export both with one"
        )


def read_options(vectors: AlignedVectors) -> ReadOptions:
    """How the structure files behind exported vectors were read: queries are read the same way.

    The file says; an older one names its store, which says; else the defaults.
    """
    facts = vectors.metadata.get("store", {})
    options = facts.get("options")
    path = facts.get("path", "")
    if options is None and path and Path(path).is_dir():
        options = EmbeddingStore.open(path).options
    known = {key: value for key, value in (options or {}).items() if key in _READ_OPTIONS}
    return ReadOptions(**known)


def open_coordinates(
    vectors: AlignedVectors, path: str | os.PathLike[str] | None
) -> EmbeddingStore:
    """The store that holds the vectors' structures: the one named, else the one recorded.

    Raises InputError where neither is there.
    """
    place = str(path or _recorded_store(vectors))
    if not place:
        raise InputError("the vectors do not say which store they are of", "name it with --store")
    if "://" not in place and not Path(place).is_dir():
        raise InputError(f"the store {place} is not there", "name it with --store")
    return EmbeddingStore.open(place)


def coordinates_of(
    queries: AlignedVectors, vectors: AlignedVectors, coordinates: EmbeddingStore
) -> EmbeddingStore | None:
    """The store with the coordinates of a second file's entries; None where it is not there.

    ``coordinates``, which are of ``vectors``, where both files are of one store: in another one an
    equal id may be another protein's.
    """
    place = _recorded_store(queries)
    if place == _recorded_store(vectors):
        return coordinates
    return EmbeddingStore.open(place) if place and Path(place).is_dir() else None


def _recorded_store(vectors: AlignedVectors) -> str:
    return str(vectors.metadata.get("store", {}).get("path", ""))


def stored_backbone(store: EmbeddingStore, entry_id: str) -> npt.NDArray[np.float32] | None:
    """(L, 4, 3) float32 in Å of an entry's residues, None for one that has no structure."""
    if entry_id not in store or not store[entry_id].has_structure[0]:
        return None
    kept = store.structure(entry_id).kept_chains
    first, count = store.log.chains(int(store.log.rows_of([entry_id])[0]))
    return backbone_of(kept[first : first + count])


def _pooled(
    proteins: Sequence[Protein],
    modality: Sequence[Modality],
    estimator: ProtAlignEstimator,
    encoders: RecordedEncoders,
) -> npt.NDArray[np.float32]:
    vectors = np.empty((len(proteins), estimator.embed_dim), dtype=np.float32)
    for kind in MODALITIES:
        chosen = [index for index, own in enumerate(modality) if own == kind]
        if not chosen:
            continue
        if kind == "sequence":
            rows = encoders.encode(kind, [proteins[index].sequences for index in chosen])
        else:
            rows = _structure_rows([proteins[index] for index in chosen], encoders)
        vectors[chosen] = estimator.pool(kind, rows)
    return vectors


def _structure_rows(proteins: Sequence[Protein], encoders: RecordedEncoders) -> list[Any]:
    """(rows, D) of each protein's own chains; a complex that several share is encoded once."""
    structures = {id(protein.structure): protein.structure for protein in proteins}
    encoded = dict(
        zip(structures, encoders.encode("structure", list(structures.values())), strict=True)
    )
    return [_rows_of(protein, encoded[id(protein.structure)]) for protein in proteins]


def _rows_of(protein: Protein, rows: Any) -> Any:
    assert protein.structure is not None
    own = {id(chain) for chain in protein.chains}
    kept = [
        np.full(len(chain.structure_rows), id(chain) in own)
        for chain in protein.structure.kept_chains
    ]
    return rows[np.concatenate(kept)]
