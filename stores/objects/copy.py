"""A copy here of a store in object storage: its embeddings take no room until they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from protalign.core.errors import StoreError
from protalign.core.untrusted import JSON_BYTES
from protalign.stores.format.checksums import CHECKSUM_BYTES, CHECKSUM_FILE
from protalign.stores.format.disk import COMMIT_MARK, chunk_number
from protalign.stores.format.state import is_filled_by_tasks, load_state
from protalign.stores.objects.client import MissingObjectError, Objects, shown
from protalign.stores.objects.spool import REQUESTS_AT_ONCE, keep


class StoreCopy:
    """A folder with a store's files; those of embeddings' chunks have their size and no content.

    Parameters
    ----------
    folder : Path
        An empty folder.
    objects : Objects
        The store's objects.
    """

    def __init__(self, folder: Path, objects: Objects) -> None:
        self.folder = folder
        self._objects = objects
        self._empty: set[str] = set()

    def fill(self) -> None:
        """Copy the store; raise StoreError if it is missing."""
        listed = dict(self._objects.sizes())
        if "zarr.json" not in listed:
            raise StoreError(
                f"{self._objects.url}: it is not a ProtAlign store; name one that `protalign "
                "embed` made"
            )
        self._get("zarr.json")
        specs = load_state(self.folder).arrays()
        folders = {"/".join(name.split("/")[:depth]) for name in specs for depth in range(1, 9)}
        wanted = [COMMIT_MARK] if COMMIT_MARK in listed else []
        for key, size in listed.items():
            name, _, file = key.rpartition("/")
            if file in ("zarr.json", CHECKSUM_FILE) and name in folders and size <= JSON_BYTES:
                wanted.append(key)
            elif chunk_number(file) is not None and name in specs:
                whole = size == specs[name].chunk_bytes + CHECKSUM_BYTES
                if whole and not (is_filled_by_tasks(name) and name.endswith("/values")):
                    wanted.append(key)
                else:
                    self._leave_empty(key, size, whole)
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(self._get, wanted))

    def _get(self, key: str) -> None:
        try:
            content, _ = self._objects.get(key)
        except MissingObjectError:  # a writer has just removed it
            return
        keep(self.folder / key, content, 0, len(content))

    def _leave_empty(self, key: str, size: int, whole: bool) -> None:
        """Make a file of an object's size that takes no room; one of a wrong size stays so."""
        keep(self.folder / key, b"", 0, size)
        if whole:
            self._empty.add(key)

    @contextmanager
    def fetched(self, key: str) -> Iterator[None]:
        """Bring an embeddings' chunk here, for as long as it is read."""
        if key not in self._empty:
            yield
            return
        self._get(key)
        try:
            yield
        finally:
            file = self.folder / key
            size = file.stat().st_size
            keep(file, b"", 0, size)  # a new file: whoever has the old one mapped keeps its bytes


@contextmanager
def copied(url: str) -> Iterator[StoreCopy]:
    """Give a copy of a store in object storage, and remove it at the end."""
    objects = Objects(url)
    with tempfile.TemporaryDirectory(prefix="protalign-") as folder:
        copy = StoreCopy(Path(folder).resolve(), objects)
        try:
            copy.fill()
            yield copy
        except StoreError as error:
            error.args = (str(error).replace(str(copy.folder), shown(url)),)
            raise
