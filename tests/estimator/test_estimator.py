"""What the estimator takes, learns and gives."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError, ModelError, ProtAlignError
from protalign.core.protein import MODALITIES
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.summary import retrieval_report
from protalign.heads import training
from protalign.heads.inputs import ArrayInputs
from protalign.heads.pairs import Pairs, split_validation
from protalign.stores import EmbeddingStore

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

#: Most arrays here are cut in the middle.
pytestmark = pytest.mark.filterwarnings("ignore:X. its first")


def quick(**parameters: Any) -> ProtAlignEstimator:
    """An estimator that fits in a moment."""
    return ProtAlignEstimator(
        **{"max_epochs": 3, "embed_dim": 16, "random_state": 0, "device": "cpu", **parameters}
    )


def families(n: int, seed: int = 0, noise: float = 0.3) -> npt.NDArray[np.float32]:
    """(n, 24): the two halves of a row are two noisy linear images of one hidden point."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 6))
    images = np.random.default_rng(99).normal(size=(2, 6, 12))
    halves = [hidden @ image + noise * rng.normal(size=(n, 12)) for image in images]
    return np.hstack(halves).astype(np.float32)


def as_pairs(store: EmbeddingStore) -> list[Pair]:
    """A store's entries as the list form of X."""
    sequence = list(store.embeddings("one_hot"))
    structure = list(store.embeddings("proteinmpnn_v_48_020"))
    return list(zip(sequence, structure, strict=True))


def test_structures_in_place_of_y_are_refused() -> None:
    """fit(sequences, structures) would train on half of the sequences' columns."""
    sequences, structures = np.ones((20, 32), np.float32), np.ones((20, 12), np.float32)
    with pytest.raises(InputError, match=r"y: it is not used.*20 x 12.*sequence_columns"):
        ProtAlignEstimator(device="cpu").fit(sequences, structures)


