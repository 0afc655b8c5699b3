"""docs/tutorial.md and the worked examples run to their end."""

from __future__ import annotations

import contextlib
import re
import runpy
import shlex
import sys
from io import StringIO
from pathlib import Path

import pytest

from tests.helpers.commands import run

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

if not (ROOT / "docs" / "tutorial.md").is_file() or not (ROOT / "examples").is_dir():
    pytest.skip("the documents and examples are missing", allow_module_level=True)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after every block of the tutorial, in order, and the output of its Python.

    All Python runs in one session, as a reader runs it.
    """
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "examples").symlink_to(ROOT / "examples")
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"console", "python"}
    session: dict[str, object] = {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(StringIO()) as printed:
        for kind, text in blocks:
            if kind == "python":
                exec(compile(text, "docs/tutorial.md", "exec"), session)
                continue
            for line in text.splitlines():
                prompt, program, *words = shlex.split(line)
                assert (prompt, program) == ("$", "protalign"), f"a command is expected: {line}"
                run(*words)
    return folder, printed.getvalue()


def test_the_tutorial_runs(tutorial: tuple[Path, str]) -> None:
    """Its commands write their files, and its figures agree with its text."""
    folder, printed = tutorial
    at_random, by_group = map(
        float,
        re.search(r"at random: (\S+); whole groups: (\S+)", printed).groups(),  # type: ignore[union-attr]
    )
    assert at_random > by_group  # the text explains this difference
    assert (folder / "vectors.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "line"),
    [
        ("function.py", r"tuned by clusters +accuracy 0\.\d\d +macro-F1 0\.\d\d"),
        ("stability.py", r"mean embeddings times length +0\.\d\d +\d\.\d\d kcal/mol"),
    ],
)
def test_the_examples_run(
    example: str,
    line: str,
    tutorial: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One command prints the figures; the store and the model are the tutorial's."""
    folder, _ = tutorial
    monkeypatch.setattr(sys, "argv", [example, "--out", str(folder)])
    monkeypatch.syspath_prepend(ROOT / "examples")
    runpy.run_path(str(ROOT / "examples" / example), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(line, printed), printed
