"""The machine: cores, memory and processor that this process may use."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path


def core_count() -> int:
    """Return the number of cores that this process may use.

    Heeds the CPU affinity and Linux's control groups, which containers and batch systems set.
    """
    from joblib import cpu_count

    return int(cpu_count())


def thread_count() -> int:
    """Return the number of threads to compute with: OMP_NUM_THREADS if set, else all cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else core_count()


def physical_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> float:
    """Return the bytes that this process may use: the machine's, or less where a limit is set.

    Heeds Linux's control groups (both versions, also nested ones, which
    ``distributed.system.MEMORY_LIMIT`` does not) and ``ulimit -v`` and ``ulimit -d``.
    """
    return min([float(physical_memory()), *_cgroup_limits(), *_resource_limits()])


@cache
def processor_name() -> str:
    """Return the processor's name, such as "AMD EPYC"."""
    names = _cpuinfo("model name")
    return next(names, platform.processor() or platform.machine())


@cache
def processor_has_amx() -> bool:
    """Return whether the processor multiplies bfloat16 matrices in hardware (AMX; Linux tells)."""
    return any("amx_bf16" in flags.split() for flags in _cpuinfo("flags"))


def _cpuinfo(key: str) -> Iterator[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()


def _cgroup_limits(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[float]:
    """Yield the memory limits of this process's control group and of those that contain it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, file = (
            (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        )
        inner = folder / path.lstrip("/")  # missing in many containers: their root has the limit
        for group in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # no such group; "max"
                yield float((group / file).read_text())
            if group == folder:
                break


def _resource_limits() -> Iterator[float]:
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield float(soft)
