"""The residue head: trained on hard negatives, saved with the model, used by the global mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from protalign import Model, ProtAlignEstimator
from protalign.core.arrays import Float32
from protalign.core.errors import ModelError
from protalign.core.protein import MODALITIES
from protalign.heads import model_files, residue_head
from protalign.heads.inputs import PairInputs
from protalign.heads.model_card import model_card
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.heads.residue_head import fit_residue_head
from protalign.residues import ResidueStage, align

LENGTH, MEMBERS = 30, 4


def families(n: int, seed: int) -> list[tuple[Float32, Float32]]:
    """Families of look-alikes, whose structures show what is a protein's own one residue late.

    Correlations of residues see what a family shares. Only a look at the neighbours tells the
    members apart.
    """
    fixed = np.random.default_rng(0)
    shared, own = fixed.normal(size=(2, 4, 10)), fixed.normal(size=(2, 3, 10))
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        family = rng.normal(size=(LENGTH, 4))
        for _ in range(MEMBERS):
            single = rng.normal(size=(LENGTH, 3))
            late = np.roll(single, 1, axis=0)
            rows = [family @ shared[0] + single @ own[0], family @ shared[1] + late @ own[1]]
            pairs.append(
                tuple((r + 0.3 * rng.normal(size=r.shape)).astype(np.float32) for r in rows)
            )
    return pairs  # type: ignore[return-value]


@pytest.fixture(scope="module")
def stage() -> ResidueStage:
    """A stage of 15 families."""
    pairs = Pairs.of(PairInputs(families(15, 1)))
    fitted = fit_residue_stage(pairs, np.random.default_rng(0))
    assert fitted is not None
    return fitted


def train(stage: ResidueStage, epochs: int = 12, **options: Any) -> residue_head.ResidueHead | None:
    """Train on the families of the stage, and validate on six others."""
    training, validation = (Pairs.of(PairInputs(families(*of))) for of in ((15, 1), (6, 2)))
    given = {"validation": validation, "seed": 0, "report": lambda _: None, **options}
    return fit_residue_head(stage, training, epochs=epochs, **given)


def rank(rows: Any, pairs: list[tuple[Float32, Float32]]) -> float:
    """The mean reciprocal rank of the own structure within the family."""
    ranks = []
    for index, (sequence, _) in enumerate(pairs):
        first = index - index % MEMBERS
        scores = [
            align(rows("sequence", sequence), rows("structure", structure), "global").score
            for _, structure in pairs[first : first + MEMBERS]
        ]
        ranks.append(1 + sum(score >= scores[index - first] for score in scores) - 1)
    return float(np.mean(1 / np.array(ranks)))


@pytest.mark.slow
def test_it_tells_look_alikes_apart(stage: ResidueStage) -> None:
    """Families that it was not trained on; the lines of progress and its facts say how well."""
    lines: list[str] = []
    head = train(stage, report=lines.append)
    assert head is not None
    others = families(8, 3)
    assert rank(head.rows, others) > rank(stage.rows, others) + 0.15
    assert head.facts["best"] > head.facts["without"] + 0.1
    assert "without it" in lines[0]
    assert lines[1].startswith("residue head, epoch 1: loss ")
    assert len(lines) == 13


def test_before_training_its_rows_are_those_of_the_stage(stage: ResidueStage) -> None:
    """Training starts from the closed form, without its limit of coordinates."""
    stage = replace(stage, largest=None)
    scales = {modality: np.ones(10, np.float32) for modality in MODALITIES}
    network = residue_head._Network(stage, scales, np.random.default_rng(0))
    head = network.head({})
    for modality, rows in zip(MODALITIES, families(1, 4)[0], strict=True):
        np.testing.assert_allclose(
            head.rows(modality, rows), stage.rows(modality, rows), rtol=1e-4, atol=1e-4
        )


def test_a_seed_gives_one_head(stage: ResidueStage) -> None:
    """To the last bit; another seed gives another one."""
    heads = [train(stage, 2, validation=None, seed=seed) for seed in (0, 0, 1)]
    one, again, other = (head.tensors() for head in heads if head is not None)
    assert all((one[name] == again[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


def test_too_few_pairs_give_none(stage: ResidueStage) -> None:
    """A warning says why."""
    few = Pairs.of(PairInputs(families(2, 1)))
    with pytest.warns(UserWarning, match="^the residue head: fewer than 20 pairs"):
        assert fit_residue_head(stage, few, None, 0, lambda line: None) is None


def test_ctrl_c_keeps_the_best_epoch(stage: ResidueStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warning; before the first epoch's end there is none."""
    real = residue_head._epochs

    def interrupted(*arguments: Any) -> Iterator[float]:
        for epoch, loss in enumerate(real(*arguments)):
            if epoch == after:
                raise KeyboardInterrupt
            yield loss

    monkeypatch.setattr(residue_head, "_epochs", interrupted)
    for after in (0, 1):
        with pytest.warns(UserWarning, match="interrupted by user"):
            head = train(stage, 2, validation=None)
        assert (head is not None) == bool(after)


@pytest.fixture(scope="module")
def with_head() -> ProtAlignEstimator:
    """An estimator that was asked for a head; every pair is trained on."""
    settings: dict[str, Any] = {"max_epochs": 1, "embed_dim": 8, "n_heads": 2, "device": "cpu"}
    estimator = ProtAlignEstimator(
        residue_head=True, early_stopping=False, random_state=0, **settings
    )
    return estimator.fit(families(15, 1))


