"""A saved model: a folder of safetensors, a JSON config and a model card. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from protalign.core.errors import ModelError
from protalign.core.protein import MODALITIES
from protalign.core.version import __version__
from protalign.stores import EncoderInfo

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator

FORMAT = "protalign-model"
#: Major.minor: a reader takes any minor version of its own major one.
FORMAT_VERSION = "1.1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
#: Fitted attributes (less the underscore) that the config's "training" holds.
_TRAINING = (
    "n_pairs",
    "n_validation_pairs",
    "n_skipped",
    "n_iter",
    "best_epoch",
    "loss_curve",
    "validation_curve",
    "source",
    "validation",
)
#: What models of format 1.0 do not say.
_ADDED = {"validation": "not recorded"}


def describe(estimator: ProtAlignEstimator) -> dict[str, Any]:
    """All of a fitted estimator but its weights, as JSON values: a saved model's config."""
    parameters = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in estimator.get_params(deep=False).items()
    }
    if not isinstance(parameters["random_state"], int):
        parameters["random_state"] = None  # a RandomState has no form in JSON
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "protalign_version": __version__,
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        "parameters": parameters,
        "encoders": {
            modality: asdict(estimator.encoders_[modality])
            if modality in estimator.encoders_
            else {"dim": getattr(estimator, f"{modality}_dim_")}
            for modality in MODALITIES
        },
        "training": {
            **{name: getattr(estimator, f"{name}_") for name in _TRAINING},
            "temperature": estimator.temperature_,
            "bias": estimator.bias_,
        },
        "array_input": {
            "n_features_in": getattr(estimator, "n_features_in_", None),
            "feature_names_in": None if names is None else list(names),
        },
    }


def restore(estimator: ProtAlignEstimator, config: Mapping[str, Any]) -> None:
    """Set the fitted attributes that ``describe`` recorded; KeyError or TypeError if some lack."""
    for modality in MODALITIES:
        setattr(estimator, f"{modality}_dim_", int(config["encoders"][modality]["dim"]))
    estimator.encoders_ = {
        modality: EncoderInfo(**config["encoders"][modality])
        for modality in MODALITIES
        if "model" in config["encoders"][modality]
    }
    for name in _TRAINING:
        setattr(estimator, f"{name}_", {**_ADDED, **config["training"]}[name])
    array_input = config["array_input"]
    if array_input["n_features_in"] is not None:
        estimator.n_features_in_ = int(array_input["n_features_in"])
    if array_input["feature_names_in"] is not None:
        estimator.feature_names_in_ = np.array(array_input["feature_names_in"], dtype=object)


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest of a model's parameters, as ``write_model`` writes them."""
    return hashlib.sha256(_serialised(tensors)).hexdigest()


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    contiguous = {name: tensors[name].detach().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(contiguous)


def check_place(path: str | Path) -> Path:
    """Where a model's folder goes; raises ModelError where something that is no model is."""
    folder = Path(path).absolute()
    if folder.exists() and not (folder / CONFIG).is_file() and not _is_empty_folder(folder):
        raise ModelError(f"{path} is there and is no saved model: name another folder")
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir():
        raise ModelError(f"{path} cannot be made, {above} is no folder: name another one")
    return folder


def write_model(
    path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> None:
    """Write a model's folder; it appears whole or not at all.

    Replaces a model that is there. Raises ModelError where ``path`` is a file, or a folder that
    holds something else.
    """
    folder = check_place(path)
    weights = _serialised(tensors)
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **config,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
    unfinished.mkdir()
    try:
        (unfinished / WEIGHTS).write_bytes(weights)
        (unfinished / CONFIG).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        (unfinished / CARD).write_text(card, encoding="utf-8")
        _put_in_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _put_in_place(unfinished: Path, folder: Path) -> None:
    """Rename; a folder cannot be renamed onto a full one, so the old one steps aside first."""
    if not folder.exists():
        unfinished.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid4().hex}.old")
    folder.rename(old)
    try:
        unfinished.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_model(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, parameters) of a folder that ``write_model`` wrote.

    Raises ModelError, in one line, if it is missing, damaged, or of a newer format.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} holds no model ({CONFIG} is missing): name a folder of `fit`")
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
        raise ModelError(f"{folder} is no model of ProtAlign's ({CONFIG} says so)")
    version = str(config.get("format_version"))
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise ModelError(
            f"{folder} is of model format {version}, this version reads {FORMAT_VERSION}: "
            "use the version of ProtAlign that wrote it, or a newer one"
        )
    return config


