"""One pool of threads for all requests: proteins are encoded together, vectors searched together.

Everything here runs in the event loop's thread but the jobs themselves. At most as many jobs run at
once as there are threads, each on one core; if nothing else waits, one that can be shared takes the
cores of the idle threads as well. Work waits here, where it can be dropped; long work lets what
waits go first between its steps.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from protalign.core.protein import Modality, Protein
from protalign.core.threads import torch_pool
from protalign.core.words import Against
from protalign.search.hit import Hit
from protalign.search.queries import Queries
from protalign.search.residue_rows import has_coordinates
from protalign.serve.errors import queue_full
from protalign.serve.library import Library
from protalign.serve.metrics import Metrics
from protalign.serve.turns import Job

Result = TypeVar("Result")

#: Queries whose vectors are searched together, at most.
SEARCHED_AT_ONCE = 128
#: Jobs that may stand aside, beside one for each thread.
ASIDE = 8
#: Seconds after a job's end in which no job that stands aside goes on before its time.
GRACE = 0.004
#: Seconds after which a long protein goes before shorter ones.
PATIENCE = 1.0


@dataclass(eq=False)
class _Protein:
    """A protein that waits to be encoded."""

    library: Library
    protein: Protein
    kind: Modality
    residues: int
    done: asyncio.Future[Queries]
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Question:
    """Pooled queries that wait for their candidates."""

    library: Library
    queries: Queries
    against: Against
    count: int
    done: asyncio.Future[list[list[Hit]]]


class Compute:
    """The threads that compute, and the work that waits for them.

    Parameters
    ----------
    threads : int
        Jobs at once, each on one core.
    window : float
        Seconds that a protein waits for others to be encoded with.
    waiting : int
        Proteins that may wait; more are refused.
    metrics : Metrics
        Counts and times.
    patience : float
        Seconds after which a long protein goes before shorter ones.
    """

    def __init__(
        self,
        threads: int,
        window: float,
        waiting: int,
        metrics: Metrics,
        patience: float = PATIENCE,
    ) -> None:
        # Each job that stands aside holds a thread of the pool, and what it has computed so far.
        self._most_aside = threads + ASIDE
        self._pool: ThreadPoolExecutor = torch_pool(threads + self._most_aside)
        self.threads, self._free = threads, threads
        self._under_way: set[Job] = set()
        self._aside: deque[Job] = deque()
        self._grace, self._resumed = 0.0, False
        self._long_running = 0
        self._encoding: Counter[Modality] = Counter()
        self._window, self._most, self._patience = window, waiting, patience
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._questions: deque[_Question] = deque()
        self._proteins: list[_Protein] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Proteins that wait to be encoded."""
        return sum(not each.done.cancelled() for each in self._proteins)

    def close(self) -> None:
        """End the threads; what waits is dropped, and what is under way at its next step."""
        waiting = [done for job in (*self._jobs, *self._under_way) for done in job.asked]
        waiting += [each.done for each in self._questions]
        waiting += [each.done for each in self._proteins]
        for done in waiting:
            done.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], Result], *, shared: bool = False) -> Result:
        """Return what a function returns, called in a thread of the pool.

        If it can be shared, residue kernels in it use the cores of idle threads.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.append(Job(_settled([done], lambda: [work()]), [done], shared))
        self._pump()
        return await done

    async def pooled(self, library: Library, proteins: Sequence[Protein]) -> list[Queries]:
        """Return each protein as a query, encoded with those of other requests.

        Raises
        ------
        ApiError
            Too many proteins wait already.
        """
        loop = asyncio.get_running_loop()
        kept = [library.pooled.get(protein) for protein in proteins]
        missing = [each for each, known in zip(proteins, kept, strict=True) if known is None]
        if missing and len(self._proteins) + len(missing) > self._most:
            self._forget()
            if len(self._proteins) + len(missing) > self._most:
                raise queue_full()
        futures: list[asyncio.Future[Queries]] = []
        for protein in missing:
            by_structure = has_coordinates(protein) and protein.structure is not None
            residues = len(protein)
            if by_structure:
                assert protein.structure is not None
                residues = protein.structure.context_length
            kind: Modality = "structure" if by_structure else "sequence"
            done: asyncio.Future[Queries] = loop.create_future()
            futures.append(done)
            self._proteins.append(_Protein(library, protein, kind, residues, done))
        self._metrics.cached.inc(len(proteins) - len(missing))
        self._pump()
        try:
            made = iter(await asyncio.gather(*futures))
        except BaseException:
            for each in futures:
                each.cancel()
            self._forget()
            raise
        return [next(made) if known is None else known for known in kept]

    async def candidates(
        self, library: Library, queries: Queries, against: Against, count: int
    ) -> list[list[Hit]]:
        """Return the nearest entries of each query, searched with those of other requests."""
        done: asyncio.Future[list[list[Hit]]] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(library, queries, against, count, done))
        self._pump()
        return await done

    # ---- the choice of the next job

    def _pump(self) -> None:
        """Start jobs while threads are free and something waits."""
        while self._free:
            job = self._next()
            if job is None:
                break
            cores = self._spare(job)
            self._free -= cores
            if job.kind is not None:
                self._encoding[job.kind] += 1
            self._resumed = job.aside is not None
            if self._resumed:
                self._aside.remove(job)
                job.go_on(cores)
            else:
                job.cores = cores
                self._under_way.add(job)
                asyncio.ensure_future(self._start(job))  # noqa: RUF006  # ends with its job
        self._metrics.queue.set(self.waiting)

    async def _start(self, job: Job) -> None:
        """Run a job in the pool, and what it returns here."""
        loop = asyncio.get_running_loop()

        def stand_aside(job: Job) -> bool:
            if not self._waits and self._due() is None:
                return False
            loop.call_soon_threadsafe(self._let_others, job)
            return True

        try:
            settle = await loop.run_in_executor(self._pool, job.run, stand_aside)
            settle()
        finally:
            self._under_way.discard(job)
            if job.aside is not None:  # dropped there
                self._aside.remove(job)
            else:
                self._release(job)
            if self._aside:  # the request may have a next stage: a whole step would be long for it
                self._grace = time.monotonic() + GRACE
                loop.call_later(GRACE, self._pump)
            self._pump()

    def _let_others(self, job: Job) -> None:
        """Give a job's cores to what waits; it goes on when its turn comes."""
        if job not in self._under_way:
            return
        if len(self._aside) >= self._most_aside and self._due() is None:
            job.go_on(job.cores)
            return
        self._release(job)
        job.aside = time.monotonic()
        self._aside.append(job)
        self._pump()

    def _release(self, job: Job) -> None:
        self._free += job.cores
        job.cores = 0
        if job.kind is not None:
            self._encoding[job.kind] -= 1

    @property
    def _waits(self) -> bool:
        """Whether work waits that has not begun; any thread may ask."""
        return bool(self._jobs or self._questions or self._proteins)

    def _due(self) -> Job | None:
        """Return the first job that has stood aside long enough; any thread may ask."""
        return next((job for job in tuple(self._aside) if job.is_due), None)

    def _next(self) -> Job | None:
        """Return the next job: new work and jobs that stand aside in turn, if those are due."""
        due = self._due()
        full = len(self._aside) > self._most_aside  # one has changed places with a due one
        if due is not None and (full or not self._resumed):
            return due
        new = self._next_new()
        if new is not None or due is not None:
            return new or due
        # Proteins that wait for others to be encoded with go first: that is soon.
        if self._aside and self._timer is None and time.monotonic() >= self._grace:
            return self._aside[0]
        return None

    def _next_new(self) -> Job | None:
        """Return the next job that has not begun."""
        late = time.monotonic() - self._patience
        if any(each.since < late for each in self._proteins):  # others must not keep them for ever
            proteins = self._next_proteins()
            if proteins:
                return self._encoding_of(proteins)
        while self._jobs:
            job = self._jobs.popleft()
            if job.wanted:
                return job
        if questions := self._next_questions():
            return self._search_of(questions)
        if proteins := self._next_proteins():
            return self._encoding_of(proteins)
        return None

    def _spare(self, job: Job) -> int:
        """Return the cores of a job: if it can be shared, those that nothing else waits for."""
        if not job.shared or self._waits:
            return 1
        others_aside = len(self._aside) > (job.aside is not None)
        return 1 if others_aside else self._free

    def _next_questions(self) -> list[_Question]:
        """Take the questions of one library and one kind that wait, the oldest first."""
        taken: list[_Question] = []
        left: deque[_Question] = deque()
        size = 0
        while self._questions:
            each = self._questions.popleft()
            if each.done.cancelled():
                continue
            fits = not taken or (
                each.library is taken[0].library
                and each.against == taken[0].against
                and size + len(each.queries) <= SEARCHED_AT_ONCE
            )
            if fits:
                taken.append(each)
                size += len(each.queries)
            else:
                left.append(each)
        self._questions = left
        return taken

    def _forget(self) -> None:
        """Drop the proteins whose requests have gone."""
        self._proteins = [each for each in self._proteins if not each.done.cancelled()]

    def _next_proteins(self) -> list[_Protein]:
        """Take a batch: short proteins first, but those that have waited long before them."""
        self._forget()
        if not self._proteins:
            return []
        now = time.monotonic()
        oldest = min(each.since for each in self._proteins)
        total = sum(each.residues for each in self._proteins)
        if now - oldest < self._window and total < self._rows(self._proteins[0]):
            if self._timer is None or self._timer.cancelled():
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._window, self._tick)
            return []
        order = sorted(self._proteins, key=lambda each: self._turn(each, now))
        # One thread is left for the short ones, if there are several.
        if self._long_running >= max(1, self.threads - 1):
            order = [each for each in order if not self._is_long(each)]
        order = [each for each in order if self._encoding[each.kind] < self._at_once(each)]
        if not order:
            return []
        first, size = order[0], 0
        batch: list[_Protein] = []
        rows = self._rows(first)
        for each in order:
            same = each.library is first.library and each.kind == first.kind
            if same and (not batch or size + each.residues <= rows):
                batch.append(each)
                size += each.residues
        taken = set(map(id, batch))
        self._proteins = [each for each in self._proteins if id(each) not in taken]
        return batch

    def _turn(self, each: _Protein, now: float) -> tuple[float, ...]:
        """Return a protein's place: those that have waited long come first, then short ones."""
        if now - each.since >= self._patience:
            return 0, each.since
        return 1, each.residues, each.since

    def _tick(self) -> None:
        self._timer = None
        self._pump()

    def _rows(self, of: _Protein) -> int:
        """Return the residues of a batch."""
        return of.library.searcher.encoders.load(of.kind).batch_rows

    def _at_once(self, of: _Protein) -> int:
        """Return the batches that the encoder takes at once: on a GPU one."""
        return of.library.searcher.encoders.load(of.kind).batches_at_once

    def _is_long(self, each: _Protein) -> bool:
        return each.residues > self._rows(each)

    # ---- jobs

    def _search_of(self, questions: list[_Question]) -> Job:
        def work() -> list[list[list[Hit]]]:
            searcher = questions[0].library.searcher
            joined = Queries.joined([each.queries for each in questions], searcher.vectors.dim)
            count = max(each.count for each in questions)
            with self._metrics.stage("search"):
                found = iter(searcher.candidates(joined, questions[0].against, count))
            return [[next(found)[: each.count] for _ in each.queries.ids] for each in questions]

        asked = [each.done for each in questions]
        return Job(_settled(asked, work), asked, shared=True)

    def _encoding_of(self, batch: list[_Protein]) -> Job:
        long, kind = self._is_long(batch[0]), batch[0].kind
        self._long_running += long
        library = batch[0].library
        self._metrics.batch(len(batch), sum(each.residues for each in batch), kind)

        def encode(some: list[_Protein]) -> list[Queries]:
            with self._metrics.stage("encode"):
                queries = library.searcher.pooled(
                    [each.protein for each in some], residues=library.has_residues
                )
            parts = [queries.part([place]) for place in range(len(some))]
            for each, part in zip(some, parts, strict=True):
                library.pooled.put(each.protein, part)
            return parts

        def encode_one(each: _Protein) -> Queries:
            return encode([each])[0]

        def job() -> Callable[[], None]:
            results: list[tuple[Queries | None, Exception | None]]
            try:
                results = [(each, None) for each in encode(batch)]
            except BaseException as error:
                results = [(None, _ordinary(error))] * len(batch)
                if len(batch) > 1:  # one of them must not fail the others
                    results = [_tried(partial(encode_one, each)) for each in batch]

            def settle() -> None:
                self._long_running -= long
                for each, (result, problem) in zip(batch, results, strict=True):
                    _settle(each.done, result, problem)

            return settle

        # On an accelerator others would need the memory that it holds.
        pauses = library.searcher.encoders.load(kind).device == "cpu"
        return Job(job, [each.done for each in batch], kind=kind, pauses=pauses)


def _tried(work: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, _ordinary(error)


def _ordinary(error: BaseException) -> Exception:
    """Return an error that ends a request alone: SystemExit would end the event loop."""
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)


def _settled(
    futures: Sequence[asyncio.Future[Any]], work: Callable[[], Sequence[Any]]
) -> Callable[[], Callable[[], None]]:
    """Return a job that does some work, and whose end gives the futures their results."""

    def job() -> Callable[[], None]:
        results, problem = _tried(work)

        def settle() -> None:
            for place, future in enumerate(futures):
                _settle(future, None if results is None else results[place], problem)

        return settle

    return job


def _settle(future: asyncio.Future[Any], result: Any, problem: Exception | None) -> None:
    if future.done():  # its request has gone
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)
