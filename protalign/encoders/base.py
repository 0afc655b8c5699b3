"""The encoder interface, and finding an encoder by its name."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Literal

from protalign.core.arrays import Float32
from protalign.core.checks import did_you_mean
from protalign.core.errors import InputError, ProtAlignError
from protalign.core.protein import SEQUENCE_LETTERS, Modality, Structure

#: Entry-point group in which a package announces its Encoder classes.
ENTRY_POINT_GROUP = "protalign.encoders"

#: The input of a sequence encoder for one protein: its chains' sequences.
Sequences = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Everything needed to load an encoder again, in another process or on another machine.

    Attributes
    ----------
    model : str
        A name out of some encoder's ``models()``, such as "esm2_t33_650M_UR50D".
    weights : str
        Path of a weights file, "" for the encoder's own search (package, cache, download).
    layer : int or None
        The layer whose output is taken, counted as fair-esm counts; None for the final one.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps", …
    dtype : str
        Compute dtype: "auto" (float32 on CPU and MPS, bfloat16 on CUDA), "float32", "bfloat16" or
        "float16".

    Examples
    --------
    >>> spec = EncoderSpec("esm2_t6_8M_UR50D", layer=5)
    >>> spec.on("cuda:1").device
    'cuda:1'
    """

    model: str
    weights: str = ""
    layer: int | None = None
    device: str = "auto"
    dtype: str = "auto"

    def on(self, device: str) -> EncoderSpec:
        """Return the same spec with another device."""
        return replace(self, device=device)


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """The facts about one model's weights on this machine.

    Attributes
    ----------
    model : str
        The model's name.
    modality : "sequence" or "structure"
    dim, layers, parameters : int or None
        D, the number of layers and of parameters in use; None if unknown.
    source : "package", "cache" or "download"
        The weights ship with a package, were found on this machine, or are to be downloaded.
    path, size, sha256 : str, int, str
        The file, its bytes and its hash in hex; "", 0 and "" if there is no file yet.
    url : str
        The address where the weights are published, "" if they need no download.
    licence : str
        Such as "MIT".

    Examples
    --------
    >>> from protalign.encoders.proteinmpnn import ProteinMPNNEncoder
    >>> info = next(iter(ProteinMPNNEncoder.known_weights()))
    >>> info.model, info.modality, info.source, info.licence
    ('proteinmpnn_v_48_020', 'structure', 'package', 'MIT')
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
    """The base class of encoders: proteins in, one (L, D) float32 array each out; deterministic.

    A package adds its own by naming a subclass in the entry-point group ``protalign.encoders``.
    ``protalign.encoders.contract.EncoderContract`` tests that it fits.

    Attributes
    ----------
    modality : "sequence" or "structure"
        The items that it embeds.
    name : str
        The model's name, such as "esm2_t6_8M_UR50D".
    dim : int
        D, the width of a row.
    weights_sha256 : str
        Hex digest of the weights' file (of all files, in order, if there are several).
    settings : mapping
        Everything else that decides the numbers (layer, compute dtype), as JSON values. A store
        records it: an embedding made with other settings is another embedding.
    device : str
        The device that it runs on, such as "cpu".
    remark : str
        One line that a user should read whenever the encoder is used; "" for nothing.

    Examples
    --------
    An encoder of a package of your own. It is found by its name once the package announces it::

        [project.entry-points."protalign.encoders"]
        composition = "my_package:OneHotEncoder"

    >>> import numpy as np
    >>> from protalign.core.protein import AMINO_ACIDS, amino_acid_codes
    >>> class OneHotEncoder(Encoder):
    ...     modality = "sequence"
    ...     name, dim, device, settings = "one_hot", 21, "cpu", {}
    ...     weights_sha256 = "0" * 64
    ...
    ...     @classmethod
    ...     def models(cls):
    ...         return ["one_hot"]
    ...
    ...     @classmethod
    ...     def load(cls, spec):
    ...         return cls()
    ...
    ...     def encode(self, batch):
    ...         codes = [amino_acid_codes("".join(item)) for item in sequence_items(batch)]
    ...         return [np.eye(21, dtype=np.float32)[each] for each in codes]
    ...
    ...     def memory_bytes(self, longest, batch_rows):
    ...         return 4 * self.dim * max(longest, batch_rows)
    >>> (rows,) = OneHotEncoder().encode([("MKV", "GS")])
    >>> rows.shape
    (5, 21)
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
        """Return the names that ``load`` accepts, smallest model first."""

    @classmethod
    @abstractmethod
    def load(cls, spec: EncoderSpec) -> Encoder:
        """Load a model.

        Raises
        ------
        WeightsError
            If the weights are missing, damaged, or of another model.
        """

    @abstractmethod
    def encode(self, batch: Sequence[Any]) -> list[Float32]:
        """Embed a batch.

        The values are the same whatever else is in the batch, up to rounding (1e-5 in float32).

        Parameters
        ----------
        batch : sequence of ``Sequences`` or of ``Structure``
            ``Sequences`` are tuples of chain sequences: each chain is embedded by itself, and the
            chains' rows follow one another. Of a ``Structure`` the kept chains' residues with a
            complete backbone get rows, and the whole complex is their context.

        Returns
        -------
        list of (L, D) float32
            One array for each item, in the batch's order. Empty for an empty batch.

        Raises
        ------
        TypeError
            If an item is of another type.
        InputError
            If an item cannot be embedded.
        """

    @abstractmethod
    def memory_bytes(self, longest: int, batch_rows: int) -> int:
        """Predict the peak memory in bytes, weights included.

        Parameters
        ----------
        longest : int
            Length of the longest single chain (sequence) or complex (structure).
        batch_rows : int
            Residues of a whole batch, or of all batches that are encoded at once.
        """

    @classmethod
    def known_weights(cls) -> list[WeightsInfo]:
        """Return one entry for each of ``models()``: where its weights are on this machine."""
        return [WeightsInfo(model=model, modality=cls.modality) for model in cls.models()]

    @property
    def batch_rows(self) -> int:
        """The number of residues that a batch should hold on this encoder's device."""
        return 1024 if self.device == "cpu" else 16384

    @property
    def batches_at_once(self) -> int:
        """The number of calls of ``encode`` that may run at once, in threads of one core each.

        More than one if that is quicker, and if ``encode`` changes nothing of the encoder.
        """
        return 1


