"""The ESM2 encoder: one row per residue, every chain embedded by itself, at any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from protalign.core import devices
from protalign.core.errors import InputError, ProtAlignError
from protalign.core.protein import SEQUENCE_LETTERS, Modality
from protalign.encoders.base import (
    Encoder,
    EncoderSpec,
    Sequences,
    WeightsInfo,
    sequence_items,
    unknown_model,
)
from protalign.encoders.esm2.network import Architecture, PackedESM2
from protalign.encoders.esm2.weights import (
    ARCHITECTURES,
    cache_path,
    fair_esm,
    find_or_download,
    read_esm2,
    url,
)
from protalign.encoders.weights import weights_digest, with_file


class ESM2Encoder(Encoder):
    """ESM2 (Lin et al., Science 379, 1123, 2023), all the sizes that fair-esm publishes.

    Equal to fair-esm's own representations within 1e-5 in float32. <cls> and <eos> are put around
    each chain and their rows dropped. Nothing is truncated. No sequence sees another.

    Parameters
    ----------
    spec : EncoderSpec
        Model, layer, device and dtype.
    architecture : Architecture
        Of the model named.
    weights : Path
        The weights file.
    report : callable
        Is called with one line each time that memory runs out and a batch is halved.
    """

    modality: ClassVar[Modality] = "sequence"

    def __init__(
        self,
        spec: EncoderSpec,
        architecture: Architecture,
        weights: Path,
        report: Callable[[str], None] = devices.warn,
    ) -> None:
        device = devices.resolve_device(spec.device)
        dtype = devices.resolve_dtype(spec.dtype, device)
        layer = _checked_layer(spec, architecture)
        self.name = spec.model
        self.dim = architecture.dim
        self.settings: Mapping[str, str | int] = {
            "layer": layer,
            "dtype": devices.dtype_name(dtype),
        }
        self.device = str(device)
        self._report = report
        self._tokens = _Tokeniser()
        state = read_esm2(weights, spec.model, architecture)
        self.weights_sha256 = weights_digest(weights)
        self._network = PackedESM2(architecture, state, layer=layer, device=device, dtype=dtype)

    @classmethod
    def models(cls) -> Sequence[str]:
        """Return the names that fair-esm gives its six sizes."""
        return list(ARCHITECTURES)

    @classmethod
    def load(cls, spec: EncoderSpec) -> Self:
        """Load a model; download its weights if they are neither named nor in the cache."""
        if spec.model not in ARCHITECTURES:
            raise unknown_model(spec.model, cls.models())
        architecture = ARCHITECTURES[spec.model]
        # Before a download:
        _checked_layer(spec, architecture)
        devices.resolve_dtype(spec.dtype, devices.resolve_device(spec.device))
        return cls(spec, architecture, Path(spec.weights or find_or_download(spec.model)))

    @classmethod
    def known_weights(cls) -> list[WeightsInfo]:
        """Return the six sizes, each with its file in torch hub's cache if it exists."""
        return [
            describe_weights(
                model,
                architecture,
                path := cache_path(model),
                "cache" if path.is_file() else "download",
                url(model),
            )
            for model, architecture in ARCHITECTURES.items()
        ]

    def encode(self, batch: Sequence[Sequences]) -> list[npt.NDArray[np.float32]]:
        """Return (L, D) float32 for each protein: its chains' rows, one chain after another.

        If memory runs out, the batch is halved.

        Raises
        ------
        TypeError
            If an item is not a tuple of strings.
        InputError
            If a letter is not an amino acid, a chain has no residues, an item does not fit in
            memory alone, or values overflow the compute dtype.
        """
        if len(batch) == 0:
            return []
        return devices.halving_on_oom(self._encode, sequence_items(batch), self._report)

    def _encode(self, batch: Sequence[Sequences]) -> list[npt.NDArray[np.float32]]:
        chains = [chain for item in batch for chain in item]
        tokens = np.concatenate([self._tokens(chain) for chain in chains])
        lengths = [len(chain) + 2 for chain in chains]
        is_residue = np.ones(len(tokens), dtype=np.bool_)
        ends = np.cumsum(lengths)
        is_residue[ends - 1] = is_residue[ends - lengths] = False
        rows = self._network(torch.from_numpy(tokens), lengths)
        values: npt.NDArray[np.float32] = rows.cpu().numpy()[is_residue]
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.name} gave values that are not finite in {self.settings['dtype']}",
                "use dtype float32; if that does not help, fetch the weights file again",
            )
        residues = [sum(map(len, item)) for item in batch]
        assert sum(residues) == len(values)
        return np.split(values, np.cumsum(residues)[:-1])

    @property
    def batches_at_once(self) -> int:
        """The number of torch's threads on a CPU, at most 8; else 1."""
        return devices.batches_at_once(self.device)

    def memory_bytes(self, longest: int, batch_rows: int) -> int:
        """Predict the peak memory in bytes, weights included; linear in the number of residues."""
        tokens = max(longest, batch_rows)
        return self._network.memory_bytes(longest, tokens, self.batches_at_once)


class _Tokeniser:
    """One token of fair-esm's alphabet per letter, between <cls> and <eos>.

    fair-esm's own tokenizer drops spaces and reads "<mask>" in a sequence as one token.
    """

    def __init__(self) -> None:
        tokens = fair_esm().data.Alphabet.from_architecture("ESM-1b").tok_to_idx
        self._first = np.array([tokens["<cls>"]])
        self._last = np.array([tokens["<eos>"]])
        self._codes = np.zeros(128, dtype=np.int64)
        for letter in SEQUENCE_LETTERS:
            self._codes[ord(letter)] = tokens[letter]

    def __call__(self, chain: str) -> npt.NDArray[np.int64]:
        """Return the (L + 2,) int64 tokens of a chain of checked letters."""
        letters = np.frombuffer(chain.encode("ascii"), dtype=np.uint8)
        return np.concatenate([self._first, self._codes[letters], self._last])


def describe_weights(
    model: str,
    architecture: Architecture,
    path: Path,
    source: Literal["package", "cache", "download"],
    published: str = "",
) -> WeightsInfo:
    """Return the entry of one model of ESM2's kind, with the file at ``path`` if it exists."""
    info = WeightsInfo(
        model=model,
        modality="sequence",
        dim=architecture.dim,
        layers=architecture.layers,
        parameters=architecture.parameters(),
        source=source,
        url=published,
        licence="MIT",
    )
    return with_file(info, path)


def _checked_layer(spec: EncoderSpec, architecture: Architecture) -> int:
    if spec.layer is None:
        return architecture.layers
    if not 0 <= spec.layer <= architecture.layers:
        raise ProtAlignError(
            f"{spec.model}: it has no layer {spec.layer}; choose 0 (the token embedding) to "
            f"{architecture.layers} (the final layer)"
        )
    return spec.layer
