"""The protein files below folders: PDBbind's layout is known, each file counts once."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protalign.core.errors import Failure
from protalign.core.files import has_schema
from protalign.core.paths import path_text
from protalign.core.urls import Url
from protalign.reading.content import system_problem

Kind = Literal["pdb", "mmcif", "bcif", "foldcomp", "fasta", "tar", "database"]

_KINDS: dict[str, Kind] = {
    ".pdb": "pdb",
    ".ent": "pdb",
    ".cif": "mmcif",
    ".mmcif": "mmcif",
    ".bcif": "bcif",
    ".fcz": "foldcomp",
    ".fasta": "fasta",
    ".fa": "fasta",
    ".faa": "fasta",
    ".fas": "fasta",
    ".tar": "tar",
    ".tgz": "tar",
}
#: Files with many entries, which have ids of their own.
CONTAINERS = ("fasta", "tar", "database")
#: Those of them that belong to every part of what was given, and whose entries are dealt out.
SHARED = ("tar", "database")
#: Files that a library restores which may end the process.
IN_OWN_PROCESS = ("foldcomp", "database")
_READABLE = f"readable are {', '.join(_KINDS)}, each also with .gz; archives if they are named"
#: Advice for a file that is not a structure by its name, or whose reading may end the process.
_STRUCTURES = [end for end, kind in _KINDS.items() if kind in ("pdb", "mmcif", "bcif")]
STRUCTURE_SUFFIXES = f"readable are {', '.join(_STRUCTURES)}, each also with .gz"
PDBBIND_SUFFIX = "_protein"
#: The wwPDB's own names of PDB files: pdb1abc.ent is the entry 1abc.
_WWPDB_NAME = re.compile(r"pdb([0-9][a-z0-9]{3})\.ent", re.IGNORECASE)


#: Folders with one of these documents hold structures that ProtAlign wrote, to be looked at.
_WRITTEN = {
    "superposed.json": "protalign superposed hits",
    "alignments.json": "protalign alignments",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes
    ----------
    path : Path or Url
        As it was given, or found below a folder that was given.
    id : str
        The id of its entry: the file's name without its suffixes, 1abc for the wwPDB's
        pdb1abc.ent; in PDBbind's layout the folder's name. A FASTA file's records and an archive's
        files have ids of their own.
    kind : "pdb", "mmcif", "bcif", "foldcomp", "fasta", "tar" or "database"
        The format, by the file's name; a Foldcomp database by the index beside it.
    copy : Path, optional
        Where the bytes of an address lie while they are read.
    part : (int, int), optional
        Of a tar archive or a database, the number of the part to read, from 1, and how many parts
        there are.

    Examples
    --------
    >>> SourceFile(Path("pdbbind/1a30/1a30_protein.pdb.gz"), id="1a30", kind="pdb").id
    '1a30'
    """

    path: Path | Url
    id: str
    kind: Kind
    copy: Path | None = None
    part: tuple[int, int] | None = None

    def deals_out(self, id: str) -> bool:
        """Return whether an entry of this archive or database belongs to the part to read.

        The SHA-256 of its id decides, so that a file's place in the archive does not count.

        Parameters
        ----------
        id : str
            The entry's id: its name without suffixes and folders.

        Examples
        --------
        >>> parts = [SourceFile(Path("a.tar"), "a", "tar", part=(n, 3)) for n in (1, 2, 3)]
        >>> [part.deals_out("1bpi_A") for part in parts].count(True)
        1
        """
        return self.part is None or _is_of_part(id, *self.part)

    @property
    def local(self) -> Path:
        """The path to open: the file's own, or the copy of an address."""
        if self.copy is not None:
            return self.copy
        assert isinstance(self.path, Path), "an address that was not fetched"
        return self.path


