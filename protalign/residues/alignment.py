"""Alignments of residues by the sum of their log-likelihood ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError
from protalign.core.machine import free_memory
from protalign.core.words import AlignMode

#: Affine gaps in nats: a gap of n residues costs GAP_OPEN + (n - 1) GAP_EXTEND.
GAP_OPEN, GAP_EXTEND = 16.0, 2.0
#: Dynamic programming counts in whole numbers of this many to a nat.
_UNITS = 256
#: Bytes that an alignment takes for each pair of residues: the scores twice, and with gaps the
#: tables of the dynamic programming.
_BYTES_PER_PAIR = {"global": 8, "local": 40}
#: Bytes for each residue: its row of about 50 float32, twice.
_BYTES_PER_RESIDUE = 400
#: Bytes that any machine has.
_LITTLE = 1 << 26


@dataclass(frozen=True, eq=False)
class Alignment:
    """Residues of a query on residues of a target.

    Attributes
    ----------
    mode : "global" or "local"
        "global": the best diagonal, without gaps, or those of several chains in order. "local":
        the best part, with affine gaps.
    score : float
        In nats: the sum of ``residue_scores`` less the gaps' costs.
    query_rows, target_rows : (n,) int64
        The aligned residues, ascending, counted from 0 in the rows that were aligned.
    residue_scores : (n,) float32
        Log-likelihood ratio of each aligned pair, in nats.
    query_length, target_length : int
        Rows of the query and of the target.
    evalue : float or None
        Hits of this score that a search of this size finds by chance; None if it is unknown.
    probability : float or None
        Probability that the two share a fold, a TM-score of 0.5 or more; None if it is unknown.
    bits : float or None
        How rare the score is by chance: the E-value is the search's size times 2 ** -bits. 0 or
        more; None if it is unknown.
    global_score : float or None
        The score of the same two in "global" mode, in nats; None if it was not computed. It is not
        comparable with a local alignment's ``score``, which is another sum, maybe of other rows.

    Examples
    --------
    >>> rows = np.arange(3)
    >>> alignment = Alignment("global", 6.5, rows, rows, np.ones(3, np.float32), 3, 6)
    >>> alignment.query_coverage, alignment.target_coverage, alignment.gap_openings
    (1.0, 0.5, 0)
    """

    mode: AlignMode
    score: float
    query_rows: Int64
    target_rows: Int64
    residue_scores: Float32
    query_length: int
    target_length: int
    evalue: float | None = None
    probability: float | None = None
    global_score: float | None = None
    bits: float | None = None

    def __len__(self) -> int:
        return len(self.query_rows)

    @property
    def query_coverage(self) -> float:
        """Share of the query's residues between the first and the last aligned one, 0 to 1."""
        return _span(self.query_rows) / self.query_length if self.query_length else 0.0

    @property
    def target_coverage(self) -> float:
        """Share of the target's residues between the first and the last aligned one, 0 to 1."""
        return _span(self.target_rows) / self.target_length if self.target_length else 0.0

    @property
    def gap_openings(self) -> int:
        """Gaps, in the query and in the target."""
        steps = np.diff(self.query_rows), np.diff(self.target_rows)
        return int(sum(np.count_nonzero(step > 1) for step in steps))


def _span(rows: Int64) -> int:
    return int(rows[-1] - rows[0]) + 1 if len(rows) else 0


def align(
    query: Float32,
    target: Float32,
    mode: AlignMode = "local",
    *,
    gap_open: float = GAP_OPEN,
    gap_extend: float = GAP_EXTEND,
    floor: float | None = None,
) -> Alignment:
    """Align two chains' residue rows.

    Parameters
    ----------
    query, target : (L, k + 2) and (L', k + 2) float32
        Rows of one modality and of the other (``ResidueStage.rows``).
    mode : "local" or "global"
        The best part of both with affine gaps (Gotoh's algorithm, biotite's ``align_optimal``), or
        the best diagonal of the whole, as one chain; ``protalign.residues.chains`` has several.
    gap_open, gap_extend : float
        Costs in nats of a gap's first residue and of each further one; "local" only.
    floor : float, optional
        The least that a pair counts on a diagonal, in nats; "global" only. -1.5 suits proteins with
        cut or disordered ends.

    Returns
    -------
    Alignment
        Without residues and with score 0 if no pair scores above 0 (local).

    Raises
    ------
    InputError
        A side has no row, and so no diagonal (global).

    Examples
    --------
    >>> rows = np.eye(5, dtype=np.float32) * 2
    >>> align(rows[1:4], rows, "local").target_rows.tolist()
    [1, 2, 3]
    """
    scores = query @ target.T
    if mode == "global":
        for name, rows in (("query", query), ("target", target)):
            if not len(rows):
                raise no_rows(name)
        query_rows, target_rows = _diagonal(scores, floor)
        pairs = scores[query_rows, target_rows]
        total = float(pairs.sum() if floor is None else np.maximum(pairs, floor).sum())
    else:
        query_rows, target_rows = _gotoh(scores, gap_open, gap_extend)
        pairs = scores[query_rows, target_rows]
        total = float(pairs.sum()) - _gap_costs(query_rows, target_rows, gap_open, gap_extend)
    return Alignment(mode, total, query_rows, target_rows, pairs, len(query), len(target))


