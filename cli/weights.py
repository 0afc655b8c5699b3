"""``protalign weights``: the known encoders and their weights files."""

from __future__ import annotations

from dataclasses import asdict

from protalign.cli.console import human_bytes, print_json, print_table, quick_imports
from protalign.cli.options import AsJson
from protalign.core.printing import printable


def weights(as_json: AsJson = False) -> None:
    """List the encoders and where their weights are.

    Prints each encoder's width, licence, weights file and SHA-256, or the address to download it
    from.

    \b
    Example:
      protalign weights
    """
    with quick_imports():
        from protalign.encoders.weights import known_weights

    known = known_weights()
    if as_json:
        print_json({"weights": [asdict(entry) for entry in known]})
        return
    print_table(
        ["model", "modality", "dim", "weights", "size", "licence"],
        [
            [
                entry.model,
                entry.modality,
                "" if entry.dim is None else str(entry.dim),
                entry.source if entry.path else "missing",
                human_bytes(entry.size) if entry.path else "",
                entry.licence,
            ]
            for entry in known
        ],
    )
    print("\nfiles and their SHA-256")
    for entry in known:
        if entry.path:
            print(f"  {entry.model}: {printable(entry.path)}\n    {entry.sha256}")
    print("\nmissing, and where to download them")
    for entry in known:
        if not entry.path:
            print(
                f"  {entry.model}: {entry.url or f'name its file with --{entry.modality}-weights'}"
            )
