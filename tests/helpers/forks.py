"""Commands in forks of a process that has imported everything, to be killed or short of room."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

_PROGRAM = """
import json, os, resource, sys
import protalign.cli.app
import protalign.estimator.attention_files, protalign.estimator.estimator
import protalign.estimator.export
import numba, pydantic, torch._dynamo, torch.utils._sympy.functions, typer.main  # these come late
import protalign.evaluation.evaluate, protalign.splits, protalign.stores

for line in sys.stdin:
    task = json.loads(line)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        # New ones: the old ones remember whether their files can be searched.
        sys.stdin = open(os.devnull)
        sys.stdout, sys.stderr = (open(handle, "w", closefd=False) for handle in (1, 2))
        if task["room"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (task["room"], task["room"]))
        sys.argv = ["protalign", *task["words"]]
        code = 0
        try:
            protalign.cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 99
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    print(pid, flush=True)
    with open(reading, errors="replace") as pipe:  # not a file: it has a limit too
        words = pipe.read()
    _, status, usage = os.wait4(pid, 0)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([os.waitstatus_to_exitcode(status), words, peak]), flush=True)
"""


@dataclass
class Ended:
    """The end of a command.

    Its exit code, minus the signal if it was killed; its words; and the most bytes that it or one
    of its children held.
    """

    code: int
    stderr: str
    peak: int


class Forks:
    """A process that runs commands one by one, each in a fork of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def begin(self, *words: object, room: int | None = None) -> int:
        """Begin a command that may write ``room`` bytes to each file; return its process's id."""
        assert self._process.stdin is not None
        task = {"words": list(map(str, words)), "room": room}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> Ended:
        """Wait until the command has ended."""
        return Ended(*json.loads(self._line()))

    def run(self, *words: object, room: int | None = None) -> Ended:
        """Run a command to its end."""
        self.begin(*words, room=room)
        return self.end()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def kill(pid: int) -> None:
    """Kill a process as nothing can be caught, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
