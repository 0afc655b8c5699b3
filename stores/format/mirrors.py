"""Folders that stand for a store elsewhere: what is written to them goes there as well."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Mirror(Protocol):
    """The other place of a folder's files. Every method raises StoreError if it cannot be done."""

    folder: Path

    def written(self, file: Path) -> None:
        """Remember a file that was written, and is not there yet."""

    def upload(self) -> None:
        """Bring there what was written, but for recorded checksums, which wait for ``commit``."""

    def publish(self, file: Path) -> None:
        """Bring one file there at once."""

    def commit(self, file: Path, content: bytes) -> None:
        """Bring all that was written there, then the file that makes it count."""

    def mark(self, file: Path) -> None:
        """Make an empty file there."""

    def unmark(self, file: Path) -> None:
        """Remove the file that ``mark`` made."""


#: By the real path of the folder.
_mirrors: dict[str, Mirror] = {}


def add_mirror(mirror: Mirror) -> None:
    """Let what is written to the mirror's folder go there from now on."""
    _mirrors[os.path.realpath(mirror.folder)] = mirror


def remove_mirror(mirror: Mirror) -> None:
    """Let what is written to the folder stay there."""
    _mirrors.pop(os.path.realpath(mirror.folder), None)


def mirrors() -> list[Mirror]:
    """Return all mirrors of this process."""
    return [*_mirrors.values()]


def mirror_of(file: Path) -> Mirror | None:
    """Return the mirror of the folder that a file is in, None for a store that is only local."""
    if not _mirrors:
        return None
    real = os.path.realpath(file.parent)
    inside = (m for folder, m in _mirrors.items() if f"{real}/".startswith(f"{folder}/"))
    return next(inside, None)
