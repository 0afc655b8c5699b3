"""Splits: which entries train, which stop training early, and which are tested on."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.tables import ID_COLUMNS, Table, some
from protalign.splits.clusters import cluster_proteins
from protalign.splits.pdbbind import PDBbindIndex
from protalign.stores import Entries, StoreView

PARTS = ("train", "validation", "test")
#: The paper's sizes, after duplicates were removed.
PAPER_COUNTS = {"train": 10_071, "validation": 3_387, "test": 215}
PAPER_VALIDATION_FRACTION = 3_387 / (10_071 + 3_387)
#: What may be stopped early on, of PDBbind.
VALIDATIONS = ("refined", "random", "cluster")
_TRAIN, _VALIDATION, _TEST = range(3)
_IN_NO_SET = 3
#: What a user's file may call a part.
_SPELLINGS = {
    **{part: part for part in PARTS},
    "training": "train",
    "val": "validation",
    "valid": "validation",
}
_PART_COLUMNS = ("part", "split", "set", "subset", "partition")


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint parts, by id.

    Attributes
    ----------
    train, validation, test : ids, each in no other part; a part may be empty.
    how : one line that says how the split was made.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    how: str = ""

    def __post_init__(self) -> None:
        part_of: dict[str, str] = {}
        for part in PARTS:
            for entry_id in self.ids(part):
                if entry_id in part_of:
                    where = part_of[entry_id]
                    both = f"twice in {part}" if where == part else f"in {where} and in {part}"
                    raise InputError(f"{entry_id!r} is {both}", "an id is in one part, once")
                part_of[entry_id] = part

    @classmethod
    def from_parts(cls, part_of: Mapping[str, str], how: str) -> Split:
        """A split from id -> part, ids in the mapping's order."""
        chosen = {part: tuple(i for i, own in part_of.items() if own == part) for part in PARTS}
        return cls(**chosen, how=" ".join(how.split()))

    def ids(self, part: str) -> tuple[str, ...]:
        """The ids of a part; raises InputError unless it is one of ``PARTS``."""
        if part not in PARTS:
            raise InputError(f"there is no part {part!r}", f"the parts are {', '.join(PARTS)}")
        ids: tuple[str, ...] = getattr(self, part)
        return ids

    @property
    def counts(self) -> dict[str, int]:
        """Number of ids of each part."""
        return {part: len(self.ids(part)) for part in PARTS}

    def of(self, entries: Entries) -> dict[str, StoreView]:
        """A view of each part; raises InputError, naming them, for ids that are not there."""
        known = set(entries.ids.tolist())
        missing = [i for part in PARTS for i in self.ids(part) if i not in known]
        if missing:
            raise InputError(
                f"the store lacks {len(missing):,} of the split's ids: {some(missing)}",
                "embed them, or make the split from this store",
            )
        return {part: entries[list(self.ids(part))] for part in PARTS}


