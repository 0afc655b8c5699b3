"""Training of the residue context: what a sequence's neighbours say of a structure's residue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from protalign import Model, ProtAlignEstimator
from protalign.core.arrays import Float32
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES
from protalign.core.ragged import Ragged
from protalign.heads import model_files, residue_context
from protalign.heads.inputs import PairInputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.residues import PairSums, ResidueStage, align
from protalign.residues.context import ResidueContext

WIDTHS = (10, 8)


def proteins(n: int, seed: int, length: int = 60) -> list[tuple[Float32, Float32]]:
    """Structures of which the neighbours in the sequence tell more than the residue itself.

    Half of a structure's numbers are products of the residues before and behind: no linear map of
    one residue tells them.
    """
    fixed = np.random.default_rng(0)
    left, right = fixed.normal(size=(6, WIDTHS[0])), fixed.normal(size=(12, WIDTHS[1]))
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        z = rng.normal(size=(length, 6))
        padded = np.pad(z, ((1, 1), (0, 0)))
        around = padded[:-2] * padded[2:]
        rows = z @ left, np.concatenate([z, around], axis=1) @ right
        noisy = [r + 0.3 * rng.normal(size=r.shape) for r in rows]
        pairs.append((noisy[0].astype(np.float32), noisy[1].astype(np.float32)))
    return pairs


@pytest.fixture(scope="module", autouse=True)
def _few_residues_are_enough() -> object:
    """Train on what a test can make in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residue_context, "LEAST_RESIDUES", 5_000)
        patch.setattr(residue_context, "_EPOCHS", 6)
        patch.setattr(residue_context, "_BATCH", 4)
        patch.setattr(residue_context, "_HELD_OUT", 0.2)
        yield


@pytest.fixture(scope="module")
def fitted() -> tuple[ResidueStage, list[str]]:
    """A stage of 300 proteins with a context, and the lines of its training."""
    lines: list[str] = []
    pairs = Pairs.of(PairInputs(proteins(300, 1)))
    stage = fit_residue_stage(pairs, np.random.default_rng(0), lines.append)
    assert stage is not None
    return stage, lines


def context_of(stage: ResidueStage) -> ResidueContext:
    assert stage.context is not None
    return stage.context


def gain(stage: ResidueStage, pairs: list[tuple[Float32, Float32]]) -> float:
    """How much better residues fit their own structure than the others of their protein, nats."""
    scores = [
        stage.rows("sequence", sequence) @ stage.rows("structure", structure).T
        for sequence, structure in pairs
    ]
    own = [np.trace(each) / len(each) for each in scores]
    others = [(each.sum() - np.trace(each)) / (each.size - len(each)) for each in scores]
    return float(np.mean(own) - np.mean(others))


def test_neighbours_tell_more_of_proteins_that_it_was_not_fitted_on(
    fitted: tuple[ResidueStage, list[str]],
) -> None:
    """And its correlations are higher than those of residues alone."""
    stage, lines = fitted
    context = context_of(stage)
    others = proteins(20, 2)
    assert gain(stage, others) > 1.3 * gain(replace(stage, context=None), others)
    assert context.correlations.sum() > stage.correlations.sum() + 0.3
    assert context.facts["error"] < 0.9 * context.facts["without"]
    assert len(lines) == 6
    assert lines[0].startswith("residue context, epoch 1: ")
    assert "without it" in lines[0]
    # A fifth was held out.
    assert (context.facts["pairs"], context.facts["residues"]) == (240, 240 * 60)


def test_structures_of_one_sequence_are_held_out_together() -> None:
    """Otherwise what was learned by heart would count as known."""
    few = proteins(30, 1)
    rng = np.random.default_rng(0)
    many = [(s, t + 0.1 * rng.normal(size=t.shape)) for s, t in few for _ in range(10)]

    class SameSequences(PairInputs):
        """Ten structures of each sequence."""

        def items(self, modality):  # type: ignore[no-untyped-def]
            items = super().items(modality)
            return items // 10 if modality == "sequence" else items

    context = context_of(
        fit_residue_stage(Pairs.of(SameSequences(many)), np.random.default_rng(0))
        or pytest.fail("none")
    )
    assert context.facts["pairs"] == 240


def test_its_coordinates_are_canonical(fitted: tuple[ResidueStage, list[str]]) -> None:
    """Of the pairs it was fitted on: of mean 0, with its correlations, and no others."""
    context = context_of(fitted[0])
    pairs = proteins(300, 1)
    x, y = (
        context.coordinates(m, Ragged.pack([pair[side] for pair in pairs])).astype(np.float64)
        for side, m in enumerate(MODALITIES)
    )
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.01)
    covariance = x.T @ y / len(x)
    np.testing.assert_allclose(np.diag(covariance), context.correlations, atol=0.01)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.01