def _damaged(folder: Path, what: str) -> ModelError:
    return ModelError(f"{folder} is damaged ({what}): fit and save the model again")


def damaged_config(path: str | Path, error: Exception) -> ModelError:
    """The error for a config that lacks something, or parameters that do not fit it."""
    what = " ".join(str(error).split())[:200]
    return _damaged(Path(path), f"{type(error).__name__}: {what}")


def model_card(config: Mapping[str, Any]) -> str:
    """The README.md of a saved model, in Markdown."""
    parameters, training = config["parameters"], config["training"]
    encoders = "\n".join(_encoder_line(*item) for item in config["encoders"].items())
    return f"""# A ProtAlign model

Two pooling heads that turn per-residue embeddings of a protein's sequence and of its structure
into {parameters["embed_dim"]}-dimensional unit-length vectors of one space: a sequence lies near
its own structure.
Method: "ProtAlign: contrastive learning paradigm for sequence and structure alignment".

    from protalign import ProtAlignEstimator
    model = ProtAlignEstimator.load("this folder")
    vectors = model.transform(store)          # a store of the same two encoders

## Inputs

{encoders}

It reads embeddings of exactly these encoders, and refuses a store of others.

## Training

- pairs of sequence and structure: {training["n_pairs"]:,}, \
and {training["n_validation_pairs"]:,} more to choose the best epoch
- out of: {training["source"] or "arrays in memory"}
- pooling: {parameters["pooling"]}
- loss: {parameters["loss"]}, temperature {training["temperature"]:.4g}; \
batch {parameters["batch_size"]}, Adam, learning rate {parameters["learning_rate"]}
- epochs: {training["n_iter"]}, best {training["best_epoch"]}; \
last training loss {training["loss_curve"][-1]:.4f}
- {_validation_line(training)}

## Limits

- Similarity says that two proteins look alike to the encoders, not that they do the same thing:
  members of one family, and mutants above all, are hardly told apart.
- Figures on proteins that resemble the training proteins say little about others: measure on a
  split by sequence identity (`protalign score` prints the level of chance beside each figure).
- The pattern of residues missing from a structure can give its sequence away.

## Licence

The heads hold no protein. Before passing them on, look at the terms of the proteins that they were
trained on and of the encoders' weights.

Written by ProtAlign {config["protalign_version"]}; weights SHA-256 in {CONFIG}.
"""


def _encoder_line(modality: str, encoder: Mapping[str, Any]) -> str:
    if "model" not in encoder:
        return f"- {modality}: (L, {encoder['dim']}) embeddings of an encoder that is not recorded"
    settings = ", ".join(f"{key} {value}" for key, value in encoder["settings"].items())
    return (
        f"- {modality}: (L, {encoder['dim']}) embeddings of {encoder['model']} ({settings}), "
        f"weights SHA-256 {encoder['weights_sha256']}"
    )


def _validation_line(training: Mapping[str, Any]) -> str:
    if not training["validation_curve"]:
        return "no validation pairs: nothing here says how well it does on other proteins"
    best = max(training["validation_curve"])
    return (
        f"validation: mean reciprocal rank {best:.4f}, sequence -> structure, among "
        f"{training['n_validation_pairs']:,} pairs ({training['validation']})"
    )
