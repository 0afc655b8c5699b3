"""``protalign info``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.commands import run


def test_a_store_is_described(finished: Path, encoder: str) -> None:
    """All 40 proteins, both encoders complete, nothing failed."""
    facts = json.loads(run("info", finished / "store.zarr", "--json").stdout)
    assert facts["entries"] == 40
    assert set(facts["encoders"]) == {encoder, "proteinmpnn_v_48_020"}
    for described in facts["encoders"].values():
        assert described["items"] == described["items_total"] > 0
        assert len(described["weights_sha256"]) == 64
    assert facts["failures"] == []
    assert "40" in run("info", finished / "store.zarr").stdout


def test_failures_are_listed(few: Path, tmp_path: Path, encoder: str) -> None:
    """The inputs that failed follow the encoders, with the problem and the advice."""
    (few / "empty.pdb").write_bytes(b"")
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet", code=3)
    text = run("info", store).stdout
    assert "1 failed:" in text
    assert "empty.pdb" in text
