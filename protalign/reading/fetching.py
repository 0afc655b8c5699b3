"""Copies of the files behind addresses, which exist only while they are read."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from protalign.core.errors import InputError
from protalign.core.urls import Url
from protalign.reading.content import (
    MAX_BYTES,
    BlockReader,
    TooLargeError,
    gunzip_blocks,
    system_problem,
)
from protalign.reading.processes import ordered_map
from protalign.reading.single import SourceResult, failed
from protalign.reading.sources import CONTAINERS, SourceFile

#: Files that are fetched at once.
_AT_ONCE = 8
#: Share of the disk's free bytes that one of these, or a file with many entries alone, may take.
_SHARE, _SHARE_ALONE = 1 / (4 * _AT_ONCE), 1 / 2
#: Seconds to wait for a connection, for the next bytes, and before each new attempt.
_CONNECT, _SILENCE, _PAUSES = 20.0, 60.0, (1.0, 4.0)
#: After these seconds, fewer bytes a second than this end it: a server may send one now and then.
_PATIENCE, _SLOWEST = 60.0, 1000.0
_BLOCK = 1 << 20
#: Answers of a server that may be others a moment later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
#: Answers with a whole file; others without an error have a part of it, or nothing.
_WHOLE = (200, 203)
_AGAIN = "run the same command again later"


class _FetchError(InputError):
    """A file cannot be fetched; ``passing`` if the next attempt may do."""

    def __init__(self, reason: str, advice: str, *, passing: bool = False) -> None:
        super().__init__(reason, advice)
        self.passing = passing


def fetched(sources: Sequence[SourceFile]) -> Iterator[list[SourceFile | SourceResult]]:
    """Fetch the files behind addresses, some at once; each lies on the disk until the next block.

    The copies are in the system's folder for temporary files.

    Parameters
    ----------
    sources : sequence of SourceFile
        Their paths are addresses.

    Yields
    ------
    list of SourceFile or SourceResult
        In order: a source with its ``copy``, or the failure of one that cannot be fetched. It has
        no SHA-256, since nothing is known of its content.
    """
    alone = [source for source in sources if source.kind in CONTAINERS]
    others = [source for source in sources if source.kind not in CONTAINERS]
    blocks = [others[at : at + _AT_ONCE] for at in range(0, len(others), _AT_ONCE)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for block in [*blocks, *([source] for source in alone)]:
            with TemporaryDirectory(prefix="protalign-") as folder:
                numbered = list(enumerate(block))
                yield list(ordered_map(threads, partial(_copied, Path(folder)), numbered, _AT_ONCE))


def _copied(folder: Path, numbered: tuple[int, SourceFile]) -> SourceFile | SourceResult:
    """Fetch one file; whatever goes wrong is its failure."""
    number, source = numbered
    copy = folder / f"{number}"
    try:
        assert isinstance(source.path, Url)
        free = shutil.disk_usage(folder).free
        if source.kind in CONTAINERS:
            limit = int(free * _SHARE_ALONE)
        else:
            limit = min(MAX_BYTES, int(free * _SHARE))
        _fetch(source.path, copy, limit)
    except TooLargeError as error:
        if error.limit < MAX_BYTES or source.kind in CONTAINERS:
            advice = "make room in the folder of temporary files, or set TMPDIR to another"
            return failed(source, b"", "the disk has too little room for its copy", advice)
        return failed(source, b"", error.reason, error.advice)
    except InputError as error:
        return failed(source, b"", error.reason, error.advice)
    except OSError as error:
        return failed(source, b"", f"its copy failed: {system_problem(error)}", "check the disk")
    return replace(source, copy=copy)


def _fetch(url: Url, copy: Path, limit: int) -> None:
    """Copy the file behind an address; try again if the problem may pass."""
    for pause in (*_PAUSES, None):
        try:
            _fetch_once(url, copy, limit)
            return
        except _FetchError as error:
            if pause is None or not error.passing:
                raise
            time.sleep(pause)


def _fetch_once(url: Url, copy: Path, limit: int) -> None:
    begin, size = time.monotonic(), 0
    handle = _opened(url)
    try:
        with copy.open("wb") as file:
            for block in _content(url, handle):
                size += len(block)
                if size > limit:
                    raise TooLargeError(limit)
                file.write(block)
                seconds = time.monotonic() - begin
                if seconds > _PATIENCE and size < seconds * _SLOWEST:
                    raise _FetchError("it comes too slowly", _AGAIN)
    finally:
        handle.close()


def _content(url: Url, handle: Any) -> Iterator[bytes]:
    """Return the blocks of the file; unpacked, if a web server packs it though it was not asked to.

    Some do with all that they keep packed, as object storage may. A file that is called .gz stays.
    """
    blocks = iter(partial(_next, handle), b"")
    if url.scheme not in ("http", "https"):
        return blocks
    answer = handle.r
    if answer.status not in _WHOLE:
        raise _FetchError(f"the server answered with status {answer.status}", "check the address")
    packed = answer.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip")
    if packed and not url.name.lower().endswith((".gz", ".tgz")):
        return gunzip_blocks(io.BufferedReader(BlockReader(blocks)))
    return blocks


def _opened(url: Url) -> Any:
    """Open an address for reading, once through and without a cache."""
    import fsspec  # slow to import, seldom needed

    http = url.scheme in ("http", "https")
    try:
        if not http:
            system, path = fsspec.core.url_to_fs(url.whole)
            return system.open(path, "rb")
        system = fsspec.filesystem(url.scheme, encoded=url.whole.isascii(), **_http_options())
        # A size makes fsspec ask for none; without blocks it reads the one answer as it comes.
        return system.open(url.whole, "rb", block_size=0, size=1)
    except ImportError:
        from fsspec.registry import known_implementations

        known = known_implementations.get(url.scheme, {})
        advice = "pip install 'protalign[remote]'" if http else str(known.get("err", "install it"))
        raise InputError(
            f"the library that opens {url.scheme}:// is not installed", advice
        ) from None
    except Exception as error:
        raise _problem(error) from None


def _http_options() -> dict[str, Any]:
    """Return fsspec's options for a web server: bytes as they are, time-outs, the proxy if any."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
    # A .gz file must not come unpacked, and no file packed.
    return {
        "client_kwargs": {"timeout": timeout, "auto_decompress": False, "trust_env": True},
        "headers": {"Accept-Encoding": "identity"},
    }


