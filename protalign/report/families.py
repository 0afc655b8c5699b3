"""Which family each test protein belongs to: from the user's table, or by sequence clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protalign.core.errors import InputError
from protalign.evaluation.test_set import FAMILY_COLUMNS, computed_families, read_labels
from protalign.stores import Entries


@dataclass(frozen=True, slots=True)
class Families:
    """Families of some proteins.

    Attributes
    ----------
    of : id -> name of its family; a protein without relatives is a family of its own.
    how : one line that says where they come from.
    """

    of: dict[str, str]
    how: str


def read_families(path: Path, entries: Entries) -> Families:
    """The families of ``entries`` out of a table with the columns id and family.

    An entry that the table does not name is a family of its own. Raises InputError where it names
    none of them, or cannot be read.
    """
    labels = read_labels(path, None, FAMILY_COLUMNS)
    ids = [str(entry_id) for entry_id in entries.ids]
    alone = sum(not labels.get(i) for i in ids)
    if alone == len(ids):
        raise InputError(f"{path} names none of the test proteins", f"ids are like {ids[0]!r}")
    others = f"; {alone:,} proteins that it does not name are families of their own"
    return Families(
        {i: labels.get(i) or i for i in ids}, f"given by {path.name}" + (others if alone else "")
    )


def compute_families(entries: Entries) -> Families:
    """Clusters of the entries' sequences, each named after its first member."""
    labels, how = computed_families(entries)
    first: dict[str, str] = {}
    for entry_id, label in labels.items():
        first.setdefault(label, entry_id)
    return Families({entry_id: first[label] for entry_id, label in labels.items()}, how)
