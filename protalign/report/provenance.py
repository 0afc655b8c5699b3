"""The origin of a report: data by hash, versions, machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from protalign.core.machine import core_count, physical_memory, processor_name
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
    "jinja2",
)
#: Entries whose embeddings are in memory at once while they are hashed.
_ENTRIES_AT_ONCE = 256


def data_fingerprint(
    parts: Mapping[str, StoreView], encoders: Mapping[Modality, EncoderInfo]
) -> dict[str, str]:
    """Return SHA-256 digests of the split and of the embeddings: all that training depends on.

    Returns
    -------
    dict of str
        "split": of the parts' ids, in order. "sequence" and "structure": of the residue embeddings
        of the parts' entries, in order, with the encoder's name and its weights' digest.
    """
    split = hashlib.sha256()
    for part, view in parts.items():
        split.update("\n".join([f"# {part}", *view.ids]).encode())
    digests: dict[str, str] = {"split": split.hexdigest()}
    for modality, encoder in encoders.items():
        digest = hashlib.sha256(f"{encoder.name} {encoder.weights_sha256}".encode())
        for view in parts.values():
            _add_embeddings(digest, view, encoder.name)
        digests[modality] = digest.hexdigest()
    return digests


def _add_embeddings(digest: Any, view: Entries, encoder: str) -> None:
    for start in range(0, len(view), _ENTRIES_AT_ONCE):
        block = view[start : start + _ENTRIES_AT_ONCE]
        lengths = block.rows(encoder)[1]
        digest.update(lengths.astype("<i8").tobytes())
        present = block[lengths > 0]
        if len(present):
            digest.update(present.embeddings(encoder).values.view("u1").data)


def versions() -> dict[str, str]:
    """Return the versions of ProtAlign, Python and the libraries that decide the numbers."""
    installed = {"protalign": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def machine() -> dict[str, Any]:
    """Return the processor, cores, memory, accelerator and system of this machine."""
    import torch

    return {
        "processor": processor_name(),
        "cores": core_count(),
        "memory_bytes": physical_memory(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }
