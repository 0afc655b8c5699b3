"""The processes that torchrun started together, as it tells each of them in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from protalign.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of this process among those that were started together.

    Attributes
    ----------
    rank, size : int
        Its number, from 0, and how many there are, on all machines.
    local_rank, local_size : int
        The same on its own machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Read the place of this process from the variables that torchrun sets; alone without them.

    Other launchers set RANK and WORLD_SIZE too. Without LOCAL_RANK and LOCAL_WORLD_SIZE a process
    is the only one on its machine.

    Raises
    ------
    InputError
        A variable holds no number, or the numbers do not go together.

    Examples
    --------
    >>> at = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    >>> launch({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **at})
    Launch(rank=3, size=4, local_rank=1, local_size=2)
    >>> launch({})
    Launch(rank=0, size=1, local_rank=0, local_size=1)
    """
    if not (environment.get("RANK") and environment.get("WORLD_SIZE")):
        return Launch()
    size = _number(environment, "WORLD_SIZE", 1, 1)
    rank = _number(environment, "RANK", 0, 0)
    local_size = _number(environment, "LOCAL_WORLD_SIZE", 1, 1)
    local_rank = _number(environment, "LOCAL_RANK", 0, 0)
    for name, value, count in (("RANK", rank, size), ("LOCAL_RANK", local_rank, local_size)):
        if value >= count:
            raise _wrong(name, environment[name], f"there are {count} processes")
    if size > 1:
        if not environment.get("MASTER_ADDR"):
            raise _wrong("MASTER_ADDR", "", "nobody says where process 0 is")
        port = _number(environment, "MASTER_PORT", 0, 1)
        if port >= 2**16:
            raise _wrong("MASTER_PORT", environment["MASTER_PORT"], "more than 65535")
    return Launch(rank, size, local_rank, local_size)


def _number(environment: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = environment.get(name) or str(default)
    # Python reads other digits too, and refuses numbers of thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _wrong(name, text, "not a number")
    if int(text) < least:
        raise _wrong(name, text, f"less than {least}")
    return int(text)


def _wrong(name: str, text: str, reason: str) -> InputError:
    return InputError(
        f"{name}={text[:60]!r}: {reason}",
        "start the processes with torchrun, or unset RANK and WORLD_SIZE to train in this one",
    )
