"""What a search is asked for, refused before anything is read if it can never be given."""

from __future__ import annotations

import pytest

from protalign.core.errors import InputError
from protalign.search.search_options import SearchOptions


def test_the_global_mode_needs_residues() -> None:
    """Vectors have no mode: it was passed over, and the hits were in the order of their cosines."""
    with pytest.raises(InputError, match="--rerank 200") as caught:
        SearchOptions(mode="global").check(by_words=False)
    assert "\n" not in str(caught.value)
    SearchOptions(mode="global", rerank=5).check(by_words=False)
    SearchOptions(mode="global").check(by_words=True)
    SearchOptions().check(by_words=False)
