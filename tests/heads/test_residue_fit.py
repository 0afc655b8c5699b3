"""The residue stage of a model: fitted by ``fit``, saved with it, used by ``align``."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from protalign import EmbeddingStore, Model, ProtAlignEstimator
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES
from protalign.heads.inputs import PairInputs, read_inputs
from protalign.heads.model_files import write_model
from protalign.heads.pairs import Pairs
from protalign.heads.residue_fit import fit_residue_stage
from protalign.residues.kernels.scores import diagonal_scores


def test_residues_are_paired_by_the_residue_map(store: EmbeddingStore) -> None:
    """Row by row, for entries in any order, also with residues that have no backbone."""
    inputs = read_inputs(store)
    complete = np.flatnonzero(store.has_structure)[::-3]
    names = [next(n for n, e in store.encoders.items() if e.modality == m) for m in MODALITIES]
    parts = [part for block in inputs.paired_residues(complete) for part in block]
    sequence, structure = (np.concatenate([part[i] for part in parts]) for i in range(2))
    expected = [[], []]
    for entry_id in store.ids[complete].tolist():
        rows = store.residue_map(entry_id).sequence_index
        expected[0].append(store[entry_id].embeddings(names[0]).values[rows])
        expected[1].append(store[entry_id].embeddings(names[1]).values)
    assert (sequence == np.concatenate(expected[0])).all()
    assert (structure == np.concatenate(expected[1])).all()


def test_every_fit_on_a_store_has_one(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """It finds a sequence's own structure among the others', and is calibrated."""
    stage = fitted.model_.residue_stage
    assert stage is not None
    assert stage.calibration is not None
    names = {m: next(n for n, e in store.encoders.items() if e.modality == m) for m in MODALITIES}
    entries = store[store.has_structure]
    packed = {m: entries.embeddings(name) for m, name in names.items()}
    for embeddings in packed.values():
        assert embeddings.values.dtype.kind == "f"
    rows = {m: [stage.rows(m, each) for each in packed[m]] for m in MODALITIES}
    from protalign.core.ragged import Ragged

    scores, offsets = diagonal_scores(Ragged.pack(rows["sequence"]), Ragged.pack(rows["structure"]))
    own = np.diag(scores)
    assert np.median((scores > own[:, None]).sum(axis=1)) < 5
    assert (np.diag(offsets) == 0).mean() > 0.9


@pytest.mark.parametrize("pooling", ["mean-linear", "attention"])
def test_it_does_not_depend_on_the_pooling(
    store: EmbeddingStore, fitted: ProtAlignEstimator, pooling: str
) -> None:
    """It is of the residues, also if the heads see only means; a seed gives the same one."""
    estimator = ProtAlignEstimator(
        pooling=pooling, max_epochs=1, embed_dim=8, n_heads=2, random_state=0, device="cpu",
        early_stopping=False,
    ).fit(store)  # fmt: skip
    again = ProtAlignEstimator(
        max_epochs=1, embed_dim=8, n_heads=2, random_state=0, device="cpu", early_stopping=False
    ).fit(store)
    one, other = estimator.model_.residue_stage, again.model_.residue_stage
    assert one is not None
    assert other is not None
    assert one.facts() == other.facts()
    for name, array in one.tensors().items():
        assert (array == other.tensors()[name]).all(), name


def test_memory_does_not_grow_with_the_residues() -> None:
    """However few rows of one modality a block of the other has: 90 MB of embeddings in parts."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(700, 640)).astype(np.float16), rng.normal(size=(700, 2))
    pairs = Pairs.of(PairInputs([one] * 100))
    tracemalloc.start()
    stage = fit_residue_stage(pairs, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stage is not None
    assert stage.n_residues == 70_000
    assert peak < 150e6


def test_without_paired_residues_there_is_none() -> None:
    """Lists whose sequences and structures have other lengths, and arrays of whole proteins."""
    rng = np.random.default_rng(0)
    unpaired = [(rng.normal(size=(40, 6)), rng.normal(size=(39, 4))) for _ in range(12)]
    settings = {"max_epochs": 1, "embed_dim": 4, "n_heads": 1, "device": "cpu"}
    for X in (unpaired, rng.normal(size=(30, 10))):
        model = ProtAlignEstimator(**settings).fit(X).model_
        assert model.residue_stage is None
        with pytest.raises(ModelError, match="has no residue stage; fit it again"):
            model.align(np.zeros((3, 6)), np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "glbal"}, "did you mean 'global'"),
        ({"query_by": "structures"}, "did you mean 'structure'"),
        ({"gap_open": -1}, "gap_open=-1: not a cost"),
        ({"gap_extend": float("nan")}, "gap_extend=nan: not a cost"),
    ],
)
def test_what_is_no_alignment_is_refused(
    store: EmbeddingStore, fitted: ProtAlignEstimator, arguments: dict[str, Any], message: str
) -> None:
    """Each in one line, and not as a local alignment."""
    names = [next(n for n, e in store.encoders.items() if e.modality == m) for m in MODALITIES]
    query, target = (store[[0]].embeddings(name).values for name in names)
    with pytest.raises(InputError, match=message):
        fitted.model_.align(query, target, **arguments)


