"""docs/tutorial.md and the worked examples: what a newcomer runs, run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

if not (ROOT / "docs" / "tutorial.md").is_file() or not (ROOT / "examples").is_dir():
    pytest.skip("the documents and examples are not here", allow_module_level=True)


def run(command: list[str | Path], folder: Path) -> str:
    """What a command prints; fails with it if the command does."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": scripts + os.pathsep + os.environ["PATH"]}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after every block of the tutorial, in order, and what its Python printed.

    Commands run in a shell, all Python in one session.
    """
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "examples").symlink_to(ROOT / "examples")
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"console", "python"}
    python = []
    for kind, text in blocks:
        if kind == "python":
            python.append(text)
            continue
        for line in text.splitlines():
            assert line.startswith("$ "), f"a console block holds commands alone: {line}"
            run(["bash", "-c", line[2:]], folder)
    return folder, run([sys.executable, "-c", "\n".join(python)], folder)


def test_the_tutorial_runs(tutorial: tuple[Path, str]) -> None:
    """Its commands write what they should, and its figures say what the text says."""
    folder, printed = tutorial
    at_random, by_group = map(
        float,
        re.search(r"at random: (\S+); whole groups: (\S+)", printed).groups(),  # type: ignore[union-attr]
    )
    assert at_random > by_group  # the point that the text makes
    assert (folder / "vectors.csv").is_file()


@pytest.mark.parametrize(
    ("example", "line"),
    [
        ("function.py", r"tuned by clusters +accuracy 0\.\d\d +macro-F1 0\.\d\d"),
        ("stability.py", r"mean embeddings times length +0\.\d\d +\d\.\d\d kcal/mol"),
    ],
)
def test_the_examples_run(example: str, line: str, tutorial: tuple[Path, str]) -> None:
    """To figures in one command; store and model, the same, are those that the tutorial made."""
    folder, _ = tutorial
    printed = run([sys.executable, ROOT / "examples" / example, "--out", folder], ROOT)
    assert re.search(line, printed), printed
