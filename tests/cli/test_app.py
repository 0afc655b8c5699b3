"""The app: help, exit codes, one line per mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from typer.main import get_command

from protalign import __version__
from protalign.cli.app import COMMANDS, app
from tests.helpers.commands import PROTALIGN, run, run_process


def test_the_installed_program_prints_its_version_and_help() -> None:
    """--version prints it; a bare call shows the help; both in a process of their own."""
    assert __version__ in run_process("--version").stdout
    done = run_process(code=2)
    assert "embed" in done.stdout + done.stderr


def test_words_are_completed_on_tab() -> None:
    """The shell's completion offers options, and the values of those that take a word."""
    asked = {"_PROTALIGN_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    done = run_process(env={**asked, "COMP_WORDS": "protalign fit --loss "})
    assert done.stdout.split() == ["clip", "siglip"]


def test_help_shows_whole_summaries_and_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of 80 columns no command's summary is cut, and none loses its group."""
    monkeypatch.setenv("COLUMNS", "80")
    text = run("-h").stdout
    assert "protalign embed structures/ --out store.zarr\n" in text
    assert "..." not in text.partition("Options:")[2]
    for command in COMMANDS:
        assert f"\n  {command} " in text
    for group in ("Stores:", "Models:", "Vectors:"):
        assert group in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its help has one, fits 80 columns, and names no type of Python's."""
    monkeypatch.setenv("COLUMNS", "80")
    text = run(command, "--help").stdout
    assert f"    protalign {command}" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "list[" not in text


def test_wrong_usage_is_exit_code_2(tmp_path: Path, few: Path, encoder: str) -> None:
    """No such store, no such encoder, no such option value: one line, exit code 2."""
    missing = run("info", tmp_path / "none.zarr", code=2)
    assert "none.zarr" in missing.stderr
    unknown = run(
        "embed", few, "--out", tmp_path / "s.zarr", "--sequence-encoder", "esm2_t6_9M", code=2
    )
    assert "esm2_t6_8M_UR50D" in unknown.stderr
    swapped = run(
        *("embed", few, "--out", tmp_path / "s.zarr"),
        *("--sequence-encoder", "proteinmpnn_v_48_020", "--structure-encoder", "none"),
        code=2,
    )
    assert "--structure-encoder" in swapped.stderr
    nowhere = run(
        *("embed", few / "nowhere", "--out", tmp_path / "s.zarr", "--sequence-encoder", encoder),
        code=2,
    )
    assert "nowhere" in nowhere.stderr
    none = ("--sequence-encoder", "none", "--structure-encoder", "none")
    assert "both are none" in run("embed", few, "--out", tmp_path / "s", *none, code=2).stderr
    for done in (missing, unknown, swapped, nowhere):
        assert done.stderr.count("protalign: ") == 1, done.stderr
    assert not (tmp_path / "s.zarr").exists()
    run("embed", few, "--out", tmp_path / "s.zarr", "--per", "residue", code=2)
    run("fit", tmp_path / "none.zarr", "--out", tmp_path / "model", code=2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "align q.fasta t.cif --mode foo",
            "--mode='foo': not one of 'local', 'global'; choose one",
        ),
        (
            "fit s.zarr --loss clp",
            "--loss='clp': not one of 'clip', 'siglip'; did you mean 'clip'?",
        ),
        (
            "index s.zarr --words 1000000",
            "--words=1000000: not a whole number from 2 to 65,535; "
            "give a whole number from 2 to 65,535",
        ),
        (
            "index s.zarr --words many",
            "--words='many': not a whole number from 2 to 65,535; "
            "give a whole number from 2 to 65,535",
        ),
        (
            "search a -k 0",
            "-k=0: not a whole number of at least 1; give a whole number of at least 1",
        ),
        ("split s.zarr --seed a", "--seed='a': not a whole number; give a whole number"),
        ("search a --max-evalue low", "--max-evalue='low': not a number; give a number"),
        (
            "serve s.zarr --time-limit 0",
            "--time-limit=0.0: out of range; give a finite number of at least 0.1",
        ),
    ],
)
def test_a_value_that_no_option_takes_is_one_line(words: str, line: str) -> None:
    """What it is, and what the option takes, in ProtAlign's words and not in a library's."""
    assert run(*words.split(), code=2).stderr == f"protalign: {line}\n"


