"""``protalign weights``."""

from __future__ import annotations

import json

from tests.helpers.commands import run


def test_every_model_is_listed_with_its_file(encoder: str) -> None:
    """The shipped ones with their SHA-256, ESM2 by name whether its weights are here or not."""
    entries = {
        entry["model"]: entry for entry in json.loads(run("weights", "--json").stdout)["weights"]
    }
    assert len(entries[encoder]["sha256"]) == 64
    assert entries[encoder]["source"] == "package"
    assert "esm2_t48_15B_UR50D" in entries
    assert entries["proteinmpnn_v_48_020"]["sha256"]
    assert encoder in run("weights").stdout
