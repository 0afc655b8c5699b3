"""What an encoder is, and how one is found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from protalign.errors import ProtAlignError
from protalign.protein import Modality, Structure

#: Entry-point group in which a package announces its Encoder classes.
ENTRY_POINT_GROUP = "protalign.encoders"

#: What a sequence encoder is given for one protein: its chains' sequences.
Sequences = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Everything needed to load an encoder again, in another process or on another machine.

    Attributes
    ----------
    model : a name out of some encoder's ``models()``, e.g. "esm2_t33_650M_UR50D".
    weights : path of a weights file, "" for the encoder's own search (package, cache, download).
    layer : which layer's output, counted as fair-esm counts; None for the final one.
    device : "auto", "cpu", "cuda", "cuda:1", "mps", …
    dtype : compute dtype: "auto" (fp32 on CPU and MPS, bf16 on CUDA), "float32", "bfloat16",
        "float16".
    """

    model: str
    weights: str = ""
    layer: int | None = None
    device: str = "auto"
    dtype: str = "auto"

    def on(self, device: str) -> EncoderSpec:
        """The same encoder on another device."""
        return replace(self, device=device)


class Encoder(ABC):
    """Turns proteins into one (L, D) float32 array each; deterministic.

    A package adds its own by naming a subclass in the entry-point group ``protalign.encoders``;
    ``protalign.encoders.contract.EncoderContract`` tells whether it fits.

    Attributes
    ----------
    name : the model's name, e.g. "esm2_t6_8M_UR50D".
    dim : D.
    weights_sha256 : hex digest of the weights' file (all files, in order, where there are several).
    settings : what else decides the numbers (layer, compute dtype); JSON values, recorded in the
        store: an embedding made with other settings is another embedding.
    device : where it runs, e.g. "cpu".
    """

    modality: ClassVar[Modality]

    name: str
    dim: int
    weights_sha256: str
    settings: Mapping[str, str | int]
    device: str

    @classmethod
    @abstractmethod
    def models(cls) -> Sequence[str]:
        """Names that ``load`` accepts, smallest model first."""

    @classmethod
    @abstractmethod
    def load(cls, spec: EncoderSpec) -> Encoder:
        """Load the model; raises WeightsError (missing, damaged or misfitting weights)."""

    @abstractmethod
    def encode(self, batch: Sequence[Any]) -> list[npt.NDArray[np.float32]]:
        """Embed a batch: for each item one (L, D) float32 array, in the batch's order.

        Items are ``Sequences`` (tuples of chain sequences; rows of the chains one after another,
        each chain embedded by itself) or ``Structure`` (rows of its kept chains' residues with a
        complete backbone, the whole complex as context). The same values whatever else is in the
        batch, up to rounding (1e-5 in fp32). An empty batch gives an empty list. Raises InputError
        for an item it cannot embed.
        """

    @abstractmethod
    def memory_bytes(self, longest: int, batch_rows: int) -> int:
        """Predicted peak memory in bytes, weights included.

        ``longest`` is the length of the longest single chain (sequence) or complex (structure),
        ``batch_rows`` the residues of a whole batch.
        """

    @property
    def batch_rows(self) -> int:
        """Residues that a batch should hold on this encoder's device."""
        return 1024 if self.device == "cpu" else 16384


def encoder_classes() -> dict[str, type[Encoder]]:
    """Every model name known, ours and other packages', with the class that loads it."""
    classes: dict[str, type[Encoder]] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        cls = entry_point.load()
        for model in cls.models():
            classes.setdefault(model, cls)
    return classes


def load_encoder(spec: EncoderSpec) -> Encoder:
    """Load the encoder that a spec names; raises ProtAlignError for an unknown name."""
    classes = encoder_classes()
    if spec.model not in classes:
        from difflib import get_close_matches

        close = get_close_matches(spec.model, classes, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(classes)
        raise ProtAlignError(f"no encoder is called {spec.model!r}; {hint}")
    return classes[spec.model].load(spec)


def structure_items(batch: Sequence[Any]) -> Sequence[Structure]:
    """Check that a batch holds structures; raises TypeError otherwise."""
    for item in batch:
        if not isinstance(item, Structure):
            raise TypeError(f"a structure encoder takes Structure items, not {type(item).__name__}")
    return batch
