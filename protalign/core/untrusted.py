"""Files that anybody may have made: only regular ones are opened, and what is read has limits."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from protalign.core.errors import InputError

#: Bytes of a JSON document, at most; one that is written by this package is far smaller.
JSON_BYTES = 256 * 2**20
#: Objects and lists inside one another, at most.
JSON_DEPTH = 32
#: Values, at most: three bytes of a document can become seventy of memory.
JSON_VALUES = 2_000_000

#: A string of a JSON document, which may hold brackets, or a bracket.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


class NotRegularError(OSError):
    """A path is a folder, a pipe, a device or a socket, or a link that must not be followed."""

    def __init__(self) -> None:
        super().__init__("it is not a regular file")


@contextmanager
def open_regular(
    path: str | os.PathLike[str], *, links: bool = True, pipes: bool = False
) -> Iterator[int]:
    """Give the descriptor of a regular file, open for reading; a pipe does not make it wait.

    Parameters
    ----------
    path : str or path
        The file.
    links : bool
        Whether the path itself may be a link. The folders above it are not looked at.
    pipes : bool
        Whether the path may be a pipe. One that nobody writes to has no bytes.

    Raises
    ------
    OSError
        The file cannot be opened, or is not a regular one (``NotRegularError``).
    """
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except OSError:
        if not links and Path(path).is_symlink():
            raise NotRegularError from None
        raise
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
            raise NotRegularError
        yield handle
    finally:
        os.close(handle)


def read_bytes(
    path: str | os.PathLike[str],
    advice: str,
    *,
    most: int = JSON_BYTES,
    links: bool = True,
    pipes: bool = False,
) -> bytes:
    """Return a regular file's bytes.

    Parameters
    ----------
    path : str or path
        The file.
    advice : str
        The end of the error's line.
    most : int
        Bytes that it may have. No more than that is read.
    links : bool
        Whether the path itself may be a link.
    pipes : bool
        Whether the path may be a pipe; it is read to its end.

    Raises
    ------
    InputError
        The file is missing, cannot be read, is not a regular one, or is larger.
    """
    try:
        with open_regular(path, links=links, pipes=pipes) as handle:
            begin = _first_bytes(handle) if pipes else b""
            size = os.fstat(handle).st_size
            if size > most:
                raise _too_large(path, most, advice)
            with open(handle, "rb", closefd=False) as file:
                data = begin + file.read(most + 1 - len(begin))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})", advice) from None
    if len(data) > most:
        raise _too_large(path, most, advice)
    return data


def _first_bytes(handle: int) -> bytes:
    """Return some bytes of a file or pipe, and wait for more from now on.

    A pipe without a writer has none, and nobody waits for one.
    """
    try:
        begin = os.read(handle, 65536)
    except BlockingIOError:  # its writer has not written yet
        begin = b""
    else:
        if not begin:
            return begin
    os.set_blocking(handle, True)
    return begin


def _too_large(path: object, most: int, advice: str) -> InputError:
    return InputError(f"{path}: more than {most:,} bytes, which no such file has", advice)


def read_json(
    path: str | os.PathLike[str],
    advice: str,
    *,
    most: int = JSON_BYTES,
    depth: int = JSON_DEPTH,
    links: bool = True,
) -> Any:
    """Return the value of a JSON file that anybody may have made.

    Parameters
    ----------
    path : str or path
        The file.
    advice : str
        The end of the error's line.
    most, depth : int
        Its bytes, and its objects and lists inside one another, at most.
    links : bool
        Whether the path itself may be a link.

    Raises
    ------
    InputError
        The file cannot be read, or ``parse_json`` refuses it.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "config.json"
    >>> _ = file.write_text('{"dim": 320}')
    >>> read_json(file, "save the model again")
    {'dim': 320}
    """
    data = read_bytes(path, advice, most=most, links=links)
    return parse_json(data, str(path), advice, most=most, depth=depth)


def parse_json(
    data: bytes | str, name: str, advice: str, *, most: int = JSON_BYTES, depth: int = JSON_DEPTH
) -> Any:
    """Return the value of a JSON document that anybody may have made.

    Beside what is no JSON, these are refused: a key that an object has twice, NaN and infinity,
    numbers too large for a float, half of a surrogate pair, and what is nested deeper, is longer or
    has more values than the limits. All but the first few are looked for before a value is made.

    Parameters
    ----------
    data : bytes or str
        The document, in UTF-8.
    name : str
        The document's name in the error.
    advice : str
        The end of the error's line.
    most, depth : int
        Its bytes, and its objects and lists inside one another, at most.

    Raises
    ------
    InputError
        The document is refused.

    Examples
    --------
    >>> parse_json('{"dim": 320, "layers": [6]}', "config.json", "save the model again")
    {'dim': 320, 'layers': [6]}
    >>> parse_json("[" * 100_000, "config.json", "save the model again")
    Traceback (most recent call last):
    protalign.core.errors.InputError: config.json: nested deeper than 32; save the model again
    """
    encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(encoded) > most:
        raise InputError(f"{name}: more than {most:,} bytes, which no such file has", advice)
    # Each value but the first follows a comma, a bracket or a colon; texts may hold more of them.
    if sum(map(encoded.count, (b",", b"[", b"{", b":"))) > JSON_VALUES:
        raise InputError(
            f"{name}: more than {JSON_VALUES:,} values, which no such file has", advice
        )
    if _deeper(encoded, depth):
        raise InputError(f"{name}: nested deeper than {depth}", advice)
    try:
        value = json.loads(
            encoded.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if rb"\ud" in encoded.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:  # UnicodeError and JSONDecodeError too
        raise InputError(f"{name}: not valid JSON ({_plain_words(error)})", advice) from None
    return value


def _deeper(data: bytes, limit: int) -> bool:
    """Return whether objects and lists are nested deeper than the limit."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        first = data[match.start()]
        if first in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _plain_words(error: Exception) -> str:
    """Return what is wrong in one line, without bytes of the document."""
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in line {error.lineno}"
    return str(error) if len(str(error)) < 100 else type(error).__name__


def whole_number(value: object, least: int, most: int) -> int:
    """Return a value of a document; raise ValueError unless it is a whole number in the limits.

    Examples
    --------
    >>> whole_number(320, 1, 65536)
    320
    >>> whole_number(True, 0, 1)
    Traceback (most recent call last):
    ValueError: True is not a whole number from 0 to 1
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:60]} is not a whole number from {least} to {most}")
    return value


def folder_inside(root: str | os.PathLike[str], *names: str) -> bool:
    """Return whether each name is a real folder in the one before it, not a link out of the root.

    The root itself may be a link: it is the user's.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "a" / "b").mkdir(parents=True)
    >>> (root / "out").symlink_to("/")
    >>> folder_inside(root, "a", "b"), folder_inside(root, "out", "tmp")
    (True, False)
    """
    path = Path(root)
    for name in names:
        path = path / name
        try:
            mode = path.lstat().st_mode
        except OSError:
            return False
        if not stat.S_ISDIR(mode) or name in ("", ".", ".."):
            return False
    return True
