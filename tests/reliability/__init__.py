"""What happens when processes are killed, disks are full, files are damaged or made to do harm.

The tests are small by default; the environment variable RELIABILITY (SIZE in the Makefile) makes
them larger, up to 10. What they counted is a property of each test (``record_property``), which
``tests.reliability.recording`` writes to a folder.
"""

import os

#: From 1, the size of continuous integration, to 10, the full size.
FACTOR = int(os.environ.get("RELIABILITY", "1"))


def times(small: int, full: int) -> int:
    """How often to try something: ``small`` by default, ``full`` at full size."""
    return small if FACTOR == 1 else max(small, full * FACTOR // 10)
