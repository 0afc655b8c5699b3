"""``protalign embed`` stopped, and spread over a cluster: the same store in the end."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.helpers.commands import PROTALIGN, contents, run


def test_ctrl_c_leaves_a_store_that_resumes_to_the_same_bytes(
    embedded_few: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """Interrupted while it starts, reads and embeds, then run to the end: as if undisturbed."""
    store, files = tmp_path / "store.zarr", sorted(sample.glob("*.pdb.gz"))[:4]
    arguments = ["embed", *map(str, files), "--sequence-encoder", encoder, "--quiet", "--out"]
    for seconds, awaited in (
        (0.5, tmp_path),
        (0.0, store / "zarr.json"),
        (0.0, store / "encoders" / encoder),
    ):
        process = subprocess.Popen(
            [PROTALIGN, *arguments, str(store)], stderr=subprocess.PIPE, text=True
        )
        while not awaited.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        printed = process.communicate()[1]
        assert "Traceback" not in printed
        # 0: it was through; SIGINT: Python itself was still starting or already ending.
        assert process.returncode in (130, 0, -signal.SIGINT), printed
    run(*arguments, store)
    assert contents(store) == contents(embedded_few)


def test_a_dask_cluster_gives_the_same_bytes(
    embedded_few: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """--scheduler with worker processes of a real cluster: the same store, byte for byte."""
    from distributed import LocalCluster

    store = tmp_path / "store.zarr"
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        address = cluster.scheduler_address
        files = sorted(sample.glob("*.pdb.gz"))[:4]
        options = ("--sequence-encoder", encoder, "--scheduler", address)
        run("embed", *files, "--out", store, *options)
    assert contents(store) == contents(embedded_few)
