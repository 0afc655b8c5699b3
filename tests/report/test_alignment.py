"""Table 1's alignment and its lines on the page."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.report.alignment import align, alignment_blocks, differences, identity

SEQUENCES = st.lists(
    st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=40), min_size=2, max_size=5
)


def test_an_alignment_finds_a_deletion_and_an_exchange() -> None:
    """A cut-out piece becomes a gap where it was; an exchanged letter is marked."""
    whole = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNL"
    cut = whole[:12] + whole[20:]
    changed = whole[:30] + "W" + whole[31:]
    aligned = align([whole, cut, changed])
    assert aligned == [whole, whole[:12] + "-" * 8 + whole[20:], changed]
    assert [sum(row) for row in differences(aligned)] == [0, 8, 1]
    assert identity(aligned[0], aligned[1]) == 1
    assert identity(aligned[0], aligned[2]) == pytest.approx(47 / 48)


@settings(max_examples=40)
@given(SEQUENCES)
def test_aligned_rows_are_the_sequences_with_gaps(sequences: list[str]) -> None:
    """Rows have one length, and without gaps they are the sequences; no column is all gaps."""
    aligned = align(sequences)
    assert [row.replace("-", "") for row in aligned] == sequences
    assert len({len(row) for row in aligned}) == 1
    assert all(set(column) != {"-"} for column in zip(*aligned, strict=True))


@settings(max_examples=40)
@given(SEQUENCES)
def test_blocks_put_together_are_the_alignment(sequences: list[str]) -> None:
    """Every letter is on the page once, marked where it differs, numbered to its end."""
    aligned = align([sequence * 4 for sequence in sequences])
    marks = differences(aligned)
    members = [
        {"id": str(i), "aligned": row, "different": [c for c, m in enumerate(row_marks) if m]}
        for i, (row, row_marks) in enumerate(zip(aligned, marks, strict=True))
    ]
    blocks = alignment_blocks({"members": members})
    for i, (row, row_marks) in enumerate(zip(aligned, marks, strict=True)):
        lines = [block[i] for block in blocks]
        pieces = [piece for line in lines for piece in line.pieces]
        assert "".join(letters for letters, _ in pieces) == row
        assert [marked for letters, marked in pieces for _ in letters] == row_marks
        assert lines[-1].last == len(sequences[i]) * 4
