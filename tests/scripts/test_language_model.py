"""Training of the embedded encoder: what the scripts promise, on the sample's real sequences."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers.programs import program

program("scripts/language_model", imports_from="scripts")
if not hasattr(torch.optim, "Muon"):
    pytest.skip("training needs torch 2.9 or newer", allow_module_level=True)

from language_model.batches import LENGTH_STEP, WindowSampler, mask
from language_model.clusters import cached_clusters, cluster, held_out
from language_model.export import export
from language_model.network import Network
from language_model.optimisation import learning_rate, open_checkpoint
from language_model.probes import Ridge, explained_variance
from language_model.sequences import ALPHABET, Tokens, read_fasta, tokenize
from language_model.structures import (
    StructureStates,
    read_states,
    scale_of,
    window_targets,
    write_states,
)
from language_model.train import CHECKPOINT, Config, load_data, parse, train

from protalign.reading import find_sources, read_sources


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Training sets the number of threads and flushes denormals: of the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def chains(sample: Path) -> dict[str, str]:
    """Sequences of the sample's 40 chains."""
    sources, _ = find_sources([sample])
    proteins = [each for result in read_sources(sources) for each in result.proteins]
    return {protein.id: protein.chains[0].sequence for protein in proteins}


@pytest.fixture(scope="module")
def fasta(chains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's sequences as a FASTA file."""
    path = tmp_path_factory.mktemp("fasta") / "sample.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in chains.items()))
    return path


@pytest.fixture(scope="module")
def states(chains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets that a network can learn: a fixed random vector for each kind of residue."""
    vectors = np.random.default_rng(0).normal(size=(len(ALPHABET), 128)).astype(np.float16)
    path = tmp_path_factory.mktemp("states") / "states.safetensors"
    rows = {name: vectors[tokenize(sequence)[1:-1]] for name, sequence in chains.items()}
    write_states(path, chains, {name: number for number, name in enumerate(chains)}, rows)
    return path


def config(fasta: Path, out: Path, **changes: object) -> Config:
    """A run of seconds."""
    small = Config(
        fasta=(fasta,),
        out=out,
        steps=12,
        layers=2,
        dim=32,
        heads=2,
        window=64,
        batch_tokens=512,
        rate=1e-2,
        warmup=2,
        decay=6,
        holdout=0.2,
        structure_tokens=256,
        precision="float32",
        threads=1,
        log_every=4,
        save_every=100,
    )
    return dataclasses.replace(small, **changes)  # type: ignore[arg-type]


def sampler(chains: dict[str, str], seed: int = 0) -> WindowSampler:
    """Windows of at most 96 tokens."""
    tokens: list[Tokens] = [tokenize(sequence) for sequence in chains.values()]
    return WindowSampler(tokens, 96, 1024, seed)


def test_resumed_training_equals_uninterrupted_training(
    fasta: Path, states: Path, tmp_path: Path
) -> None:
    """A run stopped after 5 of 12 steps and started again ends in the same numbers."""
    whole = config(fasta, tmp_path / "whole", structures=states)
    train(whole)
    broken = config(fasta, tmp_path / "broken", structures=states)
    train(dataclasses.replace(broken, stop_at=5))
    train(broken)
    first, second = (load_file(each.out / CHECKPOINT) for each in (whole, broken))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_seed_decides_the_result(fasta: Path, tmp_path: Path) -> None:
    """Another seed gives other weights."""
    runs = [train(config(fasta, tmp_path / str(seed), steps=2, seed=seed)) for seed in (0, 1)]
    weights = [run.network.esm.embed_tokens.weight for run in runs]
    assert not torch.equal(*weights)


def test_training_reduces_both_losses(fasta: Path, states: Path, tmp_path: Path) -> None:
    """Sixty steps on the sample: hidden residues and states are predicted better than at first."""
    run = config(fasta, tmp_path, structures=states, steps=60, log_every=10)
    train(run)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.2
    assert steps[-1]["structure"] < steps[0]["structure"] - 0.2
    assert "validation_loss" in entries[-1]
    assert "validation_structure" in entries[-1]


def test_a_run_continues_from_another_runs_checkpoint(fasta: Path, tmp_path: Path) -> None:
    """Branching keeps the step and leaves the first run's folder as it is."""
    first = config(fasta, tmp_path / "first", steps=3)
    train(first)
    before = (first.out / CHECKPOINT).read_bytes()
    branch = config(fasta, tmp_path / "branch", steps=5, start_from=first.out / CHECKPOINT)
    assert train(branch).step == 5
    assert (first.out / CHECKPOINT).read_bytes() == before


def test_masking_is_15_80_10_10(chains: dict[str, str]) -> None:
    """Of the residues 15 % are to be predicted: 80 % masked, 10 % exchanged, 10 % unchanged."""
    tokens = np.concatenate([tokenize(sequence) for sequence in chains.values()] * 40)[None]
    batch = mask(tokens.astype(np.int64), np.random.default_rng(0))
    seen, were = batch.tokens.ravel()[batch.positions], batch.targets
    residues = (tokens != ALPHABET.cls_idx) & (tokens != ALPHABET.eos_idx)
    masked = seen == ALPHABET.mask_idx
    assert len(were) / residues.sum() == pytest.approx(0.15, abs=0.003)
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    # One exchange in twenty gives the residue that was there.
    assert (~masked & (seen != were)).mean() == pytest.approx(0.1 * 19 / 20, abs=0.01)
    assert (seen == were).mean() == pytest.approx(0.1 + 0.1 / 20, abs=0.01)


def test_masking_leaves_all_else_alone(chains: dict[str, str]) -> None:
    """Marks and unknown residues are never chosen; what is not chosen is seen as it is."""
    tokens = np.stack([tokenize("XU" + sequence[:28]) for sequence in chains.values()])
    batch = mask(tokens.astype(np.int64), np.random.default_rng(1))
    assert set(batch.positions % tokens.shape[1]).isdisjoint({0, 1, 2, tokens.shape[1] - 1})
    unchosen = np.delete(np.arange(tokens.size), batch.positions)
    assert np.array_equal(batch.tokens.ravel()[unchosen], tokens.ravel()[unchosen])


def test_batches_are_windows_of_one_length(chains: dict[str, str]) -> None:
    """A batch needs no padding, and every row is a piece of its protein."""
    tokens = [tokenize(sequence) for sequence in chains.values()]
    dealt = sampler(chains)
    seen = set()
    for step in range(dealt.batches_per_epoch):
        windows = dealt.windows(step)
        length = windows.tokens.shape[1]
        assert length % LENGTH_STEP == 0
        for protein, start, row in zip(*windows, strict=True):
            assert np.array_equal(tokens[protein][start : start + length], row)
            seen.add(int(protein))
    assert seen == set(range(len(tokens)))


def test_batches_depend_on_seed_and_step_alone(chains: dict[str, str]) -> None:
    """A sampler asked out of order gives what one asked in order gives."""
    ordered, jumping = sampler(chains), sampler(chains)
    expected = [ordered.windows(step).tokens for step in range(9)]
    assert all(np.array_equal(jumping.windows(step).tokens, expected[step]) for step in (8, 0, 5))
    other = sampler(chains, seed=1)
    assert any(not np.array_equal(other.windows(step).tokens, expected[step]) for step in range(9))


def test_clusters_hold_families_together(chains: dict[str, str]) -> None:
    """Mutants of one protein fall into one cluster, proteins of different families do not."""
    names = list(chains)
    labels = dict(zip(names, cluster(list(chains.values())), strict=True))
    assert labels["107l_A"] == labels["108l_A"] == labels["109l_A"]  # T4 lysozyme
    assert len({labels["107l_A"], labels["1acb_I"], labels["1fkb_A"]}) == 3


def test_clusters_are_computed_once(chains: dict[str, str], tmp_path: Path) -> None:
    """The second time they come out of the file, also after other sequences were clustered."""
    sequences = list(chains.values())
    first = cached_clusters(sequences, tmp_path)
    cached_clusters(sequences[:5], tmp_path)
    (path,) = (each for each in tmp_path.iterdir() if len(np.loadtxt(each)) == len(sequences))
    np.savetxt(path, np.zeros(len(sequences)), fmt="%d")
    assert (first != 0).any()
    assert (cached_clusters(sequences, tmp_path) == 0).all()


def test_validation_never_shares_a_cluster_with_training() -> None:
    """Whole clusters are held out, about as much as asked for."""
    random = np.random.default_rng(0)
    labels, weights = random.integers(300, size=2000), random.integers(30, 500, size=2000)
    out = held_out(labels, weights, 0.1, seed=0)
    assert set(labels[out]).isdisjoint(labels[~out])
    assert weights[out].sum() / weights.sum() == pytest.approx(0.1, abs=0.02)
    assert not np.array_equal(out, held_out(labels, weights, 0.1, seed=1))


def test_structures_of_held_out_proteins_are_not_trained_on(
    fasta: Path, states: Path, tmp_path: Path
) -> None:
    """A chain in a held-out sequence cluster is in neither part of the structures."""
    data = load_data(config(fasta, tmp_path, structures=states))
    assert data.chains is not None
    assert data.held_chains is not None
    sequences = [record.sequence for record in read_fasta(fasta)]
    labels = cached_clusters(sequences, tmp_path)
    out = held_out(labels, np.array([len(each) for each in sequences]), 0.2, 0)
    hidden = {sequence for sequence, held in zip(sequences, out, strict=True) if held}
    used = {*data.chains.states.sequences, *data.held_chains.states.sequences}
    assert hidden
    assert used
    assert hidden.isdisjoint(used)


def test_the_network_is_fair_esms(chains: dict[str, str]) -> None:
    """Without padding and in one matrix: the same representations and logits as fair-esm's."""
    torch.manual_seed(0)
    network = Network(2, 32, 2).eval()
    batch = sampler(chains).mask_of(sampler(chains).windows(0), 0)
    tokens = torch.from_numpy(batch.tokens)
    with torch.no_grad():
        ours = network(tokens)
        theirs = network.esm(tokens, repr_layers=[2])
        logits = network.logits(ours)
    torch.testing.assert_close(ours, theirs["representations"][2].flatten(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, theirs["logits"].flatten(0, 1), atol=1e-5, rtol=0)


def test_exported_weights_load_into_fair_esm(fasta: Path, tmp_path: Path) -> None:
    """Only the heads are missing; parameters are float16, rotary frequencies are not."""
    trained = train(config(fasta, tmp_path, steps=3))
    network, _ = open_checkpoint(tmp_path / CHECKPOINT)
    path = tmp_path / "protalign_test.safetensors"
    export(network, path, {"licence": "MIT"})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    shape = (int(header[key]) for key in ("num_layers", "embed_dim", "attention_heads"))
    model = ESM2(*shape, ALPHABET)
    state = load_file(path)
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert {key.split(".")[0] for key in report.missing_keys} == {"lm_head", "contact_head"}
    assert header["name"] == "protalign_test"
    assert header["licence"] == "MIT"
    frequencies = {name for name in state if name.endswith("inv_freq")}
    halves = {name for name, value in state.items() if value.dtype == torch.float16}
    assert halves == state.keys() - frequencies
    weight = trained.network.esm.layers[1].fc1.weight
    torch.testing.assert_close(model.layers[1].fc1.weight, weight, atol=1e-3, rtol=1e-3)


def test_targets_are_the_windows_own_residues(chains: dict[str, str], states: Path) -> None:
    """Every position gets its own residue's state, scaled; marks and NaN rows get none."""
    read = read_states(states)
    holes = [rows.copy() for rows in read.states]
    for rows in holes:
        rows[3] = np.nan
    known = StructureStates(read.ids, read.sequences, read.groups, holes)
    dealt = sampler(dict(zip(read.ids, read.sequences, strict=True)))
    scale, windows = scale_of(known), dealt.windows(2)
    positions, targets = window_targets(known, windows, scale)
    length = windows.tokens.shape[1]
    found = dict(zip(positions.tolist(), targets, strict=True))
    for row, (protein, start) in enumerate(zip(windows.proteins, windows.starts, strict=True)):
        for column in range(length):
            residue = start + column - 1
            wanted = 0 <= residue < len(known.sequences[protein]) and residue != 3
            assert (row * length + column in found) == wanted
            if wanted:
                raw = found[row * length + column] * scale.spread + scale.mean
                np.testing.assert_allclose(raw, holes[protein][residue], atol=1e-2)


def test_the_rate_rises_stays_and_falls() -> None:
    """A linear rise, a plateau at the peak, a linear fall to nothing."""
    shares = [learning_rate(step, warmup=4, decay=5, steps=20) for step in range(21)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(shares[4:16]) == {1.0}
    assert shares[15:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


def test_a_linear_probe_explains_what_is_linear() -> None:
    """R² is 1 for a linear relation, about 0 for none, and rows without targets do not count."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(500, 6)).astype(np.float32)
    linear = inputs @ random.normal(size=(6, 3)).astype(np.float32) + 2
    linear[7] = np.nan
    noise = random.normal(size=(500, 3)).astype(np.float32)
    assert explained_variance(Ridge.fit(inputs, linear), inputs, linear) > 0.999
    assert abs(explained_variance(Ridge.fit(inputs, noise), inputs, noise)) < 0.05


def test_the_command_line_is_the_config(tmp_path: Path) -> None:
    """Options arrive under their names; what is left out has Config's default."""
    given = parse(["--fasta", "a.fa", "b.fa.gz", "--out", str(tmp_path), "--steps", "7"])
    defaults = Config(fasta=(Path("a.fa"), Path("b.fa.gz")), out=tmp_path, steps=7)
    assert given == defaults
