"""Train a small ESM-2 on a FASTA file: masked language modelling, and structure states where given.

    python scripts/language_model/train.py --fasta sequences.fasta.gz --out run/ --steps 10000

Writes into the output folder: `checkpoint.safetensors` (run the same command again to resume),
`log.jsonl` (one JSON object a line) and `clusters-*.txt` (the sequence clusters, computed once).
Batches are functions of the seed and the step, so that a resumed run equals an uninterrupted one
bit for bit on the same machine with the same number of threads.

Whole clusters are held out of training for validation. Needs torch 2.9 or newer (Muon).
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts' folder

from language_model.batches import MaskedBatch, WindowSampler
from language_model.clusters import cached_clusters, held_out
from language_model.network import Network
from language_model.optimisation import (
    Optimisers,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
)
from language_model.sequences import read_fasta, tokenize
from language_model.structures import (
    Scale,
    StructureStates,
    read_states,
    scale_of,
    select,
    window_targets,
)

CHECKPOINT = "checkpoint.safetensors"
VALIDATION_WINDOW, VALIDATION_TOKENS = 512, 8192


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result, and where to put it."""

    fasta: tuple[Path, ...]
    out: Path
    steps: int
    layers: int = 6
    dim: int = 192
    heads: int = 6
    window: int = 256
    batch_tokens: int = 4096
    rate: float = 3e-3
    weight_decay: float = 0.01
    warmup: int = 200
    decay: int = 1000
    seed: int = 0
    holdout: float = 0.02
    structures: Path | None = None
    structure_tokens: int = 2048
    structure_weight: float = 1.0
    structure_holdout: float = 0.1
    start_from: Path | None = None
    precision: str = "bfloat16"
    device: str = "cpu"
    threads: int = 2
    log_every: int = 50
    save_every: int = 250
    minutes: float = float("inf")
    stop_at: int | None = None


