"""One protein, or one process, that comes to grief stops nothing else."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import LocalCluster

from protalign.core.errors import ProtAlignError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.filling.encode import EncodeReport, Progress, encode_pending
from tests.helpers.commands import contents, run
from tests.helpers.one_hot import (
    load_ending,
    load_one_hot,
    load_ordered_to_die,
    load_panicking,
    load_raising,
    load_slowly,
    one_hot,
)
from tests.helpers.poisoned import POISON
from tests.helpers.stores import (
    CHUNK_ROWS,
    ONE_HOT,
    OPTIONS,
    add_all,
    read_protein,
    sequence_only,
    tree,
)
from tests.reliability import times

Record = Callable[[str, object], None]

REPOSITORY = Path(__file__).parents[2]
#: Kills of workers at each of three moments.
KILLS = times(2, 50)


@pytest.fixture(scope="module")
def proteins(sample: Path) -> list[Protein]:
    """20 real chains."""
    files = sorted(path for path in sample.iterdir() if ".pdb" in path.name or ".cif" in path.name)
    return [read_protein(path) for path in files[:20]]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 FASTA records, the 17th of which is poison."""
    rng = random.Random(0)
    sequences = ["".join(rng.choices("ACDEFGHIKLMNPQRSTVY", k=80)) for _ in range(30)]
    sequences[16] += POISON
    path = tmp_path_factory.mktemp("records") / "records.fasta"
    path.write_text("".join(f">p{n}\n{sequence}\n" for n, sequence in enumerate(sequences)))
    return path


def command(records: Path, out: Path) -> list[str]:
    """The words of the command that embeds the records."""
    encoders = ["--sequence-encoder", "poisoned", "--structure-encoder", "none"]
    return ["embed", str(records), "--out", str(out), "--quiet", *encoders]


def check_records(out: Path, reason: str) -> None:
    """29 of 30 are embedded; the poison is a failure with its reason."""
    store = EmbeddingStore.open(out)
    (failure,) = store.failures
    assert (failure.id, Path(failure.file).name) == ("p16", "records.fasta")
    assert failure.reason.startswith(reason)
    assert store.encoders["poisoned"].n_items == 29
    assert verify(out).ok
    assert not (out / ".running").exists()


