"""One training step of both pooling heads: packed rows against padding + nn.MultiheadAttention.

    python benchmarks/speed/pooling.py                       # D = 320 and 1280, batch 1024
    python benchmarks/speed/pooling.py --dims 320 --longest 400 --turns 3 --json pooling.json
    python benchmarks/speed/pooling.py --dims 20 --batch 8 --longest 50 --turns 1   # a quick check

A step is training with one batch of float16 rows in memory: both heads, the CLIP loss, backward,
Adam. ProtAlign reads the rows where they are. The padded side fills float32 tensors of (batch,
longest, D) and masks the rest, as a collate function does. It has the same parameters, and the two
losses and gradients are compared. The sides run in turns in this process, with the same threads; a
figure is the median over the turns. Lengths are log-normal (median 245, the longest about 1,200, as
of PDBbind's complexes). They are cut at --longest if the padded side would not fit into 24 GB: at
D = 1280 at 1,000. Padding grows with the longest protein, and so does the ratio. Memory is the
growth of the peak over the proteins themselves, in a fresh process for each side. The limit is two
reads of the float16 rows, one forward and one backward, at the same threads' memory bandwidth.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from torch import Tensor, nn
from torch.nn import functional

from benchmarks.shared.measuring import (
    Summary,
    arguments,
    read_bandwidth,
    take_turns,
    times_faster,
    write,
)
from protalign.core.ragged import Ragged
from protalign.heads.attention import AttentionHead
from protalign.heads.kernels.packed import PackedBatch, tensor
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model

STRUCTURE_DIM = 128
TARGET = 40

Proteins = list[npt.NDArray[np.float16]]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = [
        measure(dim, longest, options)
        for dim, longest in zip(options.dims, options.longest, strict=False)
    ]
    print_table(rows, options)
    write(options, "pooling", rows, [summary(row, options) for row in rows])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[320, 1280], help="D of sequences")
    parser.add_argument("--batch", type=int, default=1024, help="pairs")
    parser.add_argument(
        "--longest", type=int, nargs="+", default=[1200, 1000], help="residues at most, for each D"
    )
    return parser.parse_args()


def proteins(dim: int, longest: int, batch: int) -> tuple[Ragged, Ragged]:
    """Make a batch's embeddings: (L, dim) of the sequences, (L, 128) of the structures."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.5, 0.5, batch), 30, longest).astype(int)
    sequence, structure = (
        Ragged.pack(
            [rng.standard_normal((n, d), dtype=np.float32).astype(np.float16) for n in lengths]
        )
        for d in (dim, STRUCTURE_DIM)
    )
    return sequence, structure


class PaddedHead(nn.Module):
    """The peer: torch's own modules over a padded batch."""

    def __init__(self, head: AttentionHead, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(head.query.detach().clone())
        self.attention = nn.MultiheadAttention(128, 4, kdim=dim, vdim=dim, batch_first=True)
        self.attention._qkv_same_embed_dim = False  # the weights have the same names for every D
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(head.attention, name).detach().clone()
            setattr(self.attention, name, nn.Parameter(weight))
        self.attention.in_proj_weight = None
        self.attention.load_state_dict(head.attention.state_dict())
        self.norm = nn.LayerNorm(128)

    def forward(self, rows: Tensor, missing: Tensor) -> Tensor:
        query = self.query.expand(len(rows), 1, -1)
        pooled, _ = self.attention(query, rows, rows, key_padding_mask=missing, need_weights=False)
        return functional.normalize(self.norm(pooled[:, 0]), dim=-1)


def pad(arrays: Proteins) -> tuple[Tensor, Tensor]:
    """Return (batch, longest, D) float32, and a mask of the padding."""
    longest = max(map(len, arrays))
    rows = torch.zeros(len(arrays), longest, arrays[0].shape[1])
    missing = torch.ones(len(arrays), longest, dtype=torch.bool)
    for index, array in enumerate(arrays):
        rows[index, : len(array)] = torch.from_numpy(array)
        missing[index, : len(array)] = False
    return rows, missing


class PackedStep:
    """ProtAlign's step."""

    def __init__(self, *data: Ragged) -> None:
        self.model: nn.Module = new_model(data[0].dim)
        self._values = [tensor(rows.values) for rows in data]
        self._offsets = [rows.offsets for rows in data]
        self._optimiser = optimiser(self.model)

    def __call__(self) -> float:
        """Run the step and return the loss."""
        self._optimiser.zero_grad()
        batches = map(PackedBatch.from_tensor, self._values, self._offsets)
        loss = self.model(*batches)
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())


