"""``protalign info``, ``protalign verify`` and ``protalign weights``: look, change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protalign.cli.console import human_bytes, print_failures, print_json, print_table

StorePath = Annotated[Path, typer.Argument(help="A store that `protalign embed` made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]


def info(store: StorePath, as_json: AsJson = False) -> None:
    """Show what a store holds: entries, unique items, encoders, size, failures."""
    import sys

    from protalign.stores import EmbeddingStore

    opened = EmbeddingStore.open(store)
    facts = opened.info()
    if as_json:
        print_json(facts)
        return
    print(f"{store}: format {facts['format']}, {human_bytes(facts['bytes'])}")
    print(f"  entries            {facts['entries']:>14,}")
    for modality in ("sequence", "structure"):
        unique = facts[f"unique_{modality}s"]
        residues = facts[f"{modality}_residues"]
        print(f"  unique {modality + 's':<11} {unique:>14,}  ({residues:,} residues)")
    options = ", ".join(f"{key}={value}" for key, value in facts["options"].items())
    print(f"  read with          {options}")
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
        print(f"\n{len(opened.failures):,} failed:")
        print_failures(opened.failures, file=sys.stdout)


def verify(store: StorePath, as_json: AsJson = False) -> None:
    """Read every chunk against its checksum and the manifest; name the damaged ids.

    Exit code: 0 if the store is whole, 3 if something is damaged.
    """
    from protalign.stores import verify as run

    report = run(store)
    if as_json:
        print_json(report.as_dict())
    else:
        print(f"{store}: {report.chunks:,} chunks, {human_bytes(report.bytes)} read")
        for line in report.lines():
            print(f"  {line}")
        if report.ok:
            print("  every chunk is there and whole")
    if not report.ok:
        raise typer.Exit(3)


def weights(as_json: AsJson = False) -> None:
    """List the models known, where each one's weights are, and their SHA-256."""
    from dataclasses import asdict

    from protalign.encoders.weights import known_weights

    known = known_weights()
    if as_json:
        print_json({"weights": [asdict(entry) for entry in known]})
        return
    print_table(
        ["model", "modality", "dim", "here", "size", "licence"],
        [
            [
                entry.model,
                entry.modality,
                "" if entry.dim is None else str(entry.dim),
                entry.source if entry.path else "no",
                human_bytes(entry.size) if entry.path else "",
                entry.licence,
            ]
            for entry in known
        ],
    )
    print("\nfiles and their SHA-256")
    for entry in known:
        if entry.path:
            print(f"  {entry.model}: {entry.path}\n    {entry.sha256}")
    print("\nnot here")
    for entry in known:
        if not entry.path:
            where = f"published at {entry.url}" if entry.url else "give its file by name"
            print(f"  {entry.model}: {where}")
