"""``protalign info``: the contents of a store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from protalign.cli.console import (
    human_bytes,
    print_failures,
    print_json,
    print_rows,
    print_table,
)
from protalign.cli.options import AsJson, StoreList
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import NotesFormat, counted


def info(
    store: StoreList,
    notes: Annotated[
        bool, typer.Option("--notes", help="List the remarks about the files that were read.")
    ] = False,
    output: Annotated[
        NotesFormat | None,
        typer.Option(
            "--format",
            help="--notes: print notes and failures as a table, and nothing else. Default: text.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds.

    Prints the number of entries and of different sequences and structures, the encoders with their
    settings, the size, and the inputs that failed. --notes adds what was remarked when files were
    read: chains that were left out, residues that were read as X.

    \b
    Examples:
      protalign info store.zarr
      protalign info 'shards/*.zarr'
      protalign info store.zarr --notes
      protalign info store.zarr --notes --format tsv > notes.tsv
    """
    if output is not None and not notes:
        raise InputError("--format: has no effect without --notes", "give both or neither")
    if output is not None and as_json:
        raise InputError(f"--format {output}: contradicts --json", "give one of the two")
    from protalign.stores import EmbeddingStore

    opened = EmbeddingStore.open(store)
    if output in ("tsv", "csv"):
        print_rows(
            ["kind", "id", "file", "text", "advice"],
            [[r.kind, r.id, r.file, r.text, r.advice] for r in opened.remarks()],
            "\t" if output == "tsv" else ",",
        )
        return
    facts = opened.info()
    if notes:
        facts["notes"] = {}
        for remark in opened.remarks():
            if remark.kind == "note":
                facts["notes"].setdefault(remark.id, []).append(remark.text)
    if as_json:
        print_json(facts)
        return
    size = "remote" if facts["bytes"] is None else human_bytes(facts["bytes"])
    print(f"{printable(path_text(' '.join(store)))}: format {facts['format']}, {size}")
    if facts["stores"] > 1:
        print(f"  stores             {facts['stores']:>14,}")
    print(f"  entries            {facts['entries']:>14,}")
    print(f"  with annotations   {facts['annotated']:>14,}  (name, organism, accession)")
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
