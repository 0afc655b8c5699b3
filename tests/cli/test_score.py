"""``protalign score``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.commands import run


def test_both_directions_are_printed(finished: Path) -> None:
    """Recall and MRR in a table and in JSON, the same numbers."""
    arguments = ("score", finished / "store.zarr", "--model", finished / "model")
    report = json.loads(run(*arguments, "--json").stdout)
    text = run(*arguments).stdout
    for direction in ("sequence_to_structure", "structure_to_sequence"):
        assert 0 <= report[direction]["recall_at_1"] <= report[direction]["recall_at_5"] <= 1
        assert f"{100 * report[direction]['recall_at_1']:.1f} %" in text


def test_a_part_of_a_split(finished: Path) -> None:
    """The test part by default, else --part; --ids beside --split is refused."""
    arguments = ("score", finished / "store.zarr", "--model", finished / "model")
    arguments = (*arguments, "--split", finished / "split.csv", "--json")
    assert json.loads(run(*arguments).stdout)["n_queries"] == 10
    assert json.loads(run(*arguments, "--part", "train").stdout)["n_queries"] == 20
    refused = run(*arguments, "--ids", finished / "labels.csv", code=2)
    assert "--split: cannot be combined with --ids" in refused.stderr


def test_a_store_of_another_encoder_is_refused(
    finished: Path, few: Path, tmp_path: Path, encoder: str
) -> None:
    """Vectors of another layer's embeddings are not pooled with heads that never saw them."""
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--layer", "1", "--quiet")
    done = run("score", store, "--model", finished / "model", code=2)
    assert "layer" in done.stderr