def test_it_is_saved_with_the_model(with_head: ProtAlignEstimator, tmp_path: Path) -> None:
    """It makes the global rows, and no others; the card tells of it."""
    with_head.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    stage = loaded.residue_scorer()
    assert stage.head is not None
    query, target = families(1, 5)[0]
    for mode in ("local", "global"):
        one = with_head.model_.align(query, target, mode)
        assert loaded.align(query, target, mode).score == one.score
        rows = stage.rows("sequence", query, mode), stage.rows("structure", target, mode)
        assert align(*rows, mode).score == one.score
    assert (stage.rows("sequence", query) != stage.rows("sequence", query, "global")).any()
    packed = stage.protein_rows("structure", target, np.array([len(target)]))
    assert (packed.diagonal == stage.rows("structure", target, "global")).all()
    two = stage.protein_rows("structure", target, np.array([8, len(target) - 8]))
    assert (two.local == packed.local).all()
    first = stage.rows("structure", target[:8], "global")
    np.testing.assert_allclose(two.diagonal[:8], first, rtol=1e-5, atol=1e-5)
    assert (two.diagonal[8:10] != packed.diagonal[8:10]).any()  # it has no neighbours before it
    card = (tmp_path / "model" / "README.md").read_text()
    line = "- a head trained on hard negatives (60 pairs and their look-alikes, {}% of the"
    assert line.format(30) in card
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert "mean reciprocal rank" not in card  # there were no validation pairs
    config["residues"]["head"] |= {"best": 0.75, "without": 0.5}
    assert "mean reciprocal rank 0.7500, without the head 0.5000" in model_card(config)
    del config["residues"]["head"]["cut"]  # as in models of before, of which half were cut
    assert line.format(50) in model_card(config)
    assert ProtAlignEstimator.load(tmp_path / "model").residue_head


@pytest.mark.parametrize("damage", ["hidden", "missing", "huge"])
def test_a_damaged_head_is_refused(
    with_head: ProtAlignEstimator, tmp_path: Path, damage: str
) -> None:
    """In one line, also if the digests fit."""
    description = with_head.model_.description()
    arrays = dict(with_head.model_.residue_scorer().tensors())
    if damage == "missing":
        del arrays["head.outer.sequence"]
    else:
        description["residues"]["head"]["hidden"] = {"hidden": 63, "huge": 10**12}[damage]
    model_files.write_model(
        tmp_path / "model",
        description,
        with_head.model_.state_dict(),
        {name: torch.from_numpy(array) for name, array in arrays.items()},
    )
    with pytest.raises(ModelError, match=r"damaged|more than fits") as caught:
        Model.load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_model_of_before_has_none(with_head: ProtAlignEstimator, tmp_path: Path) -> None:
    """Its config does not name a head; both modes use the same rows."""
    without = ProtAlignEstimator(
        max_epochs=1, embed_dim=8, n_heads=2, device="cpu", random_state=0
    ).fit(families(15, 1))
    config = json.loads(json.dumps(without.model_.description()))
    assert config["residues"].pop("head") is None
    del config["parameters"]["residue_head"]
    stage = without.model_.residue_scorer()
    model_files.write_model(
        tmp_path / "model",
        config,
        without.model_.state_dict(),
        {name: torch.from_numpy(array) for name, array in stage.tensors().items()},
    )
    loaded = ProtAlignEstimator.load(tmp_path / "model")
    assert not loaded.residue_head
    sequence = families(1, 5)[0][0]
    one_chain = np.array([len(sequence)])
    rows = loaded.model_.residue_scorer().protein_rows("sequence", sequence, one_chain)
    assert rows.local is rows.diagonal
    assert "no head trained on hard negatives" in (tmp_path / "model" / "README.md").read_text()


def test_few_embeddings_are_read_at_once(
    stage: ResidueStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many does not change what training starts from, and how it is validated."""
    pairs = Pairs.of(PairInputs(families(6, 2)))

    def measured() -> tuple[float, dict[str, Float32]]:
        rng = np.random.default_rng(0)
        examples = residue_head._Examples.of(stage, pairs, 100, 10, rng)
        score = residue_head._validate_on(stage, pairs, rng)
        assert examples is not None
        assert score is not None
        scales = examples.scales()
        return score(residue_head._Network(stage, scales, rng)), dict(scales)

    whole, scales = measured()
    monkeypatch.setattr(residue_head, "FEW_ELEMENTS", 700)
    parts, in_parts = measured()
    assert 0 < parts == whole < 1
    for column, modality in enumerate(MODALITIES):
        rows = np.concatenate([pair[column] for pair in families(6, 2)])
        np.testing.assert_allclose(scales[modality], rows.std(axis=0), rtol=1e-5)
        np.testing.assert_allclose(in_parts[modality], scales[modality], rtol=1e-6)


def test_numbers_that_never_change_have_the_scale_one() -> None:
    """They would be divided by nothing."""
    rows = np.stack([np.arange(4.0), np.full(4, 0.1)], axis=1).astype(np.float32)
    scale = residue_head._scale(iter([[rows[:3]], [rows[3:]]]))
    np.testing.assert_allclose(scale, [np.arange(4).std(), 1])