def write_split(split: Split, path: str | os.PathLike[str]) -> None:
    """Write a CSV file: ``how`` behind a #, then the columns id and part.

    Raises InputError where the file cannot be written.
    """
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            if split.how:
                file.write(f"# {' '.join(split.how.split())}\n")
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["id", "part"])
            rows.writerows([i, part] for part in PARTS for i in split.ids(part))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})", "name another") from None


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read a file that ``write_split`` wrote, or one written by hand in the same form.

    Raises InputError, naming file and line, if it is missing or says something else.
    """
    table = Table.read(path)
    if not {"id", "part"} <= set(table.header):
        raise InputError(
            f"{path} has no columns id and part", "make one with `protalign split --by column`"
        )
    part_of: dict[str, str] = {}
    for line, row in table.rows():
        entry_id, part = row["id"], row["part"]
        if part not in PARTS:
            raise InputError(
                f"{path}, line {line}: {part!r} is no part", f"the parts are {', '.join(PARTS)}"
            )
        if entry_id in part_of:
            raise InputError(f"{path}, line {line}: {entry_id!r} was there before", "drop one")
        part_of[entry_id] = part
    if not part_of:
        raise InputError(f"{path} names no id", "give a row id,part for each")
    return Split.from_parts(part_of, table.comment)


def by_column(
    entries: Entries,
    path: str | os.PathLike[str],
    id_column: str | None = None,
    part_column: str | None = None,
) -> Split:
    """The split that a column of the user's table says.

    A part is train or training, val, valid or validation, or test, in any case. Rows of another
    value, ids that are not in ``entries``, and entries that the table does not name are in no
    part; ``how`` counts them.

    Parameters
    ----------
    entries : a store or a view.
    path : a CSV (or tab- or semicolon-separated) table with a header; leading lines after # are
        passed over.
    id_column, part_column : their names; by default id (or entry, name, pdbid) and part (or split,
        set).

    Raises
    ------
    InputError : no such file or column, an id in two parts, or no id in common with ``entries``.
    """
    table = Table.read(path)
    id_column = table.column(id_column, ID_COLUMNS, "ids")
    part_column = table.column(part_column, _PART_COLUMNS, "parts")
    known = set(entries.ids.tolist())
    other: Counter[str] = Counter()
    absent = 0
    part_of: dict[str, str] = {}
    for line, row in table.rows():
        entry_id = row[id_column]
        part = _SPELLINGS.get(row[part_column].lower())
        if part is None:
            other[row[part_column]] += 1
        elif part_of.setdefault(entry_id, part) != part:
            raise InputError(
                f"{path}, line {line}: {entry_id!r} is in {part_of[entry_id]} and in {part}",
                "an id is in one part",
            )
    absent = sum(entry_id not in known for entry_id in part_of)
    part_of = {entry_id: part for entry_id, part in part_of.items() if entry_id in known}
    if not part_of:
        raise InputError(
            f"{path} puts no entry of the store into a part ({absent:,} ids that it lacks)",
            f"the store's ids are like {some(entries.ids.tolist())}",
        )
    left_out = [
        (sum(other.values()), f"rows of other values ({some(list(other))})"),
        (absent, "ids that the store lacks"),
        (len(known) - len(part_of), "entries of the store in no part"),
    ]
    counted = "; ".join(f"{count:,} {what}" for count, what in left_out if count)
    how = f"by column {part_column} of {Path(path).name}"
    return Split.from_parts(part_of, f"{how}; left out: {counted}" if counted else how)


def by_cluster(
    entries: Entries,
    identity: float = 0.3,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    random_state: int = 0,
    method: str = "auto",
) -> Split:
    """A random split that keeps whole sequence clusters in one part.

    No chain of one part is then similar, at that identity, to a chain of another (see
    ``protalign.splits.clusters``). A cluster that is larger than the room left in a part goes
    elsewhere, so that the parts come close to their sizes.

    Parameters
    ----------
    entries : a store or a view.
    identity : above 0, at most 1.
    fractions : of the entries that train, validation and test should have; they add up to 1.
    random_state : the same number gives the same split of the same clusters.
    method : how to cluster: "auto", "mmseqs" or "kmer".
    """
    if not len(entries):
        raise InputError("the store has no entries", "embed proteins first")
    # Comparisons that NaN fails too.
    usable = len(fractions) == len(PARTS) and all(own >= 0 for own in fractions)
    if not (usable and abs(sum(fractions) - 1) <= 1e-6):
        raise InputError(
            f"fractions={tuple(fractions)}", "give three for train, validation and test, sum 1"
        )
    clusters = cluster_proteins(chain_sequences(entries), identity, method=method)
    part = _deal(clusters.labels, fractions, random_state)
    ids = entries.ids.tolist()
    how = (
        f"by cluster: {len(clusters):,} clusters of {len(ids):,} entries at {identity:g} identity "
        f"(single linkage of chains, {clusters.method}), seed {random_state}"
    )
    return Split.from_parts({i: PARTS[own] for i, own in zip(ids, part, strict=True)}, how)


def by_pdbbind(
    entries: Entries,
    index: PDBbindIndex,
    *,
    validation: str = "refined",
    identity: float = 0.3,
    random_state: int = 0,
    method: str = "auto",
) -> Split:
    """The paper's protocol on PDBbind.

    The core set is the test part; general and refined set are training and validation. An entry
    whose sequences (all chains) an earlier entry has is left out: core comes first, then the
    general, then the refined set, each in the order of ``entries``. So no test sequence is trained
    on whole; homologs are, as in the paper, unless ``by_cluster`` is asked.

    Parameters
    ----------
    entries : a store or a view; an id is a PDB code, or begins with one and an underscore.
    index : what ``read_index`` read.
    validation : "refined", the refined set (the paper's three sets are PDBbind's three); "random",
        entries of both sets in the paper's proportion; or "cluster", whole clusters of both sets in
        that proportion, so that no validation family is trained on.
    identity, method : of the clusters.
    random_state : the same number gives the same random or cluster part.
    """
    check_choice("validation", validation, VALIDATIONS)
    if validation == "refined" and not index.refined:
        raise InputError(
            "the index has no refined set", "put INDEX_refined_data there, or validate otherwise"
        )
    ids = entries.ids.tolist()
    core, refined = set(index.core), set(index.refined)
    known = core | refined | set(index.general)
    rank = np.array([_set_rank(_pdb_code(i), core, refined, known) for i in ids], dtype=np.int64)
    order = np.argsort(rank, kind="stable")
    order = order[rank[order] < _IN_NO_SET]
    _, first = np.unique(entries.items("sequence")[order], return_index=True)
    kept = order[np.sort(first)]
    if not (rank[kept] == 0).any() or not (rank[kept] > 0).any():
        raise InputError(
            "the store holds no complex of the core set, or none of the others",
            f"embed PDBbind's folders; the store's ids are like {some(ids)}",
        )
    part = np.where(rank[kept] == 0, _TEST, np.where(rank[kept] == 1, _TRAIN, _VALIDATION))
    rest, note = part != _TEST, "refined set"
    if validation != "refined":
        labels, note = np.arange(int(rest.sum())), "random"
        if validation == "cluster":
            pool = entries[kept[rest]]
            clusters = cluster_proteins(chain_sequences(pool), identity, method=method)
            labels, note = (
                clusters.labels,
                (
                    f"whole clusters at {identity:g} identity that are not in training "
                    f"(single linkage of chains, {clusters.method})"
                ),
            )
        fractions = (1 - PAPER_VALIDATION_FRACTION, PAPER_VALIDATION_FRACTION, 0)
        part[rest] = _deal(labels, fractions, random_state)
        note += f", seed {random_state}"
    how = (
        f"PDBbind ({', '.join(index.files)}); validation: {note}; "
        f"{len(known) - len({_pdb_code(i) for i in ids} & known):,} complexes are not in the "
        f"store, {len(order) - len(kept):,} entries repeat an earlier one's sequences, "
        f"{len(ids) - len(order):,} entries of the store are in no set"
    )
    chosen = {ids[row]: PARTS[own] for row, own in zip(kept.tolist(), part, strict=True)}
    return Split.from_parts(chosen, how)


def chain_sequences(entries: Entries) -> list[tuple[str, ...]]:
    """n tuples: the sequences of each entry's chains."""
    items = entries.items("sequence").tolist()
    of_item = {item: str(entry_id) for item, entry_id in zip(items, entries.ids, strict=True)}
    found = {item: entries.store.sequence(entry_id) for item, entry_id in of_item.items()}
    return [found[item] for item in items]


