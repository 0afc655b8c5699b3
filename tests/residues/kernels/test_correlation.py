"""Best diagonals by Fourier transforms are those of the processor's loops, within their error."""

from __future__ import annotations

import numpy as np
import pytest

from protalign.residues.kernels import correlation
from protalign.residues.kernels.correlation import ERROR, Correlation
from protalign.residues.kernels.scores import diagonal_scores
from tests.residues.kernels.test_scores import ragged, real_rows


@pytest.mark.parametrize("small", [False, True])
def test_transforms_give_sums_within_their_error(
    monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    """Far within it, for lengths from one residue to many, and rows of very unequal numbers.

    So it is in small batches, if no query's transform is kept.
    """
    rng = np.random.default_rng(1)
    queries = real_rows(rng, [1, 2, 90, 300])
    targets = real_rows(rng, [1, 5, 0, 64, 65, 250, 700])
    targets[3] *= 1e4
    targets[4][:, 0] += 100
    if small:
        monkeypatch.setattr(correlation, "TRANSFORMED", 1 << 14)
        monkeypatch.setattr(correlation, "TOGETHER", 1 << 17)
        monkeypatch.setattr(correlation, "KEPT", 0)
    scores, error = Correlation(queries).scores(ragged(targets, 50))
    assert np.isneginf(scores[:, 2]).all()
    exact, _ = diagonal_scores(ragged(queries, 50), ragged(targets, 50))
    scores[:, 2] = exact[:, 2] = 0
    assert np.all(np.abs(scores - exact) <= error / 10)


def test_the_bound_is_not_wide() -> None:
    """It is a small part of what related proteins score, so that few targets are scored again."""
    assert ERROR < 1e-5
