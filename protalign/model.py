"""The model: two pooling heads and a loss, and how vectors come out of it block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from protalign.errors import InputError
from protalign.inputs import MODALITIES, Inputs, Pairs
from protalign.losses import ContrastiveLoss
from protalign.metrics import RetrievalSet
from protalign.pooling import PackedBatch, PoolingHead
from protalign.protein import Modality
from protalign.stores import VectorBatch

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

#: Entries whose vectors are in memory at once when they go to a file.
_ENTRIES_AT_ONCE = 16384


class Heads(nn.Module):
    """The model: a pooling head per modality, and the loss with its temperature and bias."""

    def __init__(self, dims: dict[Modality, int], loss: ContrastiveLoss, **shape: int) -> None:
        super().__init__()
        self.sequence = PoolingHead(dims["sequence"], **shape)
        self.structure = PoolingHead(dims["structure"], **shape)
        self.loss = loss

    def head(self, modality: Modality) -> PoolingHead:
        """The head of a modality."""
        return self.sequence if modality == "sequence" else self.structure

    def forward(self, sequence: PackedBatch, structure: PackedBatch) -> Tensor:
        """The batch's loss, 0-d."""
        loss: Tensor = self.loss(self.sequence(sequence), self.structure(structure))
        return loss


def pool(
    head: PoolingHead, inputs: Inputs, modality: Modality, positions: Int64
) -> Iterator[Float32]:
    """Unit-length vectors of entries that have the modality, a block of them at a time.

    Yields (block, embed_dim) float32 in the order of ``positions``. Raises InputError, naming the
    entries, where embeddings hold NaN or infinity.
    """
    device = head.query.device
    done = 0
    for rows in inputs.blocks(modality, positions):
        with torch.inference_mode():
            vectors = head(PackedBatch.from_ragged(rows, device)).float().cpu().numpy()
        broken = ~np.isfinite(vectors).all(axis=1)
        if broken.any():
            raise not_finite(inputs, modality, positions[done:][np.flatnonzero(broken)])
        done += len(vectors)
        yield vectors


def retrieval_set(heads: Heads, pairs: Pairs) -> RetrievalSet:
    """Vectors of the unique items of some pairs, and which belong together."""
    vectors = [
        np.concatenate(list(pool(heads.head(m), pairs.inputs, m, pairs.positions_of_items(column))))
        for column, m in enumerate(MODALITIES)
    ]
    return RetrievalSet(vectors[0], vectors[1], pairs.items)


def vectors_of(heads: Heads, inputs: Inputs, modality: Modality, positions: Int64) -> Float32:
    """(k, embed_dim) vectors of some entries; rows of NaN for those that lack the modality."""
    items = inputs.items(modality)[positions]
    there = np.flatnonzero(items >= 0)
    _, first, item = np.unique(items[there], return_index=True, return_inverse=True)
    head = heads.head(modality)
    vectors = np.full((len(positions), len(head.query)), np.nan, dtype=np.float32)
    if len(there):
        blocks = list(pool(head, inputs, modality, positions[there[first]]))
        vectors[there] = np.concatenate(blocks)[item]
    return vectors


def vector_batches(
    heads: Heads, inputs: Inputs, ids: npt.NDArray[np.object_]
) -> Iterator[VectorBatch]:
    """Both modalities' vectors of all entries, to write to a file, some thousands at a time."""
    for start in range(0, len(ids), _ENTRIES_AT_ONCE):
        positions = np.arange(start, min(start + _ENTRIES_AT_ONCE, len(ids)))
        vectors = {m: vectors_of(heads, inputs, m, positions) for m in inputs.dims}
        yield VectorBatch(ids[positions], vectors.get("sequence"), vectors.get("structure"))


def not_finite(inputs: Inputs, modality: Modality, positions: Int64) -> InputError:
    """The error for entries whose embeddings cannot be pooled."""
    return InputError(
        f"{modality} embeddings of {inputs.named(positions)} hold NaN, infinity or huge values",
        "embed them again, or leave them out",
    )
