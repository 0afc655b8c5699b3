"""``protalign split``; the protocols themselves are tested with the splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protalign import EmbeddingStore
from tests.helpers.commands import run


def test_a_column_of_a_table(finished: Path, tmp_path: Path) -> None:
    """Parts by the user's table are written and counted."""
    ids = EmbeddingStore.open(finished / "store.zarr").ids.tolist()[:12]
    parts = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    table, out = tmp_path / "table.csv", tmp_path / "split.csv"
    rows = [f"{i},{part}\n" for i, part in zip(ids, parts, strict=True)]
    table.write_text("id,split\n" + "".join(rows))
    split = ("split", finished / "store.zarr", "--by", "column", table, "--out", out)
    made = json.loads(run(*split, "--json").stdout)
    assert made["counts"] == {"train": 8, "validation": 2, "test": 2}
    assert made["file"] == str(out)
    assert "by column split of table.csv" in run(*split).stdout
    fit = ("fit", finished / "store.zarr", "--split", out, "--max-epochs", 1, "--json")
    assert json.loads(run(*fit, "--out", tmp_path / "model").stdout)["pairs"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "column"], "--by column: needs a table, and only it does"),
        (["--by", "cluster", "table.csv"], "--by column: needs a table, and only it does"),
        (["--by", "cluster", "tests"], "tests: it is a folder, and one store is named; name"),
        (["--by", "column", "b.zarr"], "by a quoted pattern, such as 'shards/*.zarr'"),
        (["--by", "pdbbind"], "--by pdbbind: needs --index"),
        (["--by", "cluster", "--fractions", "a,b,c"], "--fractions a,b,c: not numbers"),
    ],
)
def test_wrong_usage(finished: Path, words: list[str], message: str) -> None:
    """One line, and exit code 2."""
    assert message in run("split", finished / "store.zarr", *words, code=2).stderr
