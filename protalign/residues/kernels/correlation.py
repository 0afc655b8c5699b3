"""Best diagonals of many queries at once, by Fourier transforms.

Without a floor, the sums along the diagonals of two proteins are the correlation of their rows:
a product for each frequency instead of one for each pair of residues. For several queries that is
many times less work. The sums are rounded differently from those of ``scores``, within a bound, so
that they tell which targets can be among the best; these are then scored again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from protalign.core.arrays import Float32, Int64
from protalign.core.machine import threads_here
from protalign.core.ragged import Ragged
from protalign.residues.kernels.packed import check_finite, in_float32, share

#: Numbers of the targets that are transformed at once: 4 MB of float32.
TRANSFORMED = 1 << 20
#: Most numbers of a transform of queries: 32 MB. Fewer queries are transformed together if the
#: proteins are long.
TOGETHER = 1 << 23
#: Most numbers of the queries' transforms that are kept, of all sizes: 256 MB.
KEPT = 1 << 26
#: Largest error of a sum, by the product of the lengths of both proteins' rows as one vector.
#: Measured errors are below a tenth of it.
ERROR = 4e-6


class Correlation:
    """Queries that are scored against many targets by Fourier transforms.

    Parameters
    ----------
    queries : sequence of (Lq, K) float32
        Rows of m queries, each of at least one residue.
    """

    def __init__(self, queries: Sequence[Float32]) -> None:
        self._queries = queries
        self._lengths = np.array([len(query) for query in queries], dtype=np.int64)
        self._norms = np.array([np.linalg.norm(query) for query in queries], dtype=np.float32)
        self._transforms: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def scores(self, targets: Ragged) -> tuple[Float32, Float32]:
        """Score targets by their best diagonal without a floor, nearly.

        Parameters
        ----------
        targets : Ragged
            Rows (R, K) of n proteins, of any dtype that float32 holds.

        Returns
        -------
        scores : (m, n) float32
            As of ``diagonal_scores``, within the error.
        error : (m, n) float32
            The largest error.

        Raises
        ------
        InputError
            A row has a number that is not finite.
        """
        lengths = targets.lengths
        scores = np.full((len(self._queries), len(targets)), -np.inf, dtype=np.float32)
        norms = np.zeros(len(targets), dtype=np.float32)
        present = np.flatnonzero(lengths)
        # A long query needs long transforms: those of shorter ones stay short.
        classes = np.array([int(n).bit_length() for n in self._lengths])
        for query_class in np.unique(classes):
            alike = np.flatnonzero(classes == query_class)
            longest = int(self._lengths[alike].max())
            sizes = np.array([_size(n + longest - 1) for n in lengths[present].tolist()], dtype=int)
            for size in np.unique(sizes).tolist():
                members = present[sizes == size]
                members = members[np.argsort(lengths[members], kind="stable")]
                count = max(1, TOGETHER // (2 * targets.dim * (size + 2)))
                for first in range(0, len(alike), count):
                    part = alike[first : first + count]
                    self._score_part(targets, part, members, size, scores, norms)
        return scores, np.float32(ERROR) * self._norms[:, None] * norms

    def _score_part(
        self,
        targets: Ragged,
        queries: Int64,
        members: Int64,
        size: int,
        scores: Float32,
        norms: Float32,
    ) -> None:
        """Score some queries and targets, ascending by length, by transforms of one size."""
        transform, query_lengths = self._transform(queries, size), self._lengths[queries]
        count = max(1, TRANSFORMED // (size * targets.dim))
        batches = [members[at : at + count] for at in range(0, len(members), count)]
        tasks = iter(batches)  # which threads may share

        def work(_: int) -> None:
            for batch in tasks:
                lengths = targets.lengths[batch]
                rows = _side_by_side(targets, targets.offsets[batch], lengths, size)
                norms[batch] = np.sqrt(np.einsum("pnk,pnk->n", rows, rows))
                product = torch.bmm(_transformed(rows), transform)
                product = torch.view_as_complex(product.view(*product.shape[:2], -1, 2))
                sums = torch.from_numpy(fft.irfft(product, size, axis=0))
                scores[np.ix_(queries, batch)] = _best(sums, query_lengths, lengths).numpy()

        share(min(threads_here(), len(batches)), work)

    def _transform(self, queries: Int64, size: int) -> Tensor:
        """Return (frequencies, 2 K, 2 m): what makes a target's transform the sums' transform.

        A complex number is two real ones, and its product with another one a product with a matrix.
        """
        key = (size, tuple(queries.tolist()))
        if key not in self._transforms:
            n, dim = len(queries), self._queries[0].shape[1]
            if sum(each.numel() for each in self._transforms.values()) > KEPT:
                self._transforms.clear()
            rows = np.zeros((size, n, dim), dtype=np.float32)
            for place, query in enumerate(queries.tolist()):
                rows[: self._lengths[query], place] = self._queries[query]
            real, imaginary = _transformed(rows).view(-1, n, dim, 2).permute(3, 0, 2, 1)
            by_real = torch.stack([real, -imaginary], dim=3)
            by_imaginary = torch.stack([imaginary, real], dim=3)
            both = torch.stack([by_real, by_imaginary], dim=2)
            self._transforms[key] = both.reshape(-1, 2 * dim, 2 * n)
        return self._transforms[key]


def _transformed(rows: Float32) -> Tensor:
    """Return (frequencies, n, 2 K): the transforms of (size, n, K), as pairs of real numbers."""
    transforms = torch.from_numpy(fft.rfft(rows, axis=0))
    return torch.view_as_real(transforms).flatten(2)


def _size(least: int) -> int:
    """Return 4, 5, 6 or 7 times a power of 2: a size of quick transforms, one of few."""
    power = 1 << max(1, (least - 1).bit_length() - 3)
    return power * max(4, -(-least // power))


def _side_by_side(targets: Ragged, starts: Int64, lengths: Int64, size: int) -> Float32:
    """Return (size, n, K): position, target, number of a row; zeros after each target's end."""
    rows = np.zeros((size, len(starts), targets.dim), dtype=np.float32)
    target = np.repeat(np.arange(len(starts)), lengths)
    position = np.arange(len(target)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = in_float32(targets.values, starts[target] + position)
    check_finite("targets", values)
    rows[position, target] = values
    return rows


def _best(sums: Tensor, query_lengths: Int64, lengths: Int64) -> Tensor:
    """Return (m, n): the largest of the sums whose offset a query and a target have.

    ``sums`` (size, n, m) has offset d in row d, and a negative one in row ``size + d``.
    """
    size = len(sums)
    every, never = int(lengths.min()), size - int(query_lengths.min()) + 1
    best = sums[:every].amax(dim=0)
    if never < size:
        torch.maximum(best, sums[never:].amax(dim=0), out=best)
    if every < never:
        row = torch.arange(every, never)[:, None, None]
        ahead = row < torch.from_numpy(lengths)[:, None]
        behind = row > size - torch.from_numpy(query_lengths)
        some = sums[every:never].masked_fill(~(ahead | behind), -torch.inf)
        torch.maximum(best, some.amax(dim=0), out=best)
    return best.T
