"""ESM2's weights: the published sizes, their files, and the check that a file is of a size."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from protalign.core import devices
from protalign.core.errors import ProtAlignError, WeightsError
from protalign.core.files import new_file
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

#: Bytes of fair-esm's published files, rounded.
_FILE_BYTES = {
    "esm2_t6_8M_UR50D": 30e6,
    "esm2_t12_35M_UR50D": 134e6,
    "esm2_t30_150M_UR50D": 593e6,
    "esm2_t33_650M_UR50D": 2.6e9,
    "esm2_t36_3B_UR50D": 5.7e9,
    "esm2_t48_15B_UR50D": 30.3e9,
}
#: Prefixes of the parameters' names in fair-esm's published files, the longest first.
_PREFIXES = ("encoder.sentence_encoder.", "encoder.")
#: Tokens of ESM2's alphabet.
ALPHABET = 33
#: Parts of a file that are not needed for embedding.
_UNUSED = ("lm_head.", "contact_head.", "version")


def fair_esm() -> ModuleType:
    """Return fair-esm's package ``esm``; raise ProtAlignError if another package has that name."""
    try:
        import esm
        import esm.pretrained
        from esm.model.esm2 import ESM2  # noqa: F401

        esm.data.Alphabet, esm.pretrained.load_model_and_alphabet  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise ProtAlignError(
            f"Python package 'esm': it is not fair-esm ({error}), but another one of the same "
            "import name; run pip uninstall -y esm && "
            "pip install --force-reinstall --no-deps fair-esm==2.0.0"
        ) from error
    package: ModuleType = esm
    return package


def url(model: str) -> str:
    """Return the address that fair-esm downloads a model from (``esm.pretrained``)."""
    return f"https://dl.fbaipublicfiles.com/fair-esm/models/{model}.pt"


def cache_path(model: str) -> Path:
    """Return the file in which fair-esm, through torch hub, keeps a downloaded model."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{model}.pt"


def find_or_download(model: str) -> Path:
    """Return the file in torch hub's cache; download it first if it is missing.

    A line with the size and a progress bar go to stderr. Raises WeightsError if the download fails.
    """
    path = cache_path(model)
    if not path.is_file():
        size = _FILE_BYTES[model]
        shown = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
        devices.warn(f"{model}: downloading its weights, {shown}, to {path}")
        _download(url(model), path)
    return path


def _download(source: str, path: Path) -> None:
    """Fetch a .pt file; it appears under its name only when its last byte is on the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as unfinished:
            torch.hub.download_url_to_file(source, str(unfinished), progress=True)
            if not zipfile.is_zipfile(unfinished):  # the directory of a zip file is at its end
                raise OSError("the file is incomplete, or not a weights file")
    except OSError as error:  # URLError and HTTPError are OSErrors
        raise WeightsError(
            f"{path.stem}: {path} is missing, and the download failed ({error}); fetch {source} "
            f"on a machine with a network, then put it at {path} or name it with "
            "--sequence-weights FILE"
        ) from error


def read_esm2(path: str | Path, model: str, architecture: Architecture) -> dict[str, Tensor]:
    """Read a file and check that it holds this architecture.

    Returns
    -------
    dict of str to Tensor
        By fair-esm's parameter names, without lm_head and contact regression.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, holds another size of ESM2, or another model.
    """
    state = {
        name: tensor
        for name, tensor in _without_prefixes(load_state_dict(path)).items()
        if not name.startswith(_UNUSED)
    }
    held = _architecture(state, path)
    if (held.layers, held.dim) != (architecture.layers, architecture.dim):
        size, name = f"an ESM2 with {held.layers} layers of {held.dim}", _name_of(held)
        raise WeightsError(
            f"{path}: it holds {size}{f' ({name})' if name else ''}, not {model} "
            f"({architecture.layers} layers of {architecture.dim}); "
            "name the model that the file holds, or give that model's file"
        )
    _check_parameters(state, path, model, architecture)
    return state


def model_in_file(path: str | Path) -> str | None:
    """Return the name of fair-esm's model with a file's layers and width, None if none has."""
    return _name_of(_architecture(_without_prefixes(load_state_dict(path)), path))


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by the names that ``esm.pretrained`` gives them."""
    names = {}
    for name in state:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
        names[name] = name.removeprefix(prefix)
    return {names[name]: tensor for name, tensor in state.items()}


def _architecture(state: Mapping[str, Tensor], path: str | Path) -> Architecture:
    """Return layers and width of the ESM2 in a file; its heads are not in the file, and 0 here."""
    embedding = state.get("embed_tokens.weight")
    if any(name.startswith("esm.encoder.") for name in state):
        raise WeightsError(
            f"{path}: it has the Transformers library's layout; "
            "give the .pt file that fair-esm publishes"
        )
    if embedding is None or embedding.ndim != 2:
        raise WeightsError(f"{path}: not an ESM2, as it has no embed_tokens.weight; check the path")
    numbers = {name.split(".")[1] for name in state if name.startswith("layers.")}
    return Architecture(layers=len(numbers), dim=embedding.shape[1], heads=0)


def _name_of(architecture: Architecture) -> str | None:
    """Return fair-esm's name for a number of layers and a width."""
    for name, known in ARCHITECTURES.items():
        if (known.layers, known.dim) == (architecture.layers, architecture.dim):
            return name
    return None


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name and shape of the parameters and buffers that fair-esm's ESM2 embeds with.

    They are written out, since building fair-esm's model to look takes seconds.
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
    for problem, names in (
        ("it has no", missing),
        ("ESM2 does not have its", unexpected),
        ("it has another shape of", misshapen),
    ):
        if names:
            raise WeightsError(
                f"{path}: not {model}, as {problem} {names[0]} ({len(names)} in all); "
                "give the .pt file that fair-esm publishes"
            )
