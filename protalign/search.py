"""Queries that are not in the store: read, embedded and pooled with a saved model's encoders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.errors import Failure, ModelError
from protalign.estimator import ProtAlignEstimator
from protalign.inputs import MODALITIES
from protalign.model_encoders import ModelEncoders
from protalign.model_files import weights_sha256
from protalign.protein import Modality, Protein
from protalign.reading import ReadOptions, find_sources, read_sources
from protalign.stores import AlignedVectors

#: Proteins read, embedded and pooled at once.
QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Pooled queries.

    Attributes
    ----------
    ids : n ids.
    modality : what each was pooled from: a FASTA record from its sequence, a structure file from
        its structure.
    lengths : residues of each.
    vectors : (n, dim) float32, unit length.
    failures : inputs that could not be read.
    """

    ids: list[str]
    modality: list[Modality]
    lengths: list[int]
    vectors: npt.NDArray[np.float32]
    failures: list[Failure]


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
    options : how structure files are read; as the store's were.
    weights : files for encoders whose weights are not found by themselves.

    Raises
    ------
    ModelError : the model was not trained on a store, or the weights found are others.
    WeightsError : an encoder's weights are not to be had.
    """
    sources, failures = find_sources([Path(path) for path in paths])
    encoders = ModelEncoders(estimator, weights, device)
    ids: list[str] = []
    modality: list[Modality] = []
    lengths: list[int] = []
    vectors: list[npt.NDArray[np.float32]] = []

    def proteins() -> Iterator[Protein]:
        for result in read_sources(sources, options or ReadOptions()):
            failures.extend(result.failures)
            yield from result.proteins

    stream = proteins()
    while block := list(islice(stream, QUERIES_AT_ONCE)):
        for protein in block:
            ids.append(protein.id)
            modality.append("sequence" if protein.structure is None else "structure")
            lengths.append(len(protein))
        vectors.append(_pooled(block, modality[-len(block) :], estimator, encoders))
    empty = np.empty((0, estimator.embed_dim), dtype=np.float32)
    return Queries(ids, modality, lengths, np.concatenate([empty, *vectors]), failures)


def _pooled(
    proteins: Sequence[Protein],
    modality: Sequence[Modality],
    estimator: ProtAlignEstimator,
    encoders: ModelEncoders,
) -> npt.NDArray[np.float32]:
    vectors = np.empty((len(proteins), estimator.embed_dim), dtype=np.float32)
    for kind in MODALITIES:
        chosen = [index for index, own in enumerate(modality) if own == kind]
        if not chosen:
            continue
        items: list[Any] = [
            proteins[index].sequences if kind == "sequence" else proteins[index].structure
            for index in chosen
        ]
        vectors[chosen] = estimator.pool(kind, encoders.encode(kind, items))
    return vectors
