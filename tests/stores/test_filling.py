"""Encoding into a store: in this process, in several, on a cluster, and after errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import LocalCluster

from protalign.core.errors import Failure, InputError, ProtAlignError, StoreError
from protalign.core.protein import Protein
from protalign.core.threads import torch_pool
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.filling.encode import Progress, encode_pending
from tests.helpers.one_hot import (
    AT_ONCE,
    ERRORS,
    load_always_killed,
    load_core_number,
    load_counted,
    load_from_centre,
    load_in_pairs,
    load_killed_once,
    load_one_hot,
    load_raising,
    load_refusing,
    load_spoiled,
    one_hot,
)
from tests.helpers.stores import (
    CHUNK_ROWS,
    ONE_HOT,
    OPTIONS,
    add_all,
    digest,
    plan_both,
    sequence_only,
    tree,
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, proteins: list[Protein]) -> Path:
    """A store with embeddings that are planned but not made. Only to be copied."""
    path = tmp_path_factory.mktemp("planned") / "store.zarr"
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, proteins)
        plan_both(writer)
    return path


@pytest.fixture(scope="module")
def undisturbed(planned: Path) -> dict[str, bytes]:
    """The bytes that every way of encoding must end with."""
    path = shutil.copytree(planned, planned.with_name("undisturbed.zarr"))
    encode_pending(path, "one_hot", load_one_hot)
    return tree(path)


@pytest.fixture
def path(tmp_path: Path, planned: Path) -> Path:
    return Path(shutil.copytree(planned, tmp_path / "store.zarr"))


def test_report_and_progress(path: Path) -> None:
    """Progress counts this run's tasks and residues from nothing to all; the report agrees."""
    reported: list[Progress] = []
    report = encode_pending(path, "one_hot", load_one_hot, on_progress=reported.append)
    assert (reported[0].tasks_done, reported[0].rows_done) == (0, 0)
    assert [p.tasks_done for p in reported] == list(range(reported[-1].tasks_total + 1))
    assert reported[-1].rows_done == reported[-1].rows_total == report.rows
    assert report.tasks == reported[-1].tasks_total
    assert report.items == EmbeddingStore.open(path).encoders["one_hot"].n_items
    assert report.failures == []
    again = encode_pending(path, "one_hot", load_one_hot)
    assert (again.tasks, again.items, again.rows) == (0, 0, 0)


def test_several_threads_write_the_same_bytes(path: Path, undisturbed: dict[str, bytes]) -> None:
    """Batches of a task are encoded at once; their rows and their order are the same."""
    with ThreadPoolExecutor(4) as pool:
        encode_pending(path, "one_hot", load_one_hot, pool=pool)
    assert tree(path) == undisturbed


@pytest.fixture
def seven_cores() -> Iterator[None]:
    """Let torch take seven cores in the tests' own thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    yield
    torch.set_num_threads(before)


def test_a_batch_alone_has_all_cores(tmp_path: Path, seven_cores: None) -> None:
    """Threads have a core each; a task of one batch, a giant protein for example, has all."""
    path = tmp_path / "store.zarr"
    lengths = [60, 61, 62, 63, 1000]  # a task of two batches, and one of a single batch
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, [sequence_only(f"p{n}", "A" * n) for n in lengths])
        writer.plan("one_hot", ONE_HOT, 200, CHUNK_ROWS)
    with torch_pool(2) as pool:
        encode_pending(path, "one_hot", load_core_number, pool=pool)
    store = EmbeddingStore.open(path)
    cores = [{int(n) for n in np.unique(rows)} for rows in store.embeddings("one_hot")]
    assert cores == [{1}, {1}, {1}, {1}, {7}]


def test_no_thread_waits_for_a_tasks_last_batch(tmp_path: Path) -> None:
    """Two threads, two tasks of three batches: the third runs beside the next task's first."""
    path = tmp_path / "store.zarr"
    rows = CHUNK_ROWS // 3
    with StoreWriter(path, OPTIONS) as writer:
        add_all(
            writer, [sequence_only(f"p{n}", letter * rows) for n, letter in enumerate("ACDEFG")]
        )
        plan = writer.plan("one_hot", ONE_HOT, rows, CHUNK_ROWS)
    assert plan.pending_tasks == 2
    with ThreadPoolExecutor(2) as pool:
        report = encode_pending(path, "one_hot", load_in_pairs, pool=pool)
    assert report.items == 6
    assert verify(path).ok