def test_it_is_saved_with_the_model(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """The same alignments after loading; the card tells of it."""
    fitted.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    names = [next(n for n, e in store.encoders.items() if e.modality == m) for m in MODALITIES]
    query, target = (store[[0]].embeddings(name).values for name in names)
    one, other = fitted.model_.align(query, target), loaded.align(query, target)
    assert (one.score, one.evalue, one.probability) == (
        other.score,
        other.evalue,
        other.probability,
    )
    assert one.evalue is not None
    assert one.evalue < 1e-3
    back = fitted.model_.align(target, query, query_by="structure")
    assert back.score == pytest.approx(one.score, rel=1e-5)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "## Residue stage" in card
    stage = loaded.residue_scorer()
    assert f"{stage.n_residues:,} paired residues" in card
    assert f"coordinates have a root mean square of at most {stage.largest:g}\n" in card
    found = re.search(r"chance falls by a factor of e in (\S+) nats of a local score of two", card)
    assert found is not None
    assert stage.calibration is not None
    at_0, at_more = stage.calibration.excess([0, float(found[1])], [0, 0], [150, 150], [150, 150])
    assert at_more - at_0 == pytest.approx(1, rel=0.01)  # an excess of x has a chance of exp(-x)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "facts", "other"])
def test_a_damaged_stage_is_refused(
    fitted: ProtAlignEstimator, tmp_path: Path, damage: str
) -> None:
    """One line; never another model in silence."""
    folder = tmp_path / "model"
    fitted.save(folder)
    file = folder / "residues.safetensors"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-10])
    elif damage == "flipped":
        file.write_bytes(content[:-10] + bytes([content[-10] ^ 1]) + content[-9:])
    elif damage == "other":
        shutil.copy(folder / "model.safetensors", file)
    else:
        config = json.loads((folder / "config.json").read_text())
        config["residues"]["components"] = 10**9
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="fit and save the model again") as caught:
        Model.load(folder)
    assert "\n" not in str(caught.value)


def test_many_proteins_leave_a_background(tmp_path: Path) -> None:
    """Each query then has a tail of its own; it is saved, and E-values come back the same."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 6, 8))
    hidden = [rng.normal(size=(int(n), 6)) for n in rng.integers(12, 30, 130)]
    pairs = [(h @ mixing[0], h @ mixing[1]) for h in hidden]
    estimator = ProtAlignEstimator(
        max_epochs=1, embed_dim=4, n_heads=1, device="cpu", random_state=0, early_stopping=False
    ).fit(pairs)
    calibration = estimator.model_.residue_scorer().calibration
    assert calibration is not None
    assert calibration.background is not None
    assert all(len(calibration.background.proteins[m].coordinates) == 65 for m in MODALITIES)
    estimator.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    for query_by, query, target in (("sequence", *pairs[0]), ("structure", *pairs[1][::-1])):
        one = estimator.model_.align(query, target, query_by=query_by)
        other = loaded.align(query, target, query_by=query_by)
        assert one.evalue == other.evalue
        rows = loaded.residue_scorer().rows(query_by, query)
        chance = loaded.residue_scorer().calibration.chance(rows)
        assert chance is not None
        assert 0 < chance.scale < np.inf


def test_what_is_missing_is_said() -> None:
    """Residues that are too few for a stage or are not paired, and a head that was asked for."""
    rng = np.random.default_rng(0)
    few = [(each, each) for each in rng.normal(size=(3, 4, 30))]
    settings: dict[str, Any] = {"max_epochs": 1, "embed_dim": 4, "n_heads": 1, "device": "cpu"}
    with pytest.warns(UserWarning, match=r"^the residue stage: \d+ paired residues are too few"):
        model = ProtAlignEstimator(**settings).fit(few).model_
    assert model.residue_stage is None
    unpaired = [(each, each[1:]) for each in rng.normal(size=(30, 20, 6))]
    with pytest.warns(UserWarning, match="^the residue") as caught:
        ProtAlignEstimator(**settings, residue_head=True).fit(unpaired)
    stage, head = (str(each.message) for each in caught)
    assert stage.startswith("the residue stage: no protein has as many residues of both modalities")
    assert head == "the residue head: none was trained, since there is no residue stage"
    assert {each.filename for each in caught} == {__file__}


def test_a_large_family_is_not_chance() -> None:
    """A third of the proteins are mutants of one: its own structure is no less rare for that."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 6, 8))
    hidden = [rng.normal(size=(int(n), 6)) for n in rng.integers(20, 40, 200)]
    parent = rng.normal(size=(30, 6))
    hidden += [parent + 0.1 * rng.normal(size=parent.shape) for _ in range(100)]
    pairs = [(h @ mixing[0], h @ mixing[1]) for h in hidden]
    model = ProtAlignEstimator(
        max_epochs=1, embed_dim=4, n_heads=1, device="cpu", random_state=0, early_stopping=False
    ).fit(pairs).model_  # fmt: skip
    background = model.residue_scorer().calibration.background
    assert background is not None
    assert (background.proteins["structure"].coordinates.lengths == 30).sum() < 20
    evalues = [model.align(*pair).evalue for pair in (*pairs[:5], *pairs[-5:])]
    assert max(evalues) < 1e-6