class PaddedStep:
    """The peer's step."""

    def __init__(self, *data: Ragged) -> None:
        heads = new_model(data[0].dim)
        self.model: nn.Module = nn.ModuleDict(
            {
                "sequence": PaddedHead(heads.sequence, data[0].dim),
                "structure": PaddedHead(heads.structure, data[1].dim),
            }
        )
        self._data = dict(zip(self.model, map(list, data), strict=True))
        self._loss = ContrastiveLoss("clip")
        self._optimiser = optimiser(self.model)

    def __call__(self) -> float:
        """Run the step and return the loss."""
        self._optimiser.zero_grad()
        loss = self._loss(*[head(*pad(self._data[name])) for name, head in self.model.items()])
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())


def new_model(dim: int) -> Model:
    """Return a model with the same random parameters every time."""
    torch.manual_seed(0)
    return Model({"sequence": dim, "structure": STRUCTURE_DIM}, ContrastiveLoss("clip"))


def optimiser(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.001)


SIDES: dict[str, Callable[..., Any]] = {"padded": PaddedStep, "packed": PackedStep}


def measure(dim: int, longest: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds and the memory of both sides at one D."""
    context = multiprocessing.get_context("spawn")
    memory = {}
    for name in SIDES:  # before this process holds anything
        with ProcessPoolExecutor(1, mp_context=context) as pool:  # a Pool would hang on an error
            memory[name] = pool.submit(extra_memory, name, dim, longest, options).result()
    bandwidth = read_bandwidth(options.threads)
    data = proteins(dim, longest, options.batch)
    steps = {name: make(*data) for name, make in SIDES.items()}
    losses = {name: step() for name, step in steps.items()}
    difference = gradient_difference(steps["packed"].model, steps["padded"].model)
    seconds = take_turns(steps, options.turns, threads=options.threads, warm=False)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "dim": dim,
        "residues": len(data[0].values),
        "longest": int(data[0].lengths.max()),
        "packed_seconds": median["packed"],
        "padded_seconds": median["padded"],
        "ratio": times_faster(seconds, "padded", "packed"),
        "limit_seconds": 2 * sum(rows.values.nbytes for rows in data) / bandwidth,
        "bandwidth_gb_per_second": bandwidth / 1e9,
        "packed_extra_bytes": memory["packed"],
        "padded_extra_bytes": memory["padded"],
        "loss_difference": abs(losses["packed"] - losses["padded"]),
        "gradient_difference": difference,
    }


def gradient_difference(packed: nn.Module, padded: nn.Module) -> float:
    """Return the largest difference of a gradient after the first step, by its largest value."""
    peer = dict(padded.named_parameters())
    return max(
        float((p.grad - peer[name].grad).abs().max() / peer[name].grad.abs().max())
        for name, p in packed.named_parameters()
        if name in peer and p.grad is not None
    )


def extra_memory(name: str, dim: int, longest: int, options: argparse.Namespace) -> int:
    """Return the bytes that one step adds to this process's peak."""
    torch.set_num_threads(options.threads)
    SIDES[name](*proteins(dim, longest, 8))()  # a warm-up: libraries allocate some memory once
    step = SIDES[name](*proteins(dim, longest, options.batch))
    ctypes.CDLL(None).malloc_trim(0)  # give freed memory back, or the step would use it again
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = peak_bytes()
    step()
    return peak_bytes() - before


def peak_bytes() -> int:
    """Return the largest resident size of this process (Linux; getrusage counts its parent's)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def summary(row: dict[str, float], options: argparse.Namespace) -> Summary:
    return {
        "part": f"pooling step (both heads, loss, Adam), batch {options.batch}, D = {row['dim']}, "
        f"longest {row['longest']}",
        "peer": "padding + nn.MultiheadAttention",
        "ratio": row["ratio"],
        "target": TARGET,
        "figure": f"{1e3 * row['packed_seconds']:.0f} ms; extra memory "
        f"{row['packed_extra_bytes'] / 1e6:.0f} MB against {row['padded_extra_bytes'] / 1e6:,.0f}",
        "limit": f"two reads of the embeddings at {row['bandwidth_gb_per_second']:.0f} GB/s: "
        f"{1e3 * row['limit_seconds']:.0f} ms",
        "equal": f"loss {row['loss_difference']:.0e}, gradients {row['gradient_difference']:.0e}",
    }


def print_table(rows: list[dict[str, float]], options: argparse.Namespace) -> None:
    print(f"batch {options.batch}, {options.threads} thread(s), median of {options.turns} turns")
    print(
        "   D  residues  longest  packed s  padded s  ratio  limit s  packed MB  padded MB  "
        "loss differs  gradients differ"
    )
    for row in rows:
        print(
            f"{row['dim']:4}  {row['residues']:8,}  {row['longest']:7}  "
            f"{row['packed_seconds']:8.3f}  {row['padded_seconds']:8.3f}  {row['ratio']:5.1f}  "
            f"{row['limit_seconds']:7.3f}  "
            f"{row['packed_extra_bytes'] / 1e6:9.0f}  {row['padded_extra_bytes'] / 1e6:9.0f}  "
            f"{row['loss_difference']:12.1e}  {row['gradient_difference']:16.1e}"
        )


if __name__ == "__main__":
    main()
