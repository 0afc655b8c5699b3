"""What the report's tests share: the command, its files, how it is run."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROTALIGN = Path(sysconfig.get_path("scripts")) / "protalign"
#: An id that page and figures must not take for markup.
ODD_ID = "<b>&$_$1vqb"
#: Families that only the test part has: T4 lysozyme and barnase.
TEST = ("107l_A", "108l_A", "109l_A", "110l_A", "1a2p_A", "1ban_A", "1bao_B", "1bns_C", ODD_ID)


@dataclass(frozen=True)
class Interrupted:
    """A report whose command was ended by Ctrl-C, and called again after one run was damaged.

    Attributes
    ----------
    code, error : how the first call ended.
    kept : its runs by file name, as they were then.
    damaged : file name of the one that was cut off.
    times : of the others' files, then.
    summary : what the second call printed.
    """

    code: int
    error: str
    kept: dict[str, str]
    damaged: str
    times: dict[str, int]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Files:
    """What the tests start from."""

    store: Path
    split: Path
    out: Path

    def words(self, out: Path | None = None, jobs: int = 2) -> list[str]:
        """The command that makes the report."""
        words = ["reproduce", self.store, "--split", self.split, "--out", out or self.out]
        return [str(PROTALIGN), *map(str, words), "--quick", "--seeds", "2", "--jobs", str(jobs)]


def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command, with one thread a process; it must end with this exit code."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done
