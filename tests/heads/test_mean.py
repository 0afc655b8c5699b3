"""Mean pooling: its definition, its means taken beforehand, and its models in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES
from protalign.core.ragged import Ragged
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.inputs import MeanInputs, PairInputs, StoreInputs
from protalign.heads.kernels.batch import mean_rows
from protalign.heads.kernels.packed import PackedBatch
from protalign.heads.mean import MeanLinearHead
from protalign.heads.poolings import pooling_head
from protalign.stores import EmbeddingStore


def packed(arrays: list[np.ndarray]) -> PackedBatch:
    """Proteins' rows, packed."""
    return PackedBatch.from_ragged(Ragged.pack(arrays))


def proteins(seed: int, lengths: list[int], dtype: type = np.float32) -> list[np.ndarray]:
    """Random rows, 24 wide."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, 24)).astype(dtype) for length in lengths]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("projection", ["mean-linear", "mean-mlp"])
def test_is_its_definition(projection: str, dtype: type) -> None:
    """Mean in float32, the layers, LayerNorm, unit length: written out for each protein."""
    torch.manual_seed(0)
    head = pooling_head(projection)(24, 16, 0)
    arrays = proteins(1, [1, 5, 300, 2], dtype)
    layers = dict(head.named_parameters())
    for vector, rows in zip(head(packed(arrays)), arrays, strict=True):
        value = torch.from_numpy(rows.astype(np.float64).mean(axis=0)).float()
        if projection == "mean-linear":
            value = layers["projection.weight"] @ value + layers["projection.bias"]
        else:
            hidden = functional.gelu(
                layers["projection.0.weight"] @ value + layers["projection.0.bias"]
            )
            value = layers["projection.2.weight"] @ hidden + layers["projection.2.bias"]
        normed = (value - value.mean()) / (value.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(vector, normed / normed.norm(), atol=1e-5, rtol=0)


def test_it_has_no_weights_to_show() -> None:
    """A kind that does not attend says so before it is asked, and when it is asked all the same."""
    head = MeanLinearHead(24, 16)
    assert not head.attends
    with pytest.raises(NotImplementedError, match="MeanLinearHead weighs all residues alike"):
        head.residue_weights(packed(proteins(1, [3])))


def test_it_has_no_summaries() -> None:
    """A kind that is trained on rows says so before it is asked, and when it is asked."""
    head = MeanLinearHead(24, 16)
    assert not head.summarises
    for asked in (
        lambda: head.summary(packed(proteins(1, [3]))),
        lambda: head.of_summary(torch.ones(1, 1, 24)),
    ):
        with pytest.raises(NotImplementedError, match="MeanLinearHead is trained on rows"):
            asked()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_a_mean_is_the_same_in_every_batch(seed: int, lengths: list[int]) -> None:
    """To the last bit, and the vector up to rounding, alone and among others."""
    head = MeanLinearHead(24, 16)
    arrays = proteins(seed, lengths, np.float16)
    together = packed(arrays)
    means, vectors = mean_rows(together), head(together)
    for place, rows in enumerate(arrays):
        alone = packed([rows])
        assert torch.equal(mean_rows(alone)[0], means[place])
        torch.testing.assert_close(head(alone)[0], vectors[place], atol=1e-6, rtol=0)


def test_means_taken_beforehand(store: EmbeddingStore) -> None:
    """Entries, items and names are the store's; each row is the mean of the entry's residues."""
    encoders = {m: store.encoder_for(m) for m in MODALITIES}
    inputs = StoreInputs(store, encoders)
    averaged = MeanInputs(inputs)
    for modality in MODALITIES:
        assert averaged.items(modality).tolist() == inputs.items(modality).tolist()
        there = np.flatnonzero(inputs.items(modality) >= 0)[::-1]
        rows = averaged.rows(modality, there)
        assert rows.lengths.tolist() == [1] * len(there)
        for mean, original in zip(rows, inputs.rows(modality, there), strict=True):
            np.testing.assert_allclose(mean[0], original.astype(float).mean(axis=0), atol=1e-5)
    lacking = averaged.lengths("structure") == 0
    assert [averaged.name(i) for i in np.flatnonzero(lacking)] == ["fasta"]
    assert len(MeanInputs(PairInputs([(None, np.ones((2, 3)))]))) == 1


@pytest.mark.parametrize("pooling", ["mean-linear", "mean-mlp"])
def test_it_learns_and_comes_back_from_a_file(
    store: EmbeddingStore, tmp_path: Path, pooling: str
) -> None:
    """The loss falls, a saved model gives the same vectors, and lists of arrays fit alike."""
    parameters = {"pooling": pooling, "max_epochs": 80, "random_state": 0, "device": "cpu"}
    model = ProtAlignEstimator(**parameters).fit(store)
    assert model.loss_curve_[-1] < 0.6 * model.loss_curve_[0]
    model.save(tmp_path / "model")
    again = ProtAlignEstimator.load(tmp_path / "model")
    assert again.pooling == pooling
    np.testing.assert_array_equal(again.transform(store), model.transform(store))
    assert f"pooling: {pooling}" in (tmp_path / "model" / "README.md").read_text()
    chains = store[store.has_structure]
    pairs = [
        tuple(chains[[i]].embeddings(store.encoder_for(m).name)[0] for m in MODALITIES)
        for i in range(5)
    ]
    np.testing.assert_allclose(model.transform(pairs), model.transform(chains[:5]), atol=1e-6)
    with pytest.raises(InputError, match="it has no attention"):
        model.attention(chains[:2])


def test_another_pooling_is_another_model(store: EmbeddingStore) -> None:
    """A misspelt one is told the right spelling, a changed one no warm start; heads are free."""
    with pytest.raises(InputError, match="did you mean 'mean-mlp'"):
        ProtAlignEstimator(pooling="mean_mlp").fit(store)
    model = ProtAlignEstimator(
        pooling="mean-linear", embed_dim=10, n_heads=4, max_epochs=2, device="cpu"
    ).fit(store)  # 4 heads could not share 10
    with pytest.raises(ModelError, match="pooling='attention': the model was fitted"):
        model.set_params(pooling="attention", n_heads=5, warm_start=True).fit(store)
