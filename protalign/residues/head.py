"""The residue head: rows for the global score, trained to tell near-identical proteins apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from protalign.core.arrays import Float32
from protalign.core.machine import threads_here
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged, blocks
from protalign.residues.kernels.packed import share

#: Residues on each side that a residue's row depends on.
REACH = 2
#: Residues whose rows are made at once, if no chain is longer: their numbers stay in the cache.
ROWS_AT_ONCE = 1 << 11
#: Parameters of one modality, by name.
_NAMES = ("mean", "projection", "inner", "bias", "outer", "weight")


@dataclass(frozen=True, eq=False)
class ResidueHead:
    """A network that makes the rows of residues from their embeddings and their neighbours'.

    A row has the form of ``ResidueStage.rows``, k + 2 numbers: k coordinates u, what the residue
    counts by itself, and 1. With z a residue's embedding and h its hidden numbers,

        h = GELU((z - mean) inner + bias)
        e = [h(i - 2) … h(i + 2)] outer                   k + 1 numbers
        u = (z - mean) projection + e_1 … e_k
        row = [u, e_(k + 1) - sum_k weight u^2, 1]

    With ``outer`` = 0 these are the rows of the stage that it was trained from, without a limit of
    coordinates: the ends of chains help to tell siblings apart. Beyond a chain's ends h is 0.

    Attributes
    ----------
    parameters : dict
        Modality -> name -> float32 array (float16 after ``half``): mean (D,), projection (D, k),
        inner (D, H), bias (H,), outer (5 H, k + 1), weight (k,).
    constant : float
        Added to each product of rows.
    facts : dict
        How it was trained, as JSON values.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"mean": 6, "projection": (6, 3), "inner": (6, 4), "bias": 4}
    >>> arrays = {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    >>> arrays |= {"outer": np.zeros((20, 4), np.float32), "weight": np.ones(3, np.float32)}
    >>> head = ResidueHead({"sequence": arrays, "structure": arrays}, 0.0, {})
    >>> head.rows("sequence", np.zeros((7, 6))).shape
    (7, 5)
    """

    parameters: Mapping[Modality, Mapping[str, npt.NDArray[np.floating]]]
    constant: float
    facts: Mapping[str, Any]

    def rows(self, modality: Modality, embeddings: npt.ArrayLike) -> Float32:
        """Return the (L, k + 2) float32 rows of one chain's (L, D) residue embeddings."""
        values = np.asarray(embeddings)
        return self.packed_rows(modality, Ragged(values, np.array([0, len(values)])))

    def packed_rows(self, modality: Modality, chains: Ragged) -> Float32:
        """Return the rows of several chains' residue embeddings.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embeddings.
        chains : Ragged
            (R, D) residue embeddings of some chains.

        Returns
        -------
        (R, k + 2) float32
            Those that each chain alone has, but for the last bits: the matrix library rounds
            products of other sizes differently (by 1e-6 of the largest).
        """
        arrays = self.parameters[modality]
        named = {n: torch.from_numpy(arrays[n].astype(np.float32, copy=False)) for n in _NAMES}
        rows = np.empty((len(chains.values), len(arrays["weight"]) + 2), dtype=np.float32)
        own, one = (-2, -1) if modality == "sequence" else (-1, -2)
        rows[:, one] = 1

        def make(here: slice, lengths: list[int]) -> None:
            values = torch.from_numpy(np.array(chains.values[here], dtype=np.float32))
            with torch.inference_mode():
                coordinates, alone = head_rows(values, named, neighbours_of(lengths))
            rows[here, :-2] = coordinates.numpy()
            rows[here, own] = alone.numpy() + self.constant / 2

        by_parts(chains, make)
        return rows

    def half(self) -> Self:
        """Return it with float16 arrays, which take half the room in a saved model.

        It computes in float32 as before. A saved model's arrays are read as float32.
        """
        return replace(self, parameters=in_half(self.parameters))

    def tensors(self) -> dict[str, npt.NDArray[np.floating]]:
        """Return its arrays by name, as a saved model holds them."""
        named = {f"{name}.{m}": self.parameters[m][name] for m in MODALITIES for name in _NAMES}
        return {**named, "constant": np.array([self.constant], dtype=np.float32)}

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, Float32], facts: Mapping[str, Any], components: int
    ) -> Self:
        """Build it of ``tensors`` and ``facts``; raise KeyError or ValueError if damaged."""
        parameters: dict[Modality, Mapping[str, npt.NDArray[np.floating]]] = {
            m: {name: tensors[f"{name}.{m}"] for name in _NAMES} for m in MODALITIES
        }
        hidden = facts["hidden"]
        for modality, arrays in parameters.items():
            (width,) = arrays["mean"].shape
            shapes = {
                "projection": (width, components),
                "inner": (width, hidden),
                "bias": (hidden,),
                "outer": ((2 * REACH + 1) * hidden, components + 1),
                "weight": (components,),
            }
            for name, shape in shapes.items():
                if arrays[name].shape != shape:
                    raise ValueError(f"the residue head's {modality} {name} is not {shape}")
        (constant,) = tensors["constant"].tolist()
        return cls(parameters, constant, dict(facts))

    @staticmethod
    def n_numbers(dims: Mapping[Modality, int], components: int, hidden: int) -> int:
        """Return how many numbers a head for embeddings of these widths has."""
        each = hidden + (2 * REACH + 1) * hidden * (components + 1) + components
        return sum(each + width * (1 + components + hidden) for width in dims.values()) + 1


