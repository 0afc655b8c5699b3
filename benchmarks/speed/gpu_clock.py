"""Times on a device, and the device's limits; a CPU serves only to check that it all runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

median = statistics.median


@dataclass(frozen=True)
class Clock:
    """A clock that times sides in turn, ``times`` times, ``repeats`` runs of each at a time."""

    device: torch.device
    times: int
    repeats: int

    def turns(self, sides: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Return the seconds of one run of each side; a GPU gets two warm-up runs before."""
        if self.device.type == "cuda":
            for run in sides.values():
                run()
                run()
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(self.times):
            for name, run in sides.items():
                seconds[name].append(self._seconds(run))
        return seconds

    def _seconds(self, run: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            for _ in range(self.repeats):
                run()
            return (time.perf_counter() - start) / self.repeats
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        begin.record()
        for _ in range(self.repeats):
            run()
        end.record()
        torch.cuda.synchronize(self.device)
        return begin.elapsed_time(end) / 1e3 / self.repeats


@dataclass(frozen=True)
class Limits:
    """The limits of a device, as measured.

    Attributes
    ----------
    read_bandwidth, copy_bandwidth : bytes/s; a copied byte counts twice, as read and as written.
    bfloat16_peak : operations/s of torch's square matrix product.
    """

    read_bandwidth: float
    copy_bandwidth: float
    bfloat16_peak: float

    @classmethod
    def measured(cls, clock: Clock, size: int, matrix: int) -> Limits:
        """Measure with ``size`` bytes, more than caches hold, and matrices of ``matrix`` rows."""
        values = torch.ones(size // 4, device=clock.device)
        target = torch.empty_like(values)
        one, other = (torch.randn(matrix, matrix, device=clock.device).bfloat16() for _ in range(2))
        seconds = clock.turns(
            {
                "read": values.sum,
                "copy": lambda: target.copy_(values),
                "product": lambda: one @ other,
            }
        )
        return cls(
            size / min(seconds["read"]),
            2 * size / min(seconds["copy"]),
            2 * matrix**3 / min(seconds["product"]),
        )

    def __str__(self) -> str:
        return (
            f"reads {self.read_bandwidth / 1e9:,.0f} GB/s, copies {self.copy_bandwidth / 1e9:,.0f} "
            f"GB/s, bfloat16 products {self.bfloat16_peak / 1e12:,.1f} TFLOP/s"
        )


def smallest_cosine(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return the smallest cosine between corresponding rows of two lists of tensors."""
    pairs = zip(outputs, expected, strict=True)
    return min(
        float(torch.cosine_similarity(one.float().cpu(), other.float().cpu()).min())
        for one, other in pairs
    )
