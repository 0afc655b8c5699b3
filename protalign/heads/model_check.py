"""Verification of a saved model's folder."""

from __future__ import annotations

import os
from pathlib import Path

from protalign.core.errors import ModelError
from protalign.core.files import json_text
from protalign.heads.model import Model
from protalign.heads.model_files import CARD, CONFIG, card_is_as_written, read_config


def verify_model(path: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with a saved model, one line each; nothing if it is whole.

    The weights and the model card are compared with their digests in the config, and the config
    with its own, which models of version 0.1.0 do not have.

    Parameters
    ----------
    path : str or path
        The model's folder.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from protalign import ProtAlignEstimator
    >>> X = np.random.default_rng(0).normal(size=(12, 6))
    >>> path = tempfile.mkdtemp() + "/model"
    >>> ProtAlignEstimator(max_epochs=1, embed_dim=4, device="cpu").fit(X).save(path)
    >>> verify_model(path)
    []
    """
    try:
        Model.load(path)
        config = read_config(Path(path))
    except ModelError as error:
        return [str(error)]
    folder = Path(path)
    if "config_sha256" in config and (folder / CONFIG).read_text("utf-8") != json_text(config):
        return [
            f"{path}: the spaces in its {CONFIG} were changed since it was saved; save it again"
        ]
    if not card_is_as_written(folder, config):
        return [f"{path}: its {CARD} is missing, or was changed since it was saved; save it again"]
    return []
