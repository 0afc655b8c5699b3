"""``protalign verify``: a store against its checksums."""

from __future__ import annotations

import typer

from protalign.cli.console import SOME_FAILED, human_bytes, print_json
from protalign.cli.options import AsJson, StorePath
from protalign.core.words import counted


def verify(store: StorePath, as_json: AsJson = False) -> None:
    """Check a store for damage and name the damaged ids.

    Reads every chunk and compares it with its checksum and with the store's manifest. Changes
    nothing.

    \b
    Example:
      protalign verify store.zarr

    Exit code: 0 if the store is whole, 3 if something is damaged, 2 for wrong usage.
    """
    from protalign.stores import verify as run

    report = run(store)
    if as_json:
        print_json(report.as_dict())
    else:
        print(f"{store}: {counted(report.chunks, 'chunk')}, {human_bytes(report.bytes)} read")
        for line in report.lines():
            print(f"  {line}")
        if report.ok:
            print("  every chunk is whole")
    if not report.ok:
        raise typer.Exit(SOME_FAILED)
