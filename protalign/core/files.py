"""Files and folders that appear whole or not at all; JSON; SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from protalign.core.errors import InputError


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, and rename it to ``path`` when the block ends without an error.

    The file is flushed to the disk before it is renamed. If the block raises, nothing is left of
    it and an older file at ``path`` stays as it was.

    Parameters
    ----------
    path : str or path
        The file. It is replaced if it exists. Its folder must exist.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with new_file(target) as unfinished:
    ...     _ = unfinished.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    """
    target = Path(path)
    unfinished = _unfinished(target)
    try:
        yield unfinished
        _flush(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to fill, and rename it to ``path`` when the block ends without an error.

    A folder at ``path`` is replaced. If the block raises, nothing is left of the new folder and
    the old one stays as it was. Folders above ``path`` are made.
    """
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(target)
    unfinished.mkdir()
    try:
        yield unfinished
        for written in unfinished.rglob("*"):
            if written.is_file():
                _flush(written)
        _replace_folder(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_text(path: str | os.PathLike[str], advice: str) -> str:
    """Return a user's text file, UTF-8 with or without a byte order mark.

    Raise InputError, which ends in ``advice``, if it cannot be read or is not text.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", advice) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8", advice) from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8; see ``new_file``."""
    with new_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file; see ``new_file``. Raise ValueError for NaN and infinity."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return a JSON document; NumPy's scalars and arrays become numbers and lists."""
    return json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n"


def sha256(path: str | os.PathLike[str]) -> bytes:
    """Return the SHA-256 of a file's bytes, 32 bytes; raise OSError if it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid4().hex}.partial")


def _flush(path: Path) -> None:
    """Wait until the file is on the disk: what is renamed must not turn out to be empty later."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _replace_folder(unfinished: Path, target: Path) -> None:
    """Rename; a folder cannot be renamed onto a full one, so the old one steps aside first."""
    if not target.exists():
        unfinished.rename(target)
        return
    old = target.with_name(f".{target.name}.{uuid4().hex}.old")
    target.rename(old)
    try:
        unfinished.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
