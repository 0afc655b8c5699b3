"""Register accuracy: the residues that an alignment and a structural alignment place alike."""

from __future__ import annotations

import numpy as np

from protalign.core.arrays import Int64

#: Residues that an alignment may be off by to be nearly right.
NEAR = 4


def register_accuracy(
    query: Int64, target: Int64, true_query: Int64, true_target: Int64
) -> dict[str, float]:
    """Compare aligned pairs of residues with those of a reference.

    Parameters
    ----------
    query, target : (n,) int64
        Aligned residues, each query residue once.
    true_query, true_target : (m,) int64
        The reference's, each query residue once, such as those of a structural alignment.

    Returns
    -------
    dict
        Shares, 0 to 1. Of the reference's pairs: "exact", those that are aligned too, and "near",
        those whose query residue is aligned at most ``NEAR`` residues off. "exact_of_aligned" and
        "near_of_aligned": the same numbers as shares of the n aligned pairs, 0 if there are none.

    Examples
    --------
    >>> rows = np.arange(4)
    >>> register_accuracy(rows, rows + np.array([0, 0, 1, 9]), rows, rows)["exact"]
    0.5
    """
    _, mine, theirs = np.intersect1d(query, true_query, assume_unique=True, return_indices=True)
    off = np.abs(target[mine] - true_target[theirs])
    exact, near = int(np.count_nonzero(off == 0)), int(np.count_nonzero(off <= NEAR))
    return {
        "exact": exact / max(1, len(true_query)),
        "near": near / max(1, len(true_query)),
        "exact_of_aligned": exact / max(1, len(query)),
        "near_of_aligned": near / max(1, len(query)),
    }
