"""A saved model: a folder of safetensors, a JSON config and a model card. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from protalign.core.digests import json_digest
from protalign.core.errors import InputError, ModelError
from protalign.core.files import json_text, new_folder
from protalign.core.machine import usable_memory
from protalign.core.printing import one_line
from protalign.core.unfinished import put_back
from protalign.core.untrusted import read_bytes, read_json
from protalign.heads.model_card import model_card

FORMAT = "protalign-model"
#: Major.minor: a reader takes any minor version of its own major one.
FORMAT_VERSION = "1.2"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
#: The residue stage, if the model has one. Version 0.1.0 does not read it.
RESIDUES = "residues.safetensors"
#: The config's own digest, since this minor version.
_DIGEST, _DIGEST_SINCE = "config_sha256", 2
#: Bytes that a config, a card, and the header of weights may have.
_MOST_TEXT = 64 << 20
_AGAIN = "fit and save the model again"
#: Readings of a folder that another process keeps replacing.
_TRIES = 10

Read = TypeVar("Read")


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex digest of a model's parameters, as ``write_model`` writes them."""
    return hashlib.sha256(_serialised(tensors)).hexdigest()


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(contiguous)


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the absolute folder; raise ModelError if it exists and is not a saved model."""
    folder = Path(path).absolute()
    put_back(folder)
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not (folder / CONFIG).is_file() and not is_empty:
        raise ModelError(f"{path}: it exists but is not a saved model; name another folder")
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir():
        raise ModelError(f"{path}: {above} is not a folder; name another one")
    return folder


def write_model(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    residues: Mapping[str, Tensor],
) -> None:
    """Write a model's folder; it appears whole or not at all.

    ``residues`` are the arrays of its residue stage, empty without one. A model at ``path`` is
    replaced. Raise ModelError if ``path`` is a file, or a folder that holds something else, and
    WriteError if it cannot be written.
    """
    folder = check_target(path)
    weights = {WEIGHTS: _serialised(tensors)}
    if residues:
        weights[RESIDUES] = _serialised(residues)
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": hashlib.sha256(weights[WEIGHTS]).hexdigest(),
        **config,
    }
    if residues:
        whole["residues_sha256"] = hashlib.sha256(weights[RESIDUES]).hexdigest()
    card = model_card(whole).encode("utf-8")
    whole["card_sha256"] = hashlib.sha256(card).hexdigest()
    whole[_DIGEST] = _digest(json.loads(json_text(whole)))
    with new_folder(folder) as unfinished:
        for name, content in weights.items():
            (unfinished / name).write_bytes(content)
        (unfinished / CONFIG).write_text(json_text(whole), encoding="utf-8")
        (unfinished / CARD).write_bytes(card)


def read_steadily(path: str | os.PathLike[str], read: Callable[[Path], Read]) -> Read:
    """Return ``read(folder)``; read again if the folder was replaced meanwhile.

    A folder that a killed writer had set aside is put back first.
    """
    folder = Path(path)
    put_back(folder)
    for _ in range(_TRIES):
        before = _identity(folder)
        try:
            return read(folder)
        except ModelError:
            if _identity(folder) == before:
                raise
    return read(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of a folder that ``write_model`` wrote.

    Raise ModelError, in one line, if it is missing, damaged, edited, or of a newer format.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{folder}: not a saved model ({CONFIG} is missing); name a folder that `fit` wrote"
        )
    try:
        config = read_json(folder / CONFIG, _AGAIN, most=_MOST_TEXT, links=False)
    except InputError as error:
        raise _unreadable(folder, error) from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelError(
            f"{folder}: not a model of ProtAlign ({CONFIG} names another format); "
            "name a folder that `fit` wrote"
        )
    major, _, minor = str(config.get("format_version")).partition(".")
    if major != FORMAT_VERSION.partition(".")[0]:
        raise ModelError(
            f"{folder}: model format {config.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}; use the version of ProtAlign that wrote it, or a newer one"
        )
    must_have = not minor.isdigit() or int(minor) >= _DIGEST_SINCE
    if (must_have or _DIGEST in config) and config.get(_DIGEST) != _digest(config):
        raise _damaged(folder, f"{CONFIG} was changed since it was saved")
    return config


def read_weights(
    folder: Path, config: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the parameters of a folder that ``write_model`` wrote.

    Parameters
    ----------
    folder : Path
        The folder.
    config : mapping
        Its config, which has the digest of the file.
    expected : mapping of name to Tensor
        Parameters of the same sizes, which may be on the device "meta": no more is read.

    Raises
    ------
    ModelError
        The file is missing, damaged, of another size, or too large for the memory.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    return _read_tensors(folder, WEIGHTS, config.get("weights_sha256"), size)


def read_residues(folder: Path, config: Mapping[str, Any], n_numbers: int) -> dict[str, Tensor]:
    """Return the arrays of the residue stage, ``n_numbers`` of float32 in all.

    Raise ModelError as ``read_weights`` does.
    """
    return _read_tensors(folder, RESIDUES, config.get("residues_sha256"), 4 * n_numbers)


def _read_tensors(folder: Path, name: str, sha256: Any, size: int) -> dict[str, Tensor]:
    """Read a file of tensors of ``size`` bytes; see ``read_weights``."""
    if 2 * size > usable_memory():
        raise ModelError(
            f"{folder}: it describes a model of {size / 1e9:,.0f} GB, more than fits into memory; "
            "use a larger machine, or another model"
        )
    try:
        content = read_bytes(folder / name, _AGAIN, most=size + _MOST_TEXT, links=False)
    except InputError as error:
        raise _unreadable(folder, error) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _damaged(folder, f"{name} is not the file that {CONFIG} was written with")
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise _damaged(folder, f"{name}: {error}") from None


def card_is_as_written(folder: Path, config: Mapping[str, Any]) -> bool:
    """Return whether the model card is the one that was saved with the model."""
    try:
        card = read_bytes(folder / CARD, _AGAIN, most=_MOST_TEXT, links=False)
    except InputError:
        return False
    recorded = config.get("card_sha256")  # not in models of format 1.1
    return recorded is None or recorded == hashlib.sha256(card).hexdigest()


def _digest(config: Mapping[str, Any]) -> str:
    """Return the hex digest of a config without its digest."""
    others = {key: value for key, value in config.items() if key != _DIGEST}
    return json_digest(others)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from one that is put in its place."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: InputError) -> ModelError:
    return _damaged(folder, error.reason.removeprefix(f"{folder}{os.sep}"))


def earlier(folder: Path, part: str) -> ModelError:
    """Return the error for a part in a form that this version reads no more."""
    return ModelError(f"{folder}: its {part} is of an earlier version of ProtAlign; {_AGAIN}")


def _damaged(folder: Path, problem: str) -> ModelError:
    return ModelError(f"{folder}: damaged ({problem}); {_AGAIN}")


def damaged_config(path: str | os.PathLike[str], error: Exception) -> ModelError:
    """Return the error for an incomplete config, or for parameters that do not fit it."""
    return _damaged(Path(path), f"{type(error).__name__}: {one_line(error, 200)}")
