"""``protalign embed`` stopped, and spread over a cluster: the same store in the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.commands import PROTALIGN, contents, run


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_leaves_a_store_that_resumes_to_the_same_bytes(
    tmp_path: Path, sample: Path, encoder: str
) -> None:
    """Interrupted at several moments, then run to the end: equal to an undisturbed run."""
    undisturbed, interrupted = tmp_path / "a.zarr", tmp_path / "b.zarr"
    arguments = ["embed", str(sample), "--sequence-encoder", encoder, "--quiet", "--out"]
    run(*arguments, undisturbed)
    for seconds in (2.0, 5.0, 8.0):
        process = subprocess.Popen(
            [PROTALIGN, *arguments, str(interrupted)], stderr=subprocess.PIPE, text=True
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate()[1]
        assert process.returncode in (130, 0, -signal.SIGINT)  # the last two: it was through
    run(*arguments, interrupted)
    assert contents(interrupted) == contents(undisturbed)


def test_a_dask_cluster_gives_the_same_bytes(
    finished: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """--scheduler with worker processes of a real cluster: the same store, byte for byte."""
    from distributed import LocalCluster

    store = tmp_path / "store.zarr"
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        address = cluster.scheduler_address
        run("embed", sample, "--out", store, "--sequence-encoder", encoder, "--scheduler", address)
    assert contents(store) == contents(finished / "store.zarr")


def test_a_read_that_fails_after_ctrl_c_is_not_shown() -> None:
    """Zarr's reads go on in their loop while the program ends; nobody waits for them any more."""
    program = """
import asyncio, sys
from protalign.cli import app

def interrupted():
    read = asyncio.new_event_loop().create_future()
    read.set_exception(FileNotFoundError("zarr.json"))
    sys.exit(app.INTERRUPTED)

app.app = interrupted
app.run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "protalign: interrupted; run again, it goes on from here\n"
