"""Residues per second of ESM2: ProtAlign's packed forward against fair-esm's extract script.

    python benchmarks/speed/esm2.py                         # the 8M architecture, random weights
    python benchmarks/speed/esm2.py --model esm2_t30_150M_UR50D --residues 3000
    python benchmarks/speed/esm2.py --weights esm2_t6_8M_UR50D.pt --proteins pdbbind/ --threads 2

fair-esm's side does what its scripts/extract.py does: sequences sorted by length, padded batches of
at most 4,096 tokens, no truncation needed below 1,022 residues, one layer's representations copied
out per sequence. All sides run in this process with the same threads, in turns, on the same
sequences (ProtAlign's batches side by side, a thread each); a figure is the median over the turns.
Speed does not depend on the weights' values, but does on the sequences' lengths: longer ones,
padded and with attention written out, cost fair-esm more. The limit is the operations of the linear
layers at the speed of torch's matrix product.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import esm
import numpy as np
import numpy.typing as npt
import torch
from esm.model.esm2 import ESM2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from safetensors.torch import save_file

from benchmarks.shared.measuring import (
    SAMPLE,
    Summary,
    arguments,
    encode_all,
    matrix_peak,
    take_turns,
    times_faster,
    write,
)
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.esm2.weights import ARCHITECTURES, read_esm2
from protalign.reading import find_sources, read_sources

TOKENS_PER_BATCH = 4096
LONGEST = 1022
BASE = "fair-esm float32"
#: How many times fair-esm's speed is wanted, by model and dtype.
TARGETS = {
    ("esm2_t6_8M_UR50D", "float32"): 3.5,
    ("esm2_t6_8M_UR50D", "bfloat16"): 7.0,
    ("esm2_t30_150M_UR50D", "float32"): 1.7,
    ("esm2_t30_150M_UR50D", "bfloat16"): 5.0,
}

Embeddings = list[npt.NDArray[np.float32]]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    sequences = read_sequences(options.proteins, options.residues)
    residues = sum(map(len, sequences))
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or random_weights(options.model, Path(folder))
        sides = {BASE: extract(options.model, weights, sequences)}
        for dtype in ("float32", "bfloat16"):
            spec = EncoderSpec(options.model, str(weights), device="cpu", dtype=dtype)
            sides[f"protalign {dtype}"] = packed(load_encoder(spec), sequences)
    outputs = {name: run() for name, run in sides.items()}
    seconds = take_turns(sides, options.turns, threads=options.threads, warm=False)
    rows = compare(seconds, outputs, residues)
    print_table(rows, options, len(sequences), residues)
    write(options, "esm2", rows, summary(rows, options), ["fair-esm"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument(
        "--model", "--architecture", default="esm2_t6_8M_UR50D", choices=ARCHITECTURES
    )
    parser.add_argument("--weights", type=Path, help="weights of the model; random without")
    parser.add_argument(
        "--proteins", type=Path, default=SAMPLE, help="files to take sequences from"
    )
    parser.add_argument("--residues", type=int, default=20_000, help="about how many to embed")
    return parser.parse_args()


def read_sequences(path: Path, residues: int) -> list[str]:
    """Real sequences, shuffled with a fixed seed, repeated or cut to the number of residues."""
    sources, _ = find_sources([path])
    found = [
        sequence
        for result in read_sources(sources)
        for protein in result.proteins
        for sequence in protein.sequences
        if len(sequence) <= LONGEST
    ]
    random.Random(0).shuffle(found)
    chosen: list[str] = []
    while sum(map(len, chosen)) < residues:
        chosen.append(found[len(chosen) % len(found)])
    return chosen


def random_weights(model: str, folder: Path) -> Path:
    """A file with random weights of a model's architecture."""
    size = ARCHITECTURES[model]
    torch.manual_seed(0)
    state = ESM2(size.layers, size.dim, size.heads, "ESM-1b").state_dict()
    path = folder / f"{model}.safetensors"
    save_file({k: v for k, v in state.items() if not k.startswith(("lm_head", "contact"))}, path)
    return path


