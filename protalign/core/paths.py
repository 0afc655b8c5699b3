r"""Paths as text: any file name can be printed and stored, and its file found again.

A name on disk is bytes. Those that are not UTF-8 (an é in Latin-1) become ``\udce9`` in the text.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

from protalign.core.printing import without_secrets
from protalign.core.urls import Url, is_url

#: Characters of each name in a file's name, at most.
_LONGEST_NAME = 60
_NOT_UTF8 = re.compile(r"\\udc([89a-f][0-9a-f])")
#: Errors that say that a file is missing. Others (no permission, a failing disk) leave it open.
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


def path_text(path: str | os.PathLike[str] | Url) -> str:
    r"""Return a path as text that UTF-8 can hold, even if its bytes are not UTF-8.

    A URL loses the secrets in it, since such texts are printed and recorded.

    Examples
    --------
    >>> print(path_text(os.fsdecode(b"caf\xe9.pdb")))
    caf\udce9.pdb
    >>> path_text("ftp://me:secret@host/store.zarr")
    'ftp://host/store.zarr'
    """
    return without_secrets(str(path).encode("utf-8", "backslashreplace").decode())


def path_of(text: str) -> Path:
    r"""Return the path that ``path_text`` was given.

    Examples
    --------
    >>> os.fsencode(path_of(r"caf\udce9.pdb"))
    b'caf\xe9.pdb'
    """
    if _NOT_UTF8.search(text) is None or os.path.lexists(text):
        return Path(text)
    return Path(_NOT_UTF8.sub(lambda match: os.fsdecode(bytes([int(match[1], 16)])), text))


def may_exist(text: str) -> bool:
    """Return whether a file has this path, as ``path_text`` gives it; True if nobody can tell.

    Nobody can of an address: it is not asked.

    Examples
    --------
    >>> may_exist("examples/sample"), may_exist("examples/missing"), may_exist("x" * 5000)
    (True, False, False)
    """
    if is_url(text):
        return True
    try:
        path_of(text).stat()
    except OSError as error:
        return error.errno not in _MISSING
    except ValueError:  # a null character
        return False
    return True


def file_stem(names: Iterable[str], taken: set[str], *, plain: bool = False) -> str:
    """Return a name for a file, whatever the names hold, that no other one has; and take it.

    Parameters
    ----------
    names : iterable of str
        Names from anywhere; an underline joins them.
    taken : set of str
        The names that are taken, in small letters: some disks do not tell them from capitals.
    plain : bool
        Leave out "+" and "=" as well, which mean something to other programs.

    Examples
    --------
    >>> taken = set()
    >>> [file_stem(["../a b", "T"], taken), file_stem(["../A B", "t"], taken)]
    ['_a_b_T', '_A_B_t_2']
    """
    others = r"[^A-Za-z0-9_.-]" if plain else r"[^A-Za-z0-9_.+=-]"
    cleaned = (re.sub(others, "_", name)[:_LONGEST_NAME] for name in names)
    stem = "_".join(cleaned).lstrip(".-") or "protein"
    base, number = stem, 2
    while base.lower() in taken:
        base, number = f"{stem}_{number}", number + 1
    taken.add(base.lower())
    return base
