"""The model that ships inside the package, for the small sequence encoder and ProteinMPNN."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from protalign.core.errors import ModelError
from protalign.core.untrusted import read_json

#: Its name, which is that of its folder.
SHIPPED = "protalign-2M"
#: The file of the figures that its training script measured.
FIGURES = "figures.json"
_AGAIN = "install ProtAlign again"


def shipped_model() -> Path:
    """Return the folder of the model that ships with ProtAlign.

    Raise ModelError if the installation lacks it.

    Examples
    --------
    >>> from protalign import Model
    >>> model = Model.load(shipped_model())
    >>> model.dims, model.embed_dim
    ({'sequence': 160, 'structure': 128}, 128)
    """
    folder = Path(str(files("protalign.heads.data"))) / SHIPPED
    if not folder.is_dir():
        raise ModelError(f"{folder}: this part of ProtAlign is missing; {_AGAIN}")
    return folder


def shipped_figures() -> dict[str, Any]:
    """Return what was measured of the shipped model, as its training script wrote it."""
    figures: dict[str, Any] = read_json(shipped_model().parent / FIGURES, _AGAIN)
    return figures


def worth() -> str:
    """Return in a line what the shipped model is worth."""
    return str(shipped_figures()["worth"])
