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

from protalign.core.errors import InputError, ProtAlignError
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads import rows
from protalign.heads.distributed import Ranks, together

#: As it is.
MEMORY_PART = rows.MEMORY_PART

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
    "streamed codebook": {
        "pooling": "codebook",
        "batch_size": 7,
        "early_stopping": True,
        "validation_fraction": 0.35,
    },
    "mean": {"pooling": "mean-mlp", "batch_size": 7},
    "streamed": {"batch_size": 7, "early_stopping": True, "validation_fraction": 0.35},
    "differs": {},
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
    save_file({"head": head.grad, "loss": loss.grad}, _file(folder, "gradients", ranks))


def _write_fit(name: str, ranks: Ranks, folder: Path) -> None:
    """Write the parameters of a fit, and its curves as metadata."""
    # Nothing fits into no memory: rows are then read for each batch.
    rows.MEMORY_PART = 0.0 if name.startswith("streamed") else MEMORY_PART
    model = fitted(name)
    stage = model.model_.residue_stage
    curves = {
        "loss": model.loss_curve_,
        "validation": model.validation_curve_,
        "stage": None if stage is None else stage.facts()["calibration"],
    }
    save_file(model.model_.state_dict(), _file(folder, name, ranks), {"curves": json.dumps(curves)})


def _differ(ranks: Ranks, folder: Path) -> None:
    """Fit with other parameters on each rank; print the error that each should get."""
    FITS["differs"] = {"max_epochs": 1 + ranks.place.rank}
    try:
        _write_fit("differs", ranks, folder)
    except InputError as error:
        print(error)
        save_file({}, _file(folder, "differs", ranks))


def _file(folder: Path, name: str, ranks: Ranks) -> Path:
    return folder / f"{name}.{ranks.place.rank}.safetensors"


def _run(name: str, ranks: Ranks, folder: Path) -> None:
    second = ranks.place.rank == 1
    if name == "gradients":
        _write_gradients(ranks, folder)
    elif name == "differs":
        _differ(ranks, folder)
    elif name == "fails":
        if second:
            raise InputError("rank 1: it fails", "expect it")
    elif name == "killed":
        if second:
            os.kill(os.getpid(), signal.SIGKILL)
        fitted("clip")
    else:
        _write_fit(name, ranks, folder)


def main(folder: Path, names: list[str]) -> None:
    """Write ``{name}.{rank}.safetensors`` for each name; say who failed first, if one does."""
    ranks = None
    try:
        with together() as ranks:
            for name in names:
                _run(name, ranks, folder)
    except ProtAlignError:
        assert ranks is not None
        print("first" if ranks.fails_first() else "later")
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
