"""Write to a store in object storage, by way of a folder here that stands for it.

Writers work on the folder as on any local store. What they write goes to the service when they
would wait for the disk: chunks and descriptions first, then the root's zarr.json, whose request
names the version that it replaces. So do all others, so that a request which arrives twice, or
comes from a writer that has lost its lease, changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from protalign.core.errors import InputError, ProtAlignError, StoreError, WriteError
from protalign.core.untrusted import JSON_BYTES
from protalign.stores.format.advice import RESTORE
from protalign.stores.format.checksums import CHECKSUM_BYTES, CHECKSUM_FILE, ENTRY_BYTES, entry_of
from protalign.stores.format.disk import COMMIT_MARK, chunk_number
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.lock import StoreLock
from protalign.stores.format.metadata import METADATA_BYTES, groups_of
from protalign.stores.format.mirrors import add_mirror, remove_mirror
from protalign.stores.format.state import StoreState, is_filled_by_tasks, load_state
from protalign.stores.objects.client import Objects, Timeouts, Version
from protalign.stores.objects.lease import LOCK_KEY, Lease

#: Requests that are made at once.
REQUESTS_AT_ONCE = 8
#: Environment variable: the folder in which folders that stand for stores are made.
SPOOL = "PROTALIGN_SPOOL"

_ROOT = "zarr.json"


@contextmanager
def spooled(url: str, timeouts: Timeouts | None = None) -> Iterator[Path]:
    """Give a folder that stands for a store in object storage; what is committed there goes to it.

    Only what writers need is brought here: the index, but of the embeddings no more than marks.

    Parameters
    ----------
    url : str
        The store's address, such as ``s3://bucket/store.zarr``. It may not exist yet.
    timeouts : Timeouts, optional
        How long an answer is waited for. Default: as ``Timeouts`` has it.

    Raises
    ------
    StoreError
        Another process writes to it, the service cannot be reached or makes no conditional
        requests, or the store is damaged. Errors inside the block name the URL, not the folder.
    """
    objects = Objects(url, timeouts or Timeouts())
    folder = _folder_of(url)
    _make_private(folder.parent)
    _make_private(folder)
    guard = StoreLock(folder.parent)
    with _named(folder, objects.url):
        guard.acquire()
        try:
            lease = Lease(objects)
            lease.acquire()
            spool = Spool(folder, objects, lease)
            try:
                spool.download()
                add_mirror(spool)
                try:
                    yield folder
                finally:
                    remove_mirror(spool)
            except BaseException:
                with suppress(OSError):
                    spool.clear()
                raise
            finally:
                lease.release(remove=spool.is_new)
        finally:
            guard.release()
    shutil.rmtree(folder.parent, ignore_errors=True)


def _folder_of(url: str) -> Path:
    """Return the folder that stands for a URL: one process of this machine uses it at a time."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(os.environ.get(SPOOL) or Path(cache) / "protalign" / "uploads")
    return base.absolute() / hashlib.sha256(url.encode()).hexdigest()[:24] / "store.zarr"