def split_name(name: str) -> tuple[str, Kind | None]:
    """Return a file's name without its known suffixes, and the kind that they stand for.

    Examples
    --------
    >>> split_name("1abc.PDB.gz"), split_name("notes.txt")
    (('1abc', 'pdb'), ('notes.txt', None))
    """
    stem = name[:-3] if name.lower().endswith(".gz") else name
    if wwpdb := _WWPDB_NAME.fullmatch(stem):
        return wwpdb[1], "pdb"
    kind: Kind | None = None
    while (suffix := Path(stem).suffix.lower()) in _KINDS:
        kind = kind or _KINDS[suffix]
        stem = stem[: -len(suffix)]
    return stem, kind


def is_id(text: str) -> bool:
    """Return whether the text can be an entry's id: printable, not empty, without white space."""
    return text.isprintable() and text != "" and not any(map(str.isspace, text))


def find_sources(paths: Sequence[Path | Url]) -> tuple[list[SourceFile], list[Failure]]:
    """Find the protein files among the paths and below the folders among them.

    Folders are searched recursively, each once, so that a loop of links ends. Hidden files and
    folders and files of other kinds are passed over, and so are archives: what a folder has may
    have come out of them. So are folders of superposed hits and of alignments, unless they are
    given themselves. If a folder ``{id}`` holds
    ``{id}_protein.pdb``, as PDBbind's do, nothing else in it is taken. A file that is given
    twice counts once.

    Parameters
    ----------
    paths : sequence of Path or Url
        Files, folders, and addresses of files, which nobody asks yet whether they exist.

    Returns
    -------
    sources : list of SourceFile
        Sorted by path, addresses last.
    failures : list of Failure
        A path that is missing, a file given by name with an unknown suffix, a folder with nothing
        to read, a name that cannot be an id, a second structure file with the same id, and an
        address that differs from another one only in what is not shown.

    Examples
    --------
    >>> sources, failures = find_sources([Path("examples/sample"), Path("missing.pdb")])
    >>> len(sources), sources[0].id, sources[0].kind
    (40, '107l_A', 'pdb')
    >>> failures[0].reason
    'it does not exist'
    """
    failures: list[Failure] = []
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    urls = sorted({path for path in paths if isinstance(path, Url)})
    for path in sorted(path for path in paths if not isinstance(path, Url)):
        if problem := _problem_of(path):
            failures.append(problem)
        elif path.is_dir():
            before = len(visited)
            below = list(_search(path, visited, failures))
            if not below and len(visited) > before:
                failures.append(Failure("", path_text(path), "it holds no protein file", _READABLE))
            files += below
        else:
            files.append(path)
    first_of: dict[str, Path | Url] = {}
    sources = _unique_sources(files, failures, first_of)
    return [*sources, *_unique_urls(urls, failures, first_of)], failures


def of_shard(path: Path | Url, roots: Set[Path | Url], number: int, count: int) -> bool:
    """Return whether a file belongs to one of several parts, by the SHA-256 of its path.

    The path below the folder that was given counts, so that a folder that is mounted elsewhere is
    dealt out in the same way; of an address, all that is shown of it.

    Parameters
    ----------
    path : Path or Url
        The file.
    roots : set of Path or Url
        The files and folders that were given.
    number, count : int
        The part, from 1, and how many there are.

    Examples
    --------
    >>> file, roots = Path("/data/1a30.pdb"), {Path("/data")}
    >>> [of_shard(file, roots, number, 3) for number in (1, 2, 3)].count(True)
    1
    """
    if isinstance(path, Url):
        name = str(path)
    else:
        root = next((each for each in path.parents if each in roots), path.parent)
        name = path_text(path.relative_to(root))
    return _is_of_part(name, number, count)


def _is_of_part(name: str, number: int, count: int) -> bool:
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count == number - 1


