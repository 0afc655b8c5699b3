"""The typer app: its commands, and the exit code of each kind of error.

Heavy libraries are imported by the commands that use them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from protalign.cli import (
    align,
    attention,
    easy_search,
    embed,
    evaluate,
    export,
    fit,
    index,
    info,
    reproduce,
    score,
    search,
    serve,
    split,
    verify,
    weights,
)
from protalign.cli.console import INTERRUPTED, NO_READER, USAGE, Interrupted
from protalign.cli.help import Command, Commands
from protalign.core.errors import DEBUG_VARIABLE, InputError, ProtAlignError, show_traceback
from protalign.core.printing import printable, without_secrets
from protalign.core.version import __version__

FILES, STORES, MODELS, VECTORS = "Files to hits", "Stores", "Models", "Vectors"
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "easy-search": (easy_search.easy_search, FILES),
    "embed": (embed.embed, STORES),
    "info": (info.info, STORES),
    "verify": (verify.verify, STORES),
    "weights": (weights.weights, STORES),
    "split": (split.split, MODELS),
    "fit": (fit.fit, MODELS),
    "score": (score.score, MODELS),
    "evaluate": (evaluate.evaluate, MODELS),
    "reproduce": (reproduce.reproduce, MODELS),
    "export": (export.export, VECTORS),
    "index": (index.index, VECTORS),
    "search": (search.search, VECTORS),
    "serve": (serve.serve, VECTORS),
    "align": (align.align, VECTORS),
    "attention": (attention.attention, VECTORS),
}

app = typer.Typer(
    name="protalign",
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"protalign {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where in the code an error comes from."),
    ] = False,
) -> None:
    """Embed proteins once, align sequence and structure, use the vectors anywhere.

    \b
    Example:
      protalign easy-search query.fasta structures/ hits.m8

    \b
    The same in steps, with a model of your own:
      protalign embed structures/ --out store.zarr
      protalign fit store.zarr --out model/
      protalign export store.zarr --model model/ --out vectors.parquet
      protalign search query.fasta --vectors vectors.parquet --model model/
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"  # worker processes inherit it


#: What is left of a URL as a path: one slash.
_URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def _with_local_paths(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command refuse a URL in place of a path: it would be a folder here, called "s3:"."""

    @wraps(command)
    def checked(**values: Any) -> None:
        for value in values.values():
            for path in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(path, Path) and _URL_AS_PATH.match(str(path)):
                    url = _URL_AS_PATH.sub(r"\1://", str(path), count=1)
                    raise InputError(
                        f"{url}: it is a URL, and only a path on this machine is taken here",
                        "give a local path, and copy the file or folder",
                    )
        command(**values)

    return checked


for _name, (_function, _group) in COMMANDS.items():
    app.command(_name, cls=Command, rich_help_panel=_group)(_with_local_paths(_function))


def run() -> None:
    """Run the app; a user's mistake or a failing disk is one line and exit code 2."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a Greek letter in an id, on a terminal of ASCII
            stream.reconfigure(errors="backslashreplace")
    sys.argv[1:] = map(_with_home, sys.argv[1:])
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a disk without room tells only now
    except ProtAlignError as error:
        show_traceback(error)
        print(f"protalign: {printable(error)}", file=sys.stderr)
        sys.exit(USAGE)
    except BrokenPipeError:
        _end_without_reader()
    except OSError as error:  # no space left, no permission
        _drop_output()
        show_traceback(error)
        thing = error.filename or "standard output"
        problem = error.strerror or error
        line = f"{thing}: {problem}; make some room there, or check its permissions"
        print(f"protalign: {printable(line)}", file=sys.stderr)
        sys.exit(USAGE)
    except Interrupted as interruption:
        _end_interrupted(f"interrupted; {interruption}")
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns other interruptions into this
            _end_interrupted("interrupted")
        if isinstance(end.__context__, BrokenPipeError):  # and a broken pipe into exit code 1
            _end_without_reader()
        raise


def _end_without_reader() -> NoReturn:
    """End quietly as a program does that SIGPIPE ends: the reader of a pipe (head) has ended."""
    _drop_output()
    sys.stderr.close()
    sys.exit(NO_READER)


def _drop_output() -> None:
    """Forget what could not be printed: Python would try again as it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _with_home(word: str) -> str:
    """Return --out=~/store.zarr with the home folder in place of "~", which shells leave there."""
    name, equals, value = word.partition("=")
    if name.startswith("--") and value.startswith("~"):
        with suppress(RuntimeError):  # no such user
            return name + equals + str(Path(value).expanduser())
    return word


def _end_interrupted(line: str) -> NoReturn:
    # Reads and writes that are still pending fail as the program ends, and asyncio would print
    # their errors.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    print(f"protalign: {line}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without the line of code that it came from."""
    print(f"protalign: warning: {printable(without_secrets(str(message)))}", file=sys.stderr)