def test_an_array_is_cut_where_it_is_told() -> None:
    """Else in the middle, with a warning; what leaves nothing to the structure is refused."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 32 + 12)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est = quick(sequence_columns=32).fit(X, X_val=X[:5])
        pairs = [(row[None, :32], row[None, 32:]) for row in X]
        np.testing.assert_array_equal(est.transform(X), est.transform(pairs))
        assert est.model_.vectors(X, "structure").shape == (20, 16)
    assert (est.sequence_dim_, est.structure_dim_) == (32, 12)
    with pytest.warns(UserWarning, match="its first 22 columns .* the other 22 .*sequence_columns"):
        quick().fit(X)
    with pytest.raises(InputError, match="sequence_columns=44: X has 44 columns"):
        quick(sequence_columns=44).fit(X)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("learnable_temperature", [False, True])
def test_it_learns_to_align(loss: str, learnable_temperature: bool) -> None:
    """On pairs with a common cause, unseen partners are found: chance is 0.5 %."""
    model = quick(
        loss=loss, learnable_temperature=learnable_temperature, max_epochs=30, learning_rate=0.02
    )
    model.fit(families(300))
    assert model.score(families(200, seed=1)) > 0.1
    assert (model.temperature_ != pytest.approx(0.07)) == learnable_temperature
    assert (model.bias_ is None) == (loss == "clip")


def test_the_sample_s_partners_are_found(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """Trained on the sample, sequences find their structures far above chance (2.5 %)."""
    report = retrieval_report(fitted, store)
    forward = report["sequence_to_structure"]
    assert (report["n_queries"], report["n_candidates"]) == (40, 41)
    assert forward["recall_at_5"] > 3 * forward["chance_recall_at_5"]
    assert report["structure_to_sequence"]["mrr"] > 0.2


def test_vectors_are_unit_length_float32(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """transform gives (n, 128) float32 rows of length 1, in the view's order."""
    vectors = fitted.transform(store)
    assert vectors.shape == (43, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    order = [7, 3, 3, 20]
    np.testing.assert_allclose(fitted.transform(store[order]), vectors[order], atol=1e-6)


def test_entries_with_the_same_content_share_a_vector(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """``copy`` has the first chain's content: one training pair, one candidate, equal vectors."""
    assert (fitted.n_pairs_, fitted.n_skipped_) == (41, 1)
    first = store[store.items("structure") == store["copy"].items("structure")[0]]
    assert len(first) == 2
    vectors = fitted.transform(first)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert fitted.retrieval_set(first).structure.shape == (1, 128)


def test_lists_give_what_the_store_gives(store: EmbeddingStore) -> None:
    """The same rows, as a store and as a list of pairs, train the same model."""
    view = store[store.has_structure & ~np.isin(store.ids, ["copy", "shaken"])]
    by_store, by_list = quick().fit(view), quick().fit(as_pairs(view))
    np.testing.assert_allclose(by_store.loss_curve_, by_list.loss_curve_, rtol=1e-6)
    np.testing.assert_allclose(
        by_store.transform(view), by_list.transform(as_pairs(view)), atol=1e-6
    )


def test_an_array_is_proteins_of_one_residue() -> None:
    """Row halves and (1, d) pairs are the same thing; an odd column goes to the sequence."""
    X = families(30)[:, :23]
    pairs = [(row[None, :12], row[None, 12:]) for row in X]
    np.testing.assert_allclose(
        quick(output="both").fit(X).transform(X),
        quick(output="both").fit(pairs).transform(pairs),
        atol=1e-6,
    )


def test_both_outputs_side_by_side(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """output="both" is the sequence's vector followed by the structure's."""
    view = store[:4]
    model = ProtAlignEstimator(output="both", device="cpu")
    model.__dict__ |= {k: v for k, v in vars(fitted).items() if k.endswith("_")}
    both = model.transform(view)
    sequence = model.set_params(output="sequence").transform(view)
    structure = model.set_params(output="structure").transform(view)
    np.testing.assert_array_equal(both, np.hstack([sequence, structure]))


def test_the_same_seed_gives_the_same_model(store: EmbeddingStore) -> None:
    """random_state decides everything, and the global generators are left as they were."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, third = (quick(random_state=s).fit(store) for s in (1, 1, 2))
    assert torch.rand(1) == expected
    assert first.loss_curve_ == second.loss_curve_
    np.testing.assert_array_equal(first.transform(store), second.transform(store))
    assert first.loss_curve_ != third.loss_curve_


def test_the_same_seed_gives_the_same_model_in_threads(store: EmbeddingStore) -> None:
    """Fits that run at once are the model that one alone is; shared generators stay as they were.

    Wide heads take long to draw, so that the fits meet while they do.
    """

    def fit(_: int) -> dict[str, torch.Tensor]:
        model = quick(max_epochs=1, embed_dim=1024, early_stopping=True).fit(store).model_
        return dict(model.state_dict())

    before = torch.get_rng_state(), str(np.random.get_state())
    alone = fit(0)
    with ThreadPoolExecutor(4) as pool:
        for state in pool.map(fit, range(4)):
            for name, values in alone.items():
                assert torch.equal(state[name], values), name
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]


def test_early_stopping_ends_with_the_best_epoch() -> None:
    """It stops after the patience is used up; the parameters are the best epoch's."""
    X, X_val = families(300), families(100, seed=1)
    model = quick(max_epochs=400, n_iter_no_change=5, learning_rate=0.02).fit(X, X_val=X_val)
    assert model.n_iter_ < 400
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_curve_)
    curve = model.validation_curve_
    assert model.best_epoch_ == 1 + int(np.argmax(curve))
    assert max(curve) - max(curve[:-5]) < 1e-3
    forward = retrieval_report(model, X_val)["sequence_to_structure"]
    assert forward["mrr"] == pytest.approx(model.best_validation_score_, rel=1e-6)


def test_a_random_part_is_held_out() -> None:
    """Without X_val a tenth validates, unless that is too few or early stopping is off."""
    model = quick().fit(families(300))
    assert (model.n_pairs_, model.n_validation_pairs_) == (270, 30)
    assert quick().fit(families(99)).n_validation_pairs_ == 0
    model = quick(early_stopping=False).fit(families(300))
    assert (model.n_pairs_, model.validation_curve_) == (300, [])
    assert model.best_epoch_ == 3
    assert model.best_validation_score_ is None


def test_a_sequence_is_held_out_with_all_its_structures(store: EmbeddingStore) -> None:
    """No sequence that is trained on validates, however many pairs it has."""

    class Shared(ArrayInputs):
        def items(self, modality: str) -> npt.NDArray[np.int64]:  # type: ignore[override]
            own = np.arange(len(self))
            return own // 3 if modality == "sequence" else own

    pairs = Pairs.of(Shared(families(300)))
    parts = split_validation(pairs, 0.1, np.random.default_rng(0))
    trained, held_out = (set(part.positions // 3) for part in parts if part is not None)
    assert not trained & held_out
    assert (len(parts[0]), len(parts[1] or [])) == (270, 30)
    few = quick(validation_fraction=0.99).fit(families(13))
    assert (few.n_pairs_, few.n_validation_pairs_) == (2, 11)  # one alone has no negatives


def test_validation_does_not_grow_with_the_pairs() -> None:
    """Each of its pairs is compared with all others: beyond 10,000 the others are trained on."""
    pairs = Pairs.of(ArrayInputs(np.ones((120_000, 2), dtype=np.float32)))
    training, validation = split_validation(pairs, 0.1, np.random.default_rng(0))
    assert (len(training), len(validation or [])) == (110_000, 10_000)


def test_x_val_leaves_the_columns_of_x() -> None:
    """n_features_in_ and feature_names_in_ are X's; X_val of other columns is refused."""
    X = pd.DataFrame(families(40), columns=[f"x{i}" for i in range(24)])
    model = quick().fit(X, X_val=X[:12])
    assert model.feature_names_in_.tolist() == X.columns.tolist()
    with pytest.raises(ValueError, match="feature names"):
        quick().fit(X, X_val=X.rename(columns={"x0": "y0"}))
    by_list = quick().fit(
        [(row[None, :12], row[None, 12:]) for row in families(40)], X_val=X.to_numpy()
    )
    assert not hasattr(by_list, "n_features_in_")


def test_warm_start_refuses_other_heads() -> None:
    """A loss or a width set since the last fit cannot be gone on with, and is not ignored."""
    X = families(30)
    model = quick(warm_start=True).fit(X)
    with pytest.raises(ModelError, match="loss='siglip': the model was fitted"):
        model.set_params(loss="siglip").fit(X)
    model.set_params(loss="clip", learnable_temperature=True).fit(X)
    assert model.temperature_ != pytest.approx(0.07)


def test_whole_numbers_will_do(store: EmbeddingStore) -> None:
    """bias=-10 is bias=-10.0."""
    whole = quick(loss="siglip", bias=-10).fit(store)
    assert whole.loss_curve_ == quick(loss="siglip").fit(store).loss_curve_


def test_warm_start_goes_on() -> None:
    """A second fit starts from the first one's parameters, and the curves go on."""
    X = families(200)
    model = quick(warm_start=True, early_stopping=False, max_epochs=20).fit(X)
    once = list(model.loss_curve_)
    model.fit(X)
    assert model.loss_curve_[:20] == once
    assert model.n_iter_ == model.best_epoch_ == 40
    assert model.loss_curve_[20] < once[0] / 2
    cold = quick(early_stopping=False).fit(X).fit(X)
    assert cold.n_iter_ == 3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=20),
)
def test_pairs_are_unique_and_complete(entries: list[tuple[int, int]]) -> None:
    """Each pair of items that some entry has is there once; entries lacking one are counted."""

    class Listed(ArrayInputs):
        def items(self, modality: str) -> npt.NDArray[np.int64]:  # type: ignore[override]
            return np.array(entries)[:, MODALITIES.index(modality)]  # type: ignore[arg-type]

    inputs = Listed(np.zeros((len(entries), 2), dtype=np.float32))
    complete = {entry for entry in entries if min(entry) >= 0}
    if not complete:
        with pytest.raises(InputError, match="no entry has both"):
            Pairs.of(inputs)
        return
    pairs = Pairs.of(inputs)
    assert [entries[position] for position in pairs.positions] == sorted(
        complete, key=entries.index
    )
    assert pairs.n_skipped == sum(min(entry) < 0 for entry in entries)
    for column in (0, 1):
        items = [entries[p][column] for p in pairs.positions_of_items(column)]
        assert [items[i] for i in pairs.items[:, column]] == [
            entries[p][column] for p in pairs.positions
        ]


def test_a_sequence_of_two_structures_is_one_query(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """``shaken`` and its original are one sequence: either structure answers it."""
    view = store[store.items("sequence") == store["shaken"].items("sequence")[0]]
    assert len(view) == 2
    retrieval = fitted.retrieval_set(view)
    assert retrieval.pairs.tolist() == [[0, 0], [0, 1]]
    assert retrieval.ranks().tolist() == [1]
    assert retrieval.reverse().ranks().tolist() == [1, 1]


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_constant_input_scores_nothing(constant: float) -> None:
    """Entries that cannot be told apart are not found by luck."""
    model = quick().fit(families(40))
    assert model.score(np.full((20, 24), constant)) == 0.0


def test_missing_structures_are_named(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """Asked for structure vectors of an entry without one, it names the entry and what to do."""
    model = ProtAlignEstimator(output="structure", device="cpu")
    model.__dict__ |= {k: v for k, v in vars(fitted).items() if k.endswith("_")}
    with pytest.raises(
        InputError, match=r"fasta: the structure embedding is missing; .*has_structure"
    ):
        model.transform(store)
    assert model.transform(store[store.has_structure]).shape == (42, 128)


def test_nothing_to_train_on(store: EmbeddingStore) -> None:
    """Only FASTA entries, no entries, or a single pair: one clear line."""
    with pytest.raises(InputError, match="every structure is missing"):
        quick().fit(store["fasta"])
    with pytest.raises(InputError, match="no entries"):
        quick().fit(store[[]])
    with pytest.raises(InputError, match="1 pair"):
        quick().fit(store[:1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "clipp"}, "did you mean 'clip'"),
        ({"loss": "SIGLIP"}, "not one of 'clip', 'siglip'"),
        ({"output": "struct"}, "did you mean 'structure'"),
        ({"embed_dim": 30}, "cannot be shared by n_heads=4"),
        ({"temperature": 0}, "above 0"),
        ({"bias": "low"}, "bias='low'"),
        ({"tol": float("nan")}, "tol=nan"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"batch_size": 1}, "at least 2"),
        ({"max_epochs": 2.5}, "whole number"),
        ({"validation_fraction": 1.0}, "below 1"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    """fit says what is wrong with a parameter, and what would do."""
    with pytest.raises(InputError, match=message):
        quick(**parameters).fit(families(20))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("store.zarr", "EmbeddingStore.open"),
        ([(np.zeros((3, 4)), np.zeros((3, 4))), (np.zeros((3, 5)), None)], "different widths"),
        ([(np.zeros((3, 4)), np.zeros((0, 4)))], "entry 0: structure embeddings of shape"),
        ([(np.full((3, 4), np.nan), np.zeros((3, 4)))], "entry 0: sequence .* NaN"),
        ([(np.zeros((3, 4)), None)] * 3, "the structure embeddings are missing"),
        (
            [(np.zeros((3, 4)), np.zeros((3, 4))), np.zeros((3, 4))],
            "entry 1 of the list: not a pair",
        ),
        ([(np.zeros((3, 4)), None), (None,)], "entry 1 of the list: not a pair"),
        ([(np.array([["a", "b"]]), np.zeros((3, 4)))], "give a float array"),
    ],
)
def test_wrong_input(X: Any, message: str) -> None:
    """What cannot be used is named, by its number, in one line."""
    with pytest.raises(InputError, match=message):
        quick().fit(X)


def test_values_beyond_half_precision_are_named() -> None:
    """An infinity that float16 storage left behind is blamed on its entry, not on the training."""
    X = [(np.ones((2, 4), np.float16), np.ones((2, 4), np.float16)) for _ in range(4)]
    model = quick().fit(X)
    huge = np.full((2, 4), 3e38, dtype=np.float32)
    with pytest.raises(InputError, match="entry 1 hold NaN, infinity or huge"):
        model.transform([X[0], (huge, X[0][1])])


def test_other_widths_are_refused() -> None:
    """Embeddings of another width than fitted on: told, not crashed on."""
    X = families(30)
    model = quick().fit([(row[None, :12], row[None, 12:]) for row in X])
    with pytest.raises(ModelError, match="width 12, these have width 5"):
        model.transform([(np.zeros((2, 5)), None)])
    with pytest.raises(ModelError, match="structure embeddings of width 12, these have width 7"):
        model.pool("structure", [np.zeros((2, 7))])


def test_pool_gives_transform_s_vectors(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """Embeddings of proteins that are in no store are pooled alike."""
    view = store[:3]
    rows = list(view.embeddings("one_hot"))
    np.testing.assert_allclose(fitted.pool("sequence", rows), fitted.transform(view), atol=1e-6)


def test_ctrl_c_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted fit warns and leaves a usable model; before the first epoch it just stops."""
    X = families(200)
    real_epoch = training._epoch
    calls = 0

    def interrupted(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return real_epoch(*arguments)

    monkeypatch.setattr(training, "_epoch", interrupted)
    stop_at = 4
    with pytest.warns(UserWarning, match="interrupted"):
        model = quick(max_epochs=50).fit(X)
    assert model.n_iter_ == 3
    assert model.transform(X).shape == (200, 16)
    calls, stop_at = 0, 1
    with pytest.raises(KeyboardInterrupt):
        quick().fit(X)


def test_verbose_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A line an epoch with loss and validation; standard output stays free for results."""
    quick(verbose=True).fit(families(200))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith("180 pairs to train on, 20 to validate on; 0 entries left out")
    assert len(lines) == 4
    assert "epoch 3: loss" in lines[3]
    assert "validation MRR" in lines[3]


def test_unknown_encoders_are_told(store: EmbeddingStore) -> None:
    """A name that the store has not: its own names are listed."""
    with pytest.raises(ProtAlignError, match="one_hot"):
        quick(sequence_encoder="esm3").fit(store)