def extract(model: str, weights: Path, sequences: list[str]) -> Callable[[], Embeddings]:
    """fair-esm's side."""
    size = ARCHITECTURES[model]
    network = ESM2(size.layers, size.dim, size.heads, "ESM-1b").eval()
    network.load_state_dict(read_esm2(weights, model, size), strict=False)
    convert = network.alphabet.get_batch_converter(LONGEST)
    data = esm.FastaBatchedDataset([str(i) for i in range(len(sequences))], sequences)

    def run() -> Embeddings:
        found: dict[int, npt.NDArray[np.float32]] = {}
        for indices in data.get_batch_indices(TOKENS_PER_BATCH, extra_toks_per_seq=1):
            labels, strings, tokens = convert([data[index] for index in indices])
            with torch.no_grad():
                out = network(tokens, repr_layers=[size.layers], return_contacts=False)
            rows = out["representations"][size.layers]
            for i, (label, string) in enumerate(zip(labels, strings, strict=True)):
                found[int(label)] = rows[i, 1 : len(string) + 1].clone().numpy()
        return [found[i] for i in range(len(sequences))]

    return run


def packed(encoder: Encoder, sequences: list[str]) -> Callable[[], Embeddings]:
    """ProtAlign's side: batches of ``encoder.batch_rows`` residues in the order given."""
    batches: list[list[tuple[str, ...]]] = [[]]
    rows = 0
    for sequence in sequences:
        if batches[-1] and rows + len(sequence) > encoder.batch_rows:
            batches.append([])
            rows = 0
        batches[-1].append((sequence,))
        rows += len(sequence)

    return lambda: encode_all(encoder, batches)


def compare(
    seconds: dict[str, list[float]], outputs: dict[str, Embeddings], residues: int
) -> list[dict[str, str | float]]:
    """A row for each side; the first is what the others are compared with."""
    reference = np.concatenate(outputs[BASE])
    rows: list[dict[str, str | float]] = []
    for name, times in seconds.items():
        values = np.concatenate(outputs[name])
        norms = np.linalg.norm(values, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (values * reference).sum(1) / norms
        rows.append(
            {
                "side": name,
                "residues_per_second": residues / statistics.median(times),
                "ratio": times_faster(seconds, BASE, name),
                "largest_difference": float(np.abs(values - reference).max()),
                "median_cosine": float(np.median(cosines)),
                "smallest_cosine": float(cosines.min()),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[Summary]:
    size = ARCHITECTURES[options.model]
    operations = 24 * size.layers * size.dim**2  # of the linear layers, a residue
    lines: list[Summary] = []
    for row in rows[1:]:
        dtype = row["side"].split()[1]
        peak = matrix_peak(getattr(torch, dtype), threads=options.threads)
        share = row["residues_per_second"] * operations / peak
        exact = dtype == "float32"
        lines.append(
            {
                "part": f"{options.model}, {dtype}",
                "peer": "fair-esm's extract script, float32",
                "ratio": row["ratio"],
                "target": TARGETS.get((options.model, dtype)),
                "figure": f"{row['residues_per_second']:,.0f} residues/s",
                "limit": f"matrix product {peak / 1e9:,.0f} GFLOP/s; linear layers reach "
                f"{share:.0%} of it",
                "equal": f"differs by {row['largest_difference']:.0e}"
                if exact
                else f"cosine {row['median_cosine']:.5f} in the median of residues, "
                f"{row['smallest_cosine']:.5f} in the worst",
            }
        )
    return lines


def print_table(
    rows: list[dict[str, str | float]], options: argparse.Namespace, sequences: int, residues: int
) -> None:
    source = options.weights.name if options.weights else "random weights"
    print(f"{options.model} ({source}), {sequences} sequences, {residues} residues,")
    print(f"{options.threads} thread(s), median of {options.turns} turns")
    print(f"{'':20} {'residues/s':>10} {'ratio':>6} {'max. diff.':>10} {'min. cosine':>11}")
    for row in rows:
        print(
            f"{row['side']:20} {row['residues_per_second']:10.0f} {row['ratio']:6.2f} "
            f"{row['largest_difference']:10.1e} {row['smallest_cosine']:11.6f}"
        )


if __name__ == "__main__":
    main()
