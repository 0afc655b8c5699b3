"""A plugin for pytest: what each test counted, in a JSON file of the folder RELIABILITY_RESULTS.

``make reliability`` uses it, and scripts/reliability.py makes the table of docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from benchmarks.shared.measuring import machine
from protalign.core.version import __version__
from tests.reliability import FACTOR

FOLDER = Path(os.environ.get("RELIABILITY_RESULTS", "."))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Write the properties of a test that has ended; one that was skipped has none."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when != "call" or report.skipped:
        return
    result = {
        "test": item.nodeid,
        "passed": report.passed,
        "figures": dict(item.user_properties),
        "seconds": round(report.duration, 1),
        "size": FACTOR,
        "date": date.today().isoformat(),
        "protalign": __version__,
        "python": platform.python_version(),
        "machine": machine(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", item.nodeid.removeprefix("tests/")).strip("_")
    (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
