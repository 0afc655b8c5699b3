"""``protalign embed`` stopped, and spread over a cluster: the same store in the end."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.helpers.commands import PROTALIGN, contents, run


def test_ctrl_c_leaves_a_store_that_resumes_to_the_same_bytes(
    finished: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """Interrupted at several moments, then run to the end: equal to an undisturbed run."""
    store = tmp_path / "store.zarr"
    arguments = ["embed", str(sample), "--sequence-encoder", encoder, "--quiet", "--out"]
    for seconds in (2.0, 5.0, 8.0):
        process = subprocess.Popen(
            [PROTALIGN, *arguments, str(store)], stderr=subprocess.PIPE, text=True
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate()[1]
        assert process.returncode in (130, 0, -signal.SIGINT)  # the last two: it was through
    run(*arguments, store)
    assert contents(store) == contents(finished / "store.zarr")


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