@dataclasses.dataclass(frozen=True)
class Chains:
    """Chains with structure states, and how their windows are drawn."""

    states: StructureStates
    sampler: WindowSampler


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on and what is held out."""

    training: WindowSampler
    validation: WindowSampler
    chains: Chains | None = None
    held_chains: Chains | None = None
    scale: Scale | None = None


def _sampler(sequences: Sequence[str], window: int, tokens: int, seed: int) -> WindowSampler:
    return WindowSampler([tokenize(sequence) for sequence in sequences], window, tokens, seed)


def _split_chains(
    config: Config, sequences: list[str], out: NDArray[np.bool_]
) -> tuple[StructureStates, StructureStates]:
    """Split the chains by family; leave out homologs of the held-out sequences."""
    assert config.structures is not None
    chains = read_states(config.structures)
    labels = cached_clusters([*sequences, *chains.sequences], config.out)
    forbidden = np.isin(labels[len(sequences) :], labels[: len(sequences)][out])
    lengths = np.array([len(sequence) for sequence in chains.sequences])
    held = held_out(chains.groups, lengths, config.structure_holdout, config.seed)
    return select(chains, ~held & ~forbidden), select(chains, held & ~forbidden)


def load_data(config: Config) -> Data:
    """Read, cluster and split the sequences and, if given, the structure states."""
    sequences = [record.sequence for path in config.fasta for record in read_fasta(path)]
    labels = cached_clusters(sequences, config.out)
    lengths = np.array([len(sequence) for sequence in sequences])
    out = held_out(labels, lengths, config.holdout, config.seed)
    training = [sequence for sequence, held in zip(sequences, out, strict=True) if not held]
    validation = [sequence for sequence, held in zip(sequences, out, strict=True) if held]
    data = Data(
        _sampler(training, config.window, config.batch_tokens, config.seed),
        _sampler(validation, VALIDATION_WINDOW, VALIDATION_TOKENS, config.seed),
    )
    if config.structures is None:
        return data
    chains, held_chains = _split_chains(config, sequences, out)
    return dataclasses.replace(
        data,
        chains=Chains(
            chains,
            _sampler(chains.sequences, config.window, config.structure_tokens, config.seed + 1),
        ),
        held_chains=Chains(
            held_chains,
            _sampler(held_chains.sequences, VALIDATION_WINDOW, VALIDATION_TOKENS, config.seed),
        ),
        scale=scale_of(chains),
    )


class Trainer:
    """A network, its optimisers and the steps done."""

    def __init__(self, config: Config, data: Data) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data = config, data
        precision: torch.dtype = getattr(torch, config.precision)
        self.network = Network(config.layers, config.dim, config.heads, precision).to(config.device)
        self.optimisers = Optimisers(self.network, config.rate, config.weight_decay)
        self.step = 0
        own = config.out / CHECKPOINT
        source = own if own.exists() else config.start_from
        if source is not None:
            self.step = load_checkpoint(source, self.network, self.optimisers)["step"]

    def _to(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.config.device)

    def _predict(self, batch: MaskedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return all tokens' representations, and the hidden residues' logits and tokens."""
        states = self.network(self._to(batch.tokens))
        logits = self.network.logits(states[self._to(batch.positions)])
        return states, logits, self._to(batch.targets)

    def _structure_losses(self, chains: Chains, step: int) -> tuple[Tensor, Tensor]:
        """Return the hidden residues' cross entropy and the scaled states' mean squared error."""
        assert self.data.scale is not None
        windows = chains.sampler.windows(step)
        seen, logits, targets = self._predict(chains.sampler.mask_of(windows, step))
        positions, wanted = window_targets(chains.states, windows, self.data.scale)
        predicted = self.network.structure_states(seen[self._to(positions)])
        error = functional.mse_loss(predicted, self._to(wanted))
        return functional.cross_entropy(logits, targets), error

    def update(self) -> dict[str, float]:
        """Do one step and return its losses."""
        config, sampler = self.config, self.data.training
        batch = sampler.mask_of(sampler.windows(self.step), self.step)
        _, logits, targets = self._predict(batch)
        loss = functional.cross_entropy(logits, targets)
        losses = {"loss": loss.detach()}
        if self.data.chains is not None:
            masked, structure = self._structure_losses(self.data.chains, self.step)
            share = config.structure_tokens / (config.batch_tokens + config.structure_tokens)
            loss = (1 - share) * loss + share * masked + config.structure_weight * structure
            losses |= {"structure": structure.detach()}
        loss.backward()  # type: ignore[no-untyped-call]
        share = learning_rate(self.step, config.warmup, config.decay, config.steps)
        self.optimisers.step(share)
        self.step += 1
        return {name: float(value) for name, value in losses.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return cross entropy (nats) and accuracy on fixed windows of the held-out clusters."""
        sampler = self.data.validation
        total, right, count = 0.0, 0, 0
        for number in range(sampler.batches_per_epoch):
            batch = sampler.mask_of(sampler.windows(number), number)
            _, logits, targets = self._predict(batch)
            total += float(functional.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(dim=1) == targets).sum())
            count += len(targets)
        result = {"validation_loss": total / count, "validation_accuracy": right / count}
        chains = self.data.held_chains
        if chains is not None:
            steps = range(chains.sampler.batches_per_epoch)
            errors = [float(self._structure_losses(chains, step)[1]) for step in steps]
            result["validation_structure"] = sum(errors) / len(errors)
        return result

    def save(self) -> None:
        """Write the checkpoint."""
        config = json.loads(json.dumps(vars(self.config), default=str))
        facts = {"step": self.step, "config": config}
        save_checkpoint(self.config.out / CHECKPOINT, self.network, self.optimisers, facts)


def _log(path: Path, entry: dict[str, Any]) -> None:
    rounded = {name: round(v, 5) if isinstance(v, float) else v for name, v in entry.items()}
    line = json.dumps(rounded)
    with path.open("a") as handle:
        handle.write(line + "\n")
    print(line, flush=True)


def train(config: Config) -> Trainer:
    """Train to `config.steps`, `stop_at` or the time limit, and return the trainer."""
    torch.set_num_threads(config.threads)
    # exp() of attention scores gives denormals, which a CPU multiplies 30 times more slowly.
    torch.set_flush_denormal(True)
    config.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, load_data(config))
    log = config.out / "log.jsonl"
    began, sums, since = time.monotonic(), dict[str, float](), 0
    goal = config.steps if config.stop_at is None else min(config.steps, config.stop_at)
    while trainer.step < goal and time.monotonic() - began < 60 * config.minutes:
        for name, value in trainer.update().items():
            sums[name] = sums.get(name, 0.0) + value
        since += 1
        if trainer.step % config.log_every == 0:
            means = {name: value / since for name, value in sums.items()}
            _log(log, {"step": trainer.step, "seconds": time.monotonic() - began, **means})
            sums, since = {}, 0
        if trainer.step % config.save_every == 0:
            trainer.save()
        if trainer.step % (4 * config.save_every) == 0:
            _log(log, {"step": trainer.step, **trainer.validate()})
    trainer.save()
    _log(log, {"step": trainer.step, **trainer.validate()})
    return trainer


def parse(arguments: list[str] | None = None) -> Config:
    """Return the command line's options as a Config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--fasta", type=Path, nargs="+", required=True, help="sequences, plain or .gz")
    add("--out", type=Path, required=True, help="folder for checkpoint and log")
    add("--steps", type=int, required=True, help="length of the whole run")
    add("--layers", type=int, default=6)
    add("--dim", type=int, default=192, help="embedding dimensions")
    add("--heads", type=int, default=6, help="attention heads")
    add("--window", type=int, default=256, help="longest window of a protein, in tokens")
    add("--batch-tokens", type=int, default=4096, help="tokens a step")
    add("--rate", type=float, default=3e-3, help="peak learning rate")
    add("--weight-decay", type=float, default=0.01)
    add("--warmup", type=int, default=200, help="steps of linear rise")
    add("--decay", type=int, default=1000, help="steps of linear fall at the end")
    add("--seed", type=int, default=0)
    add("--holdout", type=float, default=0.02, help="share of the residues held out, by cluster")
    add("--structures", type=Path, help="structure states (structure_states.py)")
    add("--structure-tokens", type=int, default=2048, help="tokens a step out of structures")
    add("--structure-weight", type=float, default=1.0, help="weight of their loss")
    add("--structure-holdout", type=float, default=0.1, help="share held out, by family")
    add("--start-from", type=Path, help="checkpoint of another run to continue")
    add("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    add("--device", default="cpu")
    add("--threads", type=int, default=2)
    add("--log-every", type=int, default=50)
    add("--save-every", type=int, default=250)
    add("--minutes", type=float, default=float("inf"), help="stop after this time, to resume later")
    add("--stop-at", type=int, help="stop after this step, to resume or branch")
    options = vars(parser.parse_args(arguments))
    return Config(**{**options, "fasta": tuple(options["fasta"])})


if __name__ == "__main__":
    train(parse())
