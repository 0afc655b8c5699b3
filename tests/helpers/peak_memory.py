"""The most memory that this process ever held."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path


def peak_memory() -> int:
    """Bytes resident at the peak.

    Linux's ru_maxrss begins with what the process that started this one held, so the kernel's own
    count of this program (VmHWM) is taken there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def numbers_of(program: str, *arguments: str | Path) -> list[int]:
    """What a Python program of its own prints, run in the repository's folder."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return [int(word) for word in done.stdout.split()]