def test_no_command_says_what_a_library_says_of_a_value() -> None:
    """Every option of every command that takes a choice or a number."""
    checked = 0
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for command, (function, _) in COMMANDS.items():
        hints = get_type_hints(function, include_extras=True)
        for parameter in commands[command].params:
            kind = getattr(hints.get(parameter.name), "__origin__", None)
            kinds = [kind, *get_args(kind)]
            if not ({int, float} & {*kinds} or Literal in map(get_origin, kinds)):
                continue
            name = max(parameter.opts, key=len)
            text = run(command, name, "no!", code=2).stderr
            assert text.startswith(f"protalign: {name}='no!': not "), text
            assert "; " in text
            assert text.count("\n") == 1
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("word", ["--version", "weights"])
def test_a_reader_that_ends_first_ends_the_program_quietly(word: str) -> None:
    """`protalign … | head`: nothing on standard error, and the exit code of SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([PROTALIGN, word], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


CLUSTERS = "--by cluster or --validation cluster"


@pytest.mark.parametrize(
    ("words", "wants"),
    [
        ("split store.zarr --by cluster --year 2020", "--by pdbbind"),
        ("split store.zarr --by pdbbind --index . --fractions 1,0,0", "--by cluster"),
        ("split store.zarr --by cluster --id-column name", "--by column"),
        ("split store.zarr --by cluster --index .", "--by pdbbind"),
        ("split store.zarr --by cluster --validation random", "--by pdbbind"),
        ("split store.zarr --by cluster --part-column name", "--by column"),
        ("split store.zarr table.csv --by column --seed 1", f"{CLUSTERS} or random"),
        ("split store.zarr --by pdbbind --index . --seed 1", f"{CLUSTERS} or random"),
        ("split store.zarr --by pdbbind --index . --identity 0.9", CLUSTERS),
        ("split store.zarr --by pdbbind --index . --validation random --method kmer", CLUSTERS),
        ("score store.zarr --model model --part train", "--split"),
        ("evaluate store.zarr --model model --split s.csv --scop-column c", "--scop"),
        ("evaluate store.zarr --model model --split s.csv --family-column c", "--families"),
        ("evaluate store.zarr --model model --split s.csv --sequence-weights w.pt", "--crop"),
        ("evaluate store.zarr --model model --split s.csv --structure-weights w.pt", "--crop"),
        (
            "search 1abc --vectors v.parquet --device cpu",
            "--model",
        ),
        (
            "search 1abc --vectors v.parquet --sequence-weights w.pt",
            "--model",
        ),
        (
            "search 1abc --vectors v.parquet --store s.zarr",
            "--tm-score, --superpose, --rerank or an index of words",
        ),
        (
            "search 1abc --vectors v.parquet --index i --store s.zarr",
            "--tm-score, --superpose, --rerank or an index of words",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path: Path, words: str, wants: str) -> None:
    """Rather than leave a user to think that it was heeded."""
    done = run(*words.split(), code=2, cwd=tmp_path)
    option = words.split()[-2]
    advice = "give one of these, or leave it out" if " or " in wants else "give both or neither"
    assert done.stderr == f"protalign: {option}: has no effect without {wants}; {advice}\n"


@pytest.mark.parametrize(
    ("words", "other"),
    [
        ("embed . --out s.zarr --sequence-encoder none --sequence-weights w.pt", ""),
        ("embed . --out s.zarr --sequence-encoder none --layer 3", ""),
        ("embed . --out s.zarr --structure-encoder none --structure-name mpnn", ""),
        ("fit s.zarr --out model --pooling codebook --heads 3", ""),
        ("fit s.zarr --out model --pooling mean-linear --heads 4", ""),
        ("fit s.zarr --out model --bias 3", "--loss clip"),
        ("fit s.zarr --out model --loss clip --bias 3", ""),
        ("fit s.zarr --out model --verbose --quiet", ""),
        ("align q t --model model --mode global --gap-extend 3", ""),
        ("attention s.zarr 1abc --model model --out o --fit --of sequence", ""),
    ],
)
def test_options_that_do_nothing_beside_another_are_refused(
    tmp_path: Path, words: str, other: str
) -> None:
    """The line names both: one of them is given by hand, or is the default."""
    *_, option, value = words.split()
    other = other or " ".join(words.split()[-4:-2])
    if value == "--quiet":
        option, other = "--verbose", "--quiet"
    elif "--fit" in words:
        other = "--fit"
    done = run(*words.split(), code=2, cwd=tmp_path)
    assert done.stderr == (
        f"protalign: {option}: has no effect with {other}; leave one of the two out\n"
    )


@pytest.mark.parametrize(
    ("raised", "line"),
    [("Interrupted('run it again')", "interrupted; run it again"), ("130", "interrupted")],
)
def test_a_read_that_fails_after_ctrl_c_is_not_shown(raised: str, line: str) -> None:
    """Zarr's reads go on in their loop while the program ends; nobody waits for them any more."""
    program = f"""
import asyncio, sys
from protalign.cli import app
from protalign.cli.console import Interrupted

def interrupted():
    read = asyncio.new_event_loop().create_future()
    read.set_exception(FileNotFoundError("zarr.json"))
    end = {raised}
    raise end if isinstance(end, Interrupted) else SystemExit(end)

app.app = interrupted
app.run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == f"protalign: {line}\n"


@pytest.mark.parametrize(
    "words",
    [
        (
            "export",
            "none.zarr",
            "--model",
            "none",
            "--out",
            "s3://key:SECRET@b/v.parquet?sig=SECRET",
        ),
        ("fit", "none.zarr", "--out", "gs://bucket/model"),
        ("serve", "s3://bucket/store.zarr"),
        ("easy-search", "query.fasta", "s3://bucket/store.zarr", "hits.m8"),
        ("embed", "--list", "https://host/list.txt", "--out", "none.zarr"),
    ],
)
def test_a_url_in_place_of_a_path_is_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a folder of this machine called "s3:", which nobody looks for."""
    monkeypatch.chdir(tmp_path)
    done = run(*words, code=2)
    assert "://" in done.stderr
    assert "only a path on this machine is taken" in done.stderr
    assert "SECRET" not in done.stderr
    assert [*tmp_path.iterdir()] == []