def _next(handle: Any) -> bytes:
    try:
        return bytes(handle.read(_BLOCK))
    except Exception as error:
        raise _problem(error) from None


def _problem(error: Exception) -> _FetchError:
    """Return the failure for an error of fsspec's libraries, whose texts may hold secrets."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError):
        return _FetchError("it does not exist there", "check the address")
    if isinstance(error, PermissionError) or status in (401, 403):
        return _FetchError("it may not be read there", "check the address and your credentials")
    if isinstance(status, int) and status > 0:
        reason = f"the server answered with error {status}"
        return _FetchError(reason, _AGAIN, passing=status in _PASSING)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TimeoutError" in kinds:  # fsspec's, asyncio's, aiohttp's
        return _FetchError("the server does not answer in time", _AGAIN, passing=True)
    if kinds & {"RedirectClientError", "InvalidURL", "TooManyRedirects"}:
        return _FetchError("the server leads to something that is no web address", "check it")
    if "ClientPayloadError" in kinds:
        return _FetchError("the connection ended before the file did", _AGAIN, passing=True)
    if kinds & {"ClientConnectionError", "ConnectionError"}:
        return _FetchError("the server cannot be reached", _AGAIN, passing=True)
    return _FetchError(f"fetching it failed ({type(error).__name__})", "check the address")
