"""The sample's store, a split of it and a report on them, made once by the public commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from protalign.splits import Split, write_split
from protalign.stores import EmbeddingStore
from tests.helpers.commands import PROTALIGN, run
from tests.helpers.report_files import ODD_ID, TEST, Files, Interrupted


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Files:
    """A store of the sample and of one more chain with an odd id; a split by families."""
    folder = tmp_path_factory.mktemp("reproduce")
    odd = folder / f"{ODD_ID}.pdb.gz"
    shutil.copy(sample / "1vqb_A.pdb.gz", odd)
    files = Files(folder / "store.zarr", folder / "split.csv", folder / "report")
    encoder = ("--sequence-encoder", "protalign_t6_2M")
    run("embed", sample, odd, "--out", files.store, "--quiet", *encoder)
    others = [i for i in EmbeddingStore.open(files.store).ids.tolist() if i not in TEST]
    validation = tuple(others[::3])
    train = tuple(i for i in others if i not in validation)
    write_split(Split(train, validation, TEST, "two families to test on"), files.split)
    return files


@pytest.fixture(scope="session")
def interrupted(files: Files) -> Interrupted:
    """The report, made by two calls: Ctrl-C after the first's first run, a file cut off, again."""
    running = subprocess.Popen(
        [PROTALIGN, *files.words()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    runs = files.out / "runs"
    while running.poll() is None and not list(runs.glob("*.json")):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=120)
    kept = {path.name: path.read_text(encoding="utf-8") for path in sorted(runs.glob("*.json"))}
    damaged = min(kept)
    (runs / damaged).write_text(kept[damaged][:200], encoding="utf-8")
    times = {name: (runs / name).stat().st_mtime_ns for name in kept if name != damaged}
    summary = json.loads(run(*files.words(jobs=1), "--json").stdout)
    return Interrupted(running.returncode, error, kept, damaged, times, summary)


@pytest.fixture(scope="session")
def report(files: Files, interrupted: Interrupted) -> Path:
    """The report's folder. Only to be read."""
    assert interrupted.summary["page"] == str(files.out / "index.html")
    return files.out