def encoder_classes() -> dict[str, type[Encoder]]:
    """Return every known model name, ours and other packages', with the class that loads it.

    An entry point that cannot be loaded is left out, with a warning. If two packages have the
    same model name, ours wins.

    Examples
    --------
    >>> encoder_classes()["proteinmpnn_v_48_020"].__name__
    'ProteinMPNNEncoder'
    """
    classes: dict[str, type[Encoder]] = {}
    points = entry_points(group=ENTRY_POINT_GROUP)
    for point in sorted(points, key=lambda point: not point.value.startswith("protalign.")):
        for model, cls in _announced(point).items():
            classes.setdefault(model, cls)
    return classes


def _announced(point: EntryPoint) -> dict[str, type[Encoder]]:
    """Return the models of one entry point, none if it is broken."""
    try:
        cls = point.load()
        if not (isinstance(cls, type) and issubclass(cls, Encoder)):
            raise TypeError("it is not a subclass of protalign.encoders.Encoder")
        return dict.fromkeys(cls.models(), cls)
    except Exception as error:  # another package's code: whatever it raises must not stop ours
        detail = (str(error).splitlines() or [""])[0]
        _warn_once(
            f"encoder entry point {point.name} = {point.value}: left out "
            f"({type(error).__name__}: {detail}); install the package again, or uninstall it"
        )
        return {}


@cache
def _warn_once(message: str) -> None:
    logging.getLogger("protalign").warning(message)


def load_encoder(spec: EncoderSpec) -> Encoder:
    """Load the encoder that a spec names.

    Parameters
    ----------
    spec : EncoderSpec

    Raises
    ------
    ProtAlignError
        If no encoder has this name.
    WeightsError
        If the weights are missing, damaged, or of another model.

    Examples
    --------
    >>> encoder = load_encoder(EncoderSpec("proteinmpnn_v_48_020", device="cpu"))
    >>> encoder.modality, encoder.dim
    ('structure', 128)
    """
    classes = encoder_classes()
    if spec.model not in classes:
        raise unknown_model(spec.model, list(classes))
    return classes[spec.model].load(spec)


def unknown_model(model: str, known: Sequence[str]) -> ProtAlignError:
    """Return the error for an unknown model name, with the nearest known one or all of them."""
    hint = did_you_mean(model, known) or "known: " + (", ".join(known) or "none")
    return ProtAlignError(f"encoder {model!r}: unknown name; {hint}")


def structure_items(batch: Sequence[Any]) -> Sequence[Structure]:
    """Return the batch if it holds structures; raise TypeError otherwise."""
    for item in batch:
        if not isinstance(item, Structure):
            raise TypeError(f"a structure encoder takes Structure items, not {type(item).__name__}")
    return batch


def sequence_items(batch: Sequence[Any]) -> Sequence[Sequences]:
    """Return the batch if it holds sequences that can be embedded.

    Raises
    ------
    TypeError
        If an item is not a tuple of strings.
    InputError
        If a chain has no residues or a letter outside ``SEQUENCE_LETTERS``.
    """
    for item in batch:
        if not isinstance(item, tuple) or not all(isinstance(chain, str) for chain in item):
            raise TypeError(
                f"a sequence encoder takes tuples of chain sequences, not {type(item).__name__}"
            )
        if not item or not all(item):
            raise InputError("a chain has no residues", "leave it out")
        for number, chain in enumerate(item, start=1):
            if not SEQUENCE_LETTERS.issuperset(chain):
                raise _unknown_letter(chain, f" of chain {number}" if len(item) > 1 else "")
    return batch


def _unknown_letter(sequence: str, of_chain: str) -> InputError:
    position, letter = next(
        (position, letter)
        for position, letter in enumerate(sequence, start=1)
        if letter not in SEQUENCE_LETTERS
    )
    return InputError(
        f"letter {letter!r} at position {position}{of_chain} is not an amino acid code",
        f"use the capitals {''.join(sorted(SEQUENCE_LETTERS))}",
    )
