"""The machine's limits: cores and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from protalign.core import machine
from protalign.core.machine import _cgroup_limits, core_count, thread_count, usable_memory


def test_cores_are_those_of_the_affinity() -> None:
    """A process that is bound to one core counts one."""
    script = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from protalign.core.machine import core_count\n"
        "print(core_count())"
    )
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no CPU affinity")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) == 1


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS counts if it is a number above 0; else there is a thread per core."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count() == 3
    for other in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", other)
        assert thread_count() == core_count()


def test_limits_of_control_groups_count(tmp_path: Path) -> None:
    """The group's own limit and those above it, of either version; "max" is none."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    (root / "user" / "job").mkdir(parents=True)
    (root / "user" / "memory.max").write_text("5000000000\n")
    (root / "user" / "job" / "memory.max").write_text("max\n")
    (root / "memory" / "batch").mkdir(parents=True)
    (root / "memory" / "batch" / "memory.limit_in_bytes").write_text("4000000000\n")
    own.write_text("4:cpu,memory:/batch\n3:cpu:/other\n0::/user/job\n")
    assert sorted(_cgroup_limits(own, root)) == [4e9, 5e9]
    own.write_text("0::/not/seen/from/inside\n")
    (root / "memory.max").write_text("3000000000\n")  # as in a container
    assert list(_cgroup_limits(own, root)) == [3e9]
    assert list(_cgroup_limits(tmp_path / "missing", root)) == []


def test_ulimit_counts() -> None:
    """``ulimit -d`` bounds what may be held."""
    script = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({2**32}, resource.RLIM_INFINITY))\n"
        "from protalign.core.machine import usable_memory\n"
        "print(usable_memory())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(run.stdout) == min(2**32, usable_memory())
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 2**32


@pytest.mark.parametrize(
    ("line", "bfloat16", "float16"),
    [
        ("flags\t\t: fpu avx2 f16c", False, False),  # AMD's and Intel's before 2020
        ("flags\t\t: fpu avx512f avx512_bf16", True, False),
        ("flags\t\t: amx_bf16 avx512_bf16 avx512_fp16", True, True),
        ("Features\t: fp asimd fphp asimdhp", False, True),  # ARM
        ("Features\t: fp asimd asimdhp i8mm bf16", True, True),
        ("", True, True),  # it does not tell
    ],
)
def test_the_processors_dtypes(
    line: str, bfloat16: bool, float16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags that Linux lists tell which dtypes of 16 bits the processor multiplies in."""
    text = f"processor\t: 0\n{line}\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    machine._processor_flags.cache_clear()
    try:
        assert machine.processor_computes_in("bfloat16") == bfloat16
        assert machine.processor_computes_in("float16") == float16
        assert machine.processor_has_amx() == ("amx_bf16" in line)
    finally:
        machine._processor_flags.cache_clear()
