"""Ways to make a split: by a column of a table, by sequence clusters, by PDBbind's sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.checks import check_choice, check_whole, first_few
from protalign.core.errors import InputError
from protalign.core.tables import ID_COLUMNS, DelimitedTable
from protalign.core.words import ClusterMethod, Part, Validation, counted
from protalign.splits.clusters import cluster_proteins
from protalign.splits.pdbbind import PDBbindIndex
from protalign.splits.split import PARTS, Split
from protalign.stores import Entries

VALIDATIONS: tuple[Validation, ...] = get_args(Validation)
#: The paper's sizes, after duplicates were removed.
PAPER_COUNTS = {"train": 10_071, "validation": 3_387, "test": 215}
#: The paper's share of the validation part in training and validation.
PAPER_VALIDATION_FRACTION = 3_387 / (10_071 + 3_387)
_TRAIN, _VALIDATION, _TEST = range(3)
#: Order in which PDBbind's sets keep a sequence that several of them have.
_CORE, _GENERAL, _REFINED, _IN_NO_SET = range(4)
#: Spellings of the parts in users' files.
_SPELLINGS: dict[str, Part] = {
    **{part: part for part in PARTS},
    "training": "train",
    "val": "validation",
    "valid": "validation",
}
_PART_COLUMNS = ("part", "split", "set", "subset", "partition")


def by_column(
    entries: Entries,
    path: str | os.PathLike[str],
    id_column: str | None = None,
    part_column: str | None = None,
) -> Split:
    r"""Read the split in a column of the user's table.

    A part is train or training, val, valid or validation, or test, in any case. Rows of another
    value, ids that are not in ``entries``, and entries that the table does not name are in no
    part; ``how`` counts them.

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
        The entries to divide.
    path : str or path
        A CSV (or tab- or semicolon-separated) table with a header; leading lines that begin with #
        are skipped.
    id_column, part_column : str, optional
        Names of the columns; by default id (or entry, name, pdbid) and part (or split, set).

    Returns
    -------
    Split

    Raises
    ------
    InputError
        The file or a column is missing, an id is in two parts, or no id is in ``entries``.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "all.fasta").write_text(
    ...     ">1a30\nPQITLWQRPLVTIKIGGQLKEALLDTGADD\n>1bcu\nTFGSGEADCGLRPLFEKKSLEDKTERELLE\n"
    ...     ">3ebp\nMKVLAGIVGIVEQCCTSICSLYQLENYCNA\n"
    ... )
    >>> _ = embed(folder / "all.fasta", folder / "store.zarr", ["protalign_t6_2M"])
    >>> store = EmbeddingStore.open(folder / "store.zarr")
    >>> _ = (folder / "parts.csv").write_text("id,part\n1a30,train\n3ebp,val\n1bcu,test\n")
    >>> by_column(store, folder / "parts.csv").validation
    ('3ebp',)
    """
    table = DelimitedTable.read(path)
    id_column = table.column(id_column, ID_COLUMNS, "ids")
    part_column = table.column(part_column, _PART_COLUMNS, "parts")
    known = set(entries.ids.tolist())
    other: Counter[str] = Counter()
    part_of: dict[str, str] = {}
    for line, row in table.rows():
        entry_id = row[id_column]
        part = _SPELLINGS.get(row[part_column].lower())
        if part is None:
            other[row[part_column]] += 1
        elif part_of.setdefault(entry_id, part) != part:
            raise InputError(
                f"{path}, line {line}: {entry_id!r} is in {part_of[entry_id]} and in {part}",
                "put each id into one part",
            )
    n_unknown = sum(entry_id not in known for entry_id in part_of)
    part_of = {entry_id: part for entry_id, part in part_of.items() if entry_id in known}
    if not part_of:
        raise InputError(
            f"{path}: puts no entry of the store into a part "
            f"({counted(n_unknown, 'id')} missing in the store)",
            f"the store's ids are like {first_few(entries.ids.tolist())}",
        )
    left_out = []
    if other:
        rows = counted(other.total(), "row")
        left_out.append(f"{rows} of other values ({first_few(list(other))})")
    if n_unknown:
        left_out.append(f"{counted(n_unknown, 'id')} missing in the store")
    if len(known) > len(part_of):
        n_without = counted(len(known) - len(part_of), "entry", "entries")
        left_out.append(f"{n_without} of the store in no part")
    how = f"by column {part_column} of {Path(path).name}"
    if left_out:
        how += f"; left out: {'; '.join(left_out)}"
    return Split.from_parts(part_of, how)


def by_cluster(
    entries: Entries,
    identity: float = 0.3,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    random_state: int = 0,
    method: ClusterMethod = "auto",
) -> Split:
    r"""Make a random split that keeps whole sequence clusters in one part.

    No chain of one part is then similar, at that identity, to a chain of another (see
    ``protalign.splits.clusters``). A cluster that is larger than the room left in a part goes to
    another one, so that the parts come close to their sizes.

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
        The entries to divide.
    identity : float
        Above 0, at most 1.
    fractions : three floats
        The shares of training, validation and test; they add up to 1.
    random_state : int
        The random seed; the same seed gives the same split of the same clusters.
    method : "auto", "mmseqs" or "kmer"
        See ``protalign.splits.clusters.cluster``.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        There are no entries, or the identity, the fractions or the seed are out of range.
    HomologyError
        MMseqs2 is missing or failed.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "all.fasta").write_text(
    ...     ">1a30\nPQITLWQRPLVTIKIGGQLKEALLDTGADD\n>1bcu\nTFGSGEADCGLRPLFEKKSLEDKTERELLE\n"
    ...     ">3ebp\nMKVLAGIVGIVEQCCTSICSLYQLENYCNA\n"
    ... )
    >>> _ = embed(folder / "all.fasta", folder / "store.zarr", ["protalign_t6_2M"])
    >>> store = EmbeddingStore.open(folder / "store.zarr")
    >>> split = by_cluster(store, 0.3, (0.4, 0.3, 0.3), random_state=0, method="kmer")
    >>> sorted(split.counts.items())
    [('test', 1), ('train', 1), ('validation', 1)]
    """
    if not len(entries):
        raise InputError("the store: has no entries", "embed proteins first")
    # Written so that NaN fails each comparison.
    usable = len(fractions) == len(PARTS) and all(share >= 0 for share in fractions)
    if not (usable and abs(sum(fractions) - 1) <= 1e-6):
        raise InputError(
            f"fractions={tuple(fractions)}: not three shares of sum 1",
            "give those of train, validation and test",
        )
    clusters = cluster_proteins(chain_sequences(entries), identity, method=method)
    parts = _deal(clusters.labels, fractions, random_state)
    ids = entries.ids.tolist()
    how = (
        f"by cluster: {counted(len(clusters), 'cluster')} of "
        f"{counted(len(ids), 'entry', 'entries')} at {identity:g} identity "
        f"(single linkage of chains, {clusters.method}), seed {random_state}"
    )
    return Split.from_parts({i: PARTS[part] for i, part in zip(ids, parts, strict=True)}, how)


def by_pdbbind(
    entries: Entries,
    index: PDBbindIndex,
    *,
    validation: Validation = "refined",
    identity: float = 0.3,
    random_state: int = 0,
    method: ClusterMethod = "auto",
) -> Split:
    r"""Make the paper's split of PDBbind.

    The core set is the test part; general and refined set are training and validation. An entry
    with the same sequences (all chains) as an earlier entry is left out: core comes first, then the
    general, then the refined set, each in the order of ``entries``. So no test sequence is in
    training as a whole; homologs are, as in the paper (``by_cluster`` keeps them apart).

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
        The entries to divide; an id is a PDB code, or begins with one and an underscore.
    index : PDBbindIndex
        As from ``read_index``.
    validation : "refined", "random" or "cluster"
        The refined set (the paper's three sets are PDBbind's three); random entries of both sets in
        the paper's proportion; or whole clusters of both sets in that proportion, so that no
        validation family is in training.
    identity, method
        Of the clusters; see ``by_cluster``.
    random_state : int
        The random seed; the same seed gives the same random or cluster part.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        A set is missing in the index, or its complexes in the store.
    HomologyError
        MMseqs2 is missing or failed.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "all.fasta").write_text(
    ...     ">1a30\nPQITLWQRPLVTIKIGGQLKEALLDTGADD\n>1bcu\nTFGSGEADCGLRPLFEKKSLEDKTERELLE\n"
    ...     ">3ebp\nMKVLAGIVGIVEQCCTSICSLYQLENYCNA\n"
    ... )
    >>> _ = embed(folder / "all.fasta", folder / "store.zarr", ["protalign_t6_2M"])
    >>> store = EmbeddingStore.open(folder / "store.zarr")
    >>> from protalign.splits.pdbbind import PDBbindIndex
    >>> index = PDBbindIndex(general=("1bcu", "3ebp"), refined=("3ebp",), core=("1a30",), files=())
    >>> split = by_pdbbind(store, index)
    >>> split.train, split.validation, split.test
    (('1bcu',), ('3ebp',), ('1a30',))
    """
    check_choice("validation", validation, VALIDATIONS)
    if validation == "refined" and not index.refined:
        raise InputError(
            "the index: has no refined set",
            "add INDEX_refined_data, or choose another validation part",
        )
    ids = entries.ids.tolist()
    codes = [_pdb_code(entry_id) for entry_id in ids]
    rank_of = {
        **dict.fromkeys(index.general, _GENERAL),
        **dict.fromkeys(index.refined, _REFINED),
        **dict.fromkeys(index.core, _CORE),
    }
    rank = np.array([rank_of.get(code, _IN_NO_SET) for code in codes], dtype=np.int64)
    order = np.argsort(rank, kind="stable")
    order = order[rank[order] < _IN_NO_SET]
    _, first = np.unique(entries.items("sequence")[order], return_index=True)
    kept = order[np.sort(first)]
    is_core = rank[kept] == _CORE
    if not is_core.any() or is_core.all():
        raise InputError(
            "the store: has no complex of the core set, or none of the others",
            f"embed PDBbind's folders; the store's ids are like {first_few(ids)}",
        )
    part = np.where(is_core, _TEST, np.where(rank[kept] == _GENERAL, _TRAIN, _VALIDATION))
    note = "refined set"
    if validation != "refined":
        labels, note = np.arange(np.count_nonzero(~is_core)), "random"
        if validation == "cluster":
            sequences = chain_sequences(entries[kept[~is_core]])
            clusters = cluster_proteins(sequences, identity, method=method)
            labels = clusters.labels
            note = (
                f"whole clusters at {identity:g} identity that are not in training "
                f"(single linkage of chains, {clusters.method})"
            )
        fractions = (1 - PAPER_VALIDATION_FRACTION, PAPER_VALIDATION_FRACTION, 0)
        part[~is_core] = _deal(labels, fractions, random_state)
        note += f", seed {random_state}"
    absent = counted(len(rank_of.keys() - set(codes)), "complex", "complexes")
    repeated = counted(len(order) - len(kept), "entry", "entries")
    in_no_set = counted(len(ids) - len(order), "entry", "entries")
    how = (
        f"PDBbind ({', '.join(index.files)}); validation: {note}; left out: {absent} missing in "
        f"the store, {repeated} with an earlier one's sequences, {in_no_set} of the store in no set"
    )
    part_of = {ids[row]: PARTS[number] for row, number in zip(kept.tolist(), part, strict=True)}
    return Split.from_parts(part_of, how)


def chain_sequences(entries: Entries) -> list[tuple[str, ...]]:
    """Return the sequences of each entry's chains."""
    items = entries.items("sequence").tolist()
    entry_of_item = dict(zip(items, map(str, entries.ids), strict=True))
    sequences = {item: entries.store.sequence(i) for item, i in entry_of_item.items()}
    return [sequences[item] for item in items]


def _deal(labels: Int64, fractions: Sequence[float], random_state: int) -> Int64:
    """Return (n,) part of each entry; the largest clusters are dealt first.

    A cluster goes to a part with room for it, at random in proportion to the room: so clusters of
    every size are in every part, and the small ones at the end even out the sizes.
    """
    check_whole("random_state", random_state, 0)
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
    """Return 1a30 for 1a30, 1A30_A and 1a30_protein; other ids as they are."""
    return entry_id[:4].lower() if entry_id[4:5] in ("", "_", "-", ".") else entry_id
