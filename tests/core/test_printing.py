"""Names on one line."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.printing import cell_text, printable, table_cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a.pdb", "a.pdb"),
        ("β-lactamase ✓", "β-lactamase ✓"),
        ("a\nprotalign: done", "a\\nprotalign: done"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\r\tb", "a\\r\\tb"),
        ("caf\udce9", "caf\\udce9"),
        ("\u2028", "\\u2028"),
    ],
)
def test_nothing_in_a_name_acts_on_a_terminal(text: str, shown: str) -> None:
    """Line breaks, escapes, marks of direction, bytes that are no text."""
    assert printable(text) == shown


@given(st.text())
def test_printed_text_is_one_printable_line(text: str) -> None:
    """Whatever it was."""
    assert printable(text).isprintable()
    assert len(printable(text).splitlines()) <= 1


@given(st.text())
def test_cells_are_no_formulas_and_come_back(text: str) -> None:
    """Through a CSV file; unprintable characters come back as their escapes."""
    cell = table_cell(text)
    assert not cell.startswith(("=", "+", "-", "@"))
    file = io.StringIO()
    csv.writer(file).writerow([cell])
    [[back]] = csv.reader(io.StringIO(file.getvalue()))
    assert cell_text(back) == printable(text)
