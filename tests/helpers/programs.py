"""The repository's programs, which are in no package: benchmarks/ and scripts/."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def program(path: str, imports_from: str = ".") -> Path:
    """Return a program's file or folder, and put its root on the path; skip without it."""
    if not (ROOT / path).exists():
        pytest.skip(f"{path} is missing", allow_module_level=True)
    sys.path.insert(0, str((ROOT / imports_from).resolve()))
    return ROOT / path
