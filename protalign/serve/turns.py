"""Jobs of the pool's threads, and the turns that they take.

A long job lets others go first between its steps (``core.steps``), and ends there if nobody waits
for it any more. So one request cannot hold up the others, even on one thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from protalign.core.machine import computing_with, take_threads
from protalign.core.protein import Modality
from protalign.core.steps import DroppedError, in_steps

#: Seconds that a job computes before it lets others go first.
STRETCH = 0.1
#: Seconds after which a job that stands aside looks whether it is still wanted.
_LOOK = 0.5


@dataclass(eq=False)
class Job:
    """Work for one thread of the pool.

    Attributes
    ----------
    work : callable
        Does it, and returns what is to be called in the event loop afterwards.
    asked : sequence of Future
        Who waits for it; all cancelled: nobody does.
    shared : bool
        Whether it can use the cores of idle threads.
    kind : "sequence", "structure" or None
        What it encodes.
    pauses : bool
        Whether it lets others go first; not if it holds what they would need.
    cores : int
        Its cores; 0 while it stands aside.
    aside : float or None
        When it stood aside, by ``time.monotonic``; None while it computes.
    stretch : float
        Seconds that it computed before that.
    """

    work: Callable[[], Callable[[], None]]
    asked: Sequence[asyncio.Future[Any]]
    shared: bool = False
    kind: Modality | None = None
    pauses: bool = True
    cores: int = 1
    aside: float | None = None
    stretch: float = 0.0
    _turn: Event = field(default_factory=Event, repr=False)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return not all(each.cancelled() for each in self.asked)

    @property
    def is_due(self) -> bool:
        """Whether it has stood aside as long as it had computed before: half of the time is its."""
        return self.aside is not None and time.monotonic() - self.aside >= self.stretch

    def run(self, stand_aside: Callable[[Job], bool]) -> Callable[[], None]:
        """Do the work, in a thread of the pool.

        Parameters
        ----------
        stand_aside : callable
            Asks for others to go first, in this thread; returns whether the job must then wait for
            its turn.
        """
        began = time.monotonic()

        def between() -> None:
            nonlocal began
            if not self.wanted:
                raise DroppedError
            now = time.monotonic()
            if not self.pauses or now - began < STRETCH:
                return
            self.stretch = now - began
            if stand_aside(self):
                while not self._turn.wait(_LOOK):
                    if not self.wanted:
                        raise DroppedError
                self._turn.clear()
                take_threads(self.cores)
            began = time.monotonic()

        with computing_with(self.cores), in_steps(between):
            return self.work()

    def go_on(self, cores: int) -> None:
        """Give the job its turn."""
        self.cores, self.aside = cores, None
        self._turn.set()
