"""Families and classes (SCOPe, CATH) of a test set's items, and the tables they are read from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from protalign.core.errors import InputError
from protalign.core.tables import ID_COLUMNS, DelimitedTable
from protalign.core.words import ClusterMethod
from protalign.splits.clusters import cluster_proteins
from protalign.stores import Entries

#: Classification -> its levels, wide ones first, by how many parts of a code name them: SCOPe's
#: sccs (class.fold.superfamily.family) and CATH's code (class.architecture.topology.superfamily).
LEVELS = {
    "scop": {"fold": 2, "superfamily": 3, "family": 4},
    "cath": {"topology": 3, "superfamily": 4},
}
#: Classification -> a whole code or its first parts.
_CODES = {"scop": re.compile(r"[a-z](\.\d+){1,3}"), "cath": re.compile(r"\d+(\.\d+){1,3}")}
#: Classification -> a code in words, for errors.
CODES_IN_WORDS = {"scop": "an sccs such as b.1.1.1", "cath": "a code such as 3.40.50.1260"}
#: Usual names of the columns of families, SCOPe codes and CATH codes.
FAMILY_COLUMNS = ("family", "cluster", "label")
SCOP_COLUMNS = ("scop", "scope", "sccs", "label")
CATH_COLUMNS = ("cath", "label")
#: Identity at which families are computed if none are given.
FAMILY_IDENTITY = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of n items, as a matrix that tells at once which items share one.

    Attributes
    ----------
    of : list of n frozenset of str
        Each item's labels; empty if nothing is known.
    """

    of: list[frozenset[str]]

    def matrices(self, other: Labels) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Return (n, labels) and (m, labels) matrices of ones, for these and for other items.

        Two items share a label if the product of their rows is above 0.
        """
        names = sorted(frozenset().union(*self.of, *other.of))
        column = {name: index for index, name in enumerate(names)}
        return self._matrix(column), other._matrix(column)

    def _matrix(self, column: Mapping[str, int]) -> sparse.csr_array:
        rows = np.repeat(np.arange(len(self.of)), [len(labels) for labels in self.of])
        columns = np.array([column[name] for labels in self.of for name in labels], dtype=np.int64)
        ones = np.ones(len(rows), dtype=np.float32)
        return sparse.coo_array((ones, (rows, columns)), shape=(len(self.of), len(column))).tocsr()


def read_labels(
    path: str | os.PathLike[str], column: str | None = None, usual: Sequence[str] = FAMILY_COLUMNS
) -> dict[str, str]:
    r"""Read the labels of ids from a column of a user's table.

    Parameters
    ----------
    path : str or path
        A CSV (or tab- or semicolon-separated) table with a header and a column of ids.
    column : str, optional
        The column of labels; default: the first of the usual names.
    usual : sequence of str
        Usual names of the column.

    Returns
    -------
    dict
        id -> label.

    Raises
    ------
    InputError
        The file is not a table, the column is missing, or an id has two labels; the error names
        file and line.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "families.csv"
    >>> _ = path.write_text("id,family\n1a30,protease\n3ebp,kinase\n")
    >>> read_labels(path)
    {'1a30': 'protease', '3ebp': 'kinase'}
    """
    table = DelimitedTable.read(path)
    id_column = table.column(None, ID_COLUMNS, "ids")
    label_column = table.column(column, usual, "labels")
    labels: dict[str, str] = {}
    for line, row in table.rows():
        if labels.setdefault(row[id_column], row[label_column]) != row[label_column]:
            raise InputError(
                f"{path}, line {line}: {row[id_column]!r} has another label above",
                "keep one of them",
            )
    return labels


def families_of(items: Sequence[Sequence[str]], families: Mapping[str, str]) -> Labels:
    """Return the families of items' entries.

    Parameters
    ----------
    items : n sequences of str
        The ids of each item's entries. A family of one entry counts for the item.
    families : mapping
        id -> family. An item of entries without one is a family of its own.
    """
    return Labels(
        [
            frozenset(families[i] for i in ids if families.get(i))
            or frozenset(f"of its own: {i}" for i in ids)
            for ids in items
        ]
    )


def computed_families(
    entries: Entries, method: ClusterMethod = "auto"
) -> tuple[dict[str, str], str]:
    """Cluster the entries' sequences at ``FAMILY_IDENTITY``.

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
        The proteins.
    method : "auto", "mmseqs" or "kmer"
        See ``protalign.splits.clusters.cluster``.

    Returns
    -------
    (dict, str)
        id -> family, and how the families were found, in words.
    """
    ids = [str(entry_id) for entry_id in entries.ids]
    sequences = [entries.store.sequence(entry_id) for entry_id in ids]
    clusters = cluster_proteins(sequences, FAMILY_IDENTITY, method=method)
    how = f"clusters at {100 * FAMILY_IDENTITY:g} % sequence identity, {clusters.method}"
    return dict(zip(ids, map(str, clusters.labels.tolist()), strict=True)), how


def classes_of(
    items: Sequence[Sequence[str]], codes: Mapping[str, str], scheme: str, level: str
) -> Labels:
    """Return the labels of items' entries at one level of SCOPe or CATH.

    Parameters
    ----------
    items : n sequences of str
        The ids of each item's entries.
    codes : mapping
        id -> one code ("b.1.1.1", "3.40.50.1260") or several, with commas or blanks between them. A
        number 0 means that the domain is not classified at this level: no label. What is not a code
        is no label.
    scheme : "scop" or "cath"
        The classification.
    level : str
        A key of ``LEVELS[scheme]``.

    Examples
    --------
    >>> classes_of([["a"], ["b"]], {"a": "b.1.1.1", "b": "b.2"}, "scop", "superfamily").of
    [frozenset({'b.1.1'}), frozenset()]
    """
    return Labels(
        [
            frozenset(
                classes[level] for classes in _classes(ids, codes, scheme) if level in classes
            )
            for ids in items
        ]
    )


def open_classes_of(
    items: Sequence[Sequence[str]],
    codes: Mapping[str, str],
    scheme: str,
    level: str,
    wider: str,
) -> Labels:
    """Return the classes at a wider level of those codes that have none at ``level``.

    Parameters
    ----------
    items, codes, scheme, level
        As of ``classes_of``.
    wider : str
        The level of the classes.

    Examples
    --------
    >>> codes = {"a": "b.1.1.1", "b": "b.1, c.1.1.1"}
    >>> open_classes_of([["a"], ["b"]], codes, "scop", "superfamily", "fold").of
    [frozenset(), frozenset({'b.1'})]
    """
    return Labels(
        [
            frozenset(
                classes[wider]
                for classes in _classes(ids, codes, scheme)
                if wider in classes and level not in classes
            )
            for ids in items
        ]
    )


def _classes(ids: Sequence[str], codes: Mapping[str, str], scheme: str) -> Iterator[dict[str, str]]:
    """Yield level -> class of each code of some entries; levels without one are missing."""
    for entry_id in ids:
        for code in re.split(r"[,;\s]+", codes.get(entry_id, "")):
            if _CODES[scheme].fullmatch(code):
                parts = code.split(".")
                yield {
                    level: ".".join(parts[:depth])
                    for level, depth in LEVELS[scheme].items()
                    if len(parts) >= depth and parts[depth - 1] != "0"
                }


def scheme_of(codes: Iterable[str]) -> str:
    """Return the classification that most codes are of, "scop" or "cath".

    Raises
    ------
    InputError
        No label is a code of either.

    Examples
    --------
    >>> scheme_of(["", "b.1.1.1"]), scheme_of(["3.40.50.1260"])
    ('scop', 'cath')
    """
    labels = list(codes)
    counts = {
        scheme: sum(
            any(form.fullmatch(code) for code in re.split(r"[,;\s]+", text)) for text in labels
        )
        for scheme, form in _CODES.items()
    }
    best = max(counts, key=lambda scheme: counts[scheme])
    if counts[best] == 0:
        example = next((text for text in labels if text), "")
        raise InputError(
            f"labels: none is a code of SCOPe or CATH ({example!r})",
            f"give {' or '.join(CODES_IN_WORDS.values())}",
        )
    return best


def check_labels(
    test: Entries,
    families: Mapping[str, str] | None,
    classes: Mapping[str, Mapping[str, str]],
) -> None:
    """Raise InputError if labels name none of the entries, or if no label of a scheme is a code.

    Parameters
    ----------
    test : EmbeddingStore or StoreView
        The entries.
    families : mapping, optional
        id -> family.
    classes : mapping
        "scop" or "cath" -> id -> code.
    """
    ids = [str(i) for i in test.ids]
    for name, labels in {"families": families, **classes}.items():
        if labels is not None and not any(labels.get(i) for i in ids):
            raise InputError(
                f"{name}: names none of the entries", f"give labels of ids such as {ids[0]!r}"
            )
    for scheme, labels in classes.items():
        if not any(classes_of([ids], labels, scheme, next(iter(LEVELS[scheme]))).of):
            example = next(labels[i] for i in ids if labels.get(i))
            raise InputError(
                f"{scheme}: no label is {CODES_IN_WORDS[scheme]} ({example!r})",
                "name the column of codes",
            )
