"""Tasks done in this process, and by workers of a Dask scheduler in threads of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import LocalCluster
from distributed.protocol.pickle import dumps, loads

from protalign.core import cluster as cluster_of_core
from protalign.core.errors import InputError, ProtAlignError, StoreError
from protalign.core.machine import blas, blas_threads
from protalign.core.spread import Here, Spread, checked, spread_over
from protalign.core.threads import OnSameCores
from tests.helpers.tasks import Marked, Unknown, Unopened, broken, panicking, refusing, squared


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with two workers, threads of this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["here", "workers"])
def spread(request: pytest.FixtureRequest, scheduler: str) -> Iterator[Spread]:
    with spread_over(scheduler if request.param == "workers" else None) as spread:
        yield spread


def test_results_come_in_order(spread: Spread) -> None:
    """One for each task, whichever ends first; also of no task, and again."""
    assert list(spread.map(squared, range(50))) == [n * n for n in range(50)]
    assert list(spread.map(squared, [])) == []
    assert list(spread.map(squared, iter([3]))) == [9]


def test_few_tasks_are_under_way(spread: Spread) -> None:
    """An endless row of tasks is asked for as results are taken."""
    asked: list[int] = []

    def tasks() -> Iterator[int]:
        for number in count():
            asked.append(number)
            yield number

    results = spread.map(squared, tasks())
    assert list(islice(results, 20)) == [n * n for n in range(20)]
    assert len(asked) <= 20 + 2 * cluster_of_core.TASKS_PER_WORKER


def test_the_first_error_in_order_ends_it(spread: Spread) -> None:
    """It is the function's own, with its text and kind; results before it were given."""
    given: list[int] = []
    with pytest.raises(InputError, match=r"^3: too large; give less$"):
        given.extend(spread.map(refusing, range(9)))
    taken = list(islice(spread.map(refusing, range(9)), 3))
    assert taken == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (broken, r"^the work stopped: ZeroDivisionError: a bug in 0; run it again"),
        (panicking, r"^the work stopped: SystemExit: 0; run it again"),
        (Unknown(), r"^worker on .+: it cannot take the work \(AttributeError: .*\); give every w"),
        (Unopened(), r"^worker on .+: /nowhere/store.zarr: there is no store; name another$"),
    ],
)
def test_errors_of_workers_are_one_line(scheduler: str, function: object, message: str) -> None:
    """A bug, what is no Exception, and what cannot be opened there; the next work goes on."""
    with spread_over(scheduler) as spread:
        with pytest.raises(ProtAlignError, match=message):
            list(spread.map(function, range(5)))  # type: ignore[arg-type]
        assert list(spread.map(squared, [2])) == [4]


def test_a_worker_of_another_version(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to work, and says what to do."""
    job = cluster_of_core._Job(dumps(squared))
    with pytest.raises(
        ProtAlignError, match=r"it has ProtAlign .*, and this run is of 0\.0\.7; give"
    ) as caught:
        cluster_of_core._run(job, "0.0.7", dumps(3))
    assert not isinstance(caught.value, StoreError)  # which `verify` takes for damage
    assert cluster_of_core._run(job, cluster_of_core.__version__, dumps(3)) == 9


def test_work_that_is_left_ends(scheduler: str, tmp_path: Path) -> None:
    """After Ctrl-C, or an error where results are used, tasks that wait are not begun."""
    with spread_over(scheduler) as spread:
        results = spread.map(Marked(tmp_path, 0.05), range(1000))
        with closing(results):  # type: ignore[type-var]
            assert next(results) == 0
        time.sleep(0.2)
        begun = len(list(tmp_path.iterdir()))
        assert list(spread.map(squared, [2])) == [4]
        time.sleep(0.2)
        assert len(list(tmp_path.iterdir())) == begun <= 1 + 2 * cluster_of_core.TASKS_PER_WORKER


@pytest.mark.parametrize("address", ["", "host", "tcp://127.0.0.1:x", "tls://127.0.0.1:9", "a://b"])
def test_addresses_that_are_none(address: str) -> None:
    """They are an error of one line, at once."""
    with pytest.raises(StoreError, match=f"^no Dask scheduler answers at {address}: .*; start one"):
        spread_over(address).__enter__()


def test_an_address_with_nobody_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler, something else, or one without workers: one line each, after a while."""
    monkeypatch.setattr(cluster_of_core, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(cluster_of_core, "CONNECT_SECONDS", 0.1)
    with pytest.raises(StoreError, match=r"^no Dask scheduler answers at tcp://127\.0\.0\.1:9: "):
        spread_over("tcp://127.0.0.1:9").__enter__()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreError, match=f"^no Dask scheduler answers at {address}: "):
            spread_over(address).__enter__()
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(StoreError, match=r"has no workers; start one per GPU with `dask worker inp"),
    ):
        spread_over(cluster.scheduler_address).__enter__()


def test_here_is_lazy() -> None:
    """Nothing is done before its result is asked for."""
    results = Here().map(broken, [1])
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.zeros((3, 3), np.float32), [], None, "x"])
def test_what_comes_back_is_checked(array: object) -> None:
    """Another dtype or shape, or no array, is an error; the right one is given."""
    right = np.ones((2, 3), np.float32)
    assert checked(right, (2, 3), np.float32) is right
    with pytest.raises(ProtAlignError, match=r"^a task returned .* of shape \(2, 3\); give every"):
        checked(array, (2, 3), np.float32)


def _cores(_: object) -> tuple[int, int]:
    return torch.get_num_threads(), blas_threads()


def test_as_many_cores_as_where_it_was_pickled() -> None:
    """Of torch and of NumPy's library, however many this thread has; those are put back."""
    before = _cores(None)
    torch.set_num_threads(3)
    with blas().limit(limits=2, user_api="blas"):
        pickled = dumps(OnSameCores(_cores))
        assert OnSameCores(_cores)(None) == (3, 2)
    torch.set_num_threads(before[0])
    assert loads(pickled)(None) == (3, 2)
    assert _cores(None) == before
