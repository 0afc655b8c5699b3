"""Names on one line."""

from __future__ import annotations

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.printing import cell_text, printable, table_cell, without_secrets


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://b/x?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET%2F", "s3://b/x"),
        ("az://c/x?sv=2024&sig=SECRET%3D: it is missing; check", "az://c/x: it is missing; check"),
        ("('https://me:SECRET@h/x?token=SECRET')", "('https://h/x')"),
        ("https://h/x#access_token=SECRET, then", "https://h/x, then"),
        ("https://h/x?a&sig=SECRET", "https://h/x"),
        ("https://h/x?" + "SECRET" * 9, "https://h/x"),
        ("s3://b/?/x?.zarr?sig=SECRET gs://b/y?key=SECRET", "s3://b/?/x?.zarr gs://b/y"),
    ],
)
def test_addresses_show_no_secret(text: str, shown: str) -> None:
    """Signatures, tokens and passwords, also inside a sentence; its punctuation stays."""
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("s3://b/shard-?.zarr", "s3://b/[0-9]?/x?.zarr: no store matches; check the pattern"),
        *("s3://b/shard-?_of_a_name_that_has_many_letters.zarr", "a ? b = c", "a?b=c"),
    ],
)
def test_patterns_stay_as_they_are(text: str) -> None:
    """A ? that stands for a letter begins no query."""
    assert without_secrets(text) == text


def test_text_of_a_stranger_takes_no_time() -> None:
    """However its ?, = and :// repeat."""
    start = time.process_time()
    for text in ("://", "?a", "a=", "?", ";", "@"):
        without_secrets("s3://?a=" + 50_000 * text + "x")
        without_secrets("s3://" + 50_000 * text + " ")
        without_secrets(50_000 * f"://{text}")
    assert time.process_time() - start < 4
