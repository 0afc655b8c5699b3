"""The typer app: its commands, and how an error becomes an exit code.

Heavy libraries are imported by the commands that use them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from protalign.cli import attention, embed, evaluate, fit, info, reproduce, search, split
from protalign.core.errors import ProtAlignError
from protalign.core.version import __version__

#: Exit codes: all went well; wrong usage or something missing; some inputs failed; Ctrl-C.
OK, USAGE, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130

app = typer.Typer(
    name="protalign",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Embed proteins once, align sequence and structure, use the vectors anywhere.",
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
) -> None:
    """Embed proteins once, align sequence and structure, use the vectors anywhere.

    \b
    protalign embed structures/ --out store.zarr
    protalign fit store.zarr --out model/
    protalign export store.zarr --model model/ --out vectors.parquet
    """


app.command("embed")(embed.embed)
app.command("info")(info.info)
app.command("verify")(info.verify)
app.command("weights")(info.weights)
app.command("split")(split.split)
app.command("fit")(fit.fit)
app.command("score")(fit.score)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(fit.export)
app.command("attention")(attention.attention)
app.command("search")(search.search)
app.command("reproduce")(reproduce.reproduce)


def run() -> None:
    """Run the app; an error that is no fault of ours is one line, and exits with 2."""
    try:
        app()
    except ProtAlignError as error:
        print(f"protalign: {error}", file=sys.stderr)
        sys.exit(USAGE)
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        sys.stderr.close()
        sys.exit(OK)
    except OSError as error:  # no space left, no permission
        print(f"protalign: {error}", file=sys.stderr)
        sys.exit(USAGE)
    except SystemExit as end:  # what typer makes of Ctrl-C
        if end.code == INTERRUPTED:
            # Reads and writes that nobody waits for any more end as the program does, some with an
            # error that asyncio would show.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
            print("protalign: interrupted; run again, it goes on from here", file=sys.stderr)
        raise