def by_parts(chains: Ragged, work: Callable[[slice, list[int]], None]) -> None:
    """Call ``work`` for some chains at a time, each by one of the threads.

    It is given the place of their residues among all, and their lengths. Torch's own threads would
    wait for each other in every small operation.
    """
    parts = list(blocks(chains.lengths, ROWS_AT_ONCE))
    waiting = iter(parts)  # threads may share an iterator written in C

    def take(_: int) -> None:
        for part in waiting:
            here = slice(chains.offsets[part.start], chains.offsets[part.stop])
            work(here, chains.lengths[part].tolist())

    share(max(1, min(threads_here(), len(parts))), take)


def in_half(
    parameters: Mapping[Modality, Mapping[str, npt.NDArray[np.floating]]],
) -> dict[Modality, dict[str, npt.NDArray[np.floating]]]:
    """Return the parameters of both modalities in float16."""
    return {
        m: {n: a.astype(np.float16) for n, a in named.items()} for m, named in parameters.items()
    }


def neighbours_of(lengths: list[int], reach: int = REACH) -> Tensor:
    """Return the rows of each residue's neighbours in packed proteins of some lengths.

    Returns
    -------
    (R, 2 * reach + 1) int64
        From the residue ``reach`` before to the one ``reach`` after; R in place of one beyond the
        protein.
    """
    counts = torch.tensor(lengths, dtype=torch.int64)
    ends = torch.repeat_interleave(counts.cumsum(0), counts)[:, None]
    starts = ends - torch.repeat_interleave(counts, counts)[:, None]
    rows = torch.arange(int(counts.sum()))[:, None] + torch.arange(-reach, reach + 1)
    return rows.where((rows >= starts) & (rows < ends), len(rows))


def head_rows(
    embeddings: Tensor, parameters: Mapping[str, Tensor], neighbours: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coordinates and what each residue counts by itself, (R, k) and (R,).

    Parameters
    ----------
    embeddings : (R, D) float32
        Residues of some proteins, packed.
    parameters : mapping
        Those of one modality; see ``ResidueHead``.
    neighbours : (R, 2 * REACH + 1) int64
        ``neighbours_of`` the proteins' lengths.
    """
    centred = embeddings - parameters["mean"]
    hidden = functional.gelu(
        torch.addmm(parameters["bias"], centred, parameters["inner"]), approximate="tanh"
    )
    n_around, width = neighbours.shape[1], parameters["outer"].shape[1]
    outer = (
        parameters["outer"].view(n_around, -1, width).transpose(0, 1).reshape(-1, n_around * width)
    )
    # One product for all neighbours, and then sums of rows: nothing of 5 H numbers is gathered.
    parts = (hidden @ outer).view(-1, n_around, width)
    extra = torch.zeros(len(embeddings), width)
    for place, rows in enumerate(neighbours.T):
        part = functional.pad(parts[:, place], (0, 0, 0, 1))  # nothing comes from beyond the ends
        extra = extra + part.index_select(0, rows)
    coordinates = centred @ parameters["projection"] + extra[:, :-1]
    alone = extra[:, -1] - coordinates.square() @ parameters["weight"]
    return coordinates, alone
