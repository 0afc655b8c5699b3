"""What a search is asked for, refused before anything is read if it can never be given."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"mode": "global"}, ("--rerank 200", "(--mode)")),
        ({"length_term": 2}, ("--rerank 200 --mode global",)),
    ],
)
def test_the_advice_names_the_options_of_the_command_line(
    asked: dict[str, Any], options: tuple[str, ...]
) -> None:
    """The line is one for callers in Python and in a shell."""
    with pytest.raises(InputError) as caught:
        SearchOptions(**asked).check(by_words=False)
    assert all(option in caught.value.advice for option in options)
