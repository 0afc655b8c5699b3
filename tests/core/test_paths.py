"""Paths of any bytes, as text."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from protalign.core.paths import may_exist, path_of, path_text


@given(st.binary(min_size=1).filter(lambda name: b"\\udc" not in name))
def test_any_bytes_come_back(name: bytes) -> None:
    """The text can be stored, and leads to the same file."""
    path = Path(os.fsdecode(name))
    text = path_text(path)
    text.encode("utf-8")
    assert path_of(text) == path


def test_a_name_that_looks_like_an_escape(tmp_path: Path) -> None:
    """A file that is really called so is found first."""
    file = tmp_path / r"a\udce9"
    file.touch()
    assert path_of(path_text(file)) == file


def test_only_what_is_missing_is_missing(tmp_path: Path) -> None:
    """A loop, a name too long, a null character: no file can have them."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    missing = ["no", "loop", "file/x", "x" * 300, "a\0b"]
    assert [may_exist(str(tmp_path / name)) for name in missing] == [False] * 5
    assert may_exist(str(tmp_path / "file"))
