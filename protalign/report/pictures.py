"""The main model's space on the page: figures, Table 1's cluster, the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from protalign.core.arrays import Float64
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.model import Model
from protalign.report import figures
from protalign.report.alignment import align, differences, identity
from protalign.report.families import Families
from protalign.report.figures import AttentionTrack, Picture
from protalign.report.space import Encoders, Space, project_after, project_before
from protalign.stores import Entries

#: Attention is drawn of proteins up to this length: residues of longer ones are narrower than a
#: pixel. Other things equal, a protein of the usual length is drawn.
_LONGEST_DRAWN, _USUAL_LENGTH = 450, 200
#: Proteins whose attention is drawn, at most: of these some are of Table 1's cluster.
_MOST_DRAWN, _MOST_OF_CLUSTER = 4, 2


@dataclass(frozen=True, slots=True)
class Drawings:
    """Pictures, Table 1 and the map of the main model.

    Attributes
    ----------
    pictures : list of Picture
        The figures.
    cluster : dict or None
        "cluster" of results.json (docs/report.md); None if no cluster has the size.
    map : dict
        The interactive map's points, as JSON values.
    n_shown, n_all : int
        Proteins in the pictures, and in the test part.
    """

    pictures: list[Picture]
    cluster: dict[str, Any] | None
    map: dict[str, Any]
    n_shown: int
    n_all: int


def draw(
    model: Model,
    test: Entries,
    encoders: Encoders,
    families: Families,
    loss_records: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Drawings:
    """Draw all pictures of a model on the test part.

    Parameters
    ----------
    model : Model
        The main model.
    test : EmbeddingStore or StoreView
        The test part.
    encoders : mapping
        Modality -> the encoder to read.
    families : Families
        Of the test part.
    loss_records : mapping
        "CLIP" and "SigLIP" -> the records of their runs, for Figure 3.
    """
    space = Space.of(model, test, encoders, families.of)
    tightest = space.tightest()
    members = [] if tightest is None else tightest[0]
    before, after = project_before(space), project_after(space)
    pictures = [
        figures.tsne(space, before, after, members),
        figures.curves(loss_records),
        figures.heatmap(space),
    ]
    if model.attends:
        tracks = _tracks(model, space, encoders, members)
        pictures += [figures.attention(tracks)] if tracks else []
    cluster = None if tightest is None else _cluster(space, *tightest)
    return Drawings(pictures, cluster, _map(space, after), len(space), len(space.pairs))


def _cluster(space: Space, members: Sequence[int], lowest: float) -> dict[str, Any]:
    """Return Table 1: the members, their aligned sequences and the columns that differ."""
    sequences = [joined(space.view.store.sequence(space.ids[i])) for i in members]
    aligned = align(sequences)
    marks = differences(aligned)
    identities = [identity(a, b) for a, b in combinations(aligned, 2)]
    return {
        "lowest_cosine": lowest,
        "lowest_identity": min(identities),
        "members": [
            {
                "id": space.ids[i],
                "family": space.families[i],
                "length": len(sequence),
                "aligned": row,
                "different": [column for column, differs in enumerate(row_marks) if differs],
            }
            for i, sequence, row, row_marks in zip(members, sequences, aligned, marks, strict=True)
        ],
    }


def joined(chains: Sequence[str]) -> str:
    """Join a protein's chains for its alignment: the longest first, whatever the file's order.

    Examples
    --------
    >>> joined(("MK", "AVLP"))
    'AVLPMK'
    """
    return "".join(sorted(chains, key=len, reverse=True))


def _map(space: Space, points: Float64) -> dict[str, Any]:
    placed = dict(zip(MODALITIES, np.split(points, 2), strict=True))
    return {
        "ids": space.ids,
        "families": space.families,
        "lengths": space.view.lengths.tolist(),
        **{modality: _map_points(space, modality, placed[modality]) for modality in MODALITIES},
    }


def _map_points(space: Space, modality: Modality, points: Float64) -> dict[str, Any]:
    neighbours = space.neighbours(modality)
    return {
        "x": np.round(points[:, 0], 2).tolist(),
        "y": np.round(points[:, 1], 2).tolist(),
        "rank": neighbours.ranks.tolist(),
        "near": neighbours.positions.tolist(),
        "cosine": np.round(neighbours.cosines.astype(np.float64), 3).tolist(),
        "own": neighbours.own.tolist(),
    }


def _tracks(
    model: Model, space: Space, encoders: Encoders, members: Sequence[int]
) -> list[AttentionTrack]:
    """Return the attention of a few proteins, some of Table 1's cluster and some of others."""
    fitting = space.view.lengths <= _LONGEST_DRAWN
    drawn = [i for i in members if fitting[i]][:_MOST_OF_CLUSTER]
    seen = {space.families[i] for i in members}
    by_length = np.argsort(np.abs(space.view.lengths - _USUAL_LENGTH), kind="stable")
    for i in by_length[fitting[by_length]].tolist():
        if len(drawn) < _MOST_DRAWN and space.families[i] not in seen:
            drawn.append(i)
            seen.add(space.families[i])
    view = space.view[np.array(drawn, dtype=np.int64)]
    inputs = model.inputs(view, names={m: info.name for m, info in encoders.items()})
    sequences, structures = (model.residue_weights(inputs, m) for m in MODALITIES)
    tracks = []
    for i, sequence, structure in zip(drawn, sequences, structures, strict=True):
        assert sequence is not None, space.ids[i]
        assert structure is not None, space.ids[i]
        along = np.full((len(sequence), structure.shape[1]), np.nan, dtype=np.float32)
        along[space.view.store.residue_map(space.ids[i]).sequence_index] = structure
        tracks.append(AttentionTrack(space.ids[i], space.families[i], sequence, along))
    return tracks