def _problem_of(path: Path) -> Failure | None:
    file = path_text(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return Failure("", file, "it does not exist", "check the path")
    except (OSError, ValueError) as error:  # a loop of links, no permission, a null character
        return Failure("", file, f"it cannot be read: {system_problem(error)}", "check the path")
    if not is_folder and split_name(path.name)[1] is None and not _is_database(path):
        return Failure("", file, "its suffix is unknown", _READABLE)
    return None


def _is_database(path: Path) -> bool:
    """Return whether a file has an index beside it, as Foldcomp's databases do."""
    return path.with_name(f"{path.name}.index").is_file()


def _search(root: Path, visited: set[tuple[int, int]], failures: list[Failure]) -> Iterator[Path]:
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            entries = list(os.scandir(folder))
        except OSError as error:
            reason = f"it cannot be read: {system_problem(error)}"
            failures.append(Failure("", path_text(folder), reason, "check its permissions"))
            continue
        inode = (status.st_dev, status.st_ino)
        if inode in visited:
            continue
        visited.add(inode)
        # "." and "" have a name only once they are made absolute.
        name = folder.name
        if name in ("", ".."):
            name = Path(os.path.realpath(folder)).name
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        if folder != root and any(
            has_schema(folder / entry.name, _WRITTEN[entry.name])
            for entry in visible
            if entry.name in _WRITTEN
        ):
            continue
        protein = [
            entry
            for entry in visible
            if split_name(entry.name)[0] == name + PDBBIND_SUFFIX and _takes(entry)
        ]
        for entry in protein or visible:
            if _is_folder(entry):
                pending.append(folder / entry.name)
            elif _takes(entry):
                yield folder / entry.name


def _takes(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a protein file by its name.

    A broken link and a loop of links are, so that reading them gives a line in the failures.
    """
    if split_name(entry.name)[1] in (None, "tar"):
        return False
    try:
        if entry.is_file():
            return True
        Path(entry.path).stat()
    except OSError:
        return True
    return False  # a folder, a pipe, a device


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _unique_sources(
    files: list[Path], failures: list[Failure], first_of: dict[str, Path | Url]
) -> list[SourceFile]:
    """Return the files, each once; what has the id of an earlier one becomes a failure."""
    sources: list[SourceFile] = []
    seen: set[tuple[Path, str]] = set()
    folders: dict[Path, Path] = {}
    for path in sorted(files):
        if path.parent not in folders:
            folders[path.parent] = Path(os.path.realpath(path.parent))
        folder = folders[path.parent]
        if (folder, path.name) in seen:
            continue
        seen.add((folder, path.name))
        id, kind = split_name(path.name)
        if kind is None:  # a file that was given, with an index beside it
            kind = "database"
        if id == folder.name + PDBBIND_SUFFIX:
            id = folder.name
        _add(SourceFile(path, id, kind), sources, failures, first_of)
    return sources


def _unique_urls(
    urls: list[Url], failures: list[Failure], first_of: dict[str, Path | Url]
) -> list[SourceFile]:
    """Return the files of addresses, as ``_unique_sources`` does."""
    sources: list[SourceFile] = []
    seen: set[str] = set()
    for url in urls:
        file = path_text(url)
        id, kind = split_name(url.name)
        if kind is None:
            failures.append(Failure("", file, "its suffix is unknown", _READABLE))
            continue
        if file in seen:
            reason = "it was given twice, with different parts that are not shown"
            failures.append(Failure("", file, reason, "give one of the two"))
            continue
        seen.add(file)
        _add(SourceFile(url, id, kind), sources, failures, first_of)
    return sources


def _add(
    source: SourceFile,
    sources: list[SourceFile],
    failures: list[Failure],
    first_of: dict[str, Path | Url],
) -> None:
    """Add a file to the sources; to the failures if its id is none, or an earlier one's."""
    if source.kind not in CONTAINERS:
        if problem := _id_problem(source.id, source.path, first_of):
            failures.append(problem)
            return
        first_of[source.id] = source.path
    sources.append(source)


def _id_problem(id: str, path: Path | Url, first_of: dict[str, Path | Url]) -> Failure | None:
    file = path_text(path)
    if not is_id(id):
        reason = (
            "its name cannot be an id: it is empty, or has white space or unprintable characters"
        )
        return Failure("", file, reason, "rename the file")
    return taken(id, file, path_text(first_of[id])) if id in first_of else None


def taken(id: str, file: str, first: str) -> Failure:
    """Return the failure of an entry that has the id of an earlier one."""
    return Failure(
        id, file, f"the id {id} is taken by {first}", "rename one of the two, or leave one out"
    )