def test_means_are_those_of_the_pairs_that_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large store it sees a part, whose means may be others."""
    monkeypatch.setattr(residue_context, "_MOST_RESIDUES", 6000)
    rng = np.random.default_rng(0)
    pairs = [(s + 3 * rng.normal(size=10), t + rng.normal(size=8)) for s, t in proteins(300, 1)]
    whole = Pairs.of(PairInputs(pairs))
    context = context_of(fit_residue_stage(whole, np.random.default_rng(0)) or pytest.fail("none"))
    drawn = residue_context._drawn(whole, np.random.default_rng(0))
    assert drawn is not None
    for m in MODALITIES:
        coordinates = context.coordinates(m, drawn.inputs.rows(m, drawn.positions))
        np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=0.01)


def test_the_correlations_beside_it_are_those_without_it(
    fitted: tuple[ResidueStage, list[str]],
) -> None:
    """The closed form stays as it is, for the global mode."""
    sums = PairSums(*WIDTHS)
    for sequence, structure in proteins(300, 1):
        sums.add(sequence, structure)
    expected = sums.stage()
    stage = fitted[0]
    np.testing.assert_allclose(stage.correlations, expected.correlations, atol=1e-5)
    sequence = proteins(1, 3)[0][0]
    found = stage.rows("sequence", sequence, "global")
    np.testing.assert_array_equal(found, stage.plain_rows("sequence", sequence))


def test_a_seed_gives_one_context() -> None:
    """To the last bit; another seed gives another one."""
    pairs = Pairs.of(PairInputs(proteins(100, 1)))
    one, again, other = (
        context_of(fit_residue_stage(pairs, np.random.default_rng(seed)) or pytest.fail("none"))
        for seed in (0, 0, 1)
    )
    for name, array in one.tensors().items():
        np.testing.assert_array_equal(array, again.tensors()[name])
    assert np.abs(one.tensors()["inner.sequence"] - other.tensors()["inner.sequence"]).max() > 0.01


def test_few_residues_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be learned by heart. Nothing else of the stage changes."""
    pairs = Pairs.of(PairInputs(proteins(100, 1)))
    monkeypatch.setattr(residue_context, "LEAST_RESIDUES", 6_001)
    stages = [
        fit_residue_stage(pairs, np.random.default_rng(0), with_context=wanted)
        for wanted in (True, False)
    ]
    first, second = (stage.facts() for stage in stages if stage is not None)
    assert first["context"] is None
    assert first == second


