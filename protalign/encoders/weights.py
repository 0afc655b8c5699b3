"""Weights files: read without running any code out of them, hashed, and listed."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from protalign.core.errors import WeightsError
from protalign.core.files import sha256
from protalign.encoders.base import WeightsInfo, encoder_classes


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a .safetensors file, or of a .pt that torch.save wrote, on the CPU.

    A .pt may be a bare state dict or hold one under "model" (fair-esm) or "model_state_dict"
    (ProteinMPNN). No pickled code is run: everything but tensors and plain values is refused, apart
    from argparse.Namespace, a bag of attributes in which fair-esm keeps its configuration. Tensors
    are memory-mapped if the format allows it.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise _missing(path)
    return _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _load_torch(path: Path) -> dict[str, torch.Tensor]:
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_zip(path)
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(action="ignore"),  # of pickle's version
        ):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: it is damaged, or holds more than tensors, which is not run; "
            "fetch the file again from its publisher"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever damaged bytes lead it to
        raise _damaged(path, error) from error
    for key in ("model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise WeightsError(f"{path}: it holds no tensors; check that it is a weights file")
    return tensors


def _check_zip(path: Path) -> None:
    """Compare every record with its CRC-32, which torch.load does not."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"bad CRC-32 of {broken}")


def _missing(path: Path) -> WeightsError:
    return WeightsError(f"{path}: no weights file; check the path")


def _damaged(path: Path, error: Exception) -> WeightsError:
    detail = (str(error).splitlines() or [""])[0]
    if " " not in detail:  # such as the key of a KeyError
        detail = f"{type(error).__name__} {detail}".rstrip()
    return WeightsError(
        f"{path}: it is damaged, or not a weights file ({detail}); "
        "fetch it again from its publisher"
    )


def weights_digest(path: str | Path) -> str:
    """Return the SHA-256 of a weights file, 64 hex digits; raise WeightsError if it is missing.

    A file that did not change is hashed once in a process.
    """
    path = Path(path).resolve()
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _missing(path) from error


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    return sha256(path).hex()


def with_file(info: WeightsInfo, path: Path) -> WeightsInfo:
    """Return the entry with a file's path, size and hash, if the file exists."""
    if not path.is_file():
        return info
    return replace(info, path=str(path), size=path.stat().st_size, sha256=weights_digest(path))


def known_weights() -> list[WeightsInfo]:
    """Return every model of every known encoder, and where its weights are on this machine."""
    classes = dict.fromkeys(encoder_classes().values())
    return [info for cls in classes for info in cls.known_weights()]
