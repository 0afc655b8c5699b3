"""What happens when processes are killed, disks are full, files are damaged or made to do harm.

The tests are small by default; the environment variable RELIABILITY multiplies their numbers.
"""

import os

#: How many times as many kills, sizes, damaged files, ... as by default.
FACTOR = int(os.environ.get("RELIABILITY", "1"))
