"""Measure a small sequence encoder; figures go into a JSON file and a table.

    # hidden residues of clusters that training held out
    python scripts/language_model/evaluate.py masked --fasta sequences.fasta.gz \\
        --checkpoint run/checkpoint.safetensors --out figures.json
    # the structure encoder's states of families that training held out, from its embeddings
    python scripts/language_model/evaluate.py states --states states.safetensors \\
        --encoder protalign_t6_2M --out figures.json
    # retrieval of test proteins' structures by their sequences
    python scripts/language_model/evaluate.py retrieval --store store.zarr --table split.csv \\
        --encoder protalign_t6_2M --encoder store:esm2_t6_8M_UR50D --encoder one-hot \\
        --out figures.json

An encoder is "one-hot", the name of a model that ProtAlign knows, "store:NAME" for embeddings that
are in the store (retrieval only), or a training checkpoint (a .safetensors file). All are measured
in the same way. Results that the JSON file already holds stay in it.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts' folder

from language_model.batches import WindowSampler
from language_model.clusters import cached_clusters, held_out
from language_model.network import Network
from language_model.optimisation import open_checkpoint
from language_model.probes import Ridge, explained_variance
from language_model.sequences import STANDARD_TOKENS, read_fasta, tokenize
from language_model.structures import read_states
from protalign import ProtAlignEstimator
from protalign.core.protein import AMINO_ACIDS
from protalign.encoders import EncoderSpec, load_encoder
from protalign.heads.ranks import mean_reciprocal_rank, recall_at_k
from protalign.stores import EmbeddingStore

Float32 = NDArray[np.float32]
Chains = tuple[str, ...]
Embed = Callable[[Chains], Float32]

LETTERS = AMINO_ACIDS + "X"
SEEDS = 3


def one_hot(chains: Chains) -> Float32:
    """Return residues as unit vectors of 21 amino acids, unknown ones as X: (L, 21)."""
    index = [max(LETTERS.find(letter), -1) for letter in "".join(chains)]
    return np.eye(len(LETTERS), dtype=np.float32)[index]


def embedder(name: str) -> Embed:
    """Return the function that embeds a protein's chains, one after another: (L, D)."""
    if name == "one-hot":
        return one_hot
    if name.endswith(".safetensors"):
        return checkpoint_embedder(open_checkpoint(Path(name))[0])
    encoder = load_encoder(EncoderSpec(name, device="cpu"))
    return lambda chains: encoder.encode([chains])[0]


def checkpoint_embedder(network: Network) -> Embed:
    """Return the function that gives each chain's last representation, without the marks."""

    @torch.inference_mode()
    def embed(chains: Chains) -> Float32:
        tokens = [torch.from_numpy(tokenize(chain).astype(np.int64))[None] for chain in chains]
        rows: Float32 = np.concatenate([network(each)[1:-1].numpy() for each in tokens])
        return rows

    return embed


# -- hidden residues ----------------------------------------------------------------------------


def held_out_sampler(fasta: Sequence[Path], config: dict[str, Any], cache: Path) -> WindowSampler:
    """Return windows of the sequences that a training with this configuration held out."""
    sequences = [record.sequence for path in fasta for record in read_fasta(path)]
    labels = cached_clusters(sequences, cache)
    lengths = np.array([len(sequence) for sequence in sequences])
    out = held_out(labels, lengths, config["holdout"], config["seed"])
    kept = [tokenize(sequence) for sequence, held in zip(sequences, out, strict=True) if held]
    return WindowSampler(kept, 512, 8192, config["seed"])


@torch.inference_mode()
def masked_scores(network: Network, sampler: WindowSampler) -> tuple[Float32, NDArray[np.int64]]:
    """Return log-probabilities of all tokens at the hidden residues, and the true tokens."""
    scores, targets = [], []
    for step in range(sampler.batches_per_epoch):
        batch = sampler.mask_of(sampler.windows(step), step)
        states = network(torch.from_numpy(batch.tokens))
        logits = network.logits(states[torch.from_numpy(batch.positions)])
        scores.append(logits.log_softmax(dim=1).numpy())
        targets.append(batch.targets)
    return np.concatenate(scores), np.concatenate(targets)


def masked_figures(scores: Float32, targets: NDArray[np.int64]) -> dict[str, float]:
    """Return perplexity (exp of the mean cross entropy) and accuracy."""
    loss = -scores[np.arange(len(targets)), targets].mean()
    right = (scores.argmax(axis=1) == targets).mean()
    return {"perplexity": float(np.exp(loss)), "accuracy": float(right), "residues": len(targets)}


def unigram_scores(targets: NDArray[np.int64], tokens: int) -> Float32:
    """Log-frequencies of the hidden residues themselves: the best that frequencies can do."""
    counts = np.bincount(targets, minlength=tokens)[STANDARD_TOKENS]
    row = np.full(tokens, -np.inf, dtype=np.float32)
    row[STANDARD_TOKENS] = np.log(counts / counts.sum())
    return np.broadcast_to(row, (len(targets), tokens))


def masked(options: argparse.Namespace) -> dict[str, Any]:
    """Every checkpoint, the first one's network untrained, and unigram frequencies."""
    config = open_checkpoint(options.checkpoint[0])[1]["config"]
    sampler = held_out_sampler(options.fasta, config, options.checkpoint[0].parent)
    torch.manual_seed(config["seed"])
    untrained = Network(config["layers"], config["dim"], config["heads"])
    scores, targets = masked_scores(untrained, sampler)
    results = {
        "unigram frequencies": masked_figures(unigram_scores(targets, scores.shape[1]), targets),
        "untrained": masked_figures(scores, targets),
    }
    for path in options.checkpoint:
        network, facts = open_checkpoint(path)
        results[path.parent.name] = masked_figures(*masked_scores(network, sampler))
        results[path.parent.name]["steps"] = facts["step"]
    return results


