"""A store of the sample, a split of it and a report on them, made once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protalign.splits import Split, write_split
from protalign.stores import EmbeddingStore
from tests.helpers.commands import PROTALIGN, run
from tests.helpers.estimator_stores import build, read, renamed
from tests.helpers.report_files import CODES, ODD_ID, TEST, Files, Interrupted
from tests.helpers.report_page import Opened


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, store_path: Path, sample: Path) -> Files:
    """The tests' store with one more chain of an odd id, and a split of it by families."""
    folder = tmp_path_factory.mktemp("reproduce")
    files = Files(folder / "store.zarr", folder / "split.csv", folder / "report")
    shutil.copytree(store_path, files.store)
    (chain,) = read(sample / "1vqb_A.pdb.gz")
    build(files.store, [renamed(chain, ODD_ID)])
    others = [
        i
        for i in EmbeddingStore.open(files.store).ids.tolist()
        if i not in (*TEST, "copy", "fasta")
    ]
    validation = tuple(others[::3])
    train = tuple(i for i in others if i not in validation)
    write_split(Split(train, validation, TEST, "two families to test on"), files.split)
    return files


@pytest.fixture(scope="session")
def interrupted(files: Files) -> Interrupted:
    """The report, made by two calls: Ctrl-C after the first's first run, a file cut off, again.

    The first call is given families, so that it does not cluster, and the second is given SCOPe
    codes: runs depend on neither.
    """
    table = files.out.with_name("families.csv")
    table.write_text("id,family\n107l_A,lysozyme\n", encoding="utf-8")
    running = subprocess.Popen(
        [PROTALIGN, *files.words(), "--families", table],
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
    classes = files.out.with_name("scop.csv")
    codes = "".join(f"{entry_id},{code}\n" for entry_id, code in CODES.items())
    classes.write_text(f"id,scop\n{codes}", encoding="utf-8")
    summary = json.loads(run(*files.words(jobs=1), "--scop", classes, "--json").stdout)
    return Interrupted(running.returncode, error, kept, damaged, times, summary)


@pytest.fixture(scope="session")
def report(files: Files, interrupted: Interrupted) -> Path:
    """The report's folder. Only to be read."""
    assert interrupted.summary["page"] == str(files.out / "index.html")
    return files.out


@pytest.fixture(scope="module")
def loaded(browser: Any, report: Path) -> Iterator[Opened]:
    """The page, loaded once for all tests."""
    opened = Opened(browser, report / "index.html")
    yield opened
    opened.page.close()


@pytest.fixture
def opened(loaded: Opened) -> Opened:
    """The page at a desktop's size, with nothing selected or noted."""
    loaded.page.set_viewport_size({"width": 1280, "height": 900})
    loaded.page.emulate_media(color_scheme="light")
    loaded.page.mouse.move(0, 0)
    loaded.page.keyboard.press("Escape")
    loaded.page.evaluate("document.getElementById('map-panel').replaceChildren()")
    return loaded
