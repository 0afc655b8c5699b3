"""Run protalign's commands as a user does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from protalign.cli import main

PROTALIGN = Path(sysconfig.get_path("scripts")) / "protalign"


@dataclass(frozen=True)
class Done:
    """The output of a command."""

    stdout: str
    stderr: str


def run(
    *words: object, code: int = 0, env: dict[str, str] | None = None, cwd: Path | None = None
) -> Done:
    """Run a command in this process, without the seconds that its imports take in a new one.

    It must end with this exit code. An error that the command line does not handle is raised.
    """
    out, err = StringIO(), StringIO()
    ended: object = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["protalign", *map(str, words)])
        patch.setattr(
            warnings, "showwarning", warnings.showwarning
        )  # the command line sets its own
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            main()
        except SystemExit as end:
            ended = end.code or 0
    assert ended == code, (ended, out.getvalue(), err.getvalue())
    return Done(out.getvalue(), err.getvalue())


def run_process(*words: object, code: int = 0, env: dict[str, str] | None = None) -> Done:
    """Run the installed program; it must end with this exit code and without a traceback."""
    done = subprocess.run(
        [PROTALIGN, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return Done(done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a store but its lock, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
