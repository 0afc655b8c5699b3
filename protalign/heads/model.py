"""The model: two pooling heads and a loss, and how vectors come out of it block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.heads.attention import PoolingHead
from protalign.heads.inputs import Inputs, Pairs
from protalign.heads.kernels.batch import ProteinBatch, batch_of
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.mean import MEAN_POOLINGS, MeanPoolingHead
from protalign.heads.ranks import RetrievalSet

#: How residues become one vector: the paper's projection strategies.
POOLINGS = ("attention", *MEAN_POOLINGS)

Head = PoolingHead | MeanPoolingHead


class Heads(nn.Module):
    """The model: a pooling head per modality, and the loss with its temperature and bias.

    Parameters
    ----------
    dims : D of each modality's residue embeddings.
    loss : what to train with.
    pooling : one of ``POOLINGS``.
    embed_dim, n_heads : of each head; ``n_heads`` counts for "attention" alone.
    """

    def __init__(
        self,
        dims: dict[Modality, int],
        loss: ContrastiveLoss,
        *,
        pooling: str = "attention",
        embed_dim: int = 128,
        n_heads: int = 4,
    ) -> None:
        super().__init__()

        def head(input_dim: int) -> Head:
            if pooling == "attention":
                return PoolingHead(input_dim, embed_dim, n_heads)
            return MeanPoolingHead(input_dim, embed_dim, pooling)

        self.pooling = pooling
        self.sequence = head(dims["sequence"])
        self.structure = head(dims["structure"])
        self.loss = loss

    def head(self, modality: Modality) -> Head:
        """The head of a modality."""
        return self.sequence if modality == "sequence" else self.structure

    @property
    def embed_dim(self) -> int:
        """Length of the vectors."""
        return self.sequence.embed_dim

    @property
    def n_heads(self) -> int | None:
        """Attention heads of each pooling head; None where nothing attends."""
        head = self.sequence
        return head.attention.n_heads if isinstance(head, PoolingHead) else None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.loss.log_scale.device

    def forward(self, sequence: ProteinBatch, structure: ProteinBatch) -> Tensor:
        """The batch's loss, 0-d."""
        loss: Tensor = self.loss(self.sequence(sequence), self.structure(structure))
        return loss


def pool(heads: Heads, inputs: Inputs, modality: Modality, positions: Int64) -> Iterator[Float32]:
    """Unit-length vectors of entries that have the modality, a block of them at a time.

    Yields (block, embed_dim) float32 in the order of ``positions``. Raises InputError, naming the
    entries, where embeddings hold NaN or infinity.
    """
    done = 0
    for rows in inputs.blocks(modality, positions):
        batch = batch_of(rows, heads.device)
        own = positions[done : done + len(batch)]
        yield finite_vectors(heads, batch, inputs, modality, own)
        done += len(batch)


def finite_vectors(
    heads: Heads, batch: ProteinBatch, inputs: Inputs, modality: Modality, positions: Int64
) -> Float32:
    """(n, embed_dim) vectors of a batch, which are those entries of the inputs.

    Raises InputError, naming the entries, where embeddings hold NaN or infinity.
    """
    with torch.inference_mode():
        vectors: Float32 = heads.head(modality)(batch).float().cpu().numpy()
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        raise not_finite(inputs, modality, positions[broken])
    return vectors


def retrieval_set(heads: Heads, pairs: Pairs) -> RetrievalSet:
    """Vectors of the unique items of some pairs, and which belong together."""
    vectors = [
        np.concatenate(list(pool(heads, pairs.inputs, m, pairs.positions_of_items(column))))
        for column, m in enumerate(MODALITIES)
    ]
    return RetrievalSet(vectors[0], vectors[1], pairs.items)


def vectors_of(heads: Heads, inputs: Inputs, modality: Modality, positions: Int64) -> Float32:
    """(k, embed_dim) vectors of some entries; rows of NaN for those that lack the modality."""
    items = inputs.items(modality)[positions]
    there = np.flatnonzero(items >= 0)
    _, first, item = np.unique(items[there], return_index=True, return_inverse=True)
    vectors = np.full((len(positions), heads.embed_dim), np.nan, dtype=np.float32)
    if len(there):
        blocks = list(pool(heads, inputs, modality, positions[there[first]]))
        vectors[there] = np.concatenate(blocks)[item]
    return vectors


def residue_weights(
    heads: Heads, inputs: Inputs, modality: Modality
) -> list[npt.NDArray[np.float32] | None]:
    """(L, n_heads) attention of every entry's residues, None for entries without the modality.

    Raises InputError where the heads do not attend.
    """
    head = heads.head(modality)
    if not isinstance(head, PoolingHead):
        raise InputError(
            f"pooling={heads.pooling!r} weighs all residues alike: there is no attention to see",
            'fit with pooling="attention"',
        )
    there = np.flatnonzero(inputs.items(modality) >= 0)
    found: list[npt.NDArray[np.float32] | None] = [None] * len(inputs)
    done = 0
    for rows in inputs.blocks(modality, there):
        with torch.inference_mode():
            weights = head.residue_weights(batch_of(rows, heads.device))
        for own in Ragged(weights.float().cpu().numpy(), rows.offsets):
            found[there[done]] = own
            done += 1
    return found


def not_finite(inputs: Inputs, modality: Modality, positions: Int64) -> InputError:
    """The error for entries whose embeddings cannot be pooled."""
    return InputError(
        f"{modality} embeddings of {inputs.named(positions)} hold NaN, infinity or huge values",
        "embed them again, or leave them out",
    )
