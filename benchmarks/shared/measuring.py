"""What the benchmarks share: sides taking turns, the machine's own limits, results in a file.

A file in benchmarks/results/ has ``benchmark``, ``date``, ``machine``, ``versions``, ``settings``,
``rows`` (the figures in full) and ``summary``: one row for each line of docs/performance.md, which
benchmarks/report.py writes out of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import torch

from protalign.core.threads import torch_pool
from protalign.encoders import Encoder

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "sample"
VERSIONS = ("protalign", "torch", "numpy", "zarr")


class Summary(TypedDict):
    """One line of docs/performance.md.

    Attributes
    ----------
    part, peer : what is measured against what.
    ratio, target : how many times the peer's speed, and what is wanted; target None: no target.
    figure : the absolute figure, with its unit.
    limit : the limit measured in the same run, and how near the figure comes to it.
    equal : how the results agree.
    """

    part: str
    peer: str
    ratio: float | None
    target: float | None
    figure: str
    limit: str
    equal: str


def arguments(text: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5, help="times that each side is run")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


def take_turns(
    sides: Mapping[str, Callable[[], object]], turns: int, *, threads: int = 1, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each side, run one after another, again and again.

    On one thread its CPU time is counted, which other processes disturb less, else wall-clock time.
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
    """Embeddings of all items, batches side by side as `protalign embed` encodes them."""
    if encoder.batches_at_once == 1:  # in this thread, whose time is counted
        return [output for batch in batches for output in encoder.encode(batch)]
    with torch_pool(encoder.batches_at_once) as pool:
        return [output for batch in pool.map(encoder.encode, batches) for output in batch]


def times_faster(seconds: Mapping[str, Sequence[float]], peer: str, ours: str) -> float:
    """Median over the turns of the peer's time by ours in the same turn."""
    pairs = zip(seconds[peer], seconds[ours], strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)


def fastest(run: Callable[[], object], times: int = 7, threads: int = 1) -> float:
    """Least seconds of some runs after one that is not counted."""
    return min(take_turns({"": run}, times, threads=threads)[""])


def read_bandwidth(threads: int = 1) -> float:
    """Bytes/s at which 512 MB that no cache of one core holds are summed."""
    values = torch.ones(1 << 26, dtype=torch.int64)
    return values.nbytes / fastest(values.sum, threads=threads)


def matrix_peak(dtype: torch.dtype, size: int = 1024, threads: int = 1) -> float:
    """Operations/s of torch's square matrix product."""
    one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / fastest(lambda: one @ other, 20, threads)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    flags: set[str] = set()
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                processor = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "amx": "amx_tile" in flags,
        "avx512": "avx512f" in flags,
        "virtual": "hypervisor" in flags,
        "memory_gb": round(memory / 1e9),
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
    """Write the result file, where one is asked for."""
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
    options.json.write_text(json.dumps(report, indent=2) + "\n")


def _named(value: Any) -> Any:
    """A setting as it is kept: of files and folders the names alone."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    return value.name if isinstance(value, Path) else value


MACHINE = machine()  # the load before anything is measured