def test_no_more_batches_at_once_than_threads(tmp_path: Path) -> None:
    """A batch alone in its task waits until those of other tasks are encoded."""
    path = tmp_path / "store.zarr"
    with StoreWriter(path, OPTIONS) as writer:
        lengths = [60, 61, 62, 63, 300, 301, 302, 50, 51, 52, 53]
        add_all(writer, [sequence_only(f"p{n}", "A" * n) for n in lengths])
        plan = writer.plan("one_hot", ONE_HOT, 70, CHUNK_ROWS)
    assert plan.pending_tasks == 5  # of four batches, three of one batch, of four batches
    AT_ONCE.most = 0
    with ThreadPoolExecutor(2) as pool:
        assert encode_pending(path, "one_hot", load_counted, pool=pool).items == 11
    assert AT_ONCE.most == 2


def test_errors_in_threads(path: Path, tmp_path: Path, planned: Path) -> None:
    """A refused item, a broken encoder and Ctrl-C come out of several threads as out of one."""
    load = partial(load_refusing, unwanted="AA")
    whole = Path(shutil.copytree(planned, tmp_path / "whole.zarr"))
    encode_pending(whole, "one_hot", load)
    with ThreadPoolExecutor(4) as pool:
        with pytest.raises(ProtAlignError, match="one_hot stopped: ValueError: a bug in two lines"):
            encode_pending(path, "one_hot", partial(load_raising, unwanted=""), pool=pool)
        with pytest.raises(KeyboardInterrupt):
            encode_pending(path, "one_hot", load, on_progress=_interrupt_after(2), pool=pool)
        assert verify(path).ok
        encode_pending(path, "one_hot", load, pool=pool)
    assert tree(path) == tree(whole)


