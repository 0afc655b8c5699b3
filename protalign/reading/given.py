"""What a user gives to read: paths, addresses, and lists of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from protalign.core.checks import check_whole
from protalign.core.errors import Failure, InputError
from protalign.core.paths import may_exist, path_text
from protalign.core.urls import Url, is_url, parse_url
from protalign.reading.content import open_file
from protalign.reading.sources import SHARED, SourceFile, find_sources, of_shard

#: Most bytes of a list's line.
_LONGEST_LINE = 1 << 16
#: What names standard input as a list.
_STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be read.

    Attributes
    ----------
    roots : set of Path or Url
        The files, folders and addresses that were given, also by lists.
    sources : list of SourceFile
        The files, sorted.
    failures : list of Failure
        As ``find_sources`` gives them.
    mistakes : list of Failure
        Lines of lists that name nothing. They are of a call, and not of a file.

    Examples
    --------
    >>> given = find_given(["examples/sample"])
    >>> sum(len(given.part(number, 3).sources) for number in (1, 2, 3))
    40
    """

    roots: frozenset[Path | Url]
    sources: list[SourceFile]
    failures: list[Failure]
    mistakes: list[Failure]

    def part(self, number: int, count: int) -> Given:
        """Return one part of several, dealt out by ``of_shard``.

        A tar archive or a Foldcomp database is in every part; its entries are dealt out, by the
        SHA-256 of their ids, when it is read.

        Raises
        ------
        InputError
            There is no such part.
        """
        check_whole("shard", number, 1)
        if number > count:
            raise InputError(f"shard {number}/{count}: there is no such part", f"give 1 to {count}")

        def of_it(path: Path | Url) -> bool:
            return of_shard(path, self.roots, number, count)

        def told(failure: Failure) -> bool:
            local = not is_url(failure.file) and may_exist(failure.file)
            return not local or of_it(Path(failure.file))

        return replace(
            self,
            sources=[
                replace(source, part=(number, count)) if source.kind in SHARED else source
                for source in self.sources
                if source.kind in SHARED or of_it(source.path)
            ],
            failures=[failure for failure in self.failures if told(failure)],
            mistakes=self.mistakes if number == 1 else [],
        )

    def about(self, failures: Iterable[Failure]) -> list[Failure]:
        """Return the failures of what was given, or of a file below a folder that was."""
        names = {path_text(root) for root in self.roots}

        def is_given(file: str) -> bool:
            above = () if is_url(file) else map(str, Path(file).parents)
            return file in names or any(each in names for each in above)

        return [failure for failure in failures if is_given(failure.file)]


def find_given(
    paths: Iterable[str | os.PathLike[str]], lists: Iterable[str | os.PathLike[str]] = ()
) -> Given:
    """Find the files among paths and addresses, and those that lists name.

    Parameters
    ----------
    paths : iterable of str or path
        Files, folders, and addresses as text.
    lists : iterable of path
        Text files for ``read_list``.

    Raises
    ------
    InputError
        An address among the paths cannot be read, or a list cannot be opened.

    Examples
    --------
    >>> given = find_given(["examples/sample/1bpi_A.cif", "https://example.org/1abc.cif.gz"])
    >>> [source.id for source in given.sources]
    ['1bpi_A', '1abc']
    """
    roots = [_root(os.fspath(path)) for path in paths]
    mistakes: list[Failure] = []
    for file in lists:
        before = len(roots) + len(mistakes)
        for line in read_list(Path(file)):
            if isinstance(line, Failure):
                mistakes.append(line)
            else:
                roots.append(line)
        if len(roots) + len(mistakes) == before:
            advice = "put a path or an address in each line"
            mistakes.append(Failure("", _name(Path(file)), "it names nothing to read", advice))
    sources, failures = find_sources(roots)
    return Given(frozenset(roots), sources, failures, mistakes)


def read_list(path: Path) -> Iterator[Path | Url | Failure]:
    r"""Yield what the lines of a list name, in order.

    A line is a path or an address. Blank lines, and those that begin with ``#``, say nothing. A
    path is relative to the list's folder, or to the current one if the list is standard input. The
    list is read in a stream.

    Parameters
    ----------
    path : Path
        A text file in UTF-8, or ``-`` for standard input; another pipe is not read.

    Yields
    ------
    Path, Url or Failure
        A Failure tells the number of its line.

    Raises
    ------
    InputError
        The list cannot be opened or read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "paths.txt"
    >>> _ = path.write_text("# two\n/data/1abc.pdb\ngopher://old.org/x.cif\n")
    >>> first, second = read_list(path)
    >>> first.name, second.reason
    ('1abc.pdb', 'line 3: an address with gopher://: not read')
    """
    file, folder, number = _name(path), path.absolute().parent, 0
    try:
        with nullcontext(sys.stdin.buffer) if path == _STDIN else open_file(path) as handle:
            while line := handle.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    reason = f"line {number}: it has more than {_LONGEST_LINE:,} bytes"
                    yield Failure("", file, reason, "check that it is a list of paths")
                    while line and not line.endswith(b"\n"):
                        line = handle.readline(_LONGEST_LINE)
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                text = os.fsdecode(line.strip())
                if text == "" or text.startswith("#"):
                    continue
                if "\0" in text:
                    reason = f"line {number}: it has a null character"
                    yield Failure("", file, reason, "check that it is a text file")
                    continue
                try:
                    yield _root(text, folder)
                except InputError as error:
                    yield Failure("", file, f"line {number}: {error.reason}", error.advice)
    except InputError as error:
        advice = "give a folder without --list" if path.is_dir() else error.advice
        raise InputError(f"{file}: {error.reason}", advice) from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}", "check the disk") from None


def _name(path: Path) -> str:
    """Return what a list is called in messages."""
    return "standard input" if path == _STDIN else path_text(path)


def _root(text: str, folder: Path | None = None) -> Path | Url:
    """Return an address, or the one absolute path of a file or folder, however it is named."""
    named = parse_url(text) if is_url(text) else Path(text)
    if isinstance(named, Url):
        return named
    path = named if folder is None else folder / named
    try:
        if path.is_dir():
            return Path(os.path.realpath(path))
        return Path(os.path.realpath(path.parent)) / path.name
    except (OSError, ValueError):  # too long, not permitted, a null character: a failure by itself
        return path.absolute()
