"""ProteinMPNN's weights: the published models, and the check that a file is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from protalign.core.errors import WeightsError
from protalign.encoders.proteinmpnn.network import DIM, FEATURES, LAYERS, POSITION_DIM, POSITIONS
from protalign.encoders.weights import load_state_dict

#: Our names, and the files in upstream's folder of models, by the noise put on the coordinates in
#: training: 0.02, 0.10, 0.20 and 0.30 Å.
MODELS = {
    "proteinmpnn_v_48_020": "v_48_020.pt",
    "proteinmpnn_v_48_002": "v_48_002.pt",
    "proteinmpnn_v_48_010": "v_48_010.pt",
    "proteinmpnn_v_48_030": "v_48_030.pt",
}
#: The one whose encoder part is in the package; its authors' default.
SHIPPED_MODEL = "proteinmpnn_v_48_020"
#: Neighbours of every model that upstream publishes.
NEIGHBOURS = 48
_PUBLISHED = "https://github.com/dauparas/ProteinMPNN/raw/main/vanilla_model_weights"


def url(model: str) -> str:
    """Return the address where upstream publishes a model."""
    return f"{_PUBLISHED}/{MODELS[model]}"


def shipped_weights() -> Path:
    """Return the file of v_48_020's encoder in the package (MIT; its licence lies beside it)."""
    return Path(str(files("protalign.encoders.data"))) / f"{SHIPPED_MODEL}_encoder.safetensors"


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Return upstream's names and shapes of the encoder's tensors."""
    shapes: dict[str, tuple[int, ...]] = {"features.edge_embedding.weight": (DIM, FEATURES)}

    def linear(name: str, out: int, into: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)})

    linear("features.embeddings.linear", POSITION_DIM, POSITIONS)
    norm("features.norm_edges")
    linear("W_e", DIM, DIM)
    for layer in (f"encoder_layers.{number}" for number in range(LAYERS)):
        for number in (1, 2, 3):
            norm(f"{layer}.norm{number}")
            linear(f"{layer}.W{number}", DIM, 3 * DIM if number == 1 else DIM)
            linear(f"{layer}.W1{number}", DIM, 3 * DIM if number == 1 else DIM)
        linear(f"{layer}.dense.W_in", 4 * DIM, DIM)
        linear(f"{layer}.dense.W_out", DIM, 4 * DIM)
    return shapes


@dataclass(frozen=True, slots=True)
class UpstreamWeights:
    """A checked weights file.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        The encoder's, by upstream's names, of ``encoder_shapes()``.
    neighbours : int
        The number of neighbours that the model was trained with.
    """

    tensors: Mapping[str, Tensor]
    neighbours: int


def read_proteinmpnn(path: Path, model: str) -> UpstreamWeights:
    """Read upstream's .pt, or a .safetensors with its names, and check that it is the model named.

    Upstream's soluble models have the same parts and are taken.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, or holds another network (CA-only models among them) or
        another noise level.
    """
    tensors = load_state_dict(path)
    _check_tensors(path, tensors)
    facts = read_facts(path)
    noise = facts.get("noise_level")
    if noise is not None:
        held = f"proteinmpnn_v_{facts.get('num_edges', NEIGHBOURS):.0f}_{noise * 100:03.0f}"
        if held != model:
            raise WeightsError(f"{path}: it holds {held}, not {model}; ask for {held}")
    return UpstreamWeights(
        {name: tensors[name].float() for name in encoder_shapes()},
        int(facts.get("num_edges", NEIGHBOURS)),
    )


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if "features.node_embedding.weight" in tensors:
        raise WeightsError(
            f"{path}: a CA-only ProteinMPNN, which has other inputs; "
            "take a file of upstream's vanilla_model_weights or soluble_model_weights"
        )
    for name, shape in encoder_shapes().items():
        held = tuple(tensors[name].shape) if name in tensors else "missing"
        if held != shape:
            raise WeightsError(
                f"{path}: not a ProteinMPNN, as {name} is {held}, not {shape}; take a file of "
                "upstream's vanilla_model_weights"
            )


def read_facts(path: Path) -> dict[str, float]:
    """Return ``num_edges`` and ``noise_level`` (Å) of a weights file, if it gives them."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            content = file.metadata() or {}
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        return {key: float(content[key]) for key in ("num_edges", "noise_level") if key in content}
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: it is damaged ({error}); fetch it again") from error
