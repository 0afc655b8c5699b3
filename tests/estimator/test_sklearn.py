"""The estimator is a scikit-learn transformer: its own checks, and its tools over a store."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from protalign.estimator.estimator import ProtAlignEstimator
from protalign.stores import EmbeddingStore, StoreView

#: Most arrays here are cut in the middle.
pytestmark = pytest.mark.filterwarnings("ignore:X. its first")


def quick(**parameters: Any) -> ProtAlignEstimator:
    """An estimator that fits in a moment."""
    return ProtAlignEstimator(
        **{"max_epochs": 3, "embed_dim": 16, "random_state": 0, "device": "cpu", **parameters}
    )


@parametrize_with_checks([quick(), quick(pooling="mean-mlp")])
def test_scikit_learn_s_own_checks(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn's that a transformer of 2-D arrays gets; none is left out."""
    check(estimator)


def test_the_checks_really_run() -> None:
    """They are all of a transformer's: a store-only estimator would get, and pass, a single one."""
    assert len(list(estimator_checks_generator(quick()))) >= 46


def test_clone_and_pickle(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """A clone is unfitted with the same parameters; a pickle gives the same vectors."""
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    np.testing.assert_array_equal(again.transform(store), fitted.transform(store))


def test_train_test_split_of_a_store(store: EmbeddingStore) -> None:
    """It gives views, disjoint and together the whole, which fit and score take."""
    chains = store[store.has_structure]
    train, test = train_test_split(chains, test_size=10, random_state=0)
    assert isinstance(train, StoreView)
    assert set(train.ids) | set(test.ids) == set(chains.ids)
    assert not set(train.ids) & set(test.ids)
    assert 0 <= quick().fit(train).score(test) <= 1


def test_cross_val_score_over_a_store(store: EmbeddingStore) -> None:
    """Each fold is fitted and scored; the scores are those of doing it by hand."""
    chains = store[store.has_structure]
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(quick(), chains, cv=folds)
    by_hand = [quick().fit(chains[a]).score(chains[b]) for a, b in folds.split(chains.ids)]
    assert scores.tolist() == by_hand


def test_grid_search_over_a_store(store: EmbeddingStore) -> None:
    """It tries the parameters and refits the best on everything."""
    chains = store[store.has_structure]
    search = GridSearchCV(quick(), {"loss": ["clip", "siglip"], "n_heads": [2, 4]}, cv=2)
    search.fit(chains)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.transform(chains).shape == (len(chains), 16)


def test_pipelines_over_a_store(store: EmbeddingStore) -> None:
    """A store goes through a pipeline, into a classifier or a clustering."""
    chains = store[store.has_structure]
    labels = store.lengths[store.has_structure] > 120
    pipeline = make_pipeline(quick(max_epochs=30), LogisticRegression(C=100)).fit(chains, labels)
    assert pipeline.score(chains, labels) > 0.8
    named = Pipeline([("align", quick(output="both")), ("cluster", KMeans(3, n_init=1))])
    assert len(named.fit_predict(chains)) == len(chains)


@pytest.mark.parametrize("output", ["sequence", "structure", "both"])
def test_set_output(store: EmbeddingStore, fitted: ProtAlignEstimator, output: str) -> None:
    """pandas and polars tables have the vectors, under get_feature_names_out's names."""
    model = pickle.loads(pickle.dumps(fitted)).set_params(output=output)  # noqa: S301
    view = store[:5]
    expected = model.transform(view)
    names = model.get_feature_names_out().tolist()
    modalities = ["sequence", "structure"] if output == "both" else [output]
    assert names == [f"{modality}{i}" for modality in modalities for i in range(128)]
    as_pandas = model.set_output(transform="pandas").transform(view)
    assert isinstance(as_pandas, pd.DataFrame)
    assert as_pandas.columns.tolist() == names
    np.testing.assert_array_equal(as_pandas.to_numpy(), expected)
    as_polars = model.set_output(transform="polars").transform(view)
    assert isinstance(as_polars, pl.DataFrame)
    assert as_polars.columns == names