def test_an_encoder_that_raises(
    plugin: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another package's encoder raises for one record: 29 of 30; again, with the same bytes."""
    monkeypatch.syspath_prepend(plugin)
    monkeypatch.setenv("POISON", "KeyError")
    out = tmp_path / "store.zarr"
    printed = run(*command(records, out), code=3).stderr
    assert "(p16): the encoder failed with KeyError: 'WCWCWC'; leave it out" in printed
    check_records(out, "the encoder failed with KeyError")
    first = contents(out)
    run(*command(records, out), code=3)
    assert contents(out) == first


#: Runs a command several times, each in a fork, and prints the exit codes.
AGAIN = """
import os, sys
import protalign.cli, protalign.embedding

for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        sys.argv = ["protalign", *sys.argv[2:]]
        try:
            protalign.cli.main()
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code or 0)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_an_encoder_that_ends_the_process(plugin: Path, records: Path, tmp_path: Path) -> None:
    """A process that ends can say nothing; the third run of the command gets past the record."""
    out = tmp_path / "store.zarr"
    path = os.pathsep.join([str(plugin), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, "3", *command(records, out)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "POISON": "exit"},
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == ["7", "7", "3"]
    assert "(p16): it ended the encoder's process (exit code 7); leave it out" in done.stderr
    check_records(out, "it ended the encoder's process")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, proteins: list[Protein]) -> Path:
    """A store of real chains and a poison one, planned. Only to be copied."""
    path = tmp_path_factory.mktemp("planned") / "store.zarr"
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, [*proteins, sequence_only("poison", f"MKVLA{POISON}GT")])
        writer.plan("one_hot", ONE_HOT, 200, CHUNK_ROWS)
    return path


@pytest.fixture
def path(tmp_path: Path, planned: Path) -> Path:
    return Path(shutil.copytree(planned, tmp_path / "store.zarr"))


@pytest.fixture(scope="module")
def undisturbed(planned: Path) -> dict[str, bytes]:
    """The bytes that every run ends with, if nothing is refused."""
    path = shutil.copytree(planned, planned.with_name("undisturbed.zarr"))
    encode_pending(path, "one_hot", load_one_hot)
    return tree(path)


def check_poisoned(path: Path, report: EncodeReport, record_property: Record) -> None:
    """The poison is a failure that says why; every other protein has its rows."""
    assert [failure.id for failure in report.failures] == ["poison"]
    assert report.failures[0].reason.startswith("it ended the encoder's process (")
    store = EmbeddingStore.open(path)
    present = store[store.rows("one_hot")[0] >= 0]
    assert len(present) == len(store) - 1
    for view, rows in zip(present, present.embeddings("one_hot"), strict=True):
        np.testing.assert_array_equal(rows, one_hot([store.sequence(view.ids[0])])[0])
    assert verify(path).ok
    record_property("poison records named", 1)


def test_a_poison_record_in_worker_processes(
    path: Path,
    tmp_path: Path,
    planned: Path,
    undisturbed: dict[str, bytes],
    record_property: Record,
) -> None:
    """It ends its worker, then a child of a worker; the store is that of a run that refused it."""
    load = partial(load_ending, unwanted=POISON)
    once = {"distributed.scheduler.allowed-failures": 0}  # instead of three more deaths
    with dask.config.set(once):
        report = encode_pending(path, "one_hot", load, devices=["cpu", "cpu"])
    check_poisoned(path, report, record_property)
    raised = Path(shutil.copytree(planned, tmp_path / "raised.zarr"))
    encode_pending(raised, "one_hot", partial(load_raising, unwanted=POISON))
    differing = {name for name, data in tree(raised).items() if tree(path)[name] != data}
    assert differing <= {"zarr.json"}  # the reason
    encode_pending(path, "one_hot", load_one_hot)
    assert tree(path) == undisturbed


def test_an_encoder_that_panics_as_it_is_loaded(path: Path) -> None:
    """An error that is no Exception ends a run of several processes, in one line."""
    with pytest.raises(ProtAlignError, match="stopped: PanicError: a bug in two lines;"):
        encode_pending(path, "one_hot", load_panicking, devices=["cpu", "cpu"])
    assert verify(path).ok


def test_a_poison_record_on_a_cluster(path: Path, record_property: Record) -> None:
    """So it is on workers that a scheduler elsewhere has, with Dask's own number of retries."""
    load = partial(load_ending, unwanted=POISON, code=7)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        report = encode_pending(path, "one_hot", load, scheduler=cluster.scheduler_address)
    check_poisoned(path, report, record_property)
    assert "exit code 7" in report.failures[0].reason


def test_results_that_are_lost_with_the_last_worker(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks had ended when their worker died: the run ends in one line, and does not wait."""
    monkeypatch.setattr("protalign.core.cluster.WATCH_SECONDS", 0.3)
    monkeypatch.setattr("protalign.core.cluster.LOST_SECONDS", 2.0)
    with LocalCluster(n_workers=0, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
        worker = subprocess.Popen(
            [*command, "--nthreads", "1", "--no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )

        def after(progress: Progress) -> None:
            if progress.tasks_done == 1:
                time.sleep(2)  # the next tasks end
                worker.kill()
                worker.wait()
                time.sleep(1)

        try:
            with pytest.raises(ProtAlignError, match="no worker has been left for 2 seconds"):
                encode_pending(path, "one_hot", load_one_hot, scheduler=address, on_progress=after)
        finally:
            worker.kill()
            worker.wait()
    assert verify(path).ok


@contextmanager
def killing(moments: Iterator[float], begun: threading.Event | None = None) -> Iterator[list[int]]:
    """Kill a worker process after each of some seconds; the list gets their ids."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        for seconds in moments:
            if over.wait(seconds):
                return
            workers = [
                process
                for process in psutil.Process().children()
                if process.pid not in killed and "spawn_main" in " ".join(process.cmdline())
            ]
            if workers:
                victim = random.Random(len(killed)).choice(workers)
                killed.append(victim.pid)
                victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def test_workers_killed_at_their_start(
    planned: Path, tmp_path: Path, undisturbed: dict[str, bytes], record_property: Record
) -> None:
    """They are started again: the same bytes, and no failure.

    Two kills a run: a third at the start would rightly end it.
    """
    rng = random.Random(0)
    kills = number = 0
    while kills < KILLS:
        path = Path(shutil.copytree(planned, tmp_path / f"{number}.zarr"))
        moments = iter([rng.uniform(0, 0.5), rng.uniform(0, 0.5)])
        with killing(moments) as killed:
            load = partial(load_slowly, seconds=0.05)
            report = encode_pending(path, "one_hot", load, devices=["cpu", "cpu"])
        kills += len(killed)
        assert report.failures == []
        assert tree(path) == undisturbed
        shutil.rmtree(path)
        number += 1
        assert number < 3 * KILLS, "hardly a kill came before the end"
    record_property("kills at the start", kills)


@pytest.mark.parametrize("moment", ["in a batch", "while chunks are written"])
def test_workers_killed_at_work(
    moment: str,
    planned: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    record_property: Record,
) -> None:
    """The same bytes, and no failure; two kills a run, since Dask allows a task three."""
    kills = number = 0
    while kills < KILLS:
        path = Path(shutil.copytree(planned, tmp_path / f"{number}.zarr"))
        orders = tmp_path / f"orders{number}"
        orders.mkdir()
        for order in range(2):
            (orders / f"{order}").touch()
        latest = 0.01 if moment == "while chunks are written" else 0.0
        load = partial(load_ordered_to_die, orders=str(orders), latest=latest, seed=number)
        report = encode_pending(path, "one_hot", load, devices=["cpu", "cpu"])
        kills += 2 - len(list(orders.iterdir()))
        assert report.failures == []
        assert tree(path) == undisturbed
        shutil.rmtree(path)
        number += 1
        assert number < 3 * KILLS, "hardly a kill came before the end"
    record_property(f"kills {moment}", kills)


def test_workers_that_never_start(path: Path) -> None:
    """They are started a few times; then one line says so, and gives no advice about scripts."""
    with (
        killing(iter(lambda: 0.02, None)) as killed,
        pytest.raises(ProtAlignError, match="ended while they started, 3 times") as caught,
    ):
        encode_pending(path, "one_hot", load_one_hot, devices=["cpu"] * 2)
    assert len(killed) >= 3
    assert "__main__" not in str(caught.value)
    assert verify(path).ok