def check_gap_costs(gap_open: float, gap_extend: float) -> None:
    """Raise InputError if a cost of gaps is not a number from 0 to 1,000."""
    for name, cost in (("gap_open", gap_open), ("gap_extend", gap_extend)):
        if not (math.isfinite(cost) and 0 <= cost <= 1000):
            raise InputError(f"{name}={cost:g}: not a cost", "give a number from 0 to 1000")


def check_memory(
    query: str,
    target: str,
    query_length: int,
    target_length: int,
    mode: AlignMode,
    *,
    placed: bool = False,
) -> None:
    """Raise InputError if an alignment of two proteins takes more memory than is free.

    Parameters
    ----------
    query, target : str
        Their names, for the error.
    query_length, target_length : int
        Their residues; on diagonals also those without rows between the others.
    mode : "local" or "global"
        Of the alignment.
    placed : bool
        Whether the caller gave the residues' positions, which may lie too far apart.
    """
    needed = _BYTES_PER_PAIR[mode] * query_length * target_length
    needed += _BYTES_PER_RESIDUE * (query_length + target_length)
    if needed > _LITTLE and needed > free_memory():  # to ask takes some milliseconds
        raise InputError(
            f"{query} and {target}: {query_length:,} and {target_length:,} residues take "
            f"{needed / 1e9:.1f} GB to align, more than is free",
            "give positions that lie closer" if placed else "align single chains or domains",
        )


def no_rows(name: str) -> InputError:
    """Return the error of a protein without residue rows."""
    return InputError(f"{name}: it has no residue rows", "give an array (residues, K)")


def diagonals(scores: Float32) -> tuple[Int64, Float32]:
    """Return the offsets (target less query) of all diagonals, ascending, and their sums.

    Examples
    --------
    >>> offsets, sums = diagonals(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    >>> offsets.tolist(), sums.tolist()
    ([-1, 0, 1, 2], [4.0, 6.0, 8.0, 3.0])
    """
    n_query, n_target = scores.shape
    sums = np.zeros(n_query + n_target - 1, dtype=np.float32)
    for row in reversed(range(n_query)):
        first = n_query - 1 - row
        sums[first : first + n_target] += scores[row]
    return np.arange(1 - n_query, n_target), sums


def _diagonal(scores: Float32, floor: float | None) -> tuple[Int64, Int64]:
    """Return the pairs of the best diagonal; of equal ones, that of the offset closest to 0.

    Of two that are equally close the positive one, as ``diagonal_scores`` chooses.
    """
    offsets, sums = diagonals(scores if floor is None else np.maximum(scores, floor))
    best = offsets[sums == sums.max()]
    offset = int(best[np.argmin(2 * np.abs(best) - (best > 0))])
    first = max(0, -offset)
    rows = np.arange(first, min(scores.shape[0], scores.shape[1] - offset))
    return rows, rows + offset


def _gotoh(scores: Float32, gap_open: float, gap_extend: float) -> tuple[Int64, Int64]:
    """Return the pairs of the best local alignment."""
    # Slow to import, and few who load a model align.
    from biotite.sequence import Alphabet, GeneralSequence
    from biotite.sequence.align import SubstitutionMatrix, align_optimal

    if scores.size == 0 or scores.max() <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    matrix = np.rint(scores * _UNITS).astype(np.int32)
    # Each position is a symbol of its own.
    alphabets = [Alphabet(range(length)) for length in scores.shape]
    query, target = (GeneralSequence(a, range(len(a))) for a in alphabets)
    gaps = -round(gap_open * _UNITS), -round(gap_extend * _UNITS)
    best = align_optimal(
        query,
        target,
        SubstitutionMatrix(*alphabets, matrix),
        gap_penalty=gaps,
        local=True,
        max_number=1,
    )[0]
    trace: Int64 = best.trace[(best.trace >= 0).all(axis=1)].astype(np.int64)
    return trace[:, 0], trace[:, 1]


def _gap_costs(query: Int64, target: Int64, gap_open: float, gap_extend: float) -> float:
    """Return the cost of the gaps between aligned pairs."""
    gaps = np.concatenate([np.diff(query), np.diff(target)]) - 1
    gaps = gaps[gaps > 0]
    return float(len(gaps) * gap_open + (gaps - 1).sum() * gap_extend)
