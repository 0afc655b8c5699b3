"""The command line, ``protalign``: a file per command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; a user's mistake ends in one line, not in a traceback."""
    try:
        from protalign.cli.app import run

        run()
    except KeyboardInterrupt:  # before typer handles it
        raise SystemExit(130) from None  # console.INTERRUPTED