@pytest.mark.parametrize("broken", [False, True])
def test_one_that_tells_nothing_is_left_out(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Structures that no neighbour tells more of than a linear map does; a loss that is NaN."""
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(60, 10)), rng.normal(size=(60, 8))) for _ in range(100)]
    if broken:
        pairs = proteins(100, 1)
        monkeypatch.setattr(residue_context, "_LEARNING_RATE", float("inf"))
    lines: list[str] = []
    stage = fit_residue_stage(Pairs.of(PairInputs(pairs)), np.random.default_rng(0), lines.append)
    assert stage is not None
    assert stage.context is None
    assert lines[0].startswith("residue context, epoch 1: ")
    assert "no better than a linear map" in lines[-1]


def test_pairs_whose_residues_nobody_pairs_do_not_count() -> None:
    """Nor do proteins that are too long: others are drawn in their place, if there are enough."""
    paired = proteins(100, 1)
    unpaired = [(s[:-1], t) for s, t in proteins(300, 2)]
    long = proteins(3, 3, length=2001)
    pairs = Pairs.of(PairInputs([*unpaired, *long, *paired]))
    drawn = residue_context._drawn(pairs, np.random.default_rng(0))
    assert drawn is not None
    assert drawn.positions.tolist() == list(range(303, 403))
    none = Pairs.of(PairInputs([*unpaired, *long, *paired[:80]]))
    assert residue_context._drawn(none, np.random.default_rng(0)) is None


def test_no_more_residues_are_drawn_than_it_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and however few pairs are looked at at once."""
    pairs = Pairs.of(PairInputs(proteins(300, 1)))
    monkeypatch.setattr(residue_context, "_MOST_RESIDUES", 6000)
    for at_once in (7, 4096):
        monkeypatch.setattr(residue_context, "_AT_ONCE", at_once)
        drawn = residue_context._drawn(pairs, np.random.default_rng(0))
        assert drawn is not None
        assert len(drawn) == 100


def test_residues_without_structure_are_read_but_not_told() -> None:
    """A structure may lack residues: the sequence's neighbours are still its neighbours."""
    pairs = proteins(4, 1)
    inputs = PairInputs(pairs)

    class Lacking(PairInputs):
        """Structures that lack every third residue."""

        def sequence_rows(self, positions):  # type: ignore[no-untyped-def]
            return [np.flatnonzero(np.arange(60) % 3 != 1) for _ in positions]

    kept = np.flatnonzero(np.arange(60) % 3 != 1)
    lacking = Lacking([(sequence, structure[kept]) for sequence, structure in pairs])
    sums = PairSums(*WIDTHS)
    for sequence, structure in pairs:
        sums.add(sequence, structure)
    base = sums.stage(8, None)
    drawn = [residue_context._Proteins.read_of(base, Pairs.of(each)) for each in (inputs, lacking)]
    whole, some = drawn
    np.testing.assert_array_equal(whole.read.values, some.read.values)
    for place in range(4):
        one, other = (each.take(np.array([place])) for each in drawn)
        np.testing.assert_array_equal(other.residues, kept)
        np.testing.assert_array_equal(other.told, one.told[kept])


@pytest.mark.parametrize("where", ["_drawn", "_trained", "_analysed"])
def test_ctrl_c_keeps_the_stage_without_it(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning says so, and names the line that called ``fit``."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(residue_context, where, interrupted)
    settings = {"max_epochs": 1, "embed_dim": 8, "n_heads": 2, "device": "cpu", "random_state": 0}
    estimator = ProtAlignEstimator(**settings)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="no residue context is kept") as caught:
        stage = estimator.fit(proteins(100, 1)).model_.residue_scorer()
    assert stage.context is None
    assert caught[0].filename == __file__


def test_it_is_saved_and_loaded_with_the_model(tmp_path: Path) -> None:
    """The card names it, and the loaded model aligns alike."""
    settings = {"max_epochs": 1, "embed_dim": 8, "n_heads": 2, "device": "cpu", "random_state": 0}
    estimator = ProtAlignEstimator(**settings).fit(proteins(100, 1))  # type: ignore[arg-type]
    estimator.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "a context, which makes the rows of the local mode" in card
    loaded = Model.load(tmp_path / "model")
    (sequence, structure), *_ = proteins(1, 4)
    one, other = (m.align(sequence, structure) for m in (estimator.model_, loaded))
    assert one.score == other.score > 0
    np.testing.assert_array_equal(one.target_rows, other.target_rows)
    without = ProtAlignEstimator(**settings, residue_context=False)  # type: ignore[arg-type]
    stage = without.fit(proteins(100, 1)).model_.residue_scorer()
    assert stage.context is None


def test_a_context_ends_with_its_chain() -> None:
    """``Model.align`` reads the rows that a search reads, by chain."""
    settings = {"max_epochs": 1, "embed_dim": 8, "n_heads": 2, "device": "cpu", "random_state": 0}
    model = ProtAlignEstimator(**settings).fit(proteins(100, 1)).model_  # type: ignore[arg-type]
    stage = model.residue_scorer()
    (sequence, structure), *_ = proteins(1, 4)
    chains = np.array([25, 35])
    rows = [
        stage.protein_rows(m, each, chains).local
        for m, each in zip(MODALITIES, (sequence, structure), strict=True)
    ]
    found = model.align(sequence, structure, query_chains=chains, target_chains=chains)
    expected = align(*rows)
    assert found.score == pytest.approx(expected.score, rel=1e-5)
    assert found.score != pytest.approx(model.align(sequence, structure).score, rel=1e-4)
    for wrong in ([25, 36], [70, -10], [0], [25.5, 34.5], [[25, 35]]):
        with pytest.raises(InputError, match="not those of their chains"):
            model.align(sequence, structure, query_chains=np.array(wrong))
    one = model.align(sequence, structure, "global", query_chains=chains)
    assert one.score == model.align(sequence, structure, "global").score


@pytest.mark.parametrize("hidden", [0, -1, 1.5, "many", 10**9])
def test_a_config_of_another_size_is_refused(tmp_path: Path, hidden: object) -> None:
    """Before its arrays are read."""
    settings = {"max_epochs": 1, "embed_dim": 8, "n_heads": 2, "device": "cpu", "random_state": 0}
    model = ProtAlignEstimator(**settings).fit(proteins(100, 1)).model_  # type: ignore[arg-type]
    config = json.loads(json.dumps(model.description()))
    config["residues"]["context"]["hidden"] = hidden
    arrays = model.residue_scorer().tensors()
    model_files.write_model(
        tmp_path / "model",
        config,
        model.state_dict(),
        {name: torch.from_numpy(array) for name, array in arrays.items()},
    )
    with pytest.raises(ModelError, match=r"damaged|more than fits") as caught:
        Model.load(tmp_path / "model")
    assert "\n" not in str(caught.value)
