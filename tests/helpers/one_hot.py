"""Tiny, deterministic encoders for tests; worker processes import them by name."""

from __future__ import annotations

import builtins
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import InputError
from protalign.core.protein import AMINO_ACIDS, Structure

Arrays = list[npt.NDArray[np.float32]]
Encode = Callable[[list[Any]], Arrays]
_TABLE = np.zeros((128, 20), dtype=np.float32)
_TABLE[[ord(letter) for letter in AMINO_ACIDS], range(20)] = 1


def one_hot(batch: list[tuple[str, ...]]) -> Arrays:
    """(L, 20): which amino acid a residue is."""
    return [_TABLE[np.frombuffer("".join(item).encode(), np.uint8)] for item in batch]


def from_centre(batch: list[Structure]) -> Arrays:
    """(rows, 12): a residue's backbone atoms relative to the complex's centre, in 10 Å."""
    embeddings = []
    for item in batch:
        rows = [chain.backbone.coordinates[chain.structure_rows] for chain in item.kept_chains]
        everything = [chain.backbone.coordinates[chain.structure_rows] for chain in item.chains]
        centre = np.concatenate(everything).mean(axis=(0, 1))
        embeddings.append((np.concatenate(rows) - centre).reshape(-1, 12) / np.float32(10))
    return embeddings


def load_one_hot(device: str) -> Callable[[list[Any]], Arrays]:
    """Load for ``encode_pending``."""
    return one_hot


def load_from_centre(device: str) -> Callable[[list[Any]], Arrays]:
    """Load for ``encode_pending``."""
    return from_centre


def load_core_number(device: str) -> Callable[[list[Any]], Arrays]:
    """(L, 20) filled with how many cores torch takes in the thread that encodes."""
    import torch  # slow to import: worker processes of other tests do without

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        number = np.float32(torch.get_num_threads())
        return [np.full((len("".join(item)), 20), number, np.float32) for item in batch]

    return encode


def load_in_pairs(device: str) -> Callable[[list[Any]], Arrays]:
    """One-hot, each batch together with another; fails where one stays alone."""
    two = threading.Barrier(2, timeout=20)

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        two.wait()
        return one_hot(batch)

    return encode


@dataclass
class AtOnce:
    """How many batches ``load_counted`` encodes at once in this process, and the most so far."""

    now: int = 0
    most: int = 0


AT_ONCE = AtOnce()
_counting = threading.Lock()


def load_counted(device: str) -> Callable[[list[Any]], Arrays]:
    """One-hot, taking its time; counted in ``AT_ONCE``."""

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        with _counting:
            AT_ONCE.now += 1
            AT_ONCE.most = max(AT_ONCE.most, AT_ONCE.now)
        time.sleep(0.03)
        with _counting:
            AT_ONCE.now -= 1
        return one_hot(batch)

    return encode


def load_killed_once(device: str, *, folder: str) -> Callable[[list[Any]], Arrays]:
    """One-hot, in a process that is killed (SIGKILL) in its second batch, but only once.

    Leaves files in the folder: one called like each device, and "killed".
    """
    (Path(folder) / device).touch()
    calls = 0

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        nonlocal calls
        calls += 1
        if calls == 2 and not (Path(folder) / "killed").exists():
            (Path(folder) / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return one_hot(batch)

    return encode


def load_always_killed(device: str) -> Callable[[list[Any]], Arrays]:
    """A process that never survives a batch."""

    def encode(batch: list[Any]) -> Arrays:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    return encode


def load_refusing(device: str, *, unwanted: str) -> Callable[[list[Any]], Arrays]:
    """One-hot, but refuses batches with a sequence that contains ``unwanted``."""

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        if any(unwanted in "".join(item) for item in batch):
            raise InputError("the sequence is unwanted", "want it")
        return one_hot(batch)

    return encode


class PanicError(BaseException):
    """As libraries in Rust raise them: no Exception."""


class SpeechlessError(Exception):
    """Its text cannot be had, nor can it be pickled."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __str__(self) -> str:
        raise RuntimeError("no words")


#: Exceptions that are odder than Python's own.
ERRORS = {
    "PanicError": PanicError("a bug in\ntwo lines"),
    "SpeechlessError": SpeechlessError(),
    "half a character": ValueError("a bug\nin two lines \udcff\x1b[2J"),
    "in two lines": InputError("a bug\nin two lines \udcff", "mend\nit"),
}


def load_raising(device: str, *, unwanted: str, error: str = "ValueError") -> Encode:
    """One-hot, but a batch with a sequence that contains ``unwanted`` raises."""

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        if any(unwanted in "".join(item) for item in batch):
            raise ERRORS.get(error) or getattr(builtins, error)("a bug\nin two lines")
        return one_hot(batch)

    return encode


def load_panicking(device: str) -> Encode:
    """An encoder that cannot even be loaded."""
    raise PanicError("a bug in\ntwo lines")


def load_ending(device: str, *, unwanted: str, code: int = -signal.SIGKILL) -> Encode:
    """One-hot, but a batch with a sequence that contains ``unwanted`` ends the process."""

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        if any(unwanted in "".join(item) for item in batch):
            if code < 0:
                os.kill(os.getpid(), -code)
            os._exit(code)
        return one_hot(batch)

    return encode


def load_spoiled(device: str, *, unwanted: str) -> Encode:
    """One-hot, until a batch with ``unwanted``: nothing is embedded after it in this process."""
    spoiled = False

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        nonlocal spoiled
        spoiled = spoiled or any(unwanted in "".join(item) for item in batch)
        if spoiled:
            raise RuntimeError("device-side assert triggered")
        return one_hot(batch)

    return encode


def load_slowly(device: str, *, seconds: float) -> Encode:
    """One-hot, and a pause for each batch."""

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        time.sleep(seconds)
        return one_hot(batch)

    return encode


def load_ordered_to_die(device: str, *, orders: str, latest: float, seed: int) -> Encode:
    """One-hot; for each file in a folder, which is taken away, a process kills itself.

    In a batch, or at a moment of the next ``latest`` seconds, in which the chunks are written.
    """
    chance = random.Random(f"{seed} {os.getpid()}")

    def encode(batch: list[tuple[str, ...]]) -> Arrays:
        time.sleep(0.02)
        if chance.random() < 0.3:
            for order in Path(orders).iterdir():
                with contextlib.suppress(FileNotFoundError):  # the other worker took it
                    order.unlink()
                    if not latest:
                        os.kill(os.getpid(), signal.SIGKILL)
                    threading.Thread(target=_die, args=(chance.uniform(0, latest),)).start()
                    break
        return one_hot(batch)

    return encode


def _die(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
