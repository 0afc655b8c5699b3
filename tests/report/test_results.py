"""Figures over the seeds."""

from __future__ import annotations

import math

import pytest

from protalign.report.results import summary


def test_a_summary_is_mean_and_sample_deviation() -> None:
    """The deviation divides by n - 1; a single value has none; no value has no summary."""
    found = summary([1.0, 2.0, 4.0])
    assert found is not None
    assert found["mean"] == pytest.approx(7 / 3)
    assert found["sd"] == pytest.approx(math.sqrt(7 / 3))
    assert summary([3.0]) == {"mean": 3.0, "sd": None, "values": [3.0]}
    assert summary([]) is None
