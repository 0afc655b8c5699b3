"""Which files are proteins: folders searched, PDBbind's layout known, each file once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protalign.core.errors import Failure
from protalign.reading.content import display_path

Kind = Literal["pdb", "mmcif", "bcif", "fasta"]

_KINDS: dict[str, Kind] = {
    ".pdb": "pdb",
    ".ent": "pdb",
    ".cif": "mmcif",
    ".mmcif": "mmcif",
    ".bcif": "bcif",
    ".fasta": "fasta",
    ".fa": "fasta",
    ".faa": "fasta",
    ".fas": "fasta",
}
READABLE = ", ".join([*_KINDS, "and each with .gz"])
_PDBBIND_SUFFIX = "_protein"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes
    ----------
    path : as it was given, or found below a folder that was given.
    id : the id of its entry: the file's name without its suffixes; in PDBbind's layout the
        folder's name. A FASTA file's records have ids of their own.
    kind : the format that its name says.
    """

    path: Path
    id: str
    kind: Kind


def split_name(name: str) -> tuple[str, Kind | None]:
    """A file's name without its known suffixes, and the kind these say: ("1abc", "pdb")."""
    stem = name[:-3] if name.lower().endswith(".gz") else name
    kind: Kind | None = None
    while (suffix := Path(stem).suffix.lower()) in _KINDS:
        kind = kind or _KINDS[suffix]
        stem = stem[: -len(suffix)]
    return stem, kind


def is_id(text: str) -> bool:
    """Whether the text can be an entry's id: printable, not empty, without white space."""
    return text.isprintable() and text != "" and not any(map(str.isspace, text))


def find_sources(paths: Sequence[Path]) -> tuple[list[SourceFile], list[Failure]]:
    """Every protein file among the paths and below the folders among them, sorted by path.

    Folders are searched recursively, each once, so that a loop of links ends; hidden files and
    folders and files of other kinds are passed over. Where a folder ``{id}`` holds
    ``{id}_protein.pdb``, as PDBbind's do, nothing else in it is taken. A file that is given
    twice counts once. Failures: a path that is missing, a file given by name whose suffix is
    not known, a folder with nothing to read, a name that makes no id, and a second structure
    file with the id of a first.
    """
    failures: list[Failure] = []
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for path in sorted(map(Path, paths)):
        if path.is_dir():
            before = len(visited)
            below = list(_search(path, visited, failures))
            if not below and len(visited) > before:
                failures.append(_nothing_below(path))
            found += below
        elif problem := _problem_of(path):
            failures.append(problem)
        else:
            found.append(path)
    return _unique_sources(found, failures), failures


def _problem_of(path: Path) -> Failure | None:
    file = display_path(path)
    if not path.exists():
        return Failure("", file, "there is no such file or folder", "check the path")
    if split_name(path.name)[1] is None:
        return Failure("", file, "its suffix is not known", f"readable are {READABLE}")
    return None


def _nothing_below(path: Path) -> Failure:
    return Failure(
        "", display_path(path), "the folder holds no protein file", f"readable are {READABLE}"
    )


def _search(folder: Path, visited: set[tuple[int, int]], failures: list[Failure]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        reason = f"the folder cannot be read: {(error.strerror or str(error)).lower()}"
        failures.append(Failure("", display_path(folder), reason, "check its permissions"))
        return
    place = (status.st_dev, status.st_ino)
    if place in visited:
        return
    visited.add(place)
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    protein = [entry for entry in shown if split_name(entry.name)[0] == _protein_of(folder)]
    protein = [entry for entry in protein if _takes(entry)]
    for entry in protein or shown:
        if entry.is_dir():
            yield from _search(folder / entry.name, visited, failures)
        elif _takes(entry):
            yield folder / entry.name


def _takes(entry: os.DirEntry[str]) -> bool:
    # A broken link is taken, so that reading it gives a line in the failures.
    if split_name(entry.name)[1] is None:
        return False
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())


def _protein_of(folder: Path) -> str:
    return _folder_name(folder) + _PDBBIND_SUFFIX


def _folder_name(folder: Path) -> str:
    # "." and "" have a name only once they are made absolute.
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def _unique_sources(found: list[Path], failures: list[Failure]) -> list[SourceFile]:
    sources: list[SourceFile] = []
    places: set[tuple[Path, str]] = set()
    first_of: dict[str, Path] = {}
    folders: dict[Path, Path] = {}
    for path in sorted(found):
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        folder = folders[path.parent]
        if (folder, path.name) in places:
            continue
        places.add((folder, path.name))
        id, kind = split_name(path.name)
        assert kind is not None
        if id == folder.name + _PDBBIND_SUFFIX:
            id = folder.name
        if kind != "fasta":
            if problem := _id_problem(id, path, first_of):
                failures.append(problem)
                continue
            first_of[id] = path
        sources.append(SourceFile(path, id, kind))
    return sources


def _id_problem(id: str, path: Path, first_of: dict[str, Path]) -> Failure | None:
    file = display_path(path)
    if not is_id(id):
        reason = "its name makes no id: it is empty or has white space or unprintable characters"
        return Failure("", file, reason, "rename the file")
    if id in first_of:
        reason = f"the id {id} is taken by {display_path(first_of[id])}"
        return Failure(id, file, reason, "rename one of the two, or leave one out")
    return None
