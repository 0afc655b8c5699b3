"""What a report was made from: data by hash, versions, machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from protalign.core.protein import Modality
from protalign.core.version import __version__
from protalign.stores import EncoderInfo, Entries, StoreView

_LIBRARIES = (
    "torch",
    "numpy",
    "scikit-learn",
    "scipy",
    "zarr",
    "biotite",
    "matplotlib",
    "plotly",
    "jinja2",
)
#: Entries whose embeddings are in memory at once while they are hashed.
_BLOCK = 256


def data_fingerprint(
    parts: Mapping[str, StoreView], encoders: Mapping[Modality, EncoderInfo]
) -> dict[str, str]:
    """What training depends on besides parameters: SHA-256 of split and embeddings.

    Returns
    -------
    "split": of the parts' ids in order. By modality: of the residue embeddings of the parts'
    entries, in order, with the encoder's name and its weights' hash.
    """
    split = hashlib.sha256()
    for part, view in parts.items():
        split.update("\n".join([f"# {part}", *view.ids]).encode())
    found: dict[str, str] = {"split": split.hexdigest()}
    for modality, encoder in encoders.items():
        digest = hashlib.sha256(f"{encoder.name} {encoder.weights_sha256}".encode())
        for view in parts.values():
            _add_embeddings(digest, view, encoder.name)
        found[modality] = digest.hexdigest()
    return found


def _add_embeddings(digest: Any, view: Entries, encoder: str) -> None:
    for start in range(0, len(view), _BLOCK):
        block = view[start : start + _BLOCK]
        lengths = block.rows(encoder)[1]
        digest.update(lengths.astype("<i8").tobytes())
        present = block[lengths > 0]
        if len(present):
            digest.update(present.embeddings(encoder).values.view("u1").data)


def versions() -> dict[str, str]:
    """Of ProtAlign, Python and the libraries that numbers or pictures depend on."""
    found = {"protalign": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, memory, accelerator and system of this machine."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such figure on this system
        return None


def described_encoders(encoders: Mapping[Modality, EncoderInfo]) -> dict[str, Any]:
    """The encoders by modality, as JSON."""
    return {modality: asdict(info) for modality, info in encoders.items()}
