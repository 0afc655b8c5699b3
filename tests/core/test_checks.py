"""Words of error messages: the first few names, suggestions, accepted values."""

from __future__ import annotations

import math

import pytest

from protalign.core.checks import check_between, check_choice, check_whole, did_you_mean, first_few
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import InputError


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        ([str(i) for i in range(2003)], "0, 1, 2 and 2,000 more"),
    ],
)
def test_the_first_few(names: list[str], text: str) -> None:
    """Three names and how many more there are."""
    assert first_few(names) == text


def test_suggestions_ignore_case() -> None:
    """1A2P is 1a2p; nothing is suggested for what resembles nothing."""
    assert did_you_mean("1A2P", ["1bao", "1a2p"]) == "did you mean '1a2p'?"
    assert did_you_mean("zzzz", ["1bao", "1a2p"]) == ""


def test_checks_name_the_value_and_the_remedy() -> None:
    """Each error has the thing, the problem and what to do."""
    with pytest.raises(InputError, match=r"^loss='clp': not one of 'clip', 'siglip'; did you mean"):
        check_choice("loss", "clp", ("clip", "siglip"))
    with pytest.raises(InputError, match=r"^k=0: .*; give a whole number of at least 1$"):
        check_whole("k", 0, 1)
    with pytest.raises(InputError, match=r"^k=True: "):
        check_whole("k", True, 1)
    check_whole("k", 9, 1, 9)
    for wrong in (0, 10, 2.0):
        with pytest.raises(
            InputError, match=rf"^k={wrong}: not a whole number from 1 to 9; give a"
        ):
            check_whole("k", wrong, 1, 9)
    with pytest.raises(InputError, match=r"^tau=0: out of range; give a number above 0 and below"):
        check_between("tau", 0, 0, 1)


def test_precision_counts_for_stores_alone() -> None:
    """A store does not mix dtypes of computing and storing; a model takes either."""
    one = EncoderRecord("m", "sequence", 8, "a" * 64, {"layer": 6, "dtype": "float32"})
    other = EncoderRecord(
        "m", "sequence", 8, "a" * 64, {"layer": 6, "dtype": "bfloat16"}, "float32"
    )
    assert one.differences(other) == [
        "stored dtype float16, not float32",
        "dtype float32, not bfloat16",
    ]
    assert one.differences(other, precision=False) == []
    assert one.differences(EncoderRecord("m", "sequence", 8, "b" * 64, one.settings)) == [
        "weights aaaaaaaaaaaa…, not bbbbbbbbbbbb…"
    ]


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((0, 1), "of at least 0 and at most 1"),
        ((0, math.inf), "of at least 0"),
        ((-math.inf, 0), "of at most 0"),
        ((-math.inf, math.inf), ""),
    ],
)
def test_a_closed_range_has_its_finite_ends(ends: tuple[float, float], words: str) -> None:
    """They pass; what is outside, infinite or not a number is told them."""
    for end in filter(math.isfinite, ends):
        check_between("cov", end, *ends, closed=True)
    for value in (math.nan, math.inf, -math.inf, "1"):
        with pytest.raises(InputError, match=rf"out of range; give a finite number ?{words}$"):
            check_between("cov", value, *ends, closed=True)
