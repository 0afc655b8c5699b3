"""Addresses of files on other machines, as text that shows no secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from protalign.core.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z0-9+.-]+)*://")
#: Schemes whose files are fetched; others of fsspec's open files of this machine, or wrap others.
SCHEMES = (
    *("http", "https", "ftp", "sftp", "s3", "gs", "gcs", "az", "abfs", "abfss", "adl"),
    *("hdfs", "webhdfs", "smb", "hf", "oss", "oci", "memory"),
)
#: Most characters of an address.
_LONGEST = 4096


@dataclass(frozen=True, slots=True, order=True)
class Url:
    """An address of a file.

    As text it has no user, no password, and nothing from ``?`` or ``#`` on, where signatures and
    tokens stand. Only ``whole`` has them: it opens the file, and is neither printed nor stored.

    Attributes
    ----------
    text : str
        The address without secrets.
    whole : str
        The address as it was given.

    Examples
    --------
    >>> url = parse_url("https://me:secret@example.org/a/1abc.cif.gz?signature=xyz")
    >>> str(url), url.name, url.scheme
    ('https://example.org/a/1abc.cif.gz', '1abc.cif.gz', 'https')
    """

    text: str
    whole: str = field(repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def scheme(self) -> str:
        """What stands before ``://``, in small letters."""
        return self.text.partition("://")[0]

    @property
    def name(self) -> str:
        """The name of the file: the last part of the path."""
        return unquote(self.text).rpartition("/")[2]


def is_url(text: str) -> bool:
    """Return whether a text is an address and not a path: it begins with a scheme and ``://``.

    Examples
    --------
    >>> is_url("s3://bucket/1abc.cif"), is_url("folder/1abc.cif")
    (True, False)
    """
    return _URL.match(text) is not None


def parse_url(text: str) -> Url | Path:
    """Return an address, or the path that a ``file://`` address names.

    Parameters
    ----------
    text : str
        An address, for which ``is_url`` is true.

    Raises
    ------
    InputError
        It is not complete or too long, has odd characters, or its scheme is not one of those that
        are read. The error shows no secret.

    Examples
    --------
    >>> parse_url("file:///data/1abc.cif").as_posix()
    '/data/1abc.cif'
    >>> parse_url("simplecache::https://example.org/1abc.cif")
    Traceback (most recent call last):
    protalign.core.errors.InputError: an address with "simplecache::": not read; give the file's own
    """
    if chained := re.match(r"[A-Za-z0-9+.-]{1,20}::", text):
        raise InputError(f'an address with "{chained[0]}": not read', "give the file's own")
    unchained = text.lower().startswith(("http://", "https://", "file://"))
    if not unchained and "::" in re.sub(r"\[[^\]/]*\]", "", text):  # fsspec would chain
        raise InputError('an address with "::": not read', "give the file's own")
    if len(text) > _LONGEST or not text.isprintable() or " " in text:
        raise InputError(
            f"an address: it has more than {_LONGEST:,} characters, spaces or odd characters",
            "write spaces as %20",
        )
    scheme = text.partition("://")[0].lower()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InputError("an address: its host or port is not valid", "check it") from None
    if scheme == "file":
        if host not in ("", "localhost"):
            raise InputError("a file:// address of another machine: not read", "mount its folder")
        return Path(unquote(parts.path))
    if scheme not in SCHEMES:
        raise InputError(
            f"an address with {scheme[:20]}://: not read", f"readable are {', '.join(SCHEMES)}"
        )
    host = f"[{host}]" if ":" in host else host
    place = host if port is None else f"{host}:{port}"
    if parts.path.strip("/") == "" or (place == "" and scheme not in ("memory", "hdfs")):
        raise InputError(f"{scheme}://{place}: it names no file", "give the address of a file")
    return Url(f"{scheme}://{place}{parts.path}", text)
