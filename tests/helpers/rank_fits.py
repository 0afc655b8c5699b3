"""Fits of one process or of several, run as a program: torchrun starts it for each rank.

python -m tests.helpers.rank_fits <folder> <names…> writes the parameters of each fit, by rank.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from protalign.core.errors import InputError
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.distributed import Ranks, together

#: Name -> what differs from a fit by CLIP with attention.
FITS: dict[str, dict[str, Any]] = {
    "clip": {"learnable_temperature": True, "batch_size": 5},
    "siglip": {"loss": "siglip", "learnable_temperature": True, "batch_size": 5},
    "validated": {"batch_size": 7, "early_stopping": True, "validation_fraction": 0.35},
    "three": {"batch_size": 3},  # 29 pairs: the last batch has two
    "codebook": {
        "pooling": "codebook",
        "batch_size": 7,
        "early_stopping": True,
        "validation_fraction": 0.35,
    },
    "mean": {"pooling": "mean-mlp", "batch_size": 7},
    "fails": {},
    "killed": {},
    "drawn": {"random_state": None},  # all ranks draw what rank 0 draws
}


def proteins(count: int = 29) -> list[tuple[np.ndarray, np.ndarray]]:
    """Related random rows of both modalities, of some lengths."""
    rng = np.random.default_rng(0)
    to_sequence, to_structure = rng.normal(size=(4, 12)), rng.normal(size=(4, 9))
    hidden = [rng.normal(size=(length, 4)) + rng.normal(size=4) for length in range(9, 9 + count)]
    return [(each @ to_sequence, each @ to_structure) for each in hidden]


def fitted(name: str) -> ProtAlignEstimator:
    """One of the fits."""
    settings = {
        "embed_dim": 8,
        "n_heads": 2,
        "max_epochs": 4,
        "random_state": 0,
        "device": "cpu",
        "early_stopping": False,
        **FITS[name],
    }
    return ProtAlignEstimator(**settings).fit(proteins(), X_val=None)


def _write_gradients(ranks: Ranks, folder: Path) -> None:
    """Write what is left of gradients 1 and 2 of a head, and 5 on both ranks of the loss."""
    head, loss = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.tensor(0.0))
    head.grad, loss.grad = torch.full((2,), 1.0 + ranks.place.rank), torch.tensor(5.0)
    ranks.add_gradients([head], [loss])
    save_file({"head": head.grad, "loss": loss.grad}, folder / f"gradients.{ranks.place.rank}")


def main(folder: Path, names: list[str]) -> None:
    """Write ``{name}.{rank}.safetensors`` with the parameters, and the curves as metadata."""
    with together() as ranks:
        for name in names:
            rank = ranks.place.rank
            if name == "gradients":
                _write_gradients(ranks, folder)
                continue
            if name == "fails" and rank == 1:
                raise InputError("rank 1: it fails", "expect it")
            if name == "killed" and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "differs":
                FITS[name] = {"max_epochs": 1 + rank}
            model = fitted(name)
            stage = model.model_.residue_stage
            curves = {
                "loss": model.loss_curve_,
                "validation": model.validation_curve_,
                "stage": None if stage is None else stage.facts()["calibration"],
            }
            save_file(
                model.model_.state_dict(),
                folder / f"{name}.{rank}.safetensors",
                {"curves": json.dumps(curves)},
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
