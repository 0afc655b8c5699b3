"""Requests share batches, wait their turn, and stop costing when their client has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from protalign.core.machine import threads_here
from protalign.core.protein import Chain, Protein
from protalign.search import Hit
from protalign.search.queries import Queries
from protalign.searching import Targets
from protalign.serve.access import Gate
from protalign.serve.app import make_app
from protalign.serve.batching import Compute
from protalign.serve.library import Library, PooledCache
from protalign.serve.metrics import Metrics

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def protein(length: int, seed: int, id: str = "") -> Protein:
    letters = np.random.default_rng(seed).choice(list(LETTERS), length)
    return Protein(id or f"p{seed}", "", (Chain.from_sequence("".join(letters)),))


@pytest.fixture
def fresh(targets: Targets) -> Library:
    """A library in which nothing is pooled yet."""
    return Library(targets.searcher(device="cpu"), targets.name)


class Held:
    """Threads that are held until they are let go, so that work must wait."""

    def __init__(self, compute: Compute) -> None:
        self._compute, self._let_go = compute, threading.Event()
        self._jobs: list[asyncio.Task[bool]] = []

    async def __aenter__(self) -> Held:
        for _ in range(self._compute.threads):
            job = self._compute.run(lambda: self._let_go.wait(20))
            self._jobs.append(asyncio.ensure_future(job))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._let_go.set()
        await asyncio.gather(*self._jobs)


def ran(work: Callable[[Compute, Metrics], Awaitable[Any]], threads: int = 1, **more: Any) -> Any:
    async def main() -> Any:
        metrics = Metrics()
        compute = Compute(threads, 0.003, 100, metrics, **more)
        try:
            return await work(compute, metrics)
        finally:
            compute.close()

    return asyncio.run(main())


def batches(metrics: Metrics) -> int:
    (line,) = (
        each
        for each in metrics.text().decode().splitlines()
        if each.startswith("protalign_batch_proteins_count")
    )
    return int(float(line.split()[1]))


def test_requests_at_once_are_one_batch_and_each_gets_its_own(fresh: Library) -> None:
    """Proteins of six requests are encoded together; the vectors are those of each alone."""
    asked = [[protein(30 + n, 2 * n), protein(20 + n, 2 * n + 1)] for n in range(6)]

    async def work(compute: Compute, metrics: Metrics) -> tuple[list[list[Queries]], int]:
        answers = await asyncio.gather(*(compute.pooled(fresh, each) for each in asked))
        return answers, batches(metrics)

    answers, count = ran(work)
    assert count == 1
    for proteins, queries in zip(asked, answers, strict=True):
        alone = fresh.searcher.pooled(proteins, residues=True)
        assert [query.ids for query in queries] == [[each.id] for each in proteins]
        for place, query in enumerate(queries):
            np.testing.assert_allclose(query.vectors[0], alone.vectors[place], atol=1e-5)
            np.testing.assert_allclose(
                query.residues[0].local, alone.residues[place].local, atol=1e-3
            )


def test_batches_are_of_residues_and_not_of_proteins(fresh: Library) -> None:
    """A batch has as many residues as the encoder wants, and the next batch the others."""
    rows = fresh.searcher.encoders.load("sequence").batch_rows
    asked = [protein(rows // 4, n) for n in range(8)]

    async def work(compute: Compute, metrics: Metrics) -> int:
        async with Held(compute):
            waiting = asyncio.ensure_future(compute.pooled(fresh, asked))
            await asyncio.sleep(0.01)
        await waiting
        return batches(metrics)

    assert ran(work) == 2


def test_shared_work_takes_idle_cores_and_no_others() -> None:
    """Alone it has all; beside other work it has one, and so has a thread that computes alone."""

    async def work(compute: Compute, metrics: Metrics) -> list[int]:
        alone = await compute.run(threads_here, shared=True)
        unshared = await compute.run(threads_here)
        let_go = threading.Event()
        other = asyncio.ensure_future(compute.run(lambda: let_go.wait(20)))
        await asyncio.sleep(0)
        beside = await compute.run(threads_here, shared=True)
        waiting = [asyncio.ensure_future(compute.run(threads_here, shared=True)) for _ in range(3)]
        crowded = await asyncio.gather(*waiting)
        let_go.set()
        await other
        return [alone, unshared, beside, *crowded, await compute.run(threads_here, shared=True)]

    assert ran(work, threads=3) == [3, 1, 2, 2, 1, 1, 3]


def test_questions_at_once_are_one_search(fresh: Library) -> None:
    """Vectors of several requests are searched together, each to its own depth."""
    several = [fresh.searcher.stored([i]) for i in ("1bpi_A", "1a2p_A", "1b5m_A")]

    async def work(compute: Compute, metrics: Metrics) -> tuple[list[list[list[Hit]]], str]:
        async with Held(compute):
            waiting = [
                asyncio.ensure_future(compute.candidates(fresh, each, "other", n + 1))
                for n, each in enumerate(several)
            ]
            await asyncio.sleep(0.01)
        return await asyncio.gather(*waiting), metrics.text().decode()

    answers, text = ran(work)
    assert 'protalign_stage_seconds_count{stage="search"} 1.0' in text
    for n, (queries, found) in enumerate(zip(several, answers, strict=True)):
        (want,) = fresh.searcher.candidates(queries, "other", n + 1)
        assert [(hit.query, hit.rank, hit.id) for hit in found[0]] == [
            (hit.query, hit.rank, hit.id) for hit in want
        ]
        assert [h.cosine for h in found[0]] == pytest.approx([h.cosine for h in want], abs=1e-5)


@pytest.mark.parametrize(("patience", "first"), [(1000.0, "short"), (0.0, "long")])
def test_short_proteins_go_first_unless_a_long_one_has_waited(
    fresh: Library, patience: float, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long protein came first: short ones overtake it, until its patience is at an end."""
    begun: list[str] = []
    ended: list[str] = []
    pooled = fresh.searcher.pooled

    def noted(proteins: list[Protein], **more: Any) -> Queries:
        begun.extend(each.id for each in proteins)
        return pooled(proteins, **more)

    monkeypatch.setattr(fresh.searcher, "pooled", noted)

    async def one(compute: Compute, each: Protein) -> None:
        await compute.pooled(fresh, [each])
        ended.append(each.id)

    async def work(compute: Compute, metrics: Metrics) -> None:
        async with Held(compute):
            waiting = [asyncio.ensure_future(one(compute, protein(1300, 1, "long")))]
            await asyncio.sleep(0.02)
            waiting.append(asyncio.ensure_future(one(compute, protein(20, 2, "short"))))
            await asyncio.sleep(0.02)
        await asyncio.gather(*waiting)

    ran(work, patience=patience)
    assert begun[0] == first
    if first == "short":
        assert ended == ["short", "long"]


