"""Delimited text files that users bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign.core.errors import InputError
from protalign.core.tables import DelimitedTable


def test_a_header_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """A cell longer than any table has, in the header as in a row."""
    long = '"' + "a" * 200_000 + '"'
    (tmp_path / "header.csv").write_text(f"id,{long}\n1abc,x\n")
    with pytest.raises(InputError, match=r"^\S+header.csv: its header cannot be read \(.*; give"):
        DelimitedTable.read(tmp_path / "header.csv")
    (tmp_path / "row.csv").write_text(f"id,part\n1abc,{long}\n")
    with pytest.raises(InputError, match=r"row.csv, line 2: "):
        list(DelimitedTable.read(tmp_path / "row.csv").rows())


def test_a_table_of_many_columns_does_not_fill_the_error(tmp_path: Path) -> None:
    """The first of them are named, and how many more there are."""
    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(100_000)) + "\n")
    with pytest.raises(InputError, match="and 99,950 more") as error:
        DelimitedTable.read(tmp_path / "wide.csv").column(None, ["id"], "ids")
    assert len(str(error.value)) < 1000
