"""The test proteins in the aligned space: vectors, neighbours, a tight cluster, two dimensions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from protalign.core.arrays import Float32, Float64, Int64
from protalign.core.protein import MODALITIES, Modality
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.stores import EncoderInfo, Entries, StoreView

#: By modality, whose residue embeddings are read.
Encoders = Mapping[Modality, EncoderInfo]

#: More proteins than this are drawn at random for the pictures: a page holds no more.
MOST_SHOWN = 1200
#: Width that both modalities' raw embeddings are brought to before they share one t-SNE.
_COMMON_WIDTH = 50
#: Longest protein that is aligned for Table 1.
_LONGEST_ALIGNED = 3000


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """n proteins, each with a vector of its sequence and one of its structure.

    Attributes
    ----------
    view : (n,) the store's entries, of different sequence or structure.
    ids : (n,) str.
    families : (n,) str.
    sequence, structure : (n, E) float32, unit length.
    n_all : proteins of the test part, of which these are shown.
    """

    view: StoreView
    ids: list[str]
    families: list[str]
    sequence: Float32
    structure: Float32
    n_all: int

    @classmethod
    def of(
        cls,
        estimator: ProtAlignEstimator,
        test: Entries,
        encoders: Encoders,
        families: Mapping[str, str],
        most: int = MOST_SHOWN,
    ) -> Space:
        """The different proteins of ``test`` that have both modalities, ``most`` at most."""
        chosen = distinct(test, encoders)
        n_all = len(chosen)
        if n_all > most:
            chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:most])
        view = test[chosen]
        both = copy.copy(estimator).set_params(output="both").transform(view)
        sequence, structure = np.split(both, 2, axis=1)
        ids = [str(entry_id) for entry_id in view.ids]
        return cls(view, ids, [families[i] for i in ids], sequence, structure, n_all)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def similarity(self) -> Float32:
        """(n, n) cosine of sequence i and structure j."""
        return self.sequence @ self.structure.T

    def family_order(self) -> Int64:
        """(n,) positions: families together, and families near each other where they are alike."""
        names = sorted(set(self.families))
        member = np.array([names.index(family) for family in self.families])
        middle = np.stack(
            [(self.sequence + self.structure)[member == k].mean(axis=0) for k in range(len(names))]
        )
        order = leaves_list(linkage(middle, "average")) if len(names) > 1 else np.arange(1)
        place = np.argsort(order)[member]
        return np.lexsort((np.array(self.ids), place)).astype(np.int64)

    def tightest(self, least: int = 4, most: int = 8) -> tuple[list[int], float] | None:
        """Positions of the tightest cluster of different sequences, and its lowest cosine.

        Proteins are merged by complete linkage on the lowest of the four cosines between their
        vectors: any two proteins of a cluster, by either modality, are that near to each other.
        None where no cluster has ``least`` to ``most`` members.
        """
        _, different = np.unique(self.view.items("sequence"), return_index=True)
        different = different[self.view.lengths[different] <= _LONGEST_ALIGNED]
        if len(different) < least:
            return None
        sequence, structure = self.sequence[different], self.structure[different]
        cross = sequence @ structure.T
        nearness = np.minimum.reduce(
            [sequence @ sequence.T, structure @ structure.T, cross, cross.T]
        )
        upper = np.triu_indices(len(different), 1)
        merges = linkage(np.maximum(1.0 - nearness[upper], 0.0).astype(np.float64), "complete")
        members: dict[int, list[int]] = {i: [i] for i in range(len(different))}
        for step, (left, right, height, size) in enumerate(merges):
            both = members.pop(int(left)) + members.pop(int(right))
            members[len(different) + step] = both
            if least <= size <= most:
                return [int(different[i]) for i in sorted(both)], float(1.0 - height)
        return None

    def neighbours(self, k: int = 8) -> dict[str, tuple[Int64, Float32]]:
        """Each point's nearest points of the other modality: (n, k) positions and cosines."""
        found = {}
        for modality, cosines in (("sequence", self.similarity), ("structure", self.similarity.T)):
            nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(k, len(self))]
            found[modality] = nearest, np.take_along_axis(cosines, nearest, axis=1)
        return found

    def ranks(self) -> dict[str, Int64]:
        """Rank of each point's own partner among the points of the other modality."""
        return {
            m: 1 + (cosines > np.diag(cosines)[:, None]).sum(axis=1)
            for m, cosines in (("sequence", self.similarity), ("structure", self.similarity.T))
        }


def distinct(entries: Entries, encoders: Encoders) -> Int64:
    """Positions of the first entry of each different (sequence, structure) that has both."""
    there = np.ones(len(entries), dtype=np.bool_)
    for modality in MODALITIES:
        there &= entries.rows(encoders[modality].name)[1] > 0
    items = np.stack([entries.items(m) for m in MODALITIES], axis=1)
    positions = np.flatnonzero(there)
    _, first = np.unique(items[positions], axis=0, return_index=True)
    return positions[np.sort(first)].astype(np.int64)


def mean_embeddings(entries: Entries, encoder: str) -> Float32:
    """(n, D) means of each entry's residue embeddings."""
    means = []
    for start in range(0, len(entries), 256):
        rows = entries[start : start + 256].embeddings(encoder)
        means += [values.astype(np.float32).mean(axis=0) for values in rows]
    return np.stack(means)


def project_before(space: Space, encoders: Encoders) -> Float64:
    """(2 n, 2) t-SNE of the raw embeddings, sequences first.

    The modalities' embeddings differ in width and share no axes: each residue mean is centred on
    its modality, reduced to the same number of principal components and scaled to the same mean
    length.
    """
    width = min(_COMMON_WIDTH, len(space) - 1)
    parts = []
    for modality in MODALITIES:
        means = mean_embeddings(space.view, encoders[modality].name)
        part = PCA(min(width, means.shape[1]), random_state=0).fit_transform(means)
        part = np.pad(part, ((0, 0), (0, width - part.shape[1])))
        parts.append(part / np.linalg.norm(part, axis=1).mean())
    return _tsne(np.vstack(parts), "euclidean")


def project_after(space: Space) -> Float64:
    """(2 n, 2) t-SNE of the aligned vectors by cosine, sequences first."""
    return _tsne(np.vstack([space.sequence, space.structure]), "cosine")


def _tsne(points: npt.NDArray[Any], metric: str) -> Float64:
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, metric=metric, init="pca", random_state=0)
    placed: Float64 = tsne.fit_transform(points.astype(np.float64))
    return placed
