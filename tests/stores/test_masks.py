"""Masks as pandas and polars make them: never taken for ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from protalign.core.errors import InputError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreView
from tests.helpers.stores import build, sequence_only


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory, proteins: list[Protein]) -> EmbeddingStore:
    """Three entries, one of which is called True."""
    named = [sequence_only("True", "MKVL"), sequence_only("False", "MKLI"), proteins[0]]
    path: Path = tmp_path_factory.mktemp("masks") / "store.zarr"
    return EmbeddingStore.open(build(path, named))


MASK = [False, True, True]


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        np.array(MASK),
        np.array(MASK, dtype=object),
        pd.Series(MASK, dtype=object),
        pd.Series([None, True, True]).fillna(value=False),
        pd.array(MASK, dtype="boolean"),
        pl.Series(MASK),
    ],
)
def test_a_mask_is_a_mask(entries: EmbeddingStore, mask: object) -> None:
    """Of any kind; the entries called True and False do not answer it."""
    assert entries[mask].ids.tolist() == entries.ids[1:].tolist()
    view: StoreView = entries[::-1]
    assert view[mask].ids.tolist() == view.ids[1:].tolist()


@pytest.mark.parametrize(
    "index", [[True, None, True], pd.array([True, None, True], dtype="boolean"), ["True", 1, None]]
)
def test_a_mask_with_gaps_is_none(entries: EmbeddingStore, index: object) -> None:
    """What is missing is neither true nor false; a mixture of kinds is not looked up as text."""
    with pytest.raises(InputError, match="neither ids, nor a mask"):
        entries[np.asarray(index, dtype=object)]


def test_positions_and_ids_as_objects(entries: EmbeddingStore) -> None:
    """As pandas keeps them in a column of several kinds."""
    assert entries[np.array([2, 0], dtype=object)].ids.tolist() == entries.ids[[2, 0]].tolist()
    assert entries[np.array(["False", "True"], dtype=object)].ids.tolist() == ["False", "True"]
    with pytest.raises(IndexError, match="a mask of shape"):
        entries[np.array([True], dtype=object)]
