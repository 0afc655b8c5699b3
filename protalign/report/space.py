"""The test proteins in the aligned space: vectors, neighbours, ranks, a cluster, two dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from protalign.core.arrays import Bool, Float32, Float64, Int64
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.inputs import means_of
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import TIE, RetrievalSet
from protalign.stores import EncoderInfo, Entries, StoreView

#: Modality -> the encoder to read the embeddings of.
Encoders = Mapping[Modality, EncoderInfo]

#: The pictures show a random part of more proteins than this: a page cannot hold more.
MOST_SHOWN = 1200
#: Both modalities' raw embeddings are reduced to this width before they share one t-SNE.
_COMMON_WIDTH = 50
#: Longer proteins are not aligned for Table 1.
_LONGEST_ALIGNED = 3000


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest points of the other modality for each of n points.

    Attributes
    ----------
    positions : (n, k) int64
        The neighbours, the nearest first. A sequence or structure that several proteins share is
        in a list once.
    cosines : (n, k) float32
        Their cosines.
    own : (n, k) bool
        Whether a neighbour belongs to the point's own protein, or to one that shares the point's
        sequence (structure).
    ranks : (n,) int64
        Rank of the point's best own partner among all unique sequences (structures) of the test
        part, by ``protalign.heads.ranks``, as in the tables.
    """

    positions: Int64
    cosines: Float32
    own: Bool
    ranks: Int64


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """n proteins, each with the vector of its sequence and of its structure.

    Attributes
    ----------
    view : (n,) StoreView
        The proteins: unique pairs of a sequence and a structure.
    pairs : Pairs
        All such pairs of the test part.
    retrieval : RetrievalSet
        The vectors of their unique sequences and structures.
    shown : (n,) int64
        Indices of the n proteins in ``pairs``.
    ids, families : (n,) list of str
        By protein.
    """

    view: StoreView
    pairs: Pairs
    retrieval: RetrievalSet
    shown: Int64
    ids: list[str]
    families: list[str]

    @classmethod
    def of(
        cls,
        model: Model,
        test: Entries,
        encoders: Encoders,
        families: Mapping[str, str],
        most: int = MOST_SHOWN,
    ) -> Space:
        """Return the unique pairs of ``test`` in the model's space.

        Parameters
        ----------
        model : Model
            A model that fits the embeddings.
        test : EmbeddingStore or StoreView
            The test part.
        encoders : mapping
            Modality -> the encoder to read.
        families : mapping
            Id -> family.
        most : int
            If there are more pairs, that many are drawn at random.
        """
        inputs = model.inputs(test, names={m: info.name for m, info in encoders.items()})
        pairs = Pairs.of(inputs)
        shown = np.arange(len(pairs))
        if len(pairs) > most:
            shown = np.sort(np.random.default_rng(0).permutation(len(pairs))[:most])
        view = test[pairs.positions[shown]]
        ids = [str(entry_id) for entry_id in view.ids]
        retrieval = model.retrieval_set(pairs)
        return cls(view, pairs, retrieval, shown, ids, [families[i] for i in ids])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sequence(self) -> Float32:
        """(n, E) vectors of the sequences, of unit length."""
        vectors: Float32 = self.retrieval.sequence[self.retrieval.pairs[self.shown, 0]]
        return vectors

    @property
    def structure(self) -> Float32:
        """(n, E) vectors of the structures, of unit length."""
        vectors: Float32 = self.retrieval.structure[self.retrieval.pairs[self.shown, 1]]
        return vectors

    @property
    def similarity(self) -> Float32:
        """(n, n) cosine of sequence i and structure j."""
        return self.sequence @ self.structure.T

    def family_order(self) -> Int64:
        """Return (n,) positions with families together, similar families beside each other."""
        names = sorted(set(self.families))
        member = np.array([names.index(family) for family in self.families])
        vectors = self.sequence + self.structure
        middle = np.stack([vectors[member == k].mean(axis=0) for k in range(len(names))])
        order = leaves_list(linkage(middle, "average")) if len(names) > 1 else np.arange(1)
        rank = np.argsort(order)[member]
        return np.lexsort((np.array(self.ids), rank)).astype(np.int64)

    def tightest(self, least: int = 4, most: int = 8) -> tuple[list[int], float] | None:
        """Find the tightest cluster of unique sequences.

        Proteins are merged by complete linkage on the lowest of the four cosines between their
        vectors. So any two proteins of a cluster, by either modality, are at least that similar.

        Returns
        -------
        (list of int, float) or None
            Positions of the members, and the lowest cosine between two of them; None if no cluster
            has ``least`` to ``most`` members.
        """
        _, unique = np.unique(self.view.items("sequence"), return_index=True)
        unique = unique[self.view.lengths[unique] <= _LONGEST_ALIGNED]
        if len(unique) < least:
            return None
        sequence, structure = self.sequence[unique], self.structure[unique]
        cross = sequence @ structure.T
        nearness = np.minimum.reduce(
            [sequence @ sequence.T, structure @ structure.T, cross, cross.T]
        )
        upper = np.triu_indices(len(unique), 1)
        merges = linkage(np.maximum(1.0 - nearness[upper], 0.0).astype(np.float64), "complete")
        members: dict[int, list[int]] = {i: [i] for i in range(len(unique))}
        for step, (left, right, height, size) in enumerate(merges):
            merged = members.pop(int(left)) + members.pop(int(right))
            members[len(unique) + step] = merged
            if least <= size <= most:
                return [int(unique[i]) for i in sorted(merged)], float(1.0 - height)
        return None

    def neighbours(self, modality: Modality, k: int = 8) -> Neighbours:
        """Return the nearest points of the other modality for each point of this one.

        Lists and ranks agree: as ties count against a query's own partner, it stands last among
        those that are tied with it.
        """
        column = MODALITIES.index(modality)
        retrieval = self.retrieval if column == 0 else self.retrieval.reverse()
        query, candidate = retrieval.pairs[self.shown].T
        candidates, first, index = np.unique(candidate, return_index=True, return_inverse=True)
        cosines = retrieval.sequence[query] @ retrieval.structure[candidates].T
        own = np.zeros(cosines.shape, dtype=np.bool_)
        point = np.tile(first, (len(self), 1))  # the point that stands for each candidate
        positions, sharing = np.nonzero(query[:, None] == query)
        own[positions, index[sharing]] = True
        point[positions, index[sharing]] = sharing
        everyone = np.arange(len(self))
        point[everyone, index] = everyone
        counted = cosines - np.float32(TIE) * own.astype(np.float32)
        order = np.lexsort((own, -counted), axis=1)[:, :k]
        return Neighbours(
            positions=np.take_along_axis(point, order, axis=1),
            cosines=np.take_along_axis(cosines, order, axis=1),
            own=np.take_along_axis(own, order, axis=1),
            ranks=retrieval.ranks()[query],
        )


def project_before(space: Space) -> Float64:
    """Return (2 n, 2) t-SNE of the raw embeddings, sequences first.

    The modalities' embeddings differ in width and share no axes. So the means over the residues
    are centred on their modality, reduced to the same number of principal components and scaled to
    the same mean length.
    """
    width = min(_COMMON_WIDTH, len(space) - 1)
    parts = []
    for modality in MODALITIES:
        positions = space.pairs.positions[space.shown]
        means = means_of(space.pairs.inputs, modality, positions)
        part = PCA(min(width, means.shape[1]), random_state=0).fit_transform(means)
        part = np.pad(part, ((0, 0), (0, width - part.shape[1])))
        parts.append(part / np.linalg.norm(part, axis=1).mean())
    return _tsne(np.vstack(parts), "euclidean")


def project_after(space: Space) -> Float64:
    """Return (2 n, 2) t-SNE of the aligned vectors by cosine, sequences first."""
    return _tsne(np.vstack([space.sequence, space.structure]), "cosine")


def _tsne(points: npt.NDArray[Any], metric: str) -> Float64:
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, metric=metric, init="pca", random_state=0)
    projected: Float64 = tsne.fit_transform(points.astype(np.float64))
    return projected
