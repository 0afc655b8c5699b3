"""The files of the report's tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: An id that page and figures must not take for markup.
ODD_ID = "<b>&$_$1vqb"
#: The test part: two families that only it has (T4 lysozyme and barnase), a chain with a relative
#: in training, and the sequence of 108l_A in another structure.
TEST = (
    *("107l_A", "108l_A", "109l_A", "110l_A", "1a2p_A", "1ban_A", "1bao_B", "1bns_C"),
    *(ODD_ID, "shaken"),
)
#: Codes for some of them: two families of lysozymes and two of barnases.
CODES = {
    entry_id: f"d.{superfamily}.1.{family}"
    for entry_id, superfamily, family in zip(TEST[:8], "22221111", "11221122", strict=True)
}


@dataclass(frozen=True)
class Interrupted:
    """A report that took two calls: the first ended by Ctrl-C, then one run's file was damaged.

    Attributes
    ----------
    code, error
        Exit code and standard error of the first call.
    kept
        The first call's runs by file name, as they were then.
    damaged
        The file name of the run that was cut off.
    times
        Times of change of the others' files, then.
    summary
        The JSON that the second call printed.
    """

    code: int
    error: str
    kept: dict[str, str]
    damaged: str
    times: dict[str, int]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Files:
    """A store, a split of it and the folder of the report."""

    store: Path
    split: Path
    out: Path

    def words(self, out: Path | None = None, jobs: int = 2) -> list[str]:
        """Return the words of the command that makes the report, without the program's name."""
        words = ["reproduce", self.store, "--split", self.split, "--out", out or self.out]
        return [*map(str, words), "--quick", "--seeds", "2", "--jobs", str(jobs)]
