"""Worker processes that end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time

#: Seconds between two looks for the parent.
_HEARTBEAT = 1.0


def start_worker(parent: int) -> None:
    """Set up a worker process: it ignores Ctrl-C, and ends when its parent has ended.

    A parent that is killed (``kill -9``, out of memory) cannot end its workers.

    Parameters
    ----------
    parent : int
        The parent's process id. The worker cannot ask for it: the parent may have ended already.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_HEARTBEAT)
    os._exit(1)
