"""The command line, ``protalign``."""

from __future__ import annotations


def main() -> None:
    """Run the command line; what a user did wrong ends in one line, not in a traceback."""
    try:
        from protalign.cli.app import run

        run()
    except KeyboardInterrupt:  # before typer listens
        raise SystemExit(130) from None  # app.INTERRUPTED
