"""The family of each test protein: from the user's table, or from sequence clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protalign.core.errors import InputError
from protalign.evaluation.labels import FAMILY_COLUMNS, computed_families, read_labels
from protalign.stores import Entries


@dataclass(frozen=True, slots=True)
class Families:
    """Families of some proteins.

    Attributes
    ----------
    of : dict
        Id -> name of its family. A protein without relatives is a family of its own.
    how : str
        Their origin, in words.
    """

    of: dict[str, str]
    how: str


def read_families(path: Path, entries: Entries) -> Families:
    """Read the families of ``entries`` from a table with the columns id and family.

    An entry that is not in the table is a family of its own. Raise InputError if the table cannot
    be read or names none of the entries.
    """
    labels = read_labels(path, None, FAMILY_COLUMNS)
    ids = [str(entry_id) for entry_id in entries.ids]
    unnamed = sum(not labels.get(i) for i in ids)
    if unnamed == len(ids):
        raise InputError(f"{path}: names none of the test proteins", f"ids are like {ids[0]!r}")
    how = f"given by {path.name}"
    if unnamed:
        how += f"; proteins that are not in it ({unnamed:,}) are families of their own"
    return Families({i: labels.get(i) or i for i in ids}, how)


def compute_families(entries: Entries) -> Families:
    """Cluster the entries' sequences; each family is named after its first member."""
    labels, how = computed_families(entries)
    first: dict[str, str] = {}
    for entry_id, label in labels.items():
        first.setdefault(label, entry_id)
    return Families({entry_id: first[label] for entry_id, label in labels.items()}, how)
