"""Optimisers, learning-rate schedule, and checkpoints without pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from language_model.network import Network


def trainable(network: Network) -> dict[str, torch.nn.Parameter]:
    """Return parameters by name, without the contact head, which is not trained."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if not name.startswith("esm.contact_head.")
    }


def learning_rate(step: int, warmup: int, decay: int, steps: int) -> float:
    """Return the share of the peak rate: linear rise, plateau, linear fall in `decay` steps.

    Thanks to the plateau a run can branch or be prolonged from any checkpoint before its fall.
    """
    rise = (step + 1) / max(warmup, 1)
    fall = (steps - step) / max(decay, 1)
    return max(0.0, min(1.0, rise, fall))


class Optimisers:
    """Muon for the layers' matrices, AdamW for everything else.

    Muon (Jordan et al. 2024) gives each matrix an update of equal singular values. Its steps are
    scaled to the size of AdamW's, so that one learning rate serves both.
    """

    def __init__(self, network: Network, rate: float, weight_decay: float) -> None:
        self._names: dict[Tensor, str] = {
            parameter: name for name, parameter in trainable(network).items()
        }
        matrices = [
            parameter
            for parameter, name in self._names.items()
            if parameter.ndim == 2 and name.startswith("esm.layers.")
        ]
        in_muon = set(matrices)
        others = [parameter for parameter in self._names if parameter not in in_muon]
        self._rate = rate
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(
                others, lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
            ),
        ]

    def step(self, share: float) -> None:
        """One clipped update at `share` of the peak learning rate; clears the gradients."""
        torch.nn.utils.clip_grad_norm_(list(self._names), 1.0)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self._rate * share
            part.step()
            part.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Return every running average, named after its parameter."""
        return {
            f"{self._names[parameter]}|{key}": value
            for part in self._parts
            for parameter, values in part.state.items()
            for key, value in values.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state`; parameters without an entry start anew."""
        of_name = {name: parameter for parameter, name in self._names.items()}
        for full, value in state.items():
            name, key = full.rsplit("|", 1)
            parameter = of_name[name]
            part = self._parts[0 if _owns(self._parts[0], parameter) else 1]
            # AdamW counts its steps in a tensor that stays on the CPU unless it is fused.
            part.state[parameter][key] = value.to(parameter.device)


def _owns(optimiser: torch.optim.Optimizer, parameter: Tensor) -> bool:
    return any(parameter is each for group in optimiser.param_groups for each in group["params"])


def save_checkpoint(
    path: Path, network: Network, optimisers: Optimisers, facts: dict[str, Any]
) -> None:
    """Write parameters, optimiser state and facts (JSON) into one safetensors file, atomically."""
    tensors: dict[str, Tensor] = {
        f"model|{name}": value for name, value in trainable(network).items()
    }
    tensors |= {f"optimiser|{name}": value for name, value in optimisers.state().items()}
    temporary = path.with_suffix(".writing")
    save_file(
        {name: value.detach().contiguous() for name, value in tensors.items()},
        temporary,
        metadata={"facts": json.dumps(facts)},
    )
    temporary.replace(path)


def load_checkpoint(path: Path, network: Network, optimisers: Optimisers | None) -> dict[str, Any]:
    """Load a checkpoint into a network (and optimisers); return its facts."""
    with safe_open(path, framework="pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    parameters = trainable(network)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"model|{name}"])
    if optimisers is not None:
        state = {
            name.removeprefix("optimiser|"): value
            for name, value in tensors.items()
            if name.startswith("optimiser|")
        }
        optimisers.load_state(state)
    return facts


def open_checkpoint(
    path: Path, precision: torch.dtype = torch.float32
) -> tuple[Network, dict[str, Any]]:
    """Return a checkpoint's network and its facts."""
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["facts"])["config"]
    network = Network(config["layers"], config["dim"], config["heads"], precision)
    return network, load_checkpoint(path, network, None)
