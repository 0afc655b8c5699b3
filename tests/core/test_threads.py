"""Threads in which torch computes on a share of the cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch

from protalign.core.threads import run_single_threaded, torch_pool

Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def five_cores() -> Iterator[None]:
    """Let torch take five cores in the tests' own thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(before)


def in_new_thread(run: Callable[[], Result]) -> Result:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def test_each_thread_has_its_share() -> None:
    """One core by default, as many as asked for else, in every thread, however often it works."""
    for cores in (1, 2):
        with torch_pool(3, cores) as pool:
            numbers = list(pool.map(lambda _: torch.get_num_threads(), range(12)))
        assert numbers == [cores] * 12


def test_other_threads_keep_their_cores() -> None:
    """Neither the caller nor a thread that first uses torch later takes the pool's number."""
    default = in_new_thread(torch.get_num_threads)
    with torch_pool(2):
        assert torch.get_num_threads() == 5
        assert in_new_thread(torch.get_num_threads) == default
    assert in_new_thread(torch.get_num_threads) == default


def test_pools_started_at_once_do_not_mix_their_numbers() -> None:
    """Several threads that start pools leave the number for new threads as it was."""
    default = in_new_thread(torch.get_num_threads)

    def start(cores: int) -> list[int]:
        with torch_pool(2, cores) as pool:
            return list(pool.map(lambda _: torch.get_num_threads(), range(4)))

    with ThreadPoolExecutor(4) as starters:
        numbers = list(starters.map(start, [1, 2, 3, 4] * 5))
    assert numbers == [[cores] * 4 for cores in [1, 2, 3, 4] * 5]
    assert in_new_thread(torch.get_num_threads) == default


def test_single_threaded_work_comes_back_in_order() -> None:
    """Each piece on one core, all at once, in threads that are used again."""
    together = threading.Barrier(3, timeout=20)

    def work(number: int) -> tuple[int, int, int]:
        together.wait()
        return number, torch.get_num_threads(), threading.get_ident()

    first, second = run_single_threaded(3, work), run_single_threaded(3, work)
    assert [(number, cores) for number, cores, _ in first] == [(0, 1), (1, 1), (2, 1)]
    assert {ident for *_, ident in first} == {ident for *_, ident in second}


def test_a_forked_process_starts_its_own_threads() -> None:
    """It has none of its parent's: work for these would never be done."""
    run_single_threaded(2, lambda number: number)
    child = os.fork()
    if not child:
        os._exit(0 if run_single_threaded(2, lambda number: number) == [0, 1] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
