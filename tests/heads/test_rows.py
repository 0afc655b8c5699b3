"""Rows of training pairs: held or read as they are needed, within the memory there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads import rows as training_rows
from protalign.heads import training
from protalign.heads.inputs import ArrayInputs, StoreInputs
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs
from protalign.heads.rows import Rows
from protalign.heads.training import TrainingOptions
from protalign.stores import EmbeddingStore

CPU = torch.device("cpu")


def pairs_of(store: EmbeddingStore) -> Pairs:
    """The pairs of a store's entries that have both modalities."""
    view = store[store.has_structure]
    return Pairs.of(StoreInputs(view, {m: view.encoder_for(m) for m in MODALITIES}))


def test_batches_out_of_the_store_are_those_in_memory(store: EmbeddingStore) -> None:
    """A training set that exceeds the memory budget is read from the store: the same rows."""
    held, streamed = Rows(pairs_of(store), CPU), Rows(pairs_of(store), CPU, memory=0)
    assert held.held
    assert not streamed.held
    batches = [np.array([5, 0, 39, 5, 17]), np.array([1, 2]), np.array([38, 3, 5])]
    found = [list(rows.batches(batches)) for rows in (held, streamed)]
    assert len(found[0]) == len(found[1]) == len(batches)
    for ours, theirs in zip(*found, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert len(one) == len(other)
            assert all(
                torch.equal(*rows) for rows in zip(one.proteins, other.proteins, strict=True)
            )


def test_training_out_of_the_store_is_training_in_memory(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed from the store, with validation, a fit ends in the same bits as held in memory."""

    def fitted() -> ProtAlignEstimator:
        model = ProtAlignEstimator(
            max_epochs=4, batch_size=8, random_state=0, device="cpu", validation_fraction=0.3
        )
        return model.fit(store)

    held = fitted()
    monkeypatch.setattr(training_rows, "usable_memory", lambda: 0.0)
    streamed = fitted()
    assert held.validation_curve_
    assert streamed.loss_curve_ == held.loss_curve_
    assert streamed.validation_curve_ == held.validation_curve_
    theirs = held.model_.state_dict()
    assert all(torch.equal(value, theirs[n]) for n, value in streamed.model_.state_dict().items())


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_broken_rows_are_named(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN ends training with the entry's name, also where losses are looked at together."""
    monkeypatch.setitem(training._LOSSES_AT_ONCE, "cpu", at_once)
    values = np.random.default_rng(0).normal(size=(10, 6))
    values[4, 5] = np.nan
    heads = Model({"sequence": 3, "structure": 3}, ContrastiveLoss(), embed_dim=8)
    options = TrainingOptions(2, 0.001, max_epochs=1, n_iter_no_change=1, tol=0.0)
    pairs, generator = Pairs.of(ArrayInputs(values)), np.random.default_rng(0)
    with pytest.raises(InputError, match="structure embeddings of entry 4 hold NaN"):
        training.train(heads, pairs, None, options, generator, print)


def test_when_losses_are_looked_at_changes_nothing(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, a few at a time or once an epoch: the same losses and parameters."""
    found = []
    for at_once in (1, 2, 64):
        monkeypatch.setitem(training._LOSSES_AT_ONCE, "cpu", at_once)
        model = ProtAlignEstimator(max_epochs=2, batch_size=8, random_state=0, device="cpu")
        found.append(model.fit(store))
    for model in found[1:]:
        np.testing.assert_allclose(model.loss_curve_, found[0].loss_curve_, rtol=1e-12)
        theirs = found[0].model_.state_dict()
        assert all(torch.equal(own, theirs[n]) for n, own in model.model_.state_dict().items())


def test_a_broken_store_ends_streamed_training(store: EmbeddingStore) -> None:
    """An error while the next batch is read reaches the caller."""
    pairs = pairs_of(store)
    rows = Rows(pairs, CPU, memory=0)
    with pytest.raises(IndexError):
        list(rows.batches([np.array([0, 1]), np.array([0, len(pairs)])]))
