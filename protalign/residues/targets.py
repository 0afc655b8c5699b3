"""Scores of one query's residues with many targets: the second stage of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Float64, Int64
from protalign.core.machine import threads_here
from protalign.core.ragged import Ragged
from protalign.core.steps import step
from protalign.residues.calibration import Calibration
from protalign.residues.chains import ProteinTargets
from protalign.residues.kernels.packed import LANES
from protalign.residues.kernels.scores import local_scores
from protalign.residues.proteins import PackedRows, ProteinRows

Floating = TypeVar("Floating", bound=np.floating[Any])

#: Pairs of residues that are scored at once, about: a second.
PAIRS_AT_ONCE = 30_000_000
#: Residues of targets that are scored at once, about: each takes 1 kB beside its embedding.
RESIDUES_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class TargetScores:
    """A query's scores with n targets.

    Attributes
    ----------
    diagonal : (n,) float32 or None
        The global score (``protalign.residues.chains``): the sum of the residues' log-likelihood
        ratios on the best diagonal, or on those of several chains, in nats. None if it was not
        asked for.
    local : (n,) float32
        Score of the best local alignment with affine gaps, in nats; all chains of a protein count
        as one.
    excess : (n,) float64 or None
        How far the local score is above chance; None without a calibration. See
        ``Calibration.excess``.
    backing : (n,) float64 or None
        What the first hits say for a target that is like them, in units of the excess; None if the
        targets were not compared with each other. See ``protalign.residues.backing``.

    Examples
    --------
    >>> rows, chain = np.eye(3, dtype=np.float32), np.array([3])
    >>> query, other = ProteinRows(rows, rows, chain), ProteinRows(-rows, -rows, chain)
    >>> scores = score_targets(query, PackedRows.of([query, other]))
    >>> scores.diagonal.tolist(), scores.local.tolist()
    ([3.0, 0.0], [3.0, 0.0])
    """

    diagonal: Float32 | None
    local: Float32
    excess: Float64 | None
    backing: Float64 | None = None

    @property
    def local_order(self) -> Float64:
        """(n,) float64 to order targets by.

        The excess and the backing, or the local score if the excess is unknown.
        """
        if self.excess is None:
            return self.local.astype(np.float64)
        return self.excess if self.backing is None else self.excess + self.backing


def score_targets(
    query: ProteinRows,
    targets: PackedRows,
    calibration: Calibration | None = None,
) -> TargetScores:
    """Score a protein with many others, with the usual gap costs.

    Targets are scored in blocks, so that memory is bounded. If the thread's work is run in steps,
    other work may go first between two.

    Parameters
    ----------
    query : ProteinRows
        Rows of one modality (``ResidueStage.protein_rows``).
    targets : PackedRows
        Rows of the other modality, of n proteins.
    calibration : Calibration, optional
        The stage's.

    Examples
    --------
    >>> rows = 9 * np.eye(3, dtype=np.float32)
    >>> query = ProteinRows(rows, rows, np.array([3]))
    >>> target = ProteinRows(rows[:2], rows[:2], np.array([2]))
    >>> score_targets(query, PackedRows.of([target])).local.tolist()
    [162.0]
    """
    return score_in_blocks(query, targets.local.lengths, targets.take, calibration)


def score_in_blocks(
    query: ProteinRows,
    lengths: Int64,
    rows: Callable[[Int64], PackedRows],
    calibration: Calibration | None = None,
) -> TargetScores:
    """Score a protein with many others, whose rows are asked for some at a time.

    Parameters
    ----------
    query, calibration
        As for ``score_targets``.
    lengths : (n,) int64
        Rows of each target.
    rows : callable
        Given (m,) int64 places of targets, returns their rows in this order.
    """
    best = np.empty(len(lengths), np.float32)

    def scores(items: Int64) -> tuple[Ragged, Float32]:
        targets = rows(items)
        [best[items]], [local] = ProteinTargets(targets).scores(PackedRows.of([query]))
        return targets.local, local

    return replace(_in_blocks(query.local, lengths, scores, calibration), diagonal=best)


def local_in_blocks(
    query: Float32,
    lengths: Int64,
    rows: Callable[[Int64], Ragged],
    calibration: Calibration | None = None,
) -> TargetScores:
    """Score a protein with many others by local alignments alone; without ``diagonal``.

    Parameters
    ----------
    query : (L, k + 2) float32
        Its rows for the local mode.
    lengths, calibration
        As for ``score_in_blocks``.
    rows : callable
        Given (m,) int64 places of targets, returns their rows for the local mode in this order.
    """

    def scores(items: Int64) -> tuple[Ragged, Float32]:
        targets = rows(items)
        return targets, local_scores(query, targets)[0]

    return _in_blocks(query, lengths, scores, calibration)


def _in_blocks(
    query: Float32,
    lengths: Int64,
    scores: Callable[[Int64], tuple[Ragged, Float32]],
    calibration: Calibration | None,
) -> TargetScores:
    """Score blocks of targets: ``scores`` gives the local rows and scores of some."""
    step()
    chance = None if calibration is None else calibration.chance(query)
    best = TargetScores(
        None,
        np.empty(len(lengths), np.float32),
        None if calibration is None else np.empty(len(lengths)),
    )
    for items in _blocks(lengths, len(query)):
        step()
        targets, local = scores(items)
        best.local[items] = local
        if calibration is not None and best.excess is not None:
            by_chance = local_scores(query, targets.backward())[0]
            best.excess[items] = calibration.excess(
                local, by_chance, len(query), targets.lengths, chance
            )
    return best


def less_length_term(
    scores: npt.NDArray[Floating], length_term: float, query_lengths: Int64 | int, lengths: Int64
) -> npt.NDArray[Floating]:
    """Return global scores less what a length term takes off, of lengths that broadcast to them."""
    taken = np.abs(lengths - query_lengths).astype(scores.dtype)
    taken *= length_term
    less: npt.NDArray[Floating] = scores - taken
    return less


def _blocks(lengths: Int64, n_query: int) -> Iterator[Int64]:
    """Yield places of targets, some at once: longest first, and whole groups, as they are packed.

    So the groups are those of all targets at once, and with them the last bits of scores.
    """
    order = np.argsort(-lengths, kind="stable")
    least = LANES * threads_here()  # enough for all threads
    most = min(RESIDUES_AT_ONCE, PAIRS_AT_ONCE // max(1, n_query))
    first, total = 0, 0
    for place in range(0, len(order), LANES):
        count = int(lengths[order[place : place + LANES]].sum())
        if total + count > most and place - first >= least:
            yield order[first:place]
            first, total = place, 0
        total += count
    if len(order):
        yield order[first:]
