"""Tools of all benchmarks: sides that take turns, the machine's limits, results in a file.

A file in benchmarks/results/ has ``benchmark``, ``date``, ``machine``, ``versions``, ``settings``,
``rows`` (all figures) and ``summary``: one row for each line of docs/performance.md, which
benchmarks/report.py writes from them.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import torch

from protalign.core.files import write_json
from protalign.core.machine import (
    core_count,
    physical_memory,
    processor_has_amx,
    processor_name,
)
from protalign.core.threads import torch_pool
from protalign.encoders import Encoder

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "sample"
VERSIONS = ("protalign", "torch", "numpy", "zarr")
#: Seconds of a product of 256 rows: longer ones are below 7 GFLOP/s, far less than any core has.
SLOW_PRODUCT = 0.005


class Summary(TypedDict):
    """One line of docs/performance.md.

    Attributes
    ----------
    part, peer : the part that is measured, and the program that it is compared with.
    ratio, target : our speed by the peer's, and the ratio to reach; None if there is no target.
    figure : the absolute figure, with its unit.
    limit : the limit measured in the same run, and how close the figure comes to it.
    equal : how well the results agree.
    """

    part: str
    peer: str
    ratio: float | None
    target: float | None
    figure: str
    limit: str
    equal: str


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5, help="times that each side is run")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


def take_turns(
    sides: Mapping[str, Callable[[], object]], turns: int, *, threads: int = 1, warm: bool = True
) -> dict[str, list[float]]:
    """Run the sides in turn, ``turns`` times, and return the seconds of each run.

    On one thread the time is the thread's CPU time, which other processes disturb less. Otherwise
    it is wall-clock time.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    if warm:
        for run in sides.values():
            run()
    for _ in range(turns):
        for name, run in sides.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def encode_all(encoder: Encoder, batches: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the embeddings of all items; batches run side by side, as in `protalign embed`."""
    if encoder.batches_at_once == 1:  # stay in this thread: its CPU time is measured
        return [output for batch in batches for output in encoder.encode(batch)]
    with torch_pool(encoder.batches_at_once) as pool:
        return [output for batch in pool.map(encoder.encode, batches) for output in batch]


def times_faster(seconds: Mapping[str, Sequence[float]], peer: str, ours: str) -> float:
    """Return the median over the turns of the peer's time by ours in the same turn."""
    pairs = zip(seconds[peer], seconds[ours], strict=True)
    return statistics.median(peer_time / our_time for peer_time, our_time in pairs)


def fastest(run: Callable[[], object], times: int = 7, threads: int = 1) -> float:
    """Return the shortest time of several runs, in seconds, after one warm-up run."""
    return min(take_turns({"": run}, times, threads=threads)[""])


def read_bandwidth(threads: int = 1) -> float:
    """Return the bytes/s at which 512 MB, more than any cache holds, are summed."""
    values = torch.ones(1 << 26, dtype=torch.int64)
    return values.nbytes / fastest(values.sum, threads=threads)


def matrix_peak(dtype: torch.dtype, threads: int = 1) -> float:
    """Return the operations/s of torch's square matrix product, of 1,024 rows.

    A processor that is slow in this dtype gets 256 rows: it would take minutes for more.
    """
    seconds = math.inf
    for size in (256, 1024):
        one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
        seconds = fastest(lambda one=one, other=other: one @ other, 20, threads)  # type: ignore[misc]
        if seconds > SLOW_PRODUCT:
            break
    return 2 * size**3 / seconds


def evict(paths: Sequence[Path]) -> None:
    """Ask the system to drop the files in some folders from its cache; links are left alone.

    It keeps what is mapped at this moment.
    """
    os.sync()  # what is not on the disk yet cannot be dropped
    for path in paths:
        for folder, _, names in os.walk(path):
            for file in (Path(folder, name) for name in names):
                if file.is_file() and not file.is_symlink():
                    with file.open("rb") as opened:
                        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def machine() -> dict[str, Any]:
    """Return the facts about this machine that the figures depend on."""
    facts = Path("/proc/cpuinfo")
    return {
        "processor": processor_name(),
        "cores": core_count(),
        "amx": processor_has_amx(),
        "avx512": "AVX512" in torch.backends.cpu.get_cpu_capability(),
        "virtual": facts.is_file() and "hypervisor" in facts.read_text(),
        "memory_gb": round(physical_memory() / 1e9),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "load_before": os.getloadavg()[0],
    }


def write(
    options: argparse.Namespace,
    benchmark: str,
    rows: Sequence[Mapping[str, Any]],
    summary: Sequence[Summary],
    libraries: Sequence[str] = (),
) -> None:
    """Write the result file if ``--json`` names one."""
    if options.json is None:
        return
    versions = {}
    for name in (*VERSIONS, *libraries):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    settings = {name: _named(value) for name, value in vars(options).items() if name != "json"}
    report = {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": MACHINE,
        "versions": versions,
        "settings": settings,
        "rows": list(rows),
        "summary": list(summary),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.json, report)


def _named(value: Any) -> Any:
    """Return a setting as it is stored: only the names of files and folders."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    return value.name if isinstance(value, Path) else value


MACHINE = machine()  # at import, so that it holds the load before the measurements
