"""The files of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protalign.report.experiments import BASE
from protalign.report.runs import Run, RunFiles


@pytest.mark.parametrize("missing", ["test", "loss_curve", "key"])
def test_a_run_with_a_key_missing_from_its_file_is_not_complete(
    tmp_path: Path, missing: str
) -> None:
    """JSON that is well formed but not a whole record counts as no record."""
    names = {
        *("key", "label", "parameters", "seed", "test", "validation", "loss_curve"),
        *("validation_curve", "epochs", "best_epoch", "training_pairs", "validation_pairs"),
        *("temperature", "bias", "seconds"),
    }
    run, files = Run.of(BASE, 0, {}), RunFiles(tmp_path)
    files.model(run).mkdir()
    record = {**dict.fromkeys(names), "key": run.key}
    files.record(run).write_text(json.dumps(record), encoding="utf-8")
    assert files.read(run) == record
    del record[missing]
    files.record(run).write_text(json.dumps(record), encoding="utf-8")
    assert files.read(run) is None
