"""Two real, tiny, deterministic encoders for tests; a worker process imports them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.protein import AMINO_ACIDS, Structure

Arrays = list[npt.NDArray[np.float32]]
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
    """What ``fill`` takes."""
    return one_hot


def load_from_centre(device: str) -> Callable[[list[Any]], Arrays]:
    """What ``fill`` takes."""
    return from_centre
