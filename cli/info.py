"""``protalign info``: the contents of a store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from protalign.cli.console import human_bytes, print_failures, print_json, print_table
from protalign.cli.options import AsJson, StorePath
from protalign.core.printing import printable
from protalign.core.words import counted


def info(
    store: StorePath,
    notes: Annotated[
        bool, typer.Option("--notes", help="List the remarks about the files that were read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds.

    Prints the number of entries and of different sequences and structures, the encoders with their
    settings, the size, and the inputs that failed.

    \b
    Examples:
      protalign info store.zarr
      protalign info store.zarr --notes
    """
    from protalign.stores import EmbeddingStore

    opened = EmbeddingStore.open(store)
    facts = opened.info()
    if notes:
        texts = {entry_id: opened.notes(entry_id) for entry_id in opened.ids.tolist()}
        facts["notes"] = {entry_id: [*text] for entry_id, text in texts.items() if text}
    if as_json:
        print_json(facts)
        return
    print(f"{printable(store)}: format {facts['format']}, {human_bytes(facts['bytes'])}")
    print(f"  entries            {facts['entries']:>14,}")
    for modality in ("sequence", "structure"):
        unique = facts[f"unique_{modality}s"]
        residues = facts[f"{modality}_residues"]
        print(f"  unique {modality + 's':<11} {unique:>14,}  ({residues:,} residues)")
    given = {key: value for key, value in facts["options"].items() if value is not None}
    options = ", ".join(f"{key}={value}" for key, value in given.items())
    print(f"  read with          {printable(options)}")
    print()
    print_table(
        ["encoder", "modality", "dim", "items", "settings", "weights SHA-256"],
        [
            [
                name,
                encoder["modality"],
                str(encoder["dim"]),
                f"{encoder['items']:,}/{encoder['items_total']:,}",
                " ".join(f"{key}={value}" for key, value in encoder["settings"].items()),
                encoder["weights_sha256"][:16],
            ]
            for name, encoder in facts["encoders"].items()
        ],
    )
    if opened.failures:
        print()
        print_failures(opened.failures, file=sys.stdout)
    if notes:
        print()
        print(f"{counted(sum(map(len, facts['notes'].values())), 'note')}:")
        for entry_id, remarks in facts["notes"].items():
            for remark in remarks:
                print(printable(f"  {entry_id}: {remark}"))
