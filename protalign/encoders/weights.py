"""Weights files: found, downloaded, hashed, and read without running any code out of them."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import zipfile
from functools import cache
from pathlib import Path

import torch

from protalign.core.errors import WeightsError
from protalign.encoders.base import WeightsInfo, encoder_classes


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a .safetensors file or of a .pt that torch.save wrote, on the CPU.

    A .pt may be a bare state dict or hold one under "model" (fair-esm) or "model_state_dict"
    (ProteinMPNN). Nothing pickled is run: what is not a tensor or a plain value is refused, apart
    from argparse.Namespace, a bag of attributes in which fair-esm keeps its configuration. Tensors
    are memory-mapped where the format allows it. Raises WeightsError for a missing or damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}; check the path")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return _load_torch(path)


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _load_torch(path: Path) -> dict[str, torch.Tensor]:
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            _check_zip(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged, or holds more than tensors, which is not run; "
            "fetch the file again from its publisher"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    for key in ("model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no state dict; is it a weights file?")
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; is it a weights file?")
    return tensors


def _check_zip(path: Path) -> None:
    """Compare every record with its CRC-32, which torch.load does not."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"bad CRC-32 of {broken}")


def _damaged(path: Path, error: Exception) -> WeightsError:
    detail = (str(error).splitlines() or [type(error).__name__])[0]
    return WeightsError(
        f"{path} is damaged or no weights file ({detail}); fetch it again from its publisher"
    )


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, 64 hex digits; raises WeightsError where there is none."""
    path = Path(path).resolve()
    try:
        stat = path.stat()
    except OSError as error:
        raise WeightsError(f"no weights file {path}; check the path") from error
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _file_sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_weights() -> list[WeightsInfo]:
    """Every model of every encoder known, and where its weights are found on this machine."""
    classes = dict.fromkeys(encoder_classes().values())
    return [info for cls in classes for info in cls.known_weights()]
