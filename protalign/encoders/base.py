"""What an encoder is, and how one is found by name."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from protalign.core.errors import InputError, ProtAlignError
from protalign.core.protein import SEQUENCE_LETTERS, Modality, Structure

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


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """What is known of one model's weights, on this machine.

    Attributes
    ----------
    model, modality : the model's name, and "sequence" or "structure".
    dim, layers, parameters : D, number of layers and of parameters used; None where unknown.
    source : "package" (ships with a package), "cache" (found on this machine) or "download".
    path, size, sha256 : the file found, its bytes and its hash; "", 0 and "" where none is.
    url : where it is published, "" where it needs no download.
    licence : e.g. "MIT".
    """

    model: str
    modality: Modality
    dim: int | None = None
    layers: int | None = None
    parameters: int | None = None
    source: Literal["package", "cache", "download"] = "package"
    path: str = ""
    size: int = 0
    sha256: str = ""
    url: str = ""
    licence: str = ""


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
    remark : what a user should know whenever it is used, in a line; "" for nothing.
    """

    modality: ClassVar[Modality]
    remark: ClassVar[str] = ""

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
        ``batch_rows`` the residues of a whole batch, or of all batches that are encoded at once.
        """

    @classmethod
    def known_weights(cls) -> list[WeightsInfo]:
        """One entry for each of ``models()``: where its weights are found on this machine."""
        return [WeightsInfo(model=model, modality=cls.modality) for model in cls.models()]

    @property
    def batch_rows(self) -> int:
        """Residues that a batch should hold on this encoder's device."""
        return 1024 if self.device == "cpu" else 16384

    @property
    def batches_at_once(self) -> int:
        """Calls of ``encode`` that may run at once, in threads for which torch takes one core.

        More than one where that is quicker and the encoder changes nothing of itself in ``encode``.
        """
        return 1


def encoder_classes() -> dict[str, type[Encoder]]:
    """Every model name known, ours and other packages', with the class that loads it.

    An entry point that cannot be loaded is left out, with a warning; of two packages with the same
    model name ours comes first.
    """
    classes: dict[str, type[Encoder]] = {}
    points = entry_points(group=ENTRY_POINT_GROUP)
    for point in sorted(points, key=lambda point: not point.value.startswith("protalign.")):
        for model, cls in _announced(point).items():
            classes.setdefault(model, cls)
    return classes


def _announced(point: EntryPoint) -> dict[str, type[Encoder]]:
    """The models of one entry point, none where it is broken."""
    try:
        cls = point.load()
        if not (isinstance(cls, type) and issubclass(cls, Encoder)):
            raise TypeError("it is no subclass of protalign.encoders.Encoder")
        return dict.fromkeys(cls.models(), cls)
    except Exception as error:  # another package's code: whatever it raises must not stop ours
        detail = (str(error).splitlines() or [""])[0]
        _warn_once(
            f"encoder entry point {point.name} = {point.value} is left out: "
            f"{type(error).__name__}: {detail}"
        )
        return {}


@cache
def _warn_once(message: str) -> None:
    logging.getLogger("protalign").warning(message)


def load_encoder(spec: EncoderSpec) -> Encoder:
    """Load the encoder that a spec names; raises ProtAlignError for an unknown name."""
    classes = encoder_classes()
    if spec.model not in classes:
        raise unknown_model(spec.model, list(classes))
    return classes[spec.model].load(spec)


def unknown_model(model: str, known: Sequence[str]) -> ProtAlignError:
    """The error for a model name that nobody knows, with the nearest known one."""
    from difflib import get_close_matches

    close = get_close_matches(model, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "known: " + (", ".join(known) or "none")
    return ProtAlignError(f"no encoder is called {model!r}; {hint}")


def structure_items(batch: Sequence[Any]) -> Sequence[Structure]:
    """Check that a batch holds structures; raises TypeError otherwise."""
    for item in batch:
        if not isinstance(item, Structure):
            raise TypeError(f"a structure encoder takes Structure items, not {type(item).__name__}")
    return batch


def sequence_items(batch: Sequence[Any]) -> Sequence[Sequences]:
    """Check that a batch holds sequences that can be embedded.

    Raises TypeError for items that are no tuples of strings, InputError for one without residues
    and for a letter outside ``SEQUENCE_LETTERS``.
    """
    for item in batch:
        if not isinstance(item, tuple) or not all(isinstance(chain, str) for chain in item):
            raise TypeError(
                f"a sequence encoder takes tuples of chain sequences, not {type(item).__name__}"
            )
        if not item or not all(item):
            raise InputError("a protein has a chain without residues", "leave it out")
        for number, chain in enumerate(item, start=1):
            _check_letters(chain, f" of chain {number}" if len(item) > 1 else "")
    return batch


def _check_letters(sequence: str, where: str) -> None:
    if SEQUENCE_LETTERS.issuperset(sequence):
        return
    position, letter = next(
        (position, letter)
        for position, letter in enumerate(sequence, start=1)
        if letter not in SEQUENCE_LETTERS
    )
    raise InputError(
        f"letter {letter!r} at position {position}{where} is no amino acid code",
        f"use the capitals {''.join(sorted(SEQUENCE_LETTERS))}",
    )
