"""Entries that a user names in a file of ids."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from protalign.core.errors import InputError
from protalign.core.files import read_text
from protalign.stores import Entries, StoreView


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    r"""Read a text file with one id per line; empty lines and lines that begin with # are skipped.

    Parameters
    ----------
    path : str or path
        The file, UTF-8.

    Returns
    -------
    list of str
        The ids in the file's order, at least one.

    Raises
    ------
    InputError
        The file cannot be read or names no id.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "ids.txt"
    >>> _ = path.write_text("# for the first figure\n1a30\n\n3ebp\n")
    >>> read_ids(path)
    ['1a30', '3ebp']
    """
    lines = read_text(path, "give a text file with one id per line").splitlines()
    ids = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not ids:
        raise InputError(f"{path}: contains no ids", "give a text file with one id per line")
    return ids


def by_ids(
    entries: Entries, train: Sequence[str] | None, validation: Sequence[str] | None
) -> tuple[Entries, StoreView | None]:
    """Return the entries to train on and the entries to stop training early on.

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
    train : sequence of str, optional
        Ids to train on; None for all. Those that are validation ids as well are left out.
    validation : sequence of str, optional
        Ids of the validation entries; None if there are none.

    Returns
    -------
    (EmbeddingStore or StoreView, StoreView or None)

    Raises
    ------
    InputError
        An id is not in ``entries``.
    """
    chosen = entries if train is None else entries[list(train)]
    if validation is None:
        return chosen, None
    return chosen[~np.isin(chosen.ids, list(validation))], entries[list(validation)]