@pytest.mark.parametrize("n_families", [1, 2, 4])
def test_copies_of_few_proteins_do_not_show_what_chance_gives(n_families: int) -> None:
    """There is no E-value then, rather than one of 0 for everything."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 6, 8))
    parents = [rng.normal(size=(30 + 5 * n, 6)) for n in range(n_families)]
    hidden = [p + 0.1 * rng.normal(size=p.shape) for p in parents for _ in range(200 // n_families)]
    pairs = [(h @ mixing[0], h @ mixing[1]) for h in hidden]
    estimator = ProtAlignEstimator(
        max_epochs=1, embed_dim=4, n_heads=1, device="cpu", random_state=0, early_stopping=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.warns(UserWarning, match="^the residue stage: the pairs of at most 600 "):
            model = estimator.fit(pairs).model_
    assert model.residue_scorer().calibration is None
    assert model.align(*pairs[0]).evalue is None


def test_two_that_are_alike_may_both_show_what_chance_gives() -> None:
    """A few look-alikes are no family: both of a pair may be in the background."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 6, 8))
    first = [rng.normal(size=(20 + n, 6)) for n in range(120)]  # each of its own length
    second = [h + 0.1 * rng.normal(size=h.shape) for h in first]
    pairs = [(h @ mixing[0], h @ mixing[1]) for h in (*first, *second)]
    model = ProtAlignEstimator(
        max_epochs=1, embed_dim=4, n_heads=1, device="cpu", random_state=0, early_stopping=False
    ).fit(pairs).model_  # fmt: skip
    background = model.residue_scorer().calibration.background
    assert background is not None
    lengths = background.proteins["structure"].coordinates.lengths
    assert len(lengths) == 120
    assert len(set(lengths.tolist())) < len(lengths)


def test_a_background_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    """It was kept as rows of float16: the model is whole, and must be fitted again."""
    rng = np.random.default_rng(0)
    pairs = [(each, each[:, ::-1]) for each in rng.normal(size=(12, 20, 6))]
    model = ProtAlignEstimator(max_epochs=1, embed_dim=4, n_heads=1, device="cpu").fit(pairs).model_
    arrays: dict[str, Any] = dict(model.residue_scorer().tensors())
    for modality in MODALITIES:
        arrays[f"background.rows.{modality}"] = np.ones((4, 8), np.float16)
        arrays[f"background.lengths.{modality}"] = np.array([4])
    folder, tensors = tmp_path / "model", {n: torch.from_numpy(a) for n, a in arrays.items()}
    write_model(folder, model.description(), model.state_dict(), tensors)
    with pytest.raises(ModelError, match="its background of E-values is of an earlier version"):
        Model.load(folder)


def test_embeddings_of_another_width_are_refused(fitted: ProtAlignEstimator) -> None:
    """They are of another encoder."""
    dims = fitted.model_.dims
    good = np.zeros((4, dims["sequence"])), np.zeros((4, dims["structure"]))
    for query, target in ((good[0][:, 1:], good[1]), (good[0], good[1][:, 1:]), good[::-1]):
        with pytest.raises(ModelError, match="embeddings: their shape is"):
            fitted.model_.align(query, target)
