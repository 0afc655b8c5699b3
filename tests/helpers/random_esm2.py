"""ESM2 models of fair-esm's own class with random weights: the reference that ours must equal."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from esm.model.esm2 import ESM2
from safetensors.torch import save_file

from protalign.encoders.esm2.network import Architecture

TINY = "esm2_t6_8M_UR50D"


def random_esm2(architecture: Architecture, seed: int = 0) -> ESM2:
    """fair-esm's ESM2, every parameter random: layer norms and biases too, so that each counts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ESM2(architecture.layers, architecture.dim, architecture.heads, "ESM-1b").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    return model


def save_published(model: ESM2, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a .pt as fair-esm publishes it: prefixed names and an argparse.Namespace beside."""
    names = {
        name: name if name.startswith("lm_head") else f"sentence_encoder.{name}"
        for name in model.state_dict()
        if not name.startswith("contact_head")
    }
    state = {f"encoder.{names[name]}": model.state_dict()[name].to(dtype) for name in names}
    config = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=True,
    )
    torch.save({"cfg": {"model": config}, "model": state}, path)
    return path


def save_tensors(model: ESM2, path: Path) -> Path:
    """Write a .safetensors with what embedding needs and no more."""
    unused = ("lm_head", "contact_head")
    state = model.state_dict()
    save_file({name: state[name] for name in state if not name.startswith(unused)}, path)
    return path
