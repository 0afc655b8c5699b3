"""Residues per second of ESM2: ProtAlign's packed forward pass against fair-esm's extract script.

    python benchmarks/speed/esm2.py                         # the 8M architecture, random weights
    python benchmarks/speed/esm2.py --model esm2_t30_150M_UR50D --residues 3000
    python benchmarks/speed/esm2.py --weights esm2_t6_8M_UR50D.pt --proteins pdbbind/ --threads 2
    python benchmarks/speed/esm2.py --residues 300 --turns 1      # a quick check that it runs

fair-esm's side does the same as its scripts/extract.py: it sorts the sequences by length, makes
padded batches of at most 4,096 tokens (no truncation is needed below 1,022 residues) and copies one
layer's representations out per sequence. All sides run in this process, in turns, with the same
threads and sequences (ProtAlign's batches side by side, one per thread). A figure is the median
over the turns. The speed does not depend on the weights' values. It depends on the sequences'
lengths: fair-esm pads and writes attention out, so long sequences cost it more. The limit is the
operations of the linear layers at the speed of torch's matrix product.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import esm
import torch
from esm.model.esm2 import ESM2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from safetensors.torch import save_file

from benchmarks.shared.encoders import Embeddings, Run, compare, print_table, summary
from benchmarks.shared.measuring import SAMPLE, arguments, encode_all, write
from protalign.core.arrays import Float32
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.esm2.weights import ARCHITECTURES, read_esm2
from protalign.reading import find_sources, read_sources

TOKENS_PER_BATCH = 4096
LONGEST = 1022
#: The ratios to reach, by model and dtype.
TARGETS = {
    "esm2_t6_8M_UR50D": {"float32": 3.5, "bfloat16": 7.0},
    "esm2_t30_150M_UR50D": {"float32": 1.7, "bfloat16": 5.0},
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    sequences = read_sequences(options.proteins, options.residues)
    residues = sum(map(len, sequences))
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or random_weights(options.model, Path(folder))
        sides = {"fair-esm float32": extract(options.model, weights, sequences)}
        for dtype in ("float32", "bfloat16"):
            spec = EncoderSpec(options.model, str(weights), device="cpu", dtype=dtype)
            sides[f"protalign {dtype}"] = packed(load_encoder(spec), sequences)
        rows = compare(sides, residues, options)
    source = options.weights.name if options.weights else "random weights"
    title = f"{options.model} ({source}), {len(sequences)} sequences, {residues} residues"
    print_table(title, rows, options)
    size = ARCHITECTURES[options.model]
    lines = summary(
        rows,
        options.threads,
        part=options.model,
        peer="fair-esm's extract script, float32",
        operations=24 * size.layers * size.dim**2,
        targets=TARGETS.get(options.model, {}),
    )
    write(options, "esm2", rows, lines, ["fair-esm"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument(
        "--model", "--architecture", default="esm2_t6_8M_UR50D", choices=ARCHITECTURES
    )
    parser.add_argument("--weights", type=Path, help="weights of the model; default: random")
    parser.add_argument("--proteins", type=Path, default=SAMPLE, help="files with the sequences")
    parser.add_argument("--residues", type=int, default=20_000, help="about how many to embed")
    return parser.parse_args()


def read_sequences(path: Path, residues: int) -> list[str]:
    """Read real sequences, shuffled with a fixed seed, repeated or cut to the residues given."""
    sources, _ = find_sources([path])
    known = [
        sequence
        for result in read_sources(sources)
        for protein in result.proteins
        for sequence in protein.sequences
        if len(sequence) <= LONGEST
    ]
    random.Random(0).shuffle(known)
    sequences: list[str] = []
    while sum(map(len, sequences)) < residues:
        sequences.append(known[len(sequences) % len(known)])
    return sequences


def random_weights(model: str, folder: Path) -> Path:
    """Write a file with random weights of a model's architecture."""
    size = ARCHITECTURES[model]
    torch.manual_seed(0)
    state = ESM2(size.layers, size.dim, size.heads, "ESM-1b").state_dict()
    path = folder / f"{model}.safetensors"
    save_file({k: v for k, v in state.items() if not k.startswith(("lm_head", "contact"))}, path)
    return path


def extract(model: str, weights: Path, sequences: list[str]) -> Run:
    """Return fair-esm's side."""
    size = ARCHITECTURES[model]
    network = ESM2(size.layers, size.dim, size.heads, "ESM-1b").eval()
    network.load_state_dict(read_esm2(weights, model, size), strict=False)
    convert = network.alphabet.get_batch_converter(LONGEST)
    data = esm.FastaBatchedDataset([str(i) for i in range(len(sequences))], sequences)

    def run() -> Embeddings:
        embeddings: dict[int, Float32] = {}
        for indices in data.get_batch_indices(TOKENS_PER_BATCH, extra_toks_per_seq=1):
            labels, strings, tokens = convert([data[index] for index in indices])
            with torch.no_grad():
                out = network(tokens, repr_layers=[size.layers], return_contacts=False)
            rows = out["representations"][size.layers]
            for i, (label, string) in enumerate(zip(labels, strings, strict=True)):
                embeddings[int(label)] = rows[i, 1 : len(string) + 1].clone().numpy()
        return [embeddings[i] for i in range(len(sequences))]

    return run


def packed(encoder: Encoder, sequences: list[str]) -> Run:
    """Return ProtAlign's side: batches of ``encoder.batch_rows`` residues in the order given."""
    batches: list[list[tuple[str, ...]]] = [[]]
    rows = 0
    for sequence in sequences:
        if batches[-1] and rows + len(sequence) > encoder.batch_rows:
            batches.append([])
            rows = 0
        batches[-1].append((sequence,))
        rows += len(sequence)

    return lambda: encode_all(encoder, batches)


if __name__ == "__main__":
    main()
