"""Work for worker processes, in a module that they import in no time."""

from __future__ import annotations

import os
import signal


def double_or_die(number: int) -> int:
    """Return twice the number; kill the process at 5."""
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number
