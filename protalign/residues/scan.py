"""A whole database compared with queries by residues: every protein is scored, some at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from protalign.core.arrays import Float64, Int64
from protalign.core.devices import runs_triton
from protalign.core.steps import step
from protalign.core.words import AlignMode
from protalign.residues.calibration import Calibration
from protalign.residues.kernels.correlation import Correlation
from protalign.residues.kernels.diagonals import DeviceDiagonals
from protalign.residues.kernels.scores import check_query, joined_scores, local_scores
from protalign.residues.proteins import PackedRows
from protalign.residues.targets import less_length_term


def best_targets(
    queries: PackedRows,
    targets: Iterable[tuple[Int64, PackedRows]],
    count: int,
    mode: AlignMode = "local",
    calibration: Calibration | None = None,
    *,
    length_term: float = 0.0,
    device: torch.device | None = None,
) -> list[Int64]:
    """Find the targets that fit each query best: the candidates of a second stage.

    All queries are compared with some targets, then with the next ones, so that a database is read
    once. Global scores are computed in another way than those of ``score_targets``, which is
    quicker for many targets: by a Triton kernel on a GPU, else by Fourier transforms. How far they
    may be from those is known. What can be among the best is kept, so that the best by those scores
    do not depend on the device.

    Parameters
    ----------
    queries : PackedRows
        Rows of m proteins, each of at least one residue.
    targets : iterable of ((b,) int64, PackedRows)
        Rows of the other modality of some proteins at a time, each of at least one residue, and the
        proteins' numbers, which ascend.
    count : int
        Targets that are wanted for each query, at least 1.
    mode : "local" or "global"
        The score that counts: of local ones the excess, or the score if that is unknown.
    calibration : Calibration, optional
        The stage's.
    length_term : float
        Nats that a global score loses for each residue by which the two lengths differ.
    device : torch.device, optional
        Where global scores are computed. Default: the processor, which also takes the part of a
        device that cannot run Triton's kernels.

    Returns
    -------
    m of (c,) int64
        Numbers of targets, ascending: the best ``count`` and those that may equal the last of them;
        all if there are fewer.

    Raises
    ------
    InputError
        A number is not finite, or a query has no row.

    Examples
    --------
    >>> from protalign.residues.proteins import ProteinRows
    >>> rows, chain = np.eye(3, dtype=np.float32), np.array([3])
    >>> query, other = ProteinRows(rows, rows, chain), ProteinRows(-rows, -rows, chain)
    >>> blocks = [(np.array([0, 1]), PackedRows.of([other, query]))]
    >>> [best] = best_targets(PackedRows.of([query]), blocks, 1, "global")
    >>> best.tolist()
    [1]
    """
    scorer: _Scorer
    if mode == "local":
        scorer = _Local(queries, calibration)
    else:
        scorer = _Global(queries, length_term, device)
    kept = [_Kept.none()] * len(queries)
    for numbers, block in targets:
        step()
        low, high = scorer.bounds(block)
        kept = [
            each.with_block(numbers, low[place], high[place], count)
            for place, each in enumerate(kept)
        ]
    return [each.targets for each in kept]


class _Scorer(Protocol):
    """Some queries, to be compared with blocks of targets."""

    def bounds(self, targets: PackedRows) -> tuple[Float64, Float64]:
        """Return (m, n) numbers that the scores are at least, and at most."""


class _Local:
    def __init__(self, queries: PackedRows, calibration: Calibration | None) -> None:
        self._queries, self._calibration = queries.local, calibration

    def bounds(self, targets: PackedRows) -> tuple[Float64, Float64]:
        scores = local_scores(self._queries, targets.local)[0].astype(np.float64)
        if self._calibration is not None:
            by_chance = local_scores(self._queries, targets.local.backward())[0]
            # The query's own chance, which takes long to know, orders its targets no other way.
            scores = self._calibration.excess(
                scores, by_chance, self._queries.lengths[:, None], targets.local.lengths
            )
        return scores, scores


class _Global:
    def __init__(
        self, queries: PackedRows, length_term: float, device: torch.device | None
    ) -> None:
        self._queries, self._length_term = queries, length_term
        for rows in queries.diagonal:
            check_query(rows, queries.diagonal.dim)
        chains = list(queries.by_chain)
        self._scorer: Correlation | DeviceDiagonals
        if device is not None and runs_triton(device):
            self._scorer = DeviceDiagonals(chains, device)
        else:
            self._scorer = Correlation(chains)

    def bounds(self, targets: PackedRows) -> tuple[Float64, Float64]:
        by_chain, error = self._scorer.scores(targets.by_chain)
        first, first_target = self._queries.first_chain, targets.first_chain
        scores = joined_scores(by_chain, first, first_target).astype(np.float64)
        # A chain is in one pair at most, so the errors of the pairs that are chosen are at most
        # the root of all squares: an error is a product of what either chain brings.
        squares = np.add.reduceat(error.astype(np.float64) ** 2, first[:-1], axis=0)
        error = np.sqrt(np.add.reduceat(squares, first_target[:-1], axis=1))
        if self._length_term:
            lengths = self._queries.local.lengths[:, None], targets.local.lengths
            scores = less_length_term(scores, self._length_term, *lengths)
        with np.errstate(invalid="ignore"):  # infinity less infinity: nothing is known
            low, high = scores - error, scores + error
        return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Targets that can be among the best of one query, and between which numbers their scores are.

    ``targets`` (c,) int64 ascend; ``low`` and ``high`` are (c,) float64.
    """

    targets: Int64
    low: Float64
    high: Float64

    @classmethod
    def none(cls) -> _Kept:
        return cls(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0))

    def with_block(self, targets: Int64, low: Float64, high: Float64, count: int) -> _Kept:
        """Return what remains if targets are added: what reaches the last of the best low ends."""
        joined = _Kept(
            np.concatenate([self.targets, targets]),
            np.concatenate([self.low, low]),
            np.concatenate([self.high, high]),
        )
        if len(joined.low) <= count:
            return joined
        inside = joined.high >= np.partition(joined.low, -count)[-count]
        return _Kept(joined.targets[inside], joined.low[inside], joined.high[inside])