def _deal(
    labels: npt.NDArray[np.int64], fractions: Sequence[float], random_state: int
) -> npt.NDArray[np.int64]:
    """(n,) part of each entry; the largest clusters are dealt first.

    A cluster goes to a part where it fits, by chance in proportion to the room there: so clusters
    of every size are in every part, and the small ones at the end even out the sizes.
    """
    if random_state < 0:
        raise InputError(f"random_state={random_state}", "give 0 or a positive number as the seed")
    generator = np.random.default_rng(random_state)
    sizes = np.bincount(labels)
    shuffled = generator.permutation(len(sizes))
    room = np.array(fractions) * len(labels)
    part = np.empty(len(sizes), dtype=np.int64)
    for label in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        weight = np.where(room >= sizes[label] - 0.5, np.maximum(room, 0), 0)
        if weight.sum() > 0:
            part[label] = generator.choice(len(room), p=weight / weight.sum())
        else:
            part[label] = np.argmax(room)
        room[part[label]] -= sizes[label]
    return part[labels]


def _pdb_code(entry_id: str) -> str:
    """1a30 of 1a30, 1A30_A and 1a30_protein; the id itself where it is nothing like it."""
    return entry_id[:4].lower() if entry_id[4:5] in ("", "_", "-", ".") else entry_id


def _set_rank(
    code: str, core: Container[str], refined: Container[str], any_: Container[str]
) -> int:
    """0 for the core set, 1 for the rest of the general set, 2 for the refined one."""
    if code in core:
        return 0
    if code in refined:
        return 2
    return 1 if code in any_ else _IN_NO_SET