def test_a_thread_is_left_for_short_proteins(fresh: Library) -> None:
    """Of two threads long proteins take one, however many wait."""

    async def work(compute: Compute, metrics: Metrics) -> list[int]:
        async with Held(compute):
            waiting = [
                asyncio.ensure_future(compute.pooled(fresh, [protein(1300, n)])) for n in range(3)
            ]
            await asyncio.sleep(0.02)
        running = []
        while not all(each.done() for each in waiting):
            running.append(compute._long_running)
            await asyncio.sleep(0.002)
        return running

    assert max(ran(work, threads=2)) == 1


def test_one_protein_that_fails_does_not_fail_its_batch(
    fresh: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is tried again protein by protein, and only the bad one has an error."""
    pooled = fresh.searcher.pooled

    def picky(proteins: list[Protein], **more: Any) -> Queries:
        if any(each.id == "bad" for each in proteins):
            raise MemoryError
        return pooled(proteins, **more)

    monkeypatch.setattr(fresh.searcher, "pooled", picky)

    async def work(compute: Compute, metrics: Metrics) -> list[Any]:
        several = [protein(30, 1), protein(30, 2, "bad"), protein(30, 3)]
        return await asyncio.gather(
            *(compute.pooled(fresh, [each]) for each in several), return_exceptions=True
        )

    first, bad, last = ran(work)
    assert isinstance(bad, MemoryError)
    assert (first[0].ids, last[0].ids) == (["p1"], ["p3"])


def test_threads_of_torch_are_the_pools(fresh: Library) -> None:
    """A job computes on one core, so that jobs together have as many as there are threads."""

    async def work(compute: Compute, metrics: Metrics) -> list[int]:
        return await asyncio.gather(*(compute.run(torch.get_num_threads) for _ in range(4)))

    assert ran(work, threads=2) == [1, 1, 1, 1]


def test_what_was_pooled_is_kept_within_its_memory(fresh: Library) -> None:
    """The same letters under another name cost nothing; the oldest are dropped when it is full."""
    cache = PooledCache(100_000)
    several = [protein(100, n) for n in range(10)]
    for each in several:
        cache.put(each, fresh.searcher.pooled([each], residues=True))
    assert cache.get(several[0]) is None
    again = Protein("other", "", several[-1].chains)
    kept = cache.get(again)
    assert kept is not None
    assert (kept.ids, kept.proteins) == (["other"], [again])
    np.testing.assert_array_equal(kept.vectors, fresh.searcher.pooled([again]).vectors)
    assert cache._size <= 100_000


@asynccontextmanager
async def running(gate: Gate) -> AsyncIterator[httpx.AsyncClient]:
    """A client in the event loop of the server."""
    app: Any = gate
    lifespan = gate._app.router.lifespan_context(gate._app)  # type: ignore[attr-defined]
    async with lifespan:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking:
            yield asking


def test_a_client_that_goes_away_stops_costing(fresh: Library) -> None:
    """Its proteins leave the queue, and are never encoded."""

    async def main() -> tuple[int, int, int]:
        gate = make_app(lambda: fresh, threads=1)
        compute = gate.service.compute
        async with running(gate):
            async with Held(compute):
                # Its body is read before the threads are held; what follows waits.
                left = asyncio.Event()

                async def receive() -> dict[str, Any]:
                    if not sent:
                        sent.append(True)
                        letters = "".join(np.random.default_rng(5).choice(list(LETTERS), 40))
                        body = b'{"input": "%s"}' % letters.encode()
                        return {"type": "http.request", "body": body, "more_body": False}
                    await left.wait()
                    return {"type": "http.disconnect"}

                async def send(message: Any) -> None:
                    pass

                sent: list[bool] = []
                scope = {
                    "type": "http",
                    "method": "POST",
                    "path": "/v1/embeddings",
                    "query_string": b"",
                    "headers": [(b"content-type", b"application/json")],
                    "http_version": "1.1",
                    "scheme": "http",
                    "raw_path": b"/v1/embeddings",
                    "root_path": "",
                    "server": ("127.0.0.1", 80),
                    "client": ("127.0.0.1", 1),
                }
                request = asyncio.ensure_future(gate(scope, receive, send))
                while not compute.waiting:
                    await asyncio.sleep(0.005)
                before = compute.waiting
                left.set()
                await request
                after = compute.waiting
            await asyncio.sleep(0.05)
            return before, after, batches(gate.service.metrics)

    assert asyncio.run(main()) == (1, 0, 0)


def test_many_clients_at_once_get_right_answers(fresh: Library) -> None:
    """Sixteen searches at once: each has its own query's hits, as one after another."""
    several = [protein(20 + 3 * n, n) for n in range(16)]

    async def main() -> list[Any]:
        async with running(make_app(lambda: fresh, threads=2)) as asking:
            bodies = [
                {"fasta": f">{each.id}\n{each.sequences[0]}\n", "k": 3, "rerank": 5}
                for each in several
            ]
            return await asyncio.gather(*(asking.post("/v1/search", json=body) for body in bodies))

    from protalign.search.search_options import SearchOptions

    for each, answer in zip(several, asyncio.run(main()), strict=True):
        assert answer.status_code == 200, answer.text
        pooled = fresh.searcher.pooled([each], residues=True)
        want = fresh.searcher.find(pooled, SearchOptions(k=3, rerank=5))
        got = answer.json()["hits"]
        assert {hit["query"] for hit in got} == {each.id}
        assert [hit["target"] for hit in got] == [hit.id for hit in want]
        assert [hit["cosine"] for hit in got] == pytest.approx(
            [hit.cosine for hit in want], abs=1e-5
        )
