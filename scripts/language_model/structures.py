"""Per-residue states of the structure encoder, as targets for the second head."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from language_model.batches import Windows


class StructureStates(NamedTuple):
    """Chains with a structure: sequences, and a row of states for each residue."""

    ids: Sequence[str]
    sequences: Sequence[str]
    groups: NDArray[np.int64]  # (chains,): families, held out as a whole
    states: Sequence[NDArray[np.float16]]  # each (L, 128), NaN where the backbone is incomplete


def write_states(
    path: Path,
    sequences: Mapping[str, str],
    groups: Mapping[str, int],
    states: Mapping[str, NDArray[np.float16]],
) -> None:
    """Write chains' states into a safetensors file: (rows, 128) float16, ids in its header."""
    ids = sorted(states)
    for identifier in ids:
        if len(states[identifier]) != len(sequences[identifier]):
            raise ValueError(f"{identifier}: as many rows of states as residues are needed")
    save_file(
        {
            "states": np.concatenate([states[identifier] for identifier in ids]),
            "groups": np.array([groups[identifier] for identifier in ids], dtype=np.int64),
        },
        path,
        metadata={
            "ids": json.dumps(ids),
            "sequences": json.dumps([sequences[identifier] for identifier in ids]),
        },
    )


def read_states(path: Path) -> StructureStates:
    """Read the file of `write_states`."""
    with safe_open(path, framework="np") as file:
        header = file.metadata()
        rows, groups = file.get_tensor("states"), file.get_tensor("groups")
    sequences: list[str] = json.loads(header["sequences"])
    ends = np.cumsum([len(sequence) for sequence in sequences])
    return StructureStates(json.loads(header["ids"]), sequences, groups, np.split(rows, ends[:-1]))


def select(chains: StructureStates, kept: NDArray[np.bool_]) -> StructureStates:
    """Select chains by a mask."""
    numbers = [int(number) for number in np.flatnonzero(kept)]
    return StructureStates(
        [chains.ids[i] for i in numbers],
        [chains.sequences[i] for i in numbers],
        chains.groups[kept],
        [chains.states[i] for i in numbers],
    )


class Scale(NamedTuple):
    """Mean and spread of every dimension, (128,) float32 each."""

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]


def scale_of(chains: StructureStates) -> Scale:
    """Return the scale that gives the states mean 0 and variance 1 in every dimension."""
    rows = np.concatenate(list(chains.states)).astype(np.float32)
    return Scale(np.nanmean(rows, axis=0), np.nanstd(rows, axis=0) + 1e-6)


def window_targets(
    chains: StructureStates, windows: Windows, scale: Scale
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Scaled states of the residues in a batch's windows.

    Returns the positions, into the flattened tokens, of the residues that have states, and these,
    (positions, 128). Token t of a protein is its residue t - 1: the beginning mark comes first.
    """
    length = windows.tokens.shape[1]
    rows = np.full((*windows.tokens.shape, scale.mean.size), np.nan, dtype=np.float32)
    for row, (protein, start) in enumerate(zip(windows.proteins, windows.starts, strict=True)):
        states = chains.states[protein]
        first, last = max(start, 1), min(start + length, len(states) + 1)
        rows[row, first - start : last - start] = states[first - 1 : last - 1]
    flat = rows.reshape(-1, scale.mean.size)
    positions = np.flatnonzero(np.isfinite(flat).all(axis=1))
    return positions, (flat[positions] - scale.mean) / scale.spread