def test_several_processes_write_the_same_bytes(
    path: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """One process per device, each on its own; the tasks of a killed one are run again."""
    load = partial(load_killed_once, folder=str(tmp_path))
    encode_pending(path, "one_hot", load, devices=["fake:3", "fake:7"])
    assert {file.name for file in tmp_path.glob("fake:*")} == {"fake:3", "fake:7"}
    assert (tmp_path / "killed").exists()
    assert tree(path) == undisturbed


@pytest.mark.slow
def test_an_encoder_that_always_kills_ends_in_an_error(path: Path) -> None:
    """A worker that ends with every protein stops the run with one line, and not in a loop."""
    once = {"distributed.scheduler.allowed-failures": 0}  # instead of three more deaths
    with (
        dask.config.set(once),
        pytest.raises(ProtAlignError, match=r"its process ended while it started, 3 times \(SIGK"),
    ):
        encode_pending(path, "one_hot", load_always_killed, devices=["cpu", "cpu"])


def test_an_external_scheduler(path: Path, undisturbed: dict[str, bytes]) -> None:
    """The same bytes on any Dask cluster, with threads in its workers or not."""
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        encode_pending(path, "one_hot", load_one_hot, scheduler=cluster.scheduler_address)
    assert tree(path) == undisturbed


def test_a_missing_scheduler_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a scheduler ends in one line."""
    monkeypatch.setattr("protalign.core.cluster.ANSWER_SECONDS", 0.5)
    with pytest.raises(StoreError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        encode_pending(path, "one_hot", load_one_hot, scheduler="tcp://127.0.0.1:9")


def test_ctrl_c_keeps_finished_tasks(path: Path, undisturbed: dict[str, bytes]) -> None:
    """KeyboardInterrupt comes through; what is done is readable; the next run does the rest."""
    with pytest.raises(KeyboardInterrupt):
        encode_pending(path, "one_hot", load_one_hot, on_progress=_interrupt_after(3))
    store = EmbeddingStore.open(path)
    done = store[store.rows("one_hot")[0] >= 0]
    assert 0 < len(done) < len(store)
    for view, rows in zip(done, done.embeddings("one_hot"), strict=True):
        np.testing.assert_array_equal(rows, one_hot([store.sequence(view.ids[0])])[0])
    with pytest.raises(InputError, match="run `protalign embed` to the end"):
        store.embeddings("one_hot")
    assert EmbeddingStore.open(f"file://{path}").rows("one_hot")[0].tolist() == (
        store.rows("one_hot")[0].tolist()
    )
    report = verify(path)
    assert report.ok
    assert report.unfinished["one_hot"] > 0
    assert encode_pending(path, "one_hot", load_one_hot).tasks <= report.unfinished["one_hot"]
    assert tree(path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
def test_sigint_ends_promptly_and_quietly(
    devices: list[str], path: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """A real Ctrl-C in the middle of a long run: no logs of Dask, and a store to resume."""
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys, time\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tests.helpers.one_hot import one_hot\n"
        "from protalign.stores.filling.encode import encode_pending\n"
        "def load(device):\n"
        "    def encode(batch):\n"
        "        time.sleep(0.3)\n"
        "        return one_hot(batch)\n"
        "    return encode\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        encode_pending({str(path)!r}, 'one_hot', load, devices={devices!r},\n"
        "             on_progress=lambda p: print(p.tasks_done, flush=True))\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "1":
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
    assert verify(path).ok
    time.sleep(0.5)  # workers of their own process, if any were left, would still write
    encode_pending(path, "one_hot", load_one_hot)
    assert tree(path) == undisturbed


def test_refused_items_become_failures(path: Path, proteins: list[Protein]) -> None:
    """An InputError affects only its item: every id that has it is a failure, the rest is done."""
    unwanted = proteins[5].sequences[0][:40]
    names = {p.id for p in proteins if unwanted in "".join(p.sequences)}
    assert {proteins[5].id, "twin", "long"} <= names
    load = partial(load_refusing, unwanted=unwanted)
    report = encode_pending(path, "one_hot", load)
    assert {failure.id for failure in report.failures} == names
    assert {failure.reason for failure in report.failures} == {"the sequence is unwanted"}
    store = EmbeddingStore.open(path)
    assert store.failures == report.failures
    there = store.rows("one_hot")[0] >= 0
    assert set(store.ids[~there]) == names
    assert store.encoders["one_hot"].n_items == report.items
    for view, rows in zip(store[there], store[there].embeddings("one_hot"), strict=True):
        np.testing.assert_array_equal(rows, one_hot([store.sequence(view.ids[0])])[0])
    assert verify(path).ok
    with StoreWriter(path, OPTIONS) as writer:
        assert {failure.id for failure in writer.failures} == names
        assert writer.plan("one_hot", ONE_HOT, 200).pending_tasks > 0


def test_an_entry_has_its_latest_failure_alone(path: Path, proteins: list[Protein]) -> None:
    """A later refusal replaces an earlier one; what is wrong with the file goes before both."""
    unwanted = proteins[5].sequences[0][:40]
    encode_pending(path, "one_hot", partial(load_raising, unwanted=unwanted))
    report = encode_pending(path, "one_hot", partial(load_refusing, unwanted=unwanted))
    assert {failure.reason for failure in report.failures} == {"the sequence is unwanted"}
    first, *others = EmbeddingStore.open(path).failures
    assert [first, *others] == report.failures
    fault = Failure(first.id, first.file, "it cannot be read", "check its permissions")
    with StoreWriter(path, OPTIONS) as writer:
        writer.add_failure(fault)
    assert EmbeddingStore.open(path).failures == [fault, *others]


def test_refused_items_are_tried_again(
    path: Path, tmp_path: Path, planned: Path, proteins: list[Protein]
) -> None:
    """The reason, memory above all, may be gone the next time: same bytes as without a refusal."""
    at_once = Path(shutil.copytree(planned, tmp_path / "at_once.zarr"))
    encode_pending(at_once, "one_hot", load_one_hot)
    load = partial(load_refusing, unwanted=proteins[5].sequences[0][:40])
    refused = tree_after(path, load)
    assert tree_after(path, load) == refused  # refused again: nothing changes
    report = encode_pending(path, "one_hot", load_one_hot)
    assert report.failures == []
    assert EmbeddingStore.open(path).failures == []
    assert tree(path) == tree(at_once)
    assert encode_pending(path, "one_hot", load_one_hot).tasks == 0


def tree_after(path: Path, load: Callable[[str], Callable[[list[Any]], list[Any]]]) -> Any:
    """The store's files after one more run."""
    encode_pending(path, "one_hot", load)
    return tree(path)


def test_interrupted_refusals_end_the_same(
    path: Path, tmp_path: Path, planned: Path, proteins: list[Protein]
) -> None:
    """Refusals recorded in two runs leave the same bytes as in one."""
    load = partial(load_refusing, unwanted="AA")
    whole = Path(shutil.copytree(planned, tmp_path / "whole.zarr"))
    encode_pending(whole, "one_hot", load)

    with pytest.raises(KeyboardInterrupt):
        encode_pending(path, "one_hot", load, on_progress=_interrupt_after(2))
    encode_pending(path, "one_hot", load)
    assert tree(path) == tree(whole)


def _interrupt_after(tasks: int) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if progress.tasks_done == tasks:
            raise KeyboardInterrupt

    return interrupt


def _faulty(device: str, *, kind: str, unwanted: str = "") -> Callable[[list[Any]], list[Any]]:
    """One-hot with a fault in the proteins that contain ``unwanted``."""

    def encode(batch: list[Any]) -> list[Any]:
        arrays = one_hot(batch)
        if kind == "few":
            return arrays[1:]
        return [
            _with_fault(array, kind) if unwanted in "".join(item) else array
            for item, array in zip(batch, arrays, strict=True)
        ]

    return encode


def _with_fault(array: Any, kind: str) -> Any:
    return array[1:] if kind == "short" else np.full_like(array, float(kind))


def test_a_broken_encoder_stops_the_run(path: Path, undisturbed: dict[str, bytes]) -> None:
    """One that raises with every protein ends in one line; a mended run continues from there."""
    with pytest.raises(ProtAlignError, match="encoding with one_hot stopped: ValueError: a bug in"):
        encode_pending(path, "one_hot", partial(load_raising, unwanted=""))
    assert verify(path).ok
    assert EmbeddingStore.open(path).failures == []
    encode_pending(path, "one_hot", load_one_hot)
    assert tree(path) == undisturbed


@pytest.mark.parametrize("error", ["ValueError", "MemoryError", "SystemExit", *ERRORS])
def test_an_exception_is_its_items_failure(
    error: str, path: Path, undisturbed: dict[str, bytes], proteins: list[Protein]
) -> None:
    """Whatever an encoder raises for one protein is a line of its failures; the rest is done."""
    unwanted = proteins[5].sequences[0][:40]
    load = partial(load_raising, unwanted=unwanted, error=error)
    report = encode_pending(path, "one_hot", load)
    assert {failure.id for failure in report.failures} == _names_with(unwanted, proteins)
    for failure in report.failures:
        assert failure.reason.isprintable()
        assert failure.advice.isprintable()
        assert "a bug in two lines" in failure.reason or error == "SpeechlessError"
        assert failure.reason.startswith(
            {"MemoryError": "it does not fit in memory", "in two lines": "a bug in two"}.get(
                error, "the encoder failed with"
            )
        )
    _check_the_rest(path, unwanted)
    failed = tree(path)
    encode_pending(path, "one_hot", load)  # tried again, with the same end
    assert tree(path) == failed
    encode_pending(path, "one_hot", load_one_hot)
    assert tree(path) == undisturbed


@pytest.mark.parametrize("kind", ["short", "nan", "1e5"])
def test_a_faulty_result_is_its_items_failure(
    kind: str, path: Path, proteins: list[Protein]
) -> None:
    """A wrong shape, NaN or a large number for one protein: that one is not stored."""
    unwanted = proteins[5].sequences[0][:40]
    load = partial(_faulty, kind=kind, unwanted=unwanted)
    report = encode_pending(path, "one_hot", load)
    assert {failure.id for failure in report.failures} == _names_with(unwanted, proteins)
    _check_the_rest(path, unwanted)


def test_a_protein_that_spoils_the_process(path: Path, proteins: list[Protein]) -> None:
    """On a GPU nothing may work after one failure: what follows is embedded in a new process."""
    unwanted = proteins[5].sequences[0][:40]
    report = encode_pending(path, "one_hot", partial(load_spoiled, unwanted=unwanted))
    assert {failure.id for failure in report.failures} == _names_with(unwanted, proteins)
    _check_the_rest(path, unwanted)
    assert "device-side assert" in report.failures[0].reason


def _names_with(unwanted: str, proteins: list[Protein]) -> set[str]:
    return {p.id for p in proteins if unwanted in "".join(p.sequences)}


def _check_the_rest(path: Path, unwanted: str) -> None:
    """The unwanted have no rows, all others their own; nothing is left to do but the unwanted."""
    store = EmbeddingStore.open(path)
    present = store.rows("one_hot")[0] >= 0
    for name, has_rows in zip(store.ids, present, strict=True):
        assert has_rows == (unwanted not in "".join(store.sequence(name)))
    for view, rows in zip(store[present], store[present].embeddings("one_hot"), strict=True):
        np.testing.assert_array_equal(rows, one_hot([store.sequence(view.ids[0])])[0])
    assert verify(path).ok


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("short", r"shape \(\d+, 20\) instead of"),
        ("few", r"returned \d+ arrays? for \d+ items?"),
        ("nan", "NaN or infinite"),
        ("inf", "NaN or infinite"),
        ("1e5", "a value of 1e[+]05 does not fit into float16"),
    ],
)
def test_faulty_results_are_not_stored(kind: str, message: str, path: Path) -> None:
    """Wrong shapes, NaN, infinities and overflow stop the run instead of filling the store."""
    with pytest.raises(ProtAlignError, match=message):
        encode_pending(path, "one_hot", partial(_faulty, kind=kind))
    assert (EmbeddingStore.open(path).rows("one_hot")[0] == -1).all()


