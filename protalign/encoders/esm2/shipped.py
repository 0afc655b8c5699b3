"""The encoder that ships inside the package: a small ESM2 that this project trained."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Self

from protalign.core.errors import WeightsError
from protalign.encoders.base import EncoderSpec, WeightsInfo, unknown_model
from protalign.encoders.esm2.encoder import ESM2Encoder, describe_weights
from protalign.encoders.esm2.network import Architecture

#: The weights' file names, and the keys of their safetensors header that give the architecture.
FILE_PATTERN = "protalign_*.safetensors"
ARCHITECTURE_KEYS = ("num_layers", "embed_dim", "attention_heads")


class EmbeddedEncoder(ESM2Encoder):
    """An ESM2 whose weights (float16 in the file) ship with ProtAlign: it needs no download."""

    remark = "the small encoder that ships, for a first look; for results take an ESM2"

    @classmethod
    def models(cls) -> Sequence[str]:
        """Return the models with a file in the package, smallest first."""
        return [model for model, _, _ in _shipped()]

    @classmethod
    def load(cls, spec: EncoderSpec) -> Self:
        """Load a model that ships with the package, or other weights of its architecture."""
        for model, architecture, path in _shipped():
            if model == spec.model:
                return cls(spec, architecture, Path(spec.weights or path))
        raise unknown_model(spec.model, cls.models())

    @classmethod
    def known_weights(cls) -> list[WeightsInfo]:
        """Return one entry for each file in the package."""
        return [
            describe_weights(model, architecture, path, "package")
            for model, architecture, path in _shipped()
        ]


def _shipped() -> list[tuple[str, Architecture, Path]]:
    """Return name, architecture and file of every model in the package, smallest first."""
    folder = Path(str(files("protalign.encoders.data")))
    models = [(*_read_header(path), path) for path in sorted(folder.glob(FILE_PATTERN))]
    return sorted(models, key=lambda model: model[1].parameters())


def _read_header(path: Path) -> tuple[str, Architecture]:
    """Read name and architecture from a safetensors file's header; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        numbers = [int(metadata[key]) for key in ARCHITECTURE_KEYS]
        return metadata["name"], Architecture(*numbers)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{path}: this part of ProtAlign is damaged ({error}); install ProtAlign again"
        ) from error
