"""The examples in the package's docstrings: every ``>>>`` line gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

import protalign

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(protalign.__path__[0])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE  # as in pyproject.toml


def modules_with_examples() -> list[str]:
    """Names of the package's modules that have examples, of the sources or of the wheel."""
    names = []
    # os.walk, unlike Path.rglob, follows the links to stores/ and cli/.
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for file in files:
            path = Path(folder) / file
            if path.suffix == ".py" and ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
                names.append(".".join(parts).removesuffix(".__init__"))
    return sorted(names)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from the repository's root, where examples/sample is."""
    monkeypatch.chdir(ROOT)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("protalign"):
            raise
        pytest.skip(f"{error.name} is not installed")
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    failed, tried = runner.summarize(verbose=False)
    assert not failed, "".join(report)
    assert tried, f"{name}: doctest finds no examples in this module"


@pytest.mark.parametrize(
    "name", [name for name in protalign.__all__ if name not in ("__version__", "ProtAlignError")]
)
def test_each_public_name_has_an_example(name: str) -> None:
    """Each class and function of ``from protalign import …`` shows its use."""
    value = getattr(protalign, name)
    if isinstance(value, ModuleType):  # protalign.search, a package that can be called
        value = getattr(value, name)
    tests = doctest.DocTestFinder().find(value, name)
    assert any(test.examples for test in tests), f"{name} has no example in its docstring"
