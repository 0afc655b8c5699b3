"""Worker processes that end while they have tasks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster, Security

from protalign.core.errors import ProtAlignError, StoreError
from protalign.core.spread import spread_over
from tests.helpers.tasks import KilledAt, Marked, squared

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def two_processes() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_a_killed_workers_tasks_are_done_again(tmp_path: Path) -> None:
    """Every result is there, once and in order, also those that were lost with the worker."""
    with two_processes() as cluster, spread_over(cluster.scheduler_address) as spread:
        results = spread.map(KilledAt(tmp_path, 5, once=True), range(30))
        assert list(results) == [n * n for n in range(30)]
    assert (tmp_path / "killed").exists()


def test_a_task_that_always_kills_is_one_line(tmp_path: Path) -> None:
    """It ends the work, and not the workers: the next work is done."""
    once = {"distributed.scheduler.allowed-failures": 0}  # instead of three more deaths
    with (
        dask.config.set(once),
        two_processes() as cluster,
        spread_over(cluster.scheduler_address) as spread,
    ):
        with pytest.raises(ProtAlignError, match="a task ended its worker process several"):
            list(spread.map(KilledAt(tmp_path, 2, once=False), range(9)))
        assert list(spread.map(squared, range(4))) == [0, 1, 4, 9]


@contextmanager
def _process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_no_worker_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only worker is killed, and none comes: the work ends in one line, and does not wait."""
    monkeypatch.setattr("protalign.core.cluster.WATCH_SECONDS", 0.3)
    monkeypatch.setattr("protalign.core.cluster.LOST_SECONDS", 2.0)
    with (
        LocalCluster(n_workers=0, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster,
        _process(
            *("distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny"),
            *("--nthreads", "1", "--no-dashboard"),
        ) as worker,
        spread_over(cluster.scheduler_address) as spread,
    ):
        results = spread.map(Marked(tmp_path, 0.2), range(100))
        assert next(results) == 0
        worker.send_signal(signal.SIGKILL)
        with pytest.raises(ProtAlignError, match=r"^the work stopped: no worker has been left for"):
            list(results)


def test_the_scheduler_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The work ends in one line, without a traceback."""
    port = 20_000 + os.getpid() % 10_000
    address = f"tcp://127.0.0.1:{port}"
    with (
        _process(
            *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)),
            *("--no-dashboard",),
        ) as scheduler,
        _process("distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"),
        spread_over(address) as spread,
    ):
        results = spread.map(Marked(tmp_path, 0.2), range(1000))
        assert next(results) == 0
        scheduler.send_signal(signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(ProtAlignError, match=r"^the work stopped: ") as caught:
            list(results)
    print(caught.value)
    assert time.monotonic() - started < 60
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def certificate(folder: Path) -> dict[str, str]:
    """A certificate that signs itself, as Dask's configuration names it for a client."""
    if shutil.which("openssl") is None:
        pytest.skip("no `openssl` program")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"]
    command = ["openssl", "req", *words, "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return {"tls_ca_file": cert, "tls_client_cert": cert, "tls_client_key": key}


#: What ``_loader`` gives: Dask's configuration names a function.
_loaded: dict[str, str] = {}


def _loader(info: dict[str, str]) -> Security:
    assert info["address"].startswith("tls://")
    return Security(**_loaded, require_encryption=True)


def test_a_scheduler_behind_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from Dask's configuration, or from its loader; without any it is one line."""
    of_client = certificate(tmp_path)
    cert, key = of_client["tls_client_cert"], of_client["tls_client_key"]
    others = {
        f"tls_{role}_{kind}": file
        for role in ("scheduler", "worker")
        for kind, file in (("cert", cert), ("key", key))
    }
    security = Security(**of_client, **others, require_encryption=True)
    monkeypatch.setattr(sys.modules[__name__], "_loaded", of_client)
    tls = "distributed.comm.tls"
    in_config = {f"{tls}.ca-file": cert, f"{tls}.client.cert": cert, f"{tls}.client.key": key}
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tls://",
        security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        for setting in (in_config, {"distributed.client.security-loader": f"{__name__}._loader"}):
            with dask.config.set(setting), spread_over(address) as spread:
                assert list(spread.map(squared, range(4))) == [0, 1, 4, 9]
        with (
            pytest.raises(StoreError, match=r"distributed\.comm\.tls") as caught,
            spread_over(address),
        ):
            pass
        assert "\n" not in str(caught.value)
    missing = {"distributed.client.security-loader": "no_such_module.loader"}
    with (
        dask.config.set(missing),
        pytest.raises(StoreError, match=r"^the certificates for tls://.*security-loader"),
        spread_over("tls://127.0.0.1:9"),
    ):
        pass
