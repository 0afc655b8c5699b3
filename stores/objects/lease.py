"""One writing process per store in object storage: an object that says who writes, and until when.

The system releases a file's lock when its process ends; nothing does that for an object. So the
lock is a lease: its holder renews it, and another process takes it over once it has expired. A
holder that was away for so long finds at its next request that others have written: every request
of a writer names the version that it replaces.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from uuid import uuid4

from protalign.core.errors import InputError, StoreError, StoreInUseError
from protalign.core.printing import printable
from protalign.core.untrusted import parse_json
from protalign.stores.objects.client import ConditionError, MissingObjectError, Objects, Version

#: Key of the object.
LOCK_KEY = ".lock"
#: Seconds that a lease lasts, and between two renewals of it.
LEASE_SECONDS, RENEWAL_SECONDS = 60.0, 15.0
_LOCK_BYTES = 1024


class Lease:
    """The right to write to a store, renewed by a thread until it is released.

    Parameters
    ----------
    objects : Objects
        The store's objects.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._owner = uuid4().hex
        self._version: Version | None = None
        self._renewed = 0.0
        self._lost: StoreError | None = None
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def acquire(self) -> None:
        """Take the lease.

        Raises
        ------
        StoreInUseError
            Another process has it.
        StoreError
            The service does not honour conditional requests.
        """
        try:
            self._version = self._objects.put(LOCK_KEY, self._text(), None)
        except ConditionError:
            self._take_over()
        self._renewed = time.monotonic()
        try:
            self._check_service()
        except BaseException:
            with suppress(StoreError):
                self._objects.delete(LOCK_KEY)
            raise
        self._thread.start()

    def _take_over(self) -> None:
        """Take a lease that was released or has expired; raise StoreInUseError otherwise."""
        try:
            text, version = self._objects.get(LOCK_KEY)
        except MissingObjectError:
            text, version = b"", None
        host, until = _holder(text)
        taken = StoreInUseError(
            f"{self._objects.url}: it is being written to by another process ({host}, until "
            f"{_clock(until)} if it does not renew that); wait until that is done"
        )
        if until > time.time():
            raise taken
        try:
            self._version = self._objects.put(LOCK_KEY, self._text(), version)
        except ConditionError:  # another process was faster
            raise taken from None

    def _check_service(self) -> None:
        """Raise StoreError unless the service refuses a request whose condition does not hold."""
        # Each text differs from what is stored: the client takes an equal one for its own request.
        other = Version(e_tag='"00000000000000000000000000000000"', version="1")
        for over in (None, other):
            try:
                self._version = self._objects.put(LOCK_KEY, self._text(), over)
            except ConditionError:
                continue
            raise self._objects.unconditional()

    def _text(self, seconds: float = LEASE_SECONDS) -> bytes:
        value = {
            "owner": self._owner,
            "write": uuid4().hex,
            "host": f"process {os.getpid()} on {os.uname().nodename}",
            "until": time.time() + seconds if seconds else 0,
        }
        return json.dumps(value).encode()

    def _keep(self) -> None:
        while not self._over.wait(RENEWAL_SECONDS):
            with suppress(StoreError):  # a failed request is made again at the next turn
                self._renew()

    def _renew(self, seconds: float = LEASE_SECONDS) -> None:
        with self._turn:
            try:
                self._version = self._objects.put(LOCK_KEY, self._text(seconds), self._version)
                self._renewed = time.monotonic()
            except ConditionError:
                self._lost = self._lost or StoreInUseError(
                    f"{self._objects.url}: this process did not answer for {LEASE_SECONDS:.0f} "
                    "seconds, and another one writes to the store since; what was committed is "
                    "kept: wait until that is done, then run the same command again"
                )
                raise

    def check(self) -> None:
        """Raise StoreError unless the lease holds, and will for a while."""
        if self._lost is None and time.monotonic() - self._renewed > LEASE_SECONDS / 2:
            with suppress(ConditionError):
                self._renew()
        if self._lost is not None:
            raise self._lost

    def release(self, remove: bool = False) -> None:
        """Let another process write; remove the object if there is no store."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._version is not None and self._lost is None:
            with suppress(StoreError):
                self._renew(LEASE_SECONDS if remove else 0)
                if remove:  # only what is still this process's own
                    self._objects.delete(LOCK_KEY)


def _holder(text: bytes) -> tuple[str, float]:
    """Return who holds a lease, and until when (seconds since 1970), by the object's text."""
    try:
        value = parse_json(text, "", "", most=_LOCK_BYTES)
        return printable(str(value["host"]))[:100], float(value["until"])
    except (InputError, KeyError, TypeError, ValueError):
        return "unknown", 0.0


def _clock(until: float) -> str:
    """Return a time of the day in UTC."""
    try:
        return time.strftime("%H:%M:%S UTC", time.gmtime(until))
    except (OverflowError, OSError, ValueError):
        return "an unknown time"
