"""The order in which an epoch takes its pairs: a full shuffle, or blocks shuffled in windows.

Rows in memory are taken in any order at the same cost. Rows on a disk are not: pairs in a full
random order touch every chunk again and again. So these are read in order and shuffled in memory.

- A *block* is some neighbouring chunks of the modality with more bytes, and the pairs in them. Rows
  of the other modality lie near one another too, since a store embeds both in the order of its
  entries. An item that is shared by pairs far apart is looked up for each window that has one.
- A *window* is many blocks, as many as its memory holds, drawn anew in each epoch. It is read in
  ascending order, and its pairs are shuffled. Batches are cut out of the windows' pairs, one window
  after another: a batch that a window does not fill goes on with the next one.

How far this is from a full shuffle: pairs of one block always share a window, so they meet in a
batch n / w times as often, if w of the n pairs are in a window. Pairs of different blocks meet
nearly as often as in a full shuffle, and every epoch draws other windows. If all pairs fit into one
window, it is a full shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from protalign.core.arrays import Float64, Int64
from protalign.core.protein import MODALITIES
from protalign.heads.pairs import Pairs

#: The bytes of a window, however little memory there is.
LEAST_WINDOW = 1 << 26
#: A block is the chunks that begin within so many bytes, or within this part of a window.
BLOCK = 1 << 25
_BLOCK_PART = 1 / 16


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The order of an epoch.

    Attributes
    ----------
    batches : list of (b,) int64
        The pairs of each batch.
    windows : list of (w,) int64
        The pairs of each window, in the order to read them; none if no order of reading is better
        than another. The batches take the pairs of one window after another.
    """

    batches: list[Int64]
    windows: list[Int64] = field(default_factory=list)

    @classmethod
    def cut(cls, order: Int64, batch_size: int, windows: list[Int64] | None = None) -> Order:
        """Return the order that takes pairs as they are given, in batches.

        Examples
        --------
        >>> [batch.tolist() for batch in Order.cut(np.array([3, 0, 2, 1, 4]), 2).batches]
        [[3, 0], [2, 1]]
        """
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        # One pair alone has no negatives.
        return cls([indices for indices in batches if len(indices) > 1], windows or [])


class Blocks:
    """Pairs on a disk, in blocks of neighbours.

    Parameters
    ----------
    in_order : (n,) int64
        The pairs, in the order of their places on the disk.
    sizes : (n,) float64
        Bytes of their rows, in that order.
    chunk : (n,) int64
        The chunk of each, in that order.
    window_bytes : float
        Bytes of a window, at most; but a window has at least one block, and a block one pair.

    Examples
    --------
    >>> blocks = Blocks(np.arange(6), np.full(6, 10.0), np.array([0, 0, 1, 1, 2, 2]), 55)
    >>> order = blocks.order(2, np.random.default_rng(0))
    >>> [window.tolist() for window in order.windows]
    [[0, 1, 4, 5], [2, 3]]
    >>> [batch.tolist() for batch in order.batches]
    [[5, 4], [1, 0], [3, 2]]
    """

    def __init__(self, in_order: Int64, sizes: Float64, chunk: Int64, window_bytes: float) -> None:
        self._window_bytes = window_bytes
        before = np.cumsum(sizes) - sizes
        new_chunk = np.concatenate([[True], chunk[1:] != chunk[:-1]])
        in_chunk = before - before[new_chunk][np.cumsum(new_chunk) - 1]
        # A chunk is cut only if it alone exceeds a window: many pairs may share its items.
        part = in_chunk // window_bytes
        begins = np.flatnonzero(new_chunk | np.concatenate([[True], part[1:] != part[:-1]]))
        block = before[begins] // min(BLOCK, _BLOCK_PART * window_bytes)
        begins = begins[np.concatenate([[True], block[1:] != block[:-1]])]
        self._blocks = np.split(in_order, begins[1:])
        self._bytes = np.add.reduceat(sizes, begins)
        self._n_pairs = len(in_order)

    @classmethod
    def of(cls, pairs: Pairs, window_bytes: float) -> Blocks | None:
        """Return the blocks of pairs; None if their rows are in memory."""
        totals = np.zeros(len(MODALITIES))
        sizes = np.zeros(len(pairs))
        for column, modality in enumerate(MODALITIES):
            row_bytes = pairs.inputs.dims[modality] * pairs.inputs.dtype(modality).itemsize
            lengths = pairs.inputs.lengths(modality)
            sizes += lengths[pairs.positions] * float(row_bytes)
            totals[column] = lengths[pairs.positions_of_items(column)].sum() * float(row_bytes)
        larger = int(totals.argmax())
        places = [pairs.inputs.places(modality, pairs.positions) for modality in MODALITIES]
        first, second = places[larger], places[1 - larger]
        if first is None or second is None:
            return None
        in_order = np.lexsort((second[0], first[0]))
        return cls(in_order, sizes[in_order], first[1][in_order], window_bytes)

    def order(self, batch_size: int, generator: np.random.Generator) -> Order:
        """Draw an order of all pairs."""
        total, largest = self._bytes.sum(), self._bytes.max()
        if total <= self._window_bytes:
            order = generator.permutation(self._n_pairs)
            return Order.cut(order, batch_size, [np.concatenate(self._blocks)])
        # Windows of about the same size: a small last one would be neighbours only.
        room = max(self._window_bytes - largest, 1.0)
        target = total / np.ceil(total / room)
        drawn = generator.permutation(len(self._blocks))
        sizes = self._bytes[drawn]
        window = (np.cumsum(sizes) - sizes) // target
        windows = [
            np.concatenate([self._blocks[block] for block in np.sort(blocks).tolist()])
            for blocks in np.split(drawn, np.flatnonzero(np.diff(window)) + 1)
        ]
        order = np.concatenate([generator.permutation(pairs) for pairs in windows])
        return Order.cut(order, batch_size, windows)
