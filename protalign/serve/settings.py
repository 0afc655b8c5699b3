"""The limits of the server, and how it is reached."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass, field
from typing import Any

from protalign.core.checks import check_between, check_whole
from protalign.core.machine import free_memory
from protalign.encoders.base import Encoder


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask, and what the server takes on at once.

    Attributes
    ----------
    queries : int
        Queries of a request.
    sequence_bytes, structure_bytes : int
        Bytes of the sequences, and of the structure files, of a request.
    unpacked_bytes : int
        Bytes of a request's structure files once they are decompressed.
    residues : int or None
        Residues of a query; None: as many as the memory allows (``residues_that_fit``).
    hits, rerank : int
        Hits of a query, and candidates that are compared with it by residues.
    inputs : int
        Sequences of a request for embeddings.
    seconds : float
        Time of a request.
    waiting : int
        Queries that wait to be encoded; more are refused.
    requests : int
        Requests under way; more are refused.
    connections : int
        Open connections; more are refused.
    cache_bytes : int
        Memory for queries that were pooled.

    Examples
    --------
    >>> Limits(queries=8).as_dict()["queries"]
    8
    """

    queries: int = 64
    sequence_bytes: int = 2_000_000
    structure_bytes: int = 20_000_000
    unpacked_bytes: int = 64_000_000
    residues: int | None = None
    hits: int = 1000
    rerank: int = 2000
    inputs: int = 64
    seconds: float = 60.0
    waiting: int = 1024
    requests: int = 256
    connections: int = 1024
    cache_bytes: int = 64_000_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "seconds":
                check_between(name, value, 0, 86_400)
            elif not (name == "residues" and value is None):
                check_whole(name, value, 0 if name == "cache_bytes" else 1)

    @property
    def body_bytes(self) -> int:
        """Bytes of a request's body: all that may be in it, and its form."""
        return self.sequence_bytes + self.structure_bytes + 1_000_000

    def as_dict(self) -> dict[str, Any]:
        """Return the limits as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's settings.

    Attributes
    ----------
    limits : Limits
        What a request may ask.
    key : str
        The key that requests must have; empty: none.
    origins : tuple of str
        Origins whose pages may ask this server (CORS).
    hosts : frozenset of str
        Names by which requests may call the server; empty: any. A page of another site could
        otherwise reach a server of this machine under a name of its own.
    reloads : bool
        Whether POST /v1/reload may be asked.
    window : float
        Seconds that a query waits for others to be encoded with.
    drain : float
        Seconds that requests under way have once the server is told to end.
    """

    limits: Limits = field(default_factory=Limits)
    key: str = field(default="", repr=False)
    origins: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    reloads: bool = True
    window: float = 0.003
    drain: float = 30.0


#: Names of this machine on itself.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a host's name or address.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def residues_that_fit(encoder: Encoder, at_once: int, most: int = 16_384) -> int:
    """Return the longest protein that an encoder has the memory for, with others at once.

    Half of the memory that is free now is for encoding.

    Parameters
    ----------
    encoder : Encoder
        The encoder.
    at_once : int
        Proteins that are encoded at once.
    most : int
        The answer, at most.
    """
    room = free_memory() / 2 / at_once
    low, high = 256, most
    while low < high:
        middle = (low + high + 1) // 2
        if encoder.memory_bytes(middle, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low
