"""A saved model: a folder of safetensors, a JSON config and a model card. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from protalign.core.errors import ModelError
from protalign.core.files import json_text, new_folder
from protalign.heads.model_card import model_card

FORMAT = "protalign-model"
#: Major.minor: a reader takes any minor version of its own major one.
FORMAT_VERSION = "1.1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex digest of a model's parameters, as ``write_model`` writes them."""
    return hashlib.sha256(_serialised(tensors)).hexdigest()


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(contiguous)


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the absolute folder; raise ModelError if it exists and is not a saved model."""
    folder = Path(path).absolute()
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not (folder / CONFIG).is_file() and not is_empty:
        raise ModelError(f"{path}: it exists but is not a saved model; name another folder")
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir():
        raise ModelError(f"{path}: {above} is not a folder; name another one")
    return folder


def write_model(
    path: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a model's folder; it appears whole or not at all.

    A model at ``path`` is replaced. Raise ModelError if ``path`` is a file, or a folder that holds
    something else.
    """
    folder = check_target(path)
    weights = _serialised(tensors)
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **config,
    }
    with new_folder(folder) as unfinished:
        (unfinished / WEIGHTS).write_bytes(weights)
        (unfinished / CONFIG).write_text(json_text(whole), encoding="utf-8")
        (unfinished / CARD).write_text(model_card(whole), encoding="utf-8")


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (config, parameters) of a folder that ``write_model`` wrote.

    Raise ModelError, in one line, if it is missing, damaged, or of a newer format.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{folder}: not a saved model ({CONFIG} is missing); name a folder that `fit` wrote"
        )
    config = _read_config(folder)
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise _damaged(folder, f"{WEIGHTS} cannot be read: {error.strerror}") from None
    if hashlib.sha256(weights).hexdigest() != config.get("weights_sha256"):
        raise _damaged(folder, f"{WEIGHTS} is not the file that {CONFIG} was written with")
    try:
        return config, safetensors.torch.load(weights)
    except SafetensorError as error:
        raise _damaged(folder, f"{WEIGHTS}: {error}") from None


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{CONFIG} cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelError(
            f"{folder}: not a model of ProtAlign ({CONFIG} names another format); "
            "name a folder that `fit` wrote"
        )
    version = str(config.get("format_version"))
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise ModelError(
            f"{folder}: model format {version}, this version reads {FORMAT_VERSION}; "
            "use the version of ProtAlign that wrote it, or a newer one"
        )
    return config


def _damaged(folder: Path, problem: str) -> ModelError:
    return ModelError(f"{folder}: damaged ({problem}); fit and save the model again")


def damaged_config(path: str | os.PathLike[str], error: Exception) -> ModelError:
    """Return the error for an incomplete config, or for parameters that do not fit it."""
    problem = " ".join(str(error).split())[:200]
    return _damaged(Path(path), f"{type(error).__name__}: {problem}")
