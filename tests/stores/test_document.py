"""docs/store-format.md is true: its reader reads, its tables name every array."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign.stores import EmbeddingStore
from protalign.stores.format.layout import ARRAYS, encoder_arrays

DOCUMENT = Path(__file__).parents[2] / "docs" / "store-format.md"


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def test_the_documents_reader_reads(text: str, filled: Path) -> None:
    """The code on the page gives what the reading API gives."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('"store.zarr"', repr(str(filled))), names)
    store = EmbeddingStore.open(filled)
    for entry, view in enumerate(store):
        for encoder, there in (("one_hot", True), ("from_centre", view.has_structure[0])):
            if there:
                expected = view.embeddings(encoder).values
                np.testing.assert_array_equal(names["embedding"](entry, encoder), expected)


def test_every_array_is_described(text: str) -> None:
    """Each array's name, or its ragged column's, stands in a table or a sentence."""
    named = set(re.findall(r"`([a-z_0-9/]+)`", text))
    for array in ARRAYS:
        column = re.sub(r"/(start|length|values)$", "", array)
        assert {array, column, array.partition("/")[2]} & named, array
    for array in encoder_arrays("e", 1, "float16", 1):
        assert array.removeprefix("encoders/e/") in named, array
