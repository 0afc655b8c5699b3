"""A plugin for pytest: what each test counted, in the folder RELIABILITY_RESULTS.

There is a JSON file for each file of tests; tests that are not run keep what they had.

``make reliability`` uses it, and benchmarks/reliability.py makes the table of docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import platform
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
    file = FOLDER / f"{item.path.stem}.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**results, item.nodeid: result}, indent=1) + "\n")
