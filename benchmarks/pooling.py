"""One training step of both pooling heads: packed rows against padding + nn.MultiheadAttention.

    python benchmarks/pooling.py                       # D = 320 and 1280, batch 1024
    python benchmarks/pooling.py --dims 320 --longest 1000 --threads 1 --json pooling.json

A step is what training does with a batch: put it together out of per-protein float16 rows in
memory, both heads, the CLIP loss, backward, Adam. The padded side fills float32 tensors of
(batch, longest, D) and masks the rest, as a collate function does; it has the same parameters, and
the two losses are compared. All runs in turns in this process, with the same threads; a figure is
the median over the turns. Lengths are log-normal (median 245, as PDBbind's complexes have them),
cut at --longest, because the padded side's memory grows with the longest; so does its time: the
longer the longest, the larger the ratio. Memory is the growth of the peak, in a fresh process for
each side, over what the proteins themselves take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.losses import ContrastiveLoss
from protalign.model import Heads
from protalign.packed import PackedBatch
from protalign.pooling import PoolingHead
from protalign.ragged import Ragged

STRUCTURE_DIM = 128
Proteins = list[npt.NDArray[np.float16]]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = [measure(dim, options) for dim in options.dims]
    print_table(rows, options)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        settings["torch"] = torch.__version__
        options.json.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[320, 1280], help="D of sequences")
    parser.add_argument("--batch", type=int, default=1024, help="pairs")
    parser.add_argument("--longest", type=int, default=400, help="residues, at most")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def proteins(dim: int, options: argparse.Namespace) -> tuple[Proteins, Proteins]:
    """Embeddings of a batch: (L, dim) of the sequences, (L, 128) of the structures."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.5, 0.5, options.batch), 30, options.longest).astype(int)
    sequence, structure = (
        [
            rng.standard_normal((length, d), dtype=np.float32).astype(np.float16)
            for length in lengths
        ]
        for d in (dim, STRUCTURE_DIM)
    )
    return sequence, structure


class PaddedHead(nn.Module):
    """The peer: torch's own modules over a padded batch."""

    def __init__(self, head: PoolingHead, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(head.query.detach().clone())
        self.attention = nn.MultiheadAttention(128, 4, kdim=dim, vdim=dim, batch_first=True)
        self.attention._qkv_same_embed_dim = False  # one naming of weights, whatever D is
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            setattr(self.attention, name, nn.Parameter(getattr(head.attention, name).detach()))
        self.attention.in_proj_weight = None
        self.attention.load_state_dict(head.attention.state_dict())
        self.norm = nn.LayerNorm(128)

    def forward(self, rows: Tensor, missing: Tensor) -> Tensor:
        query = self.query.expand(len(rows), 1, -1)
        pooled, _ = self.attention(query, rows, rows, key_padding_mask=missing, need_weights=False)
        return functional.normalize(self.norm(pooled[:, 0]), dim=-1)


def pad(arrays: Proteins) -> tuple[Tensor, Tensor]:
    """(batch, longest, D) float32, and where it holds no residue."""
    longest = max(map(len, arrays))
    rows = torch.zeros(len(arrays), longest, arrays[0].shape[1])
    missing = torch.ones(len(arrays), longest, dtype=torch.bool)
    for index, array in enumerate(arrays):
        rows[index, : len(array)] = torch.from_numpy(array)
        missing[index, : len(array)] = False
    return rows, missing


def packed_step(sequence: Proteins, structure: Proteins) -> Callable[[], float]:
    """ProtAlign's step; returns the loss."""
    heads = new_heads(sequence[0].shape[1])
    optimiser = torch.optim.Adam([p for p in heads.parameters() if p.requires_grad])

    def step() -> float:
        optimiser.zero_grad()
        batches = [PackedBatch.from_ragged(Ragged.pack(each)) for each in (sequence, structure)]
        loss = heads(*batches)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def padded_step(sequence: Proteins, structure: Proteins) -> Callable[[], float]:
    """The peer's step; returns the loss."""
    dim = sequence[0].shape[1]
    heads = new_heads(dim)
    loss_of = ContrastiveLoss("clip")
    peers = nn.ModuleList(
        [PaddedHead(heads.sequence, dim), PaddedHead(heads.structure, STRUCTURE_DIM)]
    )
    optimiser = torch.optim.Adam(peers.parameters())

    def step() -> float:
        optimiser.zero_grad()
        vectors = [
            head(*pad(each)) for head, each in zip(peers, (sequence, structure), strict=True)
        ]
        loss = loss_of(*vectors)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def new_heads(dim: int) -> Heads:
    """Both heads with the same random parameters every time."""
    torch.manual_seed(0)
    return Heads({"sequence": dim, "structure": STRUCTURE_DIM}, ContrastiveLoss("clip"))


SIDES = {"packed": packed_step, "padded": padded_step}


def measure(dim: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and memory of both sides at one D."""
    context = multiprocessing.get_context("spawn")
    memory = {}
    for name in SIDES:  # before this process holds anything
        with context.Pool(1) as pool:
            memory[name] = pool.apply(extra_memory, (name, dim, options))
    data = proteins(dim, options)
    steps = {name: make(*data) for name, make in SIDES.items()}
    losses = {name: step() for name, step in steps.items()}  # not timed
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.turns):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "dim": dim,
        "residues": sum(map(len, data[0])),
        "longest": max(map(len, data[0])),
        "packed_seconds": median["packed"],
        "padded_seconds": median["padded"],
        "ratio": median["padded"] / median["packed"],
        "packed_extra_bytes": memory["packed"],
        "padded_extra_bytes": memory["padded"],
        "loss_difference": abs(losses["packed"] - losses["padded"]),
    }


def extra_memory(name: str, dim: int, options: argparse.Namespace) -> int:
    """Bytes that one step adds to this process's peak."""
    torch.set_num_threads(options.threads)
    data = proteins(dim, options)
    step = SIDES[name](*data)
    before = peak_bytes()
    step()
    return peak_bytes() - before


def peak_bytes() -> int:
    """Largest resident size of this process so far (Linux: getrusage would count its parent's)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def print_table(rows: list[dict[str, float]], options: argparse.Namespace) -> None:
    print(f"batch {options.batch}, {options.threads} threads, median of {options.turns} turns")
    print("   D  residues  longest  packed s  padded s  ratio  packed MB  padded MB  loss differs")
    for row in rows:
        print(
            f"{row['dim']:4}  {row['residues']:8,}  {row['longest']:7}  "
            f"{row['packed_seconds']:8.3f}  {row['padded_seconds']:8.3f}  {row['ratio']:5.1f}  "
            f"{row['packed_extra_bytes'] / 1e6:9.0f}  {row['padded_extra_bytes'] / 1e6:9.0f}  "
            f"{row['loss_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
