"""The finished network as weights for fair-esm's ESM2."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from language_model.network import Network

_LEFT_OUT = ("lm_head.", "contact_head.")


def encoder_state(network: Network) -> dict[str, Tensor]:
    """Return fair-esm's state dict without the heads: float16 parameters, unchanged buffers.

    The buffers are the rotary frequencies. In float16 their rounding would rotate residue 500 by
    up to a tenth of a radian.
    """
    parameters = {name for name, _ in network.esm.named_parameters()}
    return {
        name: (value.half() if name in parameters else value).detach().cpu().contiguous()
        for name, value in network.esm.state_dict().items()
        if not name.startswith(_LEFT_OUT)
    }


def count_parameters(network: Network) -> int:
    """Return the number of the encoder's parameters, without heads."""
    return sum(
        parameter.numel()
        for name, parameter in network.esm.named_parameters()
        if not name.startswith(_LEFT_OUT)
    )


def export(network: Network, path: Path, facts: Mapping[str, str]) -> None:
    """Write the weights; the header holds the architecture and the given facts.

    Parameters
    ----------
    path : its stem is the model's name.
    facts : further entries of the header: data, licence, seed.
    """
    state = encoder_state(network)
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} does not fit into float16")
    header = {
        "name": path.stem,
        "num_layers": str(network.esm.num_layers),
        "embed_dim": str(network.esm.embed_dim),
        "attention_heads": str(network.esm.attention_heads),
        "parameters": str(count_parameters(network)),
        **facts,
    }
    save_file(state, path, metadata=header)