def test_unplanned_encoders_are_refused(path: Path) -> None:
    """Encoding needs a plan; the error lists the encoders that have one."""
    with pytest.raises(StoreError, match="no plan for encoder 'esm'; it has: from_centre, one_hot"):
        encode_pending(path, "esm", load_one_hot)


def test_another_process_writing_is_refused(path: Path) -> None:
    """Encoding takes the store's lock, or uses the one that this process has."""
    script = f"""
import sys
from protalign.stores import StoreWriter
with StoreWriter({str(path)!r}, {OPTIONS!r}):
    print("locked", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        named = rf"by another process \(process {other.pid} on {os.uname().nodename}\); wait"
        with pytest.raises(StoreError, match=named):
            encode_pending(path, "one_hot", load_one_hot)
        assert other.stdin is not None
        other.stdin.close()
    assert (path / ".lock").read_bytes() == b""
    with StoreWriter(path, OPTIONS):
        encode_pending(path, "one_hot", load_one_hot)


def test_an_empty_store_is_filled_at_once(tmp_path: Path) -> None:
    """Nothing to do is not an error."""
    empty = tmp_path / "empty.zarr"
    with StoreWriter(empty, OPTIONS) as writer:
        assert writer.plan("one_hot", ONE_HOT, 200).tasks == 0
    assert encode_pending(empty, "one_hot", load_one_hot).tasks == 0
    assert len(EmbeddingStore.open(empty)) == 0
    assert EmbeddingStore.open(empty).embeddings("one_hot").values.shape == (0, 20)


def test_items_longer_than_a_chunk(tmp_path: Path) -> None:
    """A long item takes several whole chunks of its own."""
    path = tmp_path / "store.zarr"
    long = sequence_only("long", "ACDEFGHIKLMNPQRSTVWY" * 40, "AC" * 7)
    with StoreWriter(path, OPTIONS) as writer:
        for protein in (sequence_only("a", "ACD"), long, sequence_only("b", "EFG")):
            writer.add(protein.source, digest(protein.id), [protein])
        assert writer.plan("one_hot", ONE_HOT, 200, CHUNK_ROWS).tasks == 3
    encode_pending(path, "one_hot", load_one_hot)
    store = EmbeddingStore.open(path)
    assert store.rows("one_hot")[0].tolist() == [0, 256, 256 * 5]
    np.testing.assert_array_equal(
        store["long"].embeddings("one_hot").values, one_hot([long.sequences])[0]
    )


def test_both_encoders_beside_each_other(path: Path, filled: Path) -> None:
    """The encoders' order makes no difference."""
    encode_pending(path, "from_centre", load_from_centre)
    encode_pending(path, "one_hot", load_one_hot)
    assert tree(path) == tree(filled)
