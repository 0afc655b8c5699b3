"""Long work lets others go first between its steps, and ends there if nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from protalign.core.machine import threads_here
from protalign.core.protein import Chain, Protein
from protalign.core.steps import in_steps, step
from protalign.search.search_options import SearchOptions
from protalign.searching import Targets
from protalign.serve.batching import Compute
from protalign.serve.library import Library
from protalign.serve.metrics import Metrics
from protalign.serve.turns import STRETCH
from tests.serve.test_batching import protein, ran


class Long:
    """Work of many steps, each longer than a stretch, until it is told to end."""

    def __init__(self) -> None:
        self.steps, self.over, self.dropped = 0, threading.Event(), threading.Event()
        self.cores: list[int] = []

    def __call__(self) -> int:
        try:
            while not self.over.is_set() and self.steps < 400:  # a test that fails ends as well
                time.sleep(STRETCH / 2)
                self.steps += 1
                step()
                self.cores.append(threads_here())
        except BaseException:
            self.dropped.set()
            raise
        return self.steps

    async def begun(self) -> None:
        await until(lambda: self.steps > 0)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


async def at_once(
    compute: Compute, work: Callable[[], object], **more: bool
) -> asyncio.Task[object]:
    task = asyncio.ensure_future(compute.run(work, **more))
    await asyncio.sleep(0)
    return task


def test_short_work_is_done_while_long_work_holds_the_only_thread() -> None:
    """The long job stands aside, goes on, and gives its result."""

    async def work(compute: Compute, metrics: Metrics) -> tuple[list[int], bool, object]:
        long = Long()
        holding = await at_once(compute, long)
        await long.begun()
        answers = [await compute.run(lambda n=n: n) for n in range(3)]
        under_way = not holding.done()
        long.over.set()
        return answers, under_way, await holding == long.steps

    assert ran(work) == ([0, 1, 2], True, True)


def test_long_work_goes_on_though_others_keep_coming() -> None:
    """It has half of the time."""

    async def work(compute: Compute, metrics: Metrics) -> int:
        long = Long()
        holding = await at_once(compute, long)
        await long.begun()
        before, end = long.steps, time.monotonic() + 12 * STRETCH

        async def keep_coming() -> None:
            while time.monotonic() < end:
                await compute.run(lambda: time.sleep(0.02))

        await asyncio.gather(keep_coming(), keep_coming())
        made = long.steps - before
        long.over.set()
        await holding
        return made

    assert 6 <= ran(work) <= 16  # of 24 steps in this time


@pytest.mark.parametrize("aside", [False, True])
def test_work_that_nobody_waits_for_ends_at_its_next_step(aside: bool) -> None:
    """Also while it stands aside; its thread is free again."""

    async def work(compute: Compute, metrics: Metrics) -> tuple[bool, int, int]:
        long, let_go = Long(), threading.Event()
        holding = await at_once(compute, long)
        await long.begun()
        if aside:
            other = await at_once(compute, lambda: let_go.wait(20))
            while not compute._aside:
                await asyncio.sleep(0.005)
        holding.cancel()
        await until(lambda: long.dropped.is_set())
        if aside:
            let_go.set()
            await other
        await compute.run(lambda: None)
        await until(lambda: not compute._under_way)
        return long.dropped.is_set(), compute._free, len(compute._aside)

    assert ran(work) == (True, 1, 0)


def test_closing_ends_what_computes_and_what_stands_aside() -> None:
    """No thread outlives the server."""
    first, second = Long(), Long()

    async def work(compute: Compute, metrics: Metrics) -> None:
        tasks = [await at_once(compute, first)]
        await first.begun()
        tasks.append(await at_once(compute, second))
        await second.begun()
        compute.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    ran(work)
    assert first.dropped.wait(5)
    assert second.dropped.wait(5)


def test_several_long_jobs_share_a_thread_and_hold_up_no_short_one() -> None:
    """Of three long jobs on one thread each goes on, and a short one is done among them."""

    async def work(compute: Compute, metrics: Metrics) -> tuple[bool, list[int], int]:
        several = [Long() for _ in range(3)]
        tasks = [await at_once(compute, each) for each in several]
        await asyncio.gather(*(each.begun() for each in several))
        await compute.run(lambda: None)
        all_long = not any(task.done() for task in tasks)
        before, end = [each.steps for each in several], time.monotonic() + 15 * STRETCH
        await asyncio.sleep(15 * STRETCH)
        assert time.monotonic() >= end
        made = [each.steps - old for each, old in zip(several, before, strict=True)]
        for each in several:
            each.over.set()
        await asyncio.gather(*tasks)
        return all_long, made, compute._free

    all_long, made, free = ran(work)
    assert all_long
    assert min(made) >= 4, made  # of 30 steps in this time
    assert free == 1


def test_no_more_stand_aside_than_the_pool_has_threads_for() -> None:
    """Each holds memory and a thread: of many long jobs the last ones wait until others end."""

    async def work(compute: Compute, metrics: Metrics) -> int:
        several = [Long() for _ in range(compute._most_aside + 4)]
        tasks = [await at_once(compute, each) for each in several]
        most, end = 0, time.monotonic() + 3
        while time.monotonic() < end:
            most = max(most, len(compute._under_way))
            await asyncio.sleep(0.005)
        for each in several:
            each.over.set()
        await asyncio.gather(*tasks)
        assert compute._free == compute.threads
        return most - compute._most_aside

    assert ran(work) <= 1


def test_the_next_stage_of_a_request_comes_before_a_long_job_goes_on() -> None:
    """A request of four stages pays for one step of the long job, not for one each."""

    async def work(compute: Compute, metrics: Metrics) -> float:
        over = threading.Event()

        def slow() -> None:  # steps of half a second
            for _ in range(20):
                if over.is_set():
                    return
                time.sleep(0.5)
                step()

        holding = await at_once(compute, slow)
        await asyncio.sleep(0.1)
        start = time.monotonic()
        for _ in range(4):
            await compute.run(lambda: None)
        seconds = time.monotonic() - start
        over.set()
        await holding
        return seconds

    assert ran(work) < 1.0


def test_shared_work_gives_its_cores_to_others() -> None:
    """Alone it has three cores, beside two others one."""

    async def work(compute: Compute, metrics: Metrics) -> list[int]:
        long, let_go = Long(), threading.Event()
        holding = await at_once(compute, long, shared=True)
        await until(lambda: long.cores)
        others = [await at_once(compute, lambda: let_go.wait(20)) for _ in range(2)]
        await until(lambda: long.cores[-1] == 1)
        let_go.set()
        await asyncio.gather(*others)
        long.over.set()
        await holding
        return sorted(set(long.cores))

    assert ran(work, threads=3) == [1, 3]


@pytest.mark.slow
def test_a_very_long_sequence_holds_up_no_short_one(targets: Targets) -> None:
    """On one thread the short sequence, which came later, has its vector first: the same one."""
    library = Library(targets.searcher(device="cpu"), targets.name)
    long, short = protein(4000, 1), protein(40, 2)
    want = library.searcher.pooled([short], residues=True).vectors[0]

    async def work(compute: Compute, metrics: Metrics) -> bool:
        waiting = asyncio.ensure_future(compute.pooled(library, [long]))
        await until(lambda: compute._long_running)
        (found,) = await compute.pooled(library, [short])
        np.testing.assert_allclose(found.vectors[0], want, atol=1e-5)
        under_way = not waiting.done()
        (made,) = await waiting
        assert np.isfinite(made.vectors).all()
        return under_way

    assert ran(work)


def test_a_comparison_by_residues_ends_when_nobody_waits(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second stage is done in steps: no candidate is scored after the request has gone."""
    from protalign.residues import targets as scoring

    library = Library(targets.searcher(device="cpu"), targets.name)
    options = SearchOptions(k=5, rerank=len(library))
    chain = Chain.from_sequence(protein(60, 3).sequences[0])
    queries = library.searcher.pooled([Protein("q", "", (chain,))], residues=True)
    want = library.searcher.find(queries, options)
    monkeypatch.setattr(scoring, "PAIRS_AT_ONCE", 1)
    monkeypatch.setattr(scoring, "LANES", 1)
    with in_steps(lambda: None):
        found = library.searcher.find(queries, options)
    assert [hit.id for hit in found] == [hit.id for hit in want]
    assert [hit.evalue for hit in found] == pytest.approx([hit.evalue for hit in want], rel=1e-3)
    scored, begun, inner = [], threading.Event(), scoring.local_scores

    def slow(*given: object) -> object:
        scored.append(1)
        begun.set()
        time.sleep(0.02)
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "local_scores", slow)

    async def work(compute: Compute, metrics: Metrics) -> int:
        task = await at_once(compute, lambda: library.searcher.find(queries, options))
        await until(lambda: begun.is_set())
        task.cancel()
        await until(lambda: not compute._under_way)
        return len(scored)

    assert ran(work) < len(library) / 2
