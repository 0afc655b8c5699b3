"""``protalign verify``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from protalign import EmbeddingStore
from tests.helpers.commands import run


def test_the_damaged_ids_are_named(embedded_few: Path, tmp_path: Path, encoder: str) -> None:
    """A whole store passes; one flipped byte is found, with exit code 3 and the ids it hit."""
    store = tmp_path / "store.zarr"
    shutil.copytree(embedded_few, store)
    assert "whole" in run("verify", store).stdout
    chunk = next((store / "encoders" / encoder / "values").glob("c*"))
    damaged = bytearray(chunk.read_bytes())
    damaged[1000] ^= 1
    chunk.write_bytes(bytes(damaged))
    text = run("verify", store, code=3).stdout
    assert EmbeddingStore.open(store).ids[0] in text
    report = json.loads(run("verify", store, "--json", code=3).stdout)
    assert not report["ok"]
    assert EmbeddingStore.open(store).ids[0] in report["damaged_ids"]
