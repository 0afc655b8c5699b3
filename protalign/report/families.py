"""Which family each test protein belongs to: from the user's table, or by sequence clusters."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from protalign.errors import InputError
from protalign.homology import cluster_proteins
from protalign.stores import Entries

#: Sequences at least this alike are one family where no table says otherwise.
FAMILY_IDENTITY = 0.95


@dataclass(frozen=True, slots=True)
class Families:
    """Families of some proteins.

    Attributes
    ----------
    of : id -> name of its family.
    how : one line that says where they come from.
    """

    of: dict[str, str]
    how: str


def read_families(path: Path, entries: Entries) -> Families:
    """The families of ``entries`` out of a CSV file with the columns id and family.

    Raises InputError where the file cannot be used, or lacks an entry.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(line for line in file if not line.startswith("#"))
            if not {"id", "family"} <= set(rows.fieldnames or ()):
                raise InputError(f"{path} has no columns id and family", "name them so")
            named = {(row["id"] or "").strip(): (row["family"] or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error})", "give a CSV file: id,family") from None
    lacking = [entry_id for entry_id in entries.ids if not named.get(entry_id)]
    if lacking:
        shown = ", ".join(map(repr, lacking[:3]))
        raise InputError(
            f"{path} names no family for {len(lacking):,} of the test proteins: {shown}",
            "add them, or leave --families out to have families computed",
        )
    return Families({entry_id: named[entry_id] for entry_id in entries.ids}, f"of {path.name}")


def compute_families(entries: Entries) -> Families:
    """Clusters of the entries' sequences at 95 % identity, each named after its first member."""
    ids = entries.ids.tolist()
    found = cluster_proteins([entries.store.sequence(i) for i in ids], FAMILY_IDENTITY)
    first: dict[int, str] = {}
    for entry_id, label in zip(ids, found.labels.tolist(), strict=True):
        first.setdefault(label, entry_id)
    names = {i: first[label] for i, label in zip(ids, found.labels.tolist(), strict=True)}
    return Families(names, f"clusters at {FAMILY_IDENTITY:.0%} sequence identity ({found.method})")
