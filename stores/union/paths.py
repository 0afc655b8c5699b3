"""Paths, URLs and patterns to the stores that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from glob import escape, has_magic, iglob
from itertools import chain
from pathlib import Path
from typing import Any

from protalign.core.errors import InputError, StoreError
from protalign.core.paths import path_text
from protalign.core.printing import one_line
from protalign.stores.objects.client import check_unsigned, is_object_url, matching

#: What opens a store, or several: a path, a URL, a pattern, or a list of them.
StorePaths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

#: Parts of a pattern that may stand for several names, at most.
_MOST_LEVELS = 3


def absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, or the URL that was given."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Return whether a path stands for all that match it: nothing has this name itself.

    Examples
    --------
    >>> is_pattern("shards/*.zarr"), is_pattern("examples/sample"), is_pattern("s3://b/[0-9].zarr")
    (True, False, True)
    """
    return has_magic(str(path)) and ("://" in str(path) or not os.path.lexists(path))


def listed(paths: StorePaths) -> list[str]:
    """Return the absolute paths, URLs and patterns in what a user gave; InputError for none."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("a list of stores: it is empty", "name a store, or several")
    return [absolute(path) for path in given]


def the_one(paths: Sequence[str]) -> str | None:
    """Return the path or URL of a single store, None if several may be meant."""
    return paths[0] if len(paths) == 1 and not is_pattern(paths[0]) else None


def stores_of(paths: Sequence[str]) -> list[str]:
    """Return the stores that absolute paths, URLs and patterns name, each once.

    Those of a pattern are in the order of their names, 9 before 10. Raise StoreError for a pattern
    that nothing matches.
    """
    by_place: dict[str, str] = {}
    for path in chain.from_iterable(map(_matches, paths)):
        by_place.setdefault(path if "://" in path else os.path.realpath(path), path)
    return list(by_place.values())


def is_here(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder of this machine, or a pattern that something here matches.

    Examples
    --------
    >>> is_here("examples/sample"), is_here("examples/samp*"), is_here("x" * 5000), is_here("s3://b")
    (True, True, False, False)
    """
    if "://" in str(path):
        return False
    try:
        return all(map(os.path.isdir, _matches(absolute(path))))  # False for odd names
    except StoreError:
        return False


def check_is_one(path: str | os.PathLike[str]) -> None:
    """Raise StoreError if a store to write to has the name of a pattern, or a signed address."""
    if "://" in str(path):
        check_unsigned(str(path))
        pattern = is_pattern(path)
    else:
        path = Path(path)
        name = path.name if path.parent.is_dir() else os.fspath(path)
        pattern = not os.path.lexists(path) and has_magic(name)
    if pattern:
        raise StoreError(
            f"{path_text(path)}: a pattern of stores can only be read; name one store to write to"
        )


def _matches(path: str) -> Iterator[str]:
    check_unsigned(path)
    if not is_pattern(path):
        yield path
        return
    found = sorted(_remote(path) if "://" in path else _local(path), key=_natural)
    if not found:
        raise StoreError(f"{path_text(path)}: no store matches; check the pattern")
    yield from found


def _local(pattern: str) -> Iterator[str]:
    """Yield what matches, as a shell does: no hidden files.

    Names that exist are taken as they are, whatever letters they have.
    """
    if "\0" in pattern:
        return iter(())
    parts = Path(pattern).parts
    base, rest = parts[0], parts[1:]
    while len(rest) > 1 and os.path.lexists(os.path.join(base, rest[0])):  # noqa: PTH118
        base, rest = os.path.join(base, rest[0]), rest[1:]  # noqa: PTH118
    _check_stars(pattern, rest)
    return iglob(os.path.join(escape(base), *rest))  # noqa: PTH118, PTH207


def _check_stars(pattern: str, parts: Sequence[str]) -> None:
    """Raise StoreError for a pattern, maybe out of a file, that would search a whole disk."""
    if any("**" in part for part in parts):
        raise StoreError(f"{path_text(pattern)}: ** stands for nothing; write a * for each folder")
    if len(list(filter(has_magic, parts))) > _MOST_LEVELS:
        raise StoreError(
            f"{path_text(pattern)}: it searches too much; name all folders but {_MOST_LEVELS}"
        )


def _remote(pattern: str) -> list[str]:
    _check_stars(pattern, pattern.split("/"))
    if is_object_url(pattern):
        return matching(pattern)
    import fsspec  # slow to import, seldom needed

    try:
        system, path = fsspec.core.url_to_fs(pattern)
        return [system.unstrip_protocol(each) for each in system.glob(path)]
    except Exception as error:  # each service has errors of its own
        raise StoreError(
            f"{pattern}: it cannot be listed ({one_line(error)}); check the address"
        ) from None


def _natural(path: str) -> tuple[list[Any], str]:
    """Return a key by which 9 comes before 10: texts and numbers in turn; 01 comes before 1."""
    parts = re.split(r"([0-9]{1,18})", path)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path
