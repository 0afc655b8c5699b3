"""Runs the commands as a user does, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

PROTALIGN = Path(sysconfig.get_path("scripts")) / "protalign"


def run(
    *words: str | Path, code: int = 0, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a protalign command; it must end with this exit code and never with a traceback."""
    done = subprocess.run(
        [PROTALIGN, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its lock, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
