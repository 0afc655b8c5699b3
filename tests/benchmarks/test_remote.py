"""The parts of the benchmark of remote homology: stores joined, and pairs of related proteins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from protalign.core.protein import MODALITIES
from protalign.heads.inputs import read_inputs
from protalign.stores import EmbeddingStore
from tests.helpers.programs import program

program("benchmarks/quality")

from benchmarks.quality.remote import Joined, mean_and_deviation, related_pairs


def test_joined_entries_are_those_of_one_store(store: EmbeddingStore) -> None:
    """Rows and pairs of residues in any order; items of two stores are never one item."""
    whole = read_inputs(store[:12])
    joined = Joined([read_inputs(store[:5]), read_inputs(store[5:12])])
    order = np.random.default_rng(0).permutation(12)
    for modality in MODALITIES:
        assert joined.lengths(modality).tolist() == whole.lengths(modality).tolist()
        assert ((joined.items(modality) < 0) == (whole.items(modality) < 0)).all()
        mine, theirs = joined.rows(modality, order), whole.rows(modality, order)
        np.testing.assert_array_equal(mine.values, theirs.values)
        assert mine.offsets.tolist() == theirs.offsets.tolist()
    for own, other in zip(joined.sequence_rows(order), whole.sequence_rows(order), strict=True):
        np.testing.assert_array_equal(own, other)
    twice = Joined([read_inputs(store[:5]), read_inputs(store[:5])]).items("sequence")
    assert not set(twice[:5]) & set(twice[5:])


@pytest.mark.parametrize("depth", [4, 3, 2])
def test_pairs_are_related_at_their_level_only(depth: int) -> None:
    """Both of one class, in two classes of the nearer level, and every two such classes once."""
    rng = np.random.default_rng(0)
    codes = [f"a.{rng.integers(1, 3)}.{rng.integers(1, 4)}.{rng.integers(1, 3)}" for _ in range(40)]
    table = pd.DataFrame({"id": [f"p{i}" for i in range(40)], "scop40_hit": codes})
    pairs = related_pairs(table, depth, np.random.default_rng(1))
    code = dict(zip(table["id"], codes, strict=True))

    def cut(entry: str, parts: int) -> str:
        return ".".join(code[entry].split(".")[:parts])

    kinds = [frozenset((cut(a, depth + 1), cut(b, depth + 1))) for a, b in pairs]
    assert all(cut(a, depth) == cut(b, depth) and a != b for a, b in pairs)
    assert len(set(kinds)) == len(kinds)
    if depth < 4:
        assert all(len(kind) == 2 for kind in kinds)


def test_deviations_need_two_values() -> None:
    """One seed has no deviation."""
    assert mean_and_deviation([1.0]) == "1.0"
    assert mean_and_deviation([1.0, 3.0]) == "2.0 ± 1.4"
