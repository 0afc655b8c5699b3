"""The examples in the package's docstrings: every ``>>>`` line gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
from pathlib import Path

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


#: The package and the rooms that export names for users.
EXPORTING = ("", ".encoders", ".evaluation", ".reading", ".search", ".splits", ".stores")


def exported_names() -> list[tuple[str, str]]:
    """(module, name) of every class and function that the package or a room exports."""
    names = []
    for room in EXPORTING:
        module = importlib.import_module(f"protalign{room}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                names.append((module.__name__, name))
    return [pair for pair in names if pair[1] != "ProtAlignError"]  # nobody raises the base


@pytest.mark.parametrize(("module", "name"), exported_names())
def test_each_exported_name_has_an_example(module: str, name: str) -> None:
    """Each class and function of ``from protalign… import …`` shows its use."""
    value = getattr(importlib.import_module(module), name)
    tests = doctest.DocTestFinder().find(value, name)
    assert any(test.examples for test in tests), f"{name} has no example in its docstring"
