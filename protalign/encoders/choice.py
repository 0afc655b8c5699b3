"""Choice of a model and its devices if the user names none."""

from __future__ import annotations

from pathlib import Path

import torch

from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.encoders.base import encoder_classes
from protalign.encoders.esm2.weights import cache_path, model_in_file

#: The structure encoder that ships with the package, with the noise level its authors recommend.
DEFAULT_STRUCTURE_MODEL = "proteinmpnn_v_48_020"
#: ESM2 in the order in which a cached one is taken: the usual size first, then those that a laptop
#: runs, then those that need a large GPU. The first is downloaded if none is cached.
ESM2_PREFERENCE = (
    "esm2_t33_650M_UR50D",
    "esm2_t30_150M_UR50D",
    "esm2_t12_35M_UR50D",
    "esm2_t6_8M_UR50D",
    "esm2_t36_3B_UR50D",
    "esm2_t48_15B_UR50D",
)


def default_model(modality: Modality) -> str:
    """Return the model of a modality that is used if none is named.

    For sequences it is an ESM2: one whose weights are in torch hub's cache, else the first of
    ``ESM2_PREFERENCE``, to be downloaded. It is never the embedded encoder, which is weaker.
    """
    if modality == "structure":
        return DEFAULT_STRUCTURE_MODEL
    cached = (model for model in ESM2_PREFERENCE if cache_path(model).is_file())
    return next(cached, ESM2_PREFERENCE[0])


def check_modality_of(modality: Modality, model: str) -> None:
    """Raise InputError if a known model is of the other modality."""
    known = encoder_classes().get(model)
    if known is not None and known.modality != modality:
        raise InputError(
            f"{model}: embeds {known.modality}s, not {modality}s",
            f"name it with --{known.modality}-encoder",
        )


def model_of_weights(modality: Modality, path: str) -> str:
    """Return the model that a weights file belongs to, by its name, else by its tensors' shapes.

    The shapes tell the six ESM2 apart. Raises InputError if neither name nor shapes tell.
    """
    stem = Path(path).stem
    known = [name for name, cls in encoder_classes().items() if cls.modality == modality]
    named = [name for name in known if stem in name or name in stem]
    if len(named) == 1:
        return named[0]
    model = model_in_file(path) if modality == "sequence" else None
    if model is None:
        raise InputError(
            f"{path}: does not tell which model it belongs to",
            f"name the model with --{modality}-encoder ({', '.join(known)})",
        )
    return model


def local_devices(device: str) -> list[str]:
    """Return the devices that a run on this machine uses: every GPU for plain "cuda"."""
    if device == "cuda" and torch.cuda.device_count() > 1:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [device]
