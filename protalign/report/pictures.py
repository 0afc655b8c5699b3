"""Everything the page shows of the main model's space: figures, Table 1's cluster, the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from protalign.estimator.estimator import ProtAlignEstimator
from protalign.report import figures
from protalign.report.alignment import align, differences, identity
from protalign.report.families import Families
from protalign.report.figures import AttentionTrack, Picture
from protalign.report.space import Encoders, Space, project_after, project_before
from protalign.stores import Entries

#: Longest protein whose attention is drawn: residues of longer ones are narrower than a pixel.
_LONGEST_DRAWN = 450


@dataclass(frozen=True, slots=True)
class Shown:
    """What `draw` made.

    Attributes
    ----------
    pictures : in the page's order, by name.
    cluster : Table 1 (see docs/report.md); None where there is none of its size.
    map : the interactive map's points, as JSON.
    n_shown, n_all : proteins in the pictures, and in the test part.
    """

    pictures: list[Picture]
    cluster: dict[str, Any] | None
    map: dict[str, Any]
    n_shown: int
    n_all: int


def draw(
    estimator: ProtAlignEstimator,
    test: Entries,
    encoders: Encoders,
    families: Families,
    loss_records: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Shown:
    """All pictures, of the main model on the test part."""
    space = Space.of(estimator, test, encoders, families.of)
    found = space.tightest()
    members = [] if found is None else found[0]
    before, after = project_before(space, encoders), project_after(space)
    pictures = [
        figures.tsne(space, before, after, members),
        figures.curves(loss_records),
        figures.heatmap(space),
    ]
    if estimator.pooling == "attention":
        pictures.append(figures.attention(_tracks(estimator, space, members)))
    cluster = None if found is None else _cluster(space, *found)
    return Shown(pictures, cluster, _map(space, after), len(space), space.n_all)


def _cluster(space: Space, members: Sequence[int], lowest: float) -> dict[str, Any]:
    """Table 1: the members, their sequences aligned and what differs."""
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
                "different": [column for column, marked in enumerate(own) if marked],
            }
            for i, sequence, row, own in zip(members, sequences, aligned, marks, strict=True)
        ],
    }


def joined(chains: Sequence[str]) -> str:
    """The chains of a protein for its alignment: the longest first, whatever the file's order."""
    return "".join(sorted(chains, key=len, reverse=True))


def _map(space: Space, points: figures.Float64) -> dict[str, Any]:
    n = len(space)
    neighbours, ranks = space.neighbours(), space.ranks()
    placed = {"sequence": points[:n], "structure": points[n:]}
    return {
        "ids": space.ids,
        "families": space.families,
        "lengths": space.view.lengths.tolist(),
        **{
            modality: {
                "x": np.round(placed[modality][:, 0], 2).tolist(),
                "y": np.round(placed[modality][:, 1], 2).tolist(),
                "rank": ranks[modality].tolist(),
                "near": neighbours[modality][0].tolist(),
                "cosine": np.round(neighbours[modality][1].astype(np.float64), 3).tolist(),
            }
            for modality in ("sequence", "structure")
        },
    }


def _tracks(
    estimator: ProtAlignEstimator, space: Space, members: Sequence[int]
) -> list[AttentionTrack]:
    """Two of Table 1's cluster, if short enough to draw, and some of other families: four."""
    fitting = [i for i in members if space.view.lengths[i] <= _LONGEST_DRAWN]
    shown = fitting[:2]
    seen = {space.families[i] for i in members}
    for i in np.argsort(np.abs(space.view.lengths - 200), kind="stable").tolist():
        if len(shown) < 4 and space.families[i] not in seen:
            shown.append(i)
            seen.add(space.families[i])
    view = space.view[np.array(shown, dtype=np.int64)]
    weights = estimator.attention(view)
    tracks = []
    for position, i in enumerate(shown):
        sequence, structure = (weights[m][position] for m in ("sequence", "structure"))
        assert sequence is not None, space.ids[i]
        assert structure is not None, space.ids[i]
        along = np.full((len(sequence), structure.shape[1]), np.nan, dtype=np.float32)
        along[space.view.store.residue_map(space.ids[i]).sequence_index] = structure
        tracks.append(AttentionTrack(space.ids[i], space.families[i], sequence, along))
    return tracks
