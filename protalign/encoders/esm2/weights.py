"""ESM2's weights: which sizes there are, where the files lie, and whether a file is that size."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from protalign.core.errors import ProtAlignError, WeightsError
from protalign.encoders.esm2.network import Architecture
from protalign.encoders.weights import load_state_dict

#: fair-esm's models, by their names (fair-esm's README, "Pre-trained Models").
ARCHITECTURES = {
    "esm2_t6_8M_UR50D": Architecture(6, 320, 20),
    "esm2_t12_35M_UR50D": Architecture(12, 480, 20),
    "esm2_t30_150M_UR50D": Architecture(30, 640, 20),
    "esm2_t33_650M_UR50D": Architecture(33, 1280, 20),
    "esm2_t36_3B_UR50D": Architecture(36, 2560, 40),
    "esm2_t48_15B_UR50D": Architecture(48, 5120, 40),
}

#: Prefixes under which fair-esm's published files keep the names, the longest first.
_PREFIXES = ("encoder.sentence_encoder.", "encoder.")
#: Tokens of ESM2's alphabet.
ALPHABET = 33
#: Parts of a file that embedding does not need.
_UNUSED = ("lm_head.", "contact_head.", "version")


def fair_esm() -> ModuleType:
    """fair-esm's package ``esm``; raises ProtAlignError where another package has that name."""
    try:
        import esm
        import esm.pretrained
        from esm.model.esm2 import ESM2  # noqa: F401

        esm.data.Alphabet, esm.pretrained.load_model_and_alphabet  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise ProtAlignError(
            f"the Python package 'esm' that is found is not fair-esm ({error}); PyPI's 'esm' has "
            "the same import name: pip uninstall -y esm && "
            "pip install --force-reinstall --no-deps fair-esm==2.0.0"
        ) from error
    package: ModuleType = esm
    return package


def url(model: str) -> str:
    """Where fair-esm downloads a model from (``esm.pretrained``)."""
    return f"https://dl.fbaipublicfiles.com/fair-esm/models/{model}.pt"


def cache_path(model: str) -> Path:
    """Where fair-esm, through torch hub, keeps a downloaded model."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{model}.pt"


def find_or_download(model: str) -> Path:
    """The file in torch hub's cache, fetched there first where it is missing.

    The progress bar goes to stderr. Raises WeightsError where the download fails.
    """
    path = cache_path(model)
    if not path.is_file():
        _download(url(model), path)
    return path


def _download(source: str, path: Path) -> None:
    """Fetch a .pt file; it appears under its name only when it is there to the last byte."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source, str(part), progress=True)
        if not zipfile.is_zipfile(part):  # the directory of a zip file is at its end
            raise OSError("what came is incomplete, or no weights file")
        part.replace(path)
    except OSError as error:  # URLError and HTTPError are OSErrors
        raise WeightsError(
            f"no weights {path.stem}: not in {path}, and the download failed ({error}); fetch "
            f"{source} where there is a network, then put it at {path} or name it with "
            "--sequence-weights FILE"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def read_esm2(path: str | Path, model: str, architecture: Architecture) -> dict[str, Tensor]:
    """Read a file and check that it holds this architecture.

    Returns
    -------
    fair-esm's parameter names -> tensors, without lm_head and contact regression.

    Raises
    ------
    WeightsError : missing or damaged file, another size of ESM2, or no ESM2 at all.
    """
    state = {
        name: tensor
        for name, tensor in _without_prefixes(load_state_dict(path)).items()
        if not name.startswith(_UNUSED)
    }
    found = _architecture(state, path)
    if (found.layers, found.dim) != (architecture.layers, architecture.dim):
        raise WeightsError(
            f"{path} holds {_describe(found)}, not {model} ({architecture.layers} layers of "
            f"{architecture.dim}); name the model that the file holds, or give that model's file"
        )
    _check_parameters(state, path, model, architecture)
    return state


def model_in_file(path: str | Path) -> str | None:
    """Name of fair-esm's model that has a file's number of layers and width; None if none has."""
    return _name_of(_architecture(_without_prefixes(load_state_dict(path)), path))


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as ``esm.pretrained`` makes them before it fills the model."""
    names = {}
    for name in state:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
        names[name] = name.removeprefix(prefix)
    return {names[name]: tensor for name, tensor in state.items()}


def _architecture(state: Mapping[str, Tensor], path: str | Path) -> Architecture:
    """Layers and width of the ESM2 in a file; its heads do not show, and are 0 here."""
    embedding = state.get("embed_tokens.weight")
    if any(name.startswith("esm.encoder.") for name in state):
        raise WeightsError(
            f"{path} is laid out as the Transformers library has it; "
            "give the .pt file that fair-esm publishes"
        )
    if embedding is None or embedding.ndim != 2:
        raise WeightsError(f"{path} holds no ESM2: it has no embed_tokens.weight; check the path")
    numbers = {name.split(".")[1] for name in state if name.startswith("layers.")}
    return Architecture(layers=len(numbers), dim=embedding.shape[1], heads=0)


def _describe(found: Architecture) -> str:
    name = _name_of(found)
    size = f"an ESM2 with {found.layers} layers of {found.dim}"
    return f"{size} ({name})" if name else size


def _name_of(found: Architecture) -> str | None:
    """fair-esm's name for a number of layers and a width."""
    for name, known in ARCHITECTURES.items():
        if (known.layers, known.dim) == (found.layers, found.dim):
            return name
    return None


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter and buffer in fair-esm's own ESM2, embedding's part.

    Written out: building fair-esm's model to ask it takes seconds.
    """
    dim, hidden = architecture.dim, 4 * architecture.dim
    linear = {f"self_attn.{name}_proj": (dim, dim) for name in ("q", "k", "v", "out")}
    linear |= {"fc1": (hidden, dim), "fc2": (dim, hidden)}
    angles = architecture.head_dim // 2
    layer: dict[str, tuple[int, ...]] = {"self_attn.rot_emb.inv_freq": (angles,)}
    for name, shape in linear.items():
        layer |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in ("self_attn_layer_norm", "final_layer_norm"):
        layer |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return {
        "embed_tokens.weight": (ALPHABET, dim),
        **{f"layers.{i}.{n}": s for i in range(architecture.layers) for n, s in layer.items()},
        "emb_layer_norm_after.weight": (dim,),
        "emb_layer_norm_after.bias": (dim,),
    }


def _check_parameters(
    state: Mapping[str, Tensor], path: str | Path, model: str, architecture: Architecture
) -> None:
    expected = expected_shapes(architecture)
    missing = [name for name in expected if name not in state and "inv_freq" not in name]
    unexpected = [name for name in state if name not in expected]
    misshapen = [
        name for name, tensor in state.items() if tensor.shape != expected.get(name, tensor.shape)
    ]
    for what, names in (
        ("has no", missing),
        ("has parameters that ESM2 has not, like", unexpected),
        ("has another shape of", misshapen),
    ):
        if names:
            raise WeightsError(
                f"{path} is not {model}: it {what} {names[0]} ({len(names)} in all); "
                "give the .pt file that fair-esm publishes"
            )
