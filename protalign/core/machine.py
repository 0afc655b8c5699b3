"""The machine: cores, memory and processor that this process may use."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import local
from typing import Any

_here = local()


@cache
def core_count() -> int:
    """Return the number of cores that this process may use.

    Heeds the CPU affinity and Linux's control groups, which containers and batch systems set. They
    are read once, because that takes time: what changes them later is not seen.
    """
    from joblib import cpu_count

    return int(cpu_count())


def thread_count() -> int:
    """Return the number of threads to compute with: OMP_NUM_THREADS if set, else all cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else core_count()


def threads_here() -> int:
    """Return the number of threads to compute with in this thread.

    In a thread of ``core.threads.torch_pool`` that is its share of the cores; elsewhere all that
    the process may use.

    Examples
    --------
    >>> threads_here() == thread_count()
    True
    """
    return getattr(_here, "threads", None) or thread_count()


def take_threads(threads: int | None) -> None:
    """Let this thread compute with so many threads from now on; None: with all."""
    _here.threads = threads


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let what this thread computes use so many threads.

    Examples
    --------
    >>> with computing_with(1):
    ...     threads_here()
    1
    """
    before = getattr(_here, "threads", None)
    take_threads(threads)
    try:
        yield
    finally:
        take_threads(before)


@cache
def blas() -> Any:
    """Return the control of the matrix library's threads; finding it is slow, so once."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def blas_threads() -> int:
    """Return the threads of the matrix library that NumPy uses, 1 if none is found."""
    libraries = [each for each in blas().info() if each["user_api"] == "blas"]
    return max((int(each["num_threads"]) for each in libraries), default=1)


def physical_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> float:
    """Return the bytes that this process may use: the machine's, or less where a limit is set.

    Heeds Linux's control groups (both versions, also nested ones, which
    ``distributed.system.MEMORY_LIMIT`` does not) and ``ulimit -v`` and ``ulimit -d``.
    """
    return min([float(physical_memory()), *_cgroup_limits(), *_resource_limits()])


def free_memory() -> float:
    """Return the bytes that this process can still take without others' being swapped out.

    What Linux calls available, or less in a control group or under ``ulimit``; elsewhere the
    memory that the process may use.
    """
    free = usable_memory()
    for line in _proc_lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = min(free, float(value.split()[0]) * 1024)
    for limit, used in _cgroup_rooms():
        free = min(free, max(0.0, limit - used))
    return free


@cache
def processor_name() -> str:
    """Return the processor's name, such as "AMD EPYC"."""
    names = _cpuinfo("model name")
    return next(names, platform.processor() or platform.machine())


def processor_has_amx() -> bool:
    """Return whether the processor multiplies bfloat16 matrices in hardware (AMX; Linux tells)."""
    return "amx_bf16" in _processor_flags()


#: Flags of processors that multiply matrices of a dtype in hardware: x86-64's, and ARM's.
_HARDWARE_OF = {
    "bfloat16": {"amx_bf16", "avx512_bf16", "bf16"},
    "float16": {"amx_fp16", "avx512_fp16", "asimdhp"},
}


def processor_computes_in(dtype: str) -> bool:
    """Return whether the processor has hardware for "bfloat16" or "float16"; True if none can tell.

    Without it, a dtype of 16 bits takes longer than float32.
    """
    flags = _processor_flags()
    return not flags or not flags.isdisjoint(_HARDWARE_OF[dtype])


@cache
def _processor_flags() -> frozenset[str]:
    """Return the names of what the processor can do, as Linux lists them; none elsewhere."""
    lines = (*_cpuinfo("flags"), *_cpuinfo("Features"))  # x86-64, ARM
    return frozenset(lines[0].split()) if lines else frozenset()


def _cpuinfo(key: str) -> Iterator[str]:
    for line in _proc_lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()


def _proc_lines(path: Path) -> list[str]:
    """Return the lines of a file that Linux has; none elsewhere."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _cgroup_limits(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[float]:
    """Yield the memory limits of this process's control group and of those that contain it."""
    for limit, _ in _cgroup_rooms(own, root):
        yield limit


def _cgroup_rooms(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[float, float]]:
    """Yield limit and use of each of these control groups."""
    for line in _proc_lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, names = (
            (root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
            if controllers
            else (root, ("memory.max", "memory.current"))
        )
        inner = folder / path.lstrip("/")  # missing in many containers: their root has the limit
        for group in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # no such group; "max"
                limit = float((group / names[0]).read_text())
                yield limit, _bytes_in_use(group, names[1])
            if group == folder:
                break


def _bytes_in_use(group: Path, file: str) -> float:
    """Return the memory that a control group uses, without files that are kept for later."""
    try:
        used = float((group / file).read_text())
    except (OSError, ValueError):
        return 0.0
    for line in _proc_lines(group / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "active_file") and value.isdigit():
            used -= float(value)
    return used


def _resource_limits() -> Iterator[float]:
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield float(soft)
