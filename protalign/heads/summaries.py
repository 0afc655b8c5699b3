"""Summaries of training pairs: a protein's rows in the form that is left of them to train on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from protalign.core.arrays import Bool, Int64
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.distributed import current
from protalign.heads.kernels.batch import batch_of
from protalign.heads.model import Model, not_finite
from protalign.heads.order import Order
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import RetrievalSet
from protalign.heads.rows import Rows, memory_for_rows

#: The least part of a protein that training leaves of it, at random up to all.
_LEAST_KEPT = 3 / 8


class Summaries:
    """Summaries of some pairs' proteins on the model's device.

    Parameters
    ----------
    model : Model
        A model whose heads summarise.
    pairs : Pairs
        The pairs.
    memory : float, optional
        Bytes that summaries may take; default: a part of what this process may use.

    Attributes
    ----------
    held : bool
        Whether the summaries are in memory, each unique item's once. Else they are taken anew in
        each epoch from rows that are read in the order of ``Rows``.

    Raises
    ------
    InputError
        Embeddings hold NaN or infinity; the error names the entries.
    """

    def __init__(self, model: Model, pairs: Pairs, memory: float | None = None) -> None:
        self._model, self._pairs = model, pairs
        self._heads = model.sequence, model.structure
        self._values: list[Tensor] = []
        room = memory_for_rows(model.device) if memory is None else memory
        if current().all_agree(_bytes(model, pairs) <= room):
            self._values = [_of_all(model, pairs, column) for column in range(len(MODALITIES))]
        self._rows = None if self.held else Rows(pairs, model.device)

    @property
    def held(self) -> bool:
        """Whether the summaries are in memory."""
        return bool(self._values)

    def order(self, batch_size: int, generator: np.random.Generator) -> Order:
        """Draw the order of an epoch: a full shuffle of what is held, else as of ``Rows``."""
        if self._rows is None:
            return Order.cut(generator.permutation(len(self._pairs)), batch_size)
        return self._rows.order(batch_size, generator)

    def losses(
        self,
        batches: Sequence[Int64],
        generator: np.random.Generator,
        windows: Sequence[Int64] = (),
    ) -> Iterator[Tensor]:
        """Yield the loss of each batch of pairs, 0-d; batches and windows are as of ``Rows``.

        Proteins lose residues at their ends, as many of the sequence as of the structure, and
        others in each epoch: few pairs teach more, and what is known of a protein seldom is all.
        """
        ranks = current()
        own = [ranks.own(len(indices)) for indices in batches]
        slices = [indices[of] for indices, of in zip(batches, own, strict=True)]
        parts = self._batches(slices, windows)
        for indices, of, (sequence, structure) in zip(batches, own, parts, strict=True):
            kept = _kept_parts(len(indices), sequence.shape[1], generator)[of]
            kept_parts = torch.from_numpy(kept).to(self._model.device)
            vectors = (
                ranks.gathered(head.of_summary(summary * kept_parts), len(indices))
                for head, summary in zip(self._heads, (sequence, structure), strict=True)
            )
            yield self._model.loss(*vectors)

    def retrieval_set(self) -> RetrievalSet:
        """Return the vectors of the unique proteins, which are held, and their pairs."""
        with torch.inference_mode():
            sequence, structure = (
                head.of_summary(values).float().cpu().numpy()
                for head, values in zip(self._heads, self._values, strict=True)
            )
        return RetrievalSet(sequence, structure, self._pairs.items)

    def _batches(
        self, batches: Sequence[Int64], windows: Sequence[Int64]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the summaries of the sequences and of the structures of each batch of pairs."""
        if self._rows is None:
            for indices in batches:
                items = torch.from_numpy(self._pairs.items[indices].T).to(self._model.device)
                yield self._values[0][items[0]], self._values[1][items[1]]
            return
        for proteins in self._rows.batches(batches, windows):
            with torch.no_grad():
                sequence, structure = (
                    head.summary(each) for head, each in zip(self._heads, proteins, strict=True)
                )
            yield sequence, structure


def _kept_parts(count: int, parts: int, generator: np.random.Generator) -> Bool:
    """Return (count, parts, 1) bool: a run of parts of each protein that is not left out."""
    kept = generator.integers(math.ceil(_LEAST_KEPT * parts), parts + 1, size=count)
    first = generator.integers(0, parts - kept + 1)
    places = np.arange(parts)
    of_run: Bool = (places >= first[:, None]) & (places < (first + kept)[:, None])
    return of_run[:, :, None]


def _bytes(model: Model, pairs: Pairs) -> float:
    """Return the bytes of the summaries of the pairs' unique items."""
    total = 0.0
    for column, modality in enumerate(MODALITIES):
        positions = pairs.positions_of_items(column)
        rows = pairs.inputs.rows(modality, positions[:1])
        one = model.head(modality).summary(batch_of(rows, model.device))
        total += float(len(positions)) * one.numel() * one.element_size()
    return total


def _of_all(model: Model, pairs: Pairs, column: int) -> Tensor:
    """Return the summaries of the unique items of a modality; each rank summarises its part."""
    ranks, positions = current(), pairs.positions_of_items(column)
    own = positions[ranks.own(len(positions))]
    blocks = _blocks(model, pairs, MODALITIES[column], own)
    first = next(blocks)  # a rank has one thing at least
    values, done = first.new_empty(len(own), *first.shape[1:]), 0
    for block in chain([first], blocks):
        values[done : done + len(block)] = block
        done += len(block)
    return ranks.gathered(values, len(positions))


def _blocks(model: Model, pairs: Pairs, modality: Modality, positions: Int64) -> Iterator[Tensor]:
    """Yield the summaries of some entries, block by block."""
    done = 0
    for rows in pairs.inputs.blocks(modality, positions):
        with torch.no_grad():
            summary = model.head(modality).summary(batch_of(rows, model.device))
        broken = ~summary.isfinite().flatten(1).all(dim=1).cpu().numpy()
        if broken.any():
            entries = positions[done : done + len(broken)][broken]
            raise not_finite(pairs.inputs, modality, entries)
        done += len(broken)
        yield summary
