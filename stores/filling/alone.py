"""Run tasks of a plan in a child process, which an item may end without harm to the run.

A crash of the encoder (a segmentation fault, the system's out-of-memory killer) cannot be caught in
the process that it ends. So batches that are suspected are encoded in a child. If the child ends,
each of the batch's items is tried by itself: the one that ends the child again is refused, and the
others are embedded.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import cloudpickle

from protalign.core.errors import DEBUG_VARIABLE, InputError, ProtAlignError
from protalign.stores.filling.plan import Task
from protalign.stores.filling.task import (
    ENDED,
    DamagedError,
    Encode,
    Encoded,
    Inputs,
    TaskRunner,
    stopped,
)

#: Times that a child is started, if it ends while it starts.
STARTS = 3
#: Seconds for a child to end once its pipe is closed.
_SECONDS_TO_END = 5.0
_ADVICE = "leave it out, or embed it on a machine with more memory"
_CHILD = "import sys; from protalign.stores.filling.alone import serve; serve(int(sys.argv[1]))"


class ChildEndedError(ProtAlignError):
    """The child process ended, or closed its pipe, before it answered.

    Parameters
    ----------
    end : str
        The way in which it ended: "SIGSEGV", "exit code 1".
    killed : bool
        Whether it was killed, which only others can do.
    """

    def __init__(self, end: str, killed: bool = False) -> None:
        super().__init__(end)
        self.killed = killed


class IsolatedRunner(TaskRunner):
    """Runs tasks of one encoder's plan, and encodes in a child process; leave it with ``with``.

    Parameters
    ----------
    path : Path
        The store's folder.
    encoder : str
        The encoder's name in the store.
    load : callable
        Returns the encode function for a device.
    device : str
        The device.
    cores : int, optional
        Cores for each batch of a task of several batches; default: all.
    """

    def __init__(
        self,
        path: Path,
        encoder: str,
        load: Callable[[str], Encode],
        device: str,
        cores: int = 0,
    ) -> None:
        super().__init__(path, encoder, _in_a_child)
        self._setup = cloudpickle.dumps((path, encoder, load, device))
        self._cores_of_several = cores
        self._cores = 0
        self._known: int | None = None
        self._child: _Child | None = None

    def __enter__(self) -> IsolatedRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_child()

    def inputs(self, task: Task) -> Inputs:
        """Read nothing: the child reads the items."""
        self._cores = self._cores_of_several if len(task.batches) > 1 else 0
        return {}

    def encode_batch(self, batch: list[int], inputs: Inputs) -> list[Encoded]:
        """Encode a batch in the child; see ``TaskRunner.encode_batch``."""
        try:
            results = self._answer(batch)
        except (ChildEndedError, DamagedError) as error:
            if len(batch) > 1:
                return [result for item in batch for result in self.encode_batch([item], inputs)]
            if isinstance(error, DamagedError):
                return [error.refusal]
            return [InputError(f"{ENDED} ({error})", _ADVICE)]
        embedded = (item for item, result in zip(batch, results, strict=True) if _is_rows(result))
        self._known = next(embedded, self._known)
        return results

    def _answer(self, batch: list[int], again: bool = True) -> list[Encoded]:
        """Return the child's results; raise an error of this module's if it has none.

        A child that is killed is asked once more: something else may have taken the memory.
        """
        if self._child is None:
            self._child = self._started()
        try:
            answer = self._child.ask((batch, self._cores))
        except ChildEndedError as error:
            self._stop_child()
            if error.killed and again:
                return self._answer(batch, again=False)
            raise
        if isinstance(answer, ProtAlignError):
            self._stop_child()
            raise answer
        results: list[Encoded] = answer
        return results

    def _started(self) -> _Child:
        """Start a child that has loaded the encoder, and that embeds an item known to be good."""
        ended = None
        for _ in range(STARTS):
            child = _Child()
            try:
                answer = child.ask((self._setup, self._known))
            except ChildEndedError as error:
                ended = error
                continue
            except BaseException:
                child.stop()
                raise
            if answer is None:
                return child
            child.stop()
            raise answer
        raise stopped(
            self._encoder,
            ProtAlignError(f"its process ended while it started, {STARTS} times ({ended})"),
        )

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None


def _in_a_child(batch: list[Any]) -> NoReturn:
    raise AssertionError("an isolated runner encodes in its child")


def _is_rows(result: Encoded) -> bool:
    return not isinstance(result, InputError)


class _Child:
    """A Python process that encodes, and the pipe to it."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get(DEBUG_VARIABLE) else subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def ask(self, question: object) -> Any:
        """Send a question and return the answer; raise ChildEndedError if the process ends."""
        try:
            self._pipe.send(question)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None

    def _ended(self) -> ChildEndedError:
        """Return the error that tells how the process ended."""
        self._pipe.close()
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return ChildEndedError("it closed its pipe")
        if code == -signal.SIGKILL:
            return ChildEndedError("SIGKILL, as the system does if memory runs out", killed=True)
        if code < 0:
            return ChildEndedError(signal.Signals(-code).name)
        return ChildEndedError(f"exit code {code}")

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()


# -- in the child ----------------------------------------------------------------------------------


def serve(pipe: int) -> None:
    """Answer the parent's questions until it closes the pipe, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    logging.getLogger("protalign").addHandler(logging.NullHandler())
    with Connection(pipe) as connection, suppress(EOFError, OSError):
        setup, known = connection.recv()
        try:
            runner = _ready(setup, known)
        except ProtAlignError as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            batch, cores = connection.recv()
            try:
                connection.send(_encoded(runner, batch, cores))
            except ProtAlignError as error:
                connection.send(error)


def _ready(setup: bytes, known: int | None) -> TaskRunner:
    path, encoder, load, device = cloudpickle.loads(setup)
    try:
        runner = TaskRunner(path, encoder, load(device))
    except (ProtAlignError, KeyboardInterrupt):
        raise
    except BaseException as error:  # libraries in Rust panic with one
        raise stopped(encoder, error) from error
    if known is None:
        runner.check()
    else:
        runner.encode_batch([known], runner.items([known]))
    return runner


def _encoded(runner: TaskRunner, batch: list[int], cores: int) -> list[Encoded]:
    inputs = runner.items(batch)
    if not cores:
        return runner.encode_batch(batch, inputs)
    from protalign.core.threads import torch_pool

    with torch_pool(1, cores) as pool:
        return pool.submit(runner.encode_batch, batch, inputs).result()
