"""What the server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one server.

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.batch(3, 450, "sequence")
    >>> b'protalign_encoded_residues_total{modality="sequence"} 450.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "protalign_requests",
            "Answers by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.latency = Histogram(
            "protalign_request_seconds",
            "Time to an answer by route.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "protalign_stage_seconds",
            "Time of jobs by stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue = Gauge(
            "protalign_queue_proteins", "Proteins that wait to be encoded.", registry=registry
        )
        self.running = Gauge("protalign_requests_running", "Requests under way.", registry=registry)
        self._batches = Histogram(
            "protalign_batch_proteins",
            "Proteins of a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._residues = Counter(
            "protalign_encoded_residues",
            "Residues that were encoded.",
            ["modality"],
            registry=registry,
        )
        self.cached = Counter(
            "protalign_cached_queries", "Queries that were pooled before.", registry=registry
        )
        self.reloads = Counter(
            "protalign_reloads",
            "Reloads of the library by their end.",
            ["end"],
            registry=registry,
        )

    def batch(self, proteins: int, residues: int, modality: str) -> None:
        """Count a batch that is encoded."""
        self._batches.observe(proteins)
        self._residues.labels(modality).inc(residues)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of a job's stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """Return all numbers in Prometheus's text form."""
        return generate_latest(self._registry)
