"""The residue context: a network that reads a residue's neighbours in its sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from protalign.core.arrays import Float32
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.residues.head import by_parts, in_half, neighbours_of

#: Residues on each side that a residue's coordinates depend on.
REACH = 4
#: The largest root mean square of the numbers that the network reads of a residue: the ends of
#: chains lie far from the mean. Saved models were trained with these two.
LIMIT = 1.5
#: Parameters of each modality, by name.
_NAMES: Mapping[Modality, tuple[str, ...]] = {
    "sequence": (
        *("mean", "projection", "read", "inner", "inner_bias", "middle", "middle_bias", "outer"),
        "shift",
    ),
    "structure": ("mean", "projection"),
}


@dataclass(frozen=True, eq=False)
class ResidueContext:
    """Coordinates of residues in which a sequence's residue knows its neighbours.

    A language model's embedding of one residue says less of the backbone around it than those of
    its neighbours too: whether a helix ends here, or a strand is at the edge of a sheet. With z a
    residue's embedding, the coordinates of a sequence's residue are

        c = (z - mean) read                     scaled down to a root mean square of ``LIMIT``
        h = GELU(GELU([c(i - 4) … c(i + 4)] inner + inner_bias) middle + middle_bias)
        x = (z - mean) projection + h outer + shift

    and those of a structure's are y = (z - mean) projection. Beyond a chain's ends c is 0. x and y
    are canonical coordinates, as those of ``ResidueStage`` are without a network.

    Attributes
    ----------
    parameters : dict
        Modality -> name -> float32 array (float16 after ``half``): mean (D,), projection (D, k);
        of the sequence also read (D, C), inner (9 C, H), middle (H, H), both biases (H,), outer
        (H, k), shift (k,).
    correlations : (k,) float32
        The correlations r of the coordinates, 0 <= r < 1.
    largest : float or None
        As in ``ResidueStage``.
    facts : dict
        How it was trained, as JSON values.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"mean": 6, "projection": (6, 3), "read": (6, 2), "inner": (18, 4)}
    >>> shapes |= {"inner_bias": 4, "middle": (4, 4), "middle_bias": 4, "outer": (4, 3), "shift": 3}
    >>> arrays = {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    >>> r = np.float32([0.9, 0.5, 0.1])
    >>> context = ResidueContext({"sequence": arrays, "structure": arrays}, r, None, {})
    >>> chains = Ragged(np.zeros((7, 6)), np.array([0, 4, 7]))
    >>> context.coordinates("sequence", chains).shape
    (7, 3)
    """

    parameters: Mapping[Modality, Mapping[str, npt.NDArray[np.floating]]]
    correlations: Float32
    largest: float | None
    facts: Mapping[str, Any]

    def coordinates(self, modality: Modality, chains: Ragged) -> Float32:
        """Return the coordinates of several chains' residues.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embeddings.
        chains : Ragged
            (R, D) residue embeddings of some chains.

        Returns
        -------
        (R, k) float32
            Those that each chain alone has, but for the last bits: the matrix library rounds
            products of other sizes differently (by 1e-6 of the largest).
        """
        arrays = {n: a.astype(np.float32, copy=False) for n, a in self.parameters[modality].items()}
        coordinates = np.empty((len(chains.values), len(self.correlations)), dtype=np.float32)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

        def make(here: slice, lengths: list[int]) -> None:
            # A thread has settings of its own. Who calls looks for what is not finite.
            with np.errstate(invalid="ignore", over="ignore"):
                coordinates[here] = of_part(here, lengths)

        def of_part(here: slice, lengths: list[int]) -> Float32:
            centred = np.array(chains.values[here], dtype=np.float32) - arrays["mean"]
            found: Float32 = np.matmul(centred, arrays["projection"], dtype=np.float32)
            if modality == "sequence":
                read = np.matmul(centred, arrays["read"], dtype=np.float32)
                neighbours = neighbours_of(lengths, REACH)
                with torch.inference_mode():
                    numbers = torch.from_numpy(limited(read, LIMIT))
                    hidden = hidden_numbers(numbers, tensors, neighbours)
                    found += (hidden @ tensors["outer"]).numpy() + arrays["shift"]
            return found

        by_parts(chains, make)
        return coordinates

    def half(self) -> Self:
        """Return it with float16 arrays, which take half the room in a saved model.

        It computes in float32 as before. A saved model's arrays are read as float32.
        """
        return replace(self, parameters=in_half(self.parameters))

    def tensors(self) -> dict[str, npt.NDArray[np.floating]]:
        """Return its arrays by name, as a saved model holds them."""
        named = {f"{n}.{m}": self.parameters[m][n] for m in MODALITIES for n in _NAMES[m]}
        return {**named, "correlations": self.correlations}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Float32], facts: Mapping[str, Any]) -> Self:
        """Build it of ``tensors`` and ``facts``; raise KeyError or ValueError if damaged."""
        parameters: dict[Modality, Mapping[str, npt.NDArray[np.floating]]] = {
            m: {name: tensors[f"{name}.{m}"] for name in _NAMES[m]} for m in MODALITIES
        }
        correlations = tensors["correlations"]
        if not ((correlations >= 0) & (correlations < 1)).all() or correlations.ndim != 1:
            raise ValueError("the residue context's correlations are not between 0 and 1")
        largest = facts["largest"]
        if largest is not None and not 0 < float(largest) < np.inf:
            raise ValueError("the residue context's limit of coordinates is not above 0")
        counts, shares = ("residues", "pairs", "epochs"), ("error", "without")
        if not all(isinstance(facts[name], int) for name in counts) or not all(
            math.isfinite(float(facts[name])) for name in shares
        ):
            raise ValueError("the residue context's training record is damaged")
        hidden, read, k = int(facts["hidden"]), int(facts["read"]), len(correlations)
        for modality, arrays in parameters.items():
            (width,) = arrays["mean"].shape
            shapes = {
                "projection": (width, k),
                "read": (width, read),
                "inner": ((2 * REACH + 1) * read, hidden),
                "inner_bias": (hidden,),
                "middle": (hidden, hidden),
                "middle_bias": (hidden,),
                "outer": (hidden, k),
                "shift": (k,),
            }
            for name, array in arrays.items():
                if name != "mean" and array.shape != shapes[name]:
                    raise ValueError(f"the residue context's {modality} {name} is damaged")
        rest = {name: value for name, value in facts.items() if name != "largest"}
        return cls(parameters, correlations, None if largest is None else float(largest), rest)

    def as_dict(self) -> dict[str, Any]:
        """Return what is not an array, as JSON values; ``of_tensors`` takes it."""
        return {**self.facts, "largest": self.largest}

    @staticmethod
    def n_numbers(dims: Mapping[Modality, int], components: int, hidden: int, read: int) -> int:
        """Return how many numbers a context for embeddings of these widths has."""
        network = (2 * REACH + 1) * read * hidden + hidden * (hidden + 2 + components)
        linear = sum(width * (1 + components) for width in dims.values())
        return linear + dims["sequence"] * read + network + 2 * components


def limited(values: Float32, limit: float) -> Float32:
    """Return (R, C) rows, those of a larger root mean square scaled down to ``limit``."""
    size = np.sqrt(np.square(values).mean(axis=1, keepdims=True))
    scaled: Float32 = values * (np.float32(limit) / np.maximum(size, np.float32(limit)))
    return scaled


def hidden_numbers(read: Tensor, parameters: Mapping[str, Tensor], neighbours: Tensor) -> Tensor:
    """Return the network's (R, H) hidden numbers.

    Parameters
    ----------
    read : (R, C) float32
        What the network reads of the residues of some chains, packed.
    parameters : mapping
        Those of a sequence; see ``ResidueContext``.
    neighbours : (R, 2 * REACH + 1) int64
        ``neighbours_of`` the chains' lengths, within ``REACH``.
    """
    padded = functional.pad(read, (0, 0, 0, 1))  # nothing comes from beyond the ends
    around = padded[neighbours].flatten(start_dim=1)
    inner = torch.addmm(parameters["inner_bias"], around, parameters["inner"])
    inner = functional.gelu(inner, approximate="tanh")
    hidden = torch.addmm(parameters["middle_bias"], inner, parameters["middle"])
    return functional.gelu(hidden, approximate="tanh")
