"""The files of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign import ProtAlignEstimator
from protalign.report.experiments import BASE
from protalign.report.runs import _RECORDED, Run, RunFiles, keep, missing


@pytest.mark.parametrize("left_out", ["test", "loss_curve", "key"])
def test_a_run_with_a_key_missing_from_its_file_is_not_complete(
    tmp_path: Path, left_out: str
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
    keep(files.record(run), record)
    assert files.read(run) == record
    del record[left_out]
    keep(files.record(run), record)
    assert files.read(run) is None


def test_no_flipped_bit_in_a_run_goes_unnoticed(tmp_path: Path, fitted: ProtAlignEstimator) -> None:
    """Of its record, a file that reads as before or counts as none; of its model, any."""
    run, files = Run.of(BASE, 0, {}), RunFiles(tmp_path)
    fitted.save(files.model(run))
    record: dict[str, object] = {**dict.fromkeys(_RECORDED), "key": run.key}
    record |= {"loss_curve": [1.25, 0.5], "seconds": 12.5, "label": "clip"}
    keep(files.record(run), record)
    assert missing([run], files) == []
    whole = files.record(run).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 7
        files.record(run).write_bytes(changed)
        assert files.read(run) in (None, record), place
    files.record(run).write_bytes(whole)
    weights = files.model(run) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert missing([run], files) == [run]
