"""Progress and results on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from protalign.cli.console import ConsoleReporter, human_bytes
from protalign.core.words import counted


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        """Whether it is one: yes."""
        return True


def test_lines_and_bars_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long line breaks between words; a bar with long names stays on one line."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")  # no codes that move the cursor
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    words = "esm2_t33_650M_UR50D on cuda: 12,345,678 items, 1,234,567,890 residues, in 12,345 tasks"
    with ConsoleReporter() as reporter:
        reporter.say(words)
        reporter.trained(3, 48, ["attention, clip, seed 0", "mean-linear, siglip, seed 2"])
    lines = screen.getvalue().splitlines()
    assert " ".join("".join(lines[:2]).split()) == " ".join(words.split())
    assert all(len(line) <= 80 for line in lines)
    (bar,) = [line for line in lines if line.startswith("training")]
    assert "3/48 runs" in bar


def test_counts_and_sizes_are_written_as_people_do() -> None:
    """One thing has no plural; bytes come in powers of 1000."""
    assert [counted(n, "entry", "entries") for n in (1, 1000)] == ["1 entry", "1,000 entries"]
    assert human_bytes(3.2e9) == "3.2 GB"
    assert human_bytes(12) == "12 bytes"