def _make_private(folder: Path) -> None:
    """Make a folder that others cannot read; raise StoreError if it is not one, or another's.

    What is in it is removed, so it must not be a link that somebody has put there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.lstat()
    except OSError as error:
        fault = f"it cannot be made ({error.strerror})"
    else:
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return
        fault = "it is a link, or belongs to another user"
    raise StoreError(
        f"{folder}: {fault}; name another folder for unfinished uploads with {SPOOL}"
    ) from None


@contextmanager
def _named(folder: Path, url: str) -> Iterator[None]:
    """Let errors name a URL in place of the folder that stands for it."""
    try:
        yield
    except ProtAlignError as error:
        names = {str(folder): url, str(folder.parent): url}
        if isinstance(error, InputError):
            error.reason, error.advice = (
                _replaced(text, names) for text in (error.reason, error.advice)
            )
        error.args = tuple(
            _replaced(each, names) if isinstance(each, str) else each for each in error.args
        )
        raise


def _replaced(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


class Spool:
    """A folder that stands for a store in object storage.

    Parameters
    ----------
    folder : Path
        The folder.
    objects : Objects
        The store's objects.
    lease : Lease
        The right to write them.
    """

    def __init__(self, folder: Path, objects: Objects, lease: Lease) -> None:
        self.folder = folder
        self._real = os.path.realpath(folder)
        self._objects = objects
        self._lease = lease
        self._listed: dict[str, int] = {}
        self._versions: dict[str, Version] = {}
        self._waiting: set[str] = set()
        self._sending = threading.Lock()
        self._failure: StoreError | None = None

    @property
    def is_new(self) -> bool:
        """Whether no store is at the URL, also not another program's files."""
        return not self._versions and not set(self._listed) - {LOCK_KEY}

    # -- from the service ------------------------------------------------------------------------

    def download(self) -> None:
        """Bring here what a writer needs: all but embeddings, and marks of tasks long done."""
        self.clear()
        self._listed = dict(self._objects.sizes())
        if _ROOT not in self._listed:
            others = [key for key in self._listed if key != LOCK_KEY and key != COMMIT_MARK]
            if others:
                raise StoreError(
                    f"{self._objects.url}: it exists and is not a store; name a new address, or "
                    "one that `protalign embed` made"
                )
            return
        self._fetch_all({_ROOT: JSON_BYTES})
        state = load_state(self.folder)
        specs = state.arrays()
        wanted = {COMMIT_MARK: 0}
        wanted |= {f"{name}/{_ROOT}": METADATA_BYTES for name in (*groups_of(specs), *specs)}
        wanted |= {f"{name}/{CHECKSUM_FILE}": JSON_BYTES for name in specs}
        numbers: dict[str, list[int]] = {name: [] for name in specs}
        for key in self._listed:
            name, _, file = key.rpartition("/")
            number = chunk_number(file)
            if name in specs and number is not None and specs[name].chunk_key(number) == file:
                numbers[name].append(number)
        for name, spec in specs.items():
            first = _first_needed(name, state)
            size = spec.chunk_bytes + CHECKSUM_BYTES
            wanted |= {
                f"{name}/{spec.chunk_key(number)}": size
                for number in numbers[name]
                if number >= first
            }
        self._fetch_all({key: most for key, most in wanted.items() if key in self._listed})
        for name in specs:
            if name.startswith("encoders/") and name.endswith("/values"):
                self._fetch_checksums(name, specs[name], numbers[name])

    def clear(self) -> None:
        """Remove what an earlier process left, but for its marks of tasks under way."""
        for path in self.folder.iterdir():
            if path.name != ".running":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _fetch_all(self, wanted: dict[str, int]) -> None:
        """Bring objects here, each of at most so many bytes."""
        for key, most in wanted.items():
            if self._listed[key] > most:
                raise StoreError(
                    f"{self._objects.url}: the store is damaged, {key} has {self._listed[key]} "
                    f"bytes instead of at most {most}; {RESTORE}"
                )
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(self._fetch, wanted))

    def _fetch(self, key: str) -> None:
        content, self._versions[key] = self._objects.get(key)
        keep(self.folder / key, content, 0, len(content))

    def _fetch_checksums(self, name: str, spec: ArraySpec, numbers: list[int]) -> None:
        """Bring the last bytes of embeddings' chunks that have no recorded checksum yet."""
        file = self.folder / name / CHECKSUM_FILE
        recorded = file.read_bytes() if file.exists() else b""
        empty = (b"", bytes(ENTRY_BYTES))

        def fetch(number: int) -> None:
            key = f"{name}/{spec.chunk_key(number)}"
            if self._listed[key] == spec.chunk_bytes + CHECKSUM_BYTES:
                size = self._listed[key]
                last, self._versions[key] = self._objects.get(key, spec.chunk_bytes, size)
                keep(self.folder / key, last, size - len(last), size)

        missing = [n for n in numbers if entry_of(recorded, n) in empty]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(fetch, missing))

    # -- to the service --------------------------------------------------------------------------

    def written(self, file: Path) -> None:
        """Remember a file that was written."""
        self._waiting.add(self._key(file))

    def upload(self) -> None:
        """Send what was written, but for recorded checksums, which wait for ``commit``."""
        self._send(lambda key: not key.endswith(f"/{CHECKSUM_FILE}"))

    def publish(self, file: Path) -> None:
        """Send one file at once."""
        wanted = self._key(file)
        self._send(lambda key: key == wanted)

    def commit(self, file: Path, content: bytes) -> None:
        """Send all that was written, then the file that makes it count."""
        self._send(lambda key: True)
        with self._sending:
            self._put(self._key(file), content)

    def mark(self, file: Path) -> None:
        """Make an empty object."""
        with self._sending:
            if self._key(file) not in self._versions:
                self._put(self._key(file), b"")

    def unmark(self, file: Path) -> None:
        """Remove the object that ``mark`` made."""
        with self._sending:
            if self._versions.pop(self._key(file), None) is not None:
                self._lease.check()
                self._objects.delete(self._key(file))
                self._listed.pop(self._key(file), None)

    def _key(self, file: Path) -> str:
        return os.path.relpath(os.path.join(os.path.realpath(file.parent), file.name), self._real)  # noqa: PTH118

    def _send(self, which: Callable[[str], bool]) -> None:
        """Send the waiting files that a function chooses; one thread at a time.

        A thread that waits for its turn finds its files sent: what depends on them comes after.
        """
        with self._sending:
            keys = [key for key in [*self._waiting] if which(key)]
            self._waiting.difference_update(keys)
            if keys:
                with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                    list(pool.map(self._send_file, keys))

    def _send_file(self, key: str) -> None:
        file = self.folder / key
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # removed since
            return
        self._put(key, content)
        name, _, last = key.rpartition("/")
        if is_filled_by_tasks(name) and name.endswith("/values") and chunk_number(last) is not None:
            end = len(content) - CHECKSUM_BYTES
            keep(file, content[end:], end, len(content))

    def _put(self, key: str, content: bytes) -> None:
        """Send an object in place of the version that is known; nothing more after a failure."""
        if self._failure is not None:
            raise self._failure
        try:
            self._lease.check()
            known = self._versions.get(key)
            if known is None and key in self._listed:
                known = self._objects.head(key)
            self._versions[key] = self._objects.put(key, content, known)
        except StoreError as error:
            self._failure = error
            raise


def _first_needed(name: str, state: StoreState) -> int:
    """Return the first chunk of an array that a writer needs."""
    spec = state.arrays()[name]
    if not is_filled_by_tasks(name):
        return 0
    if name.endswith("/done"):
        return state.encoders[name.split("/")[1]].tasks_done
    return spec.chunks(state.rows(name))


def keep(file: Path, content: bytes, offset: int, size: int) -> None:
    """Make a file of this size with bytes at an offset of it; the rest takes no room.

    Raise WriteError if it cannot be written.
    """
    unfinished = file.with_name(f"{file.name}.end.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as handle:
            handle.truncate(size)
            handle.seek(offset)
            handle.write(content)
        unfinished.replace(file)
    except OSError as error:
        raise WriteError(
            f"{file}: it cannot be written ({error.strerror}); make some room, then run the same "
            "command again"
        ) from None
