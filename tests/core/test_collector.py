"""The garbage collector, off in a block."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from protalign.core.collector import collector_off


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("was_on", [True, False])
def test_it_is_off_within_and_afterwards_as_before(was_on: bool) -> None:
    (gc.enable if was_on else gc.disable)()
    with collector_off():
        assert not gc.isenabled()
        with collector_off():
            assert not gc.isenabled()
        assert not gc.isenabled()  # the inner block was not the one that turned it off
    assert gc.isenabled() == was_on


def test_it_is_on_again_after_an_error() -> None:
    gc.enable()
    with pytest.raises(ZeroDivisionError), collector_off():
        raise ZeroDivisionError
    assert gc.isenabled()