# -- structure states ---------------------------------------------------------------------------


def states(options: argparse.Namespace) -> dict[str, Any]:
    """R² of a ridge regression from embeddings to states, on families held out by training."""
    chains = read_states(options.states)
    lengths = np.array([len(sequence) for sequence in chains.sequences])
    out = held_out(chains.groups, lengths, options.holdout, options.seed)
    targets = [each.astype(np.float32) for each in chains.states]
    results = {}
    for name in options.encoder:
        embed = embedder(name)
        rows = [embed((sequence,)) for sequence in chains.sequences]
        known, new = ((_where(rows, part), _where(targets, part)) for part in (~out, out))
        ridge = Ridge.fit(*known)
        results[name] = {
            "r2_held_out_families": explained_variance(ridge, *new),
            "r2_training_families": explained_variance(ridge, *known),
            "held_out_chains": int(out.sum()),
        }
    return results


def _where(rows: Sequence[Float32], chosen: NDArray[np.bool_]) -> Float32:
    return np.concatenate([each for each, kept in zip(rows, chosen, strict=True) if kept])


# -- retrieval ----------------------------------------------------------------------------------


def split_ids(table: Path, store: EmbeddingStore) -> dict[str, list[str]]:
    """Read the store's ids by split from a CSV file with the columns id and split."""
    ids: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    with table.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if row["split"] in ids and row["id"] in store:
                ids[row["split"]].append(row["id"])
    return ids


def sequence_rows(store: EmbeddingStore, name: str, ids: Sequence[str]) -> list[Float32]:
    """Return sequence embeddings of entries, computed or from the store."""
    if name.startswith("store:"):
        ragged = store[ids].embeddings(name.removeprefix("store:"))
        return [ragged[index] for index in range(len(ragged))]
    embed = embedder(name)
    return [embed(store.sequence(entry)) for entry in ids]


def retrieval(options: argparse.Namespace) -> dict[str, Any]:
    """Train the paper's heads per encoder and seed; test sequence -> structure retrieval."""
    store = EmbeddingStore.open(options.store)
    ids = split_ids(options.table, store)
    structures = {
        split: list(store[entries].embeddings(options.structure_encoder))
        for split, entries in ids.items()
    }
    results = {}
    for name in options.encoder:
        pairs = {
            split: list(zip(sequence_rows(store, name, entries), structures[split], strict=True))
            for split, entries in ids.items()
        }
        runs = [retrieval_run(pairs, seed) for seed in range(SEEDS)]
        results[name] = summary(runs) | {"runs": runs}
        print(json.dumps({name: summary(runs)}), flush=True)
    return results


def retrieval_run(pairs: dict[str, list[tuple[Float32, Float32]]], seed: int) -> dict[str, float]:
    """Fit heads on the training pairs with early stopping; return the test figures."""
    estimator = ProtAlignEstimator(loss="clip", max_epochs=120, random_state=seed, device="cpu")
    estimator.fit(pairs["train"], X_val=pairs["val"])
    ranks = estimator.retrieval_set(pairs["test"]).ranks()
    return {
        "recall_at_1": recall_at_k(ranks, 1),
        "recall_at_5": recall_at_k(ranks, 5),
        "mrr": mean_reciprocal_rank(ranks),
        "epochs": estimator.n_iter_,
        "proteins": len(ranks),
    }


def summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over the seeds, and their standard deviation."""
    figures = {}
    for name in ("recall_at_1", "recall_at_5", "mrr"):
        values = [run[name] for run in runs]
        figures[name] = float(np.mean(values))
        figures[f"{name}_sd"] = float(np.std(values, ddof=1))
    return figures


# -- the command line ---------------------------------------------------------------------------


def table_of(results: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table with a row per result and a column per number."""
    columns = [name for name, value in next(iter(results.values())).items() if name != "runs"]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, figures in results.items():
        cells = [f"{figures[name]:.3f}" if name in figures else "" for name in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(path: Path, part: str, results: dict[str, Any]) -> None:
    """Add results to a JSON file that may hold others."""
    figures = json.loads(path.read_text()) if path.exists() else {}
    figures[part] = figures.get(part, {}) | results
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parts = parser.add_subparsers(dest="part", required=True)
    add = {name: parts.add_parser(name) for name in ("masked", "states", "retrieval")}
    add["masked"].add_argument("--fasta", type=Path, nargs="+", required=True)
    add["masked"].add_argument("--checkpoint", type=Path, action="append", required=True)
    add["states"].add_argument("--states", type=Path, required=True)
    add["states"].add_argument("--holdout", type=float, default=0.1, help="as in training")
    add["states"].add_argument("--seed", type=int, default=0, help="as in training")
    add["retrieval"].add_argument("--store", type=Path, required=True)
    add["retrieval"].add_argument("--table", type=Path, required=True, help="CSV: id, split")
    add["retrieval"].add_argument("--structure-encoder", default="proteinmpnn_v_48_020")
    for part in ("states", "retrieval"):
        add[part].add_argument("--encoder", action="append", required=True)
    for subparser in add.values():
        subparser.add_argument("--out", type=Path, required=True, help="JSON file")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print and save."""
    options = parse()
    torch.set_num_threads(options.threads)
    measure = {"masked": masked, "states": states, "retrieval": retrieval}[options.part]
    results = measure(options)
    save(options.out, options.part, results)
    print(table_of(results))


if __name__ == "__main__":
    main()
