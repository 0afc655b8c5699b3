"""Structure files in a tar archive, one after another, without unpacking it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath

from protalign.core.errors import Failure, InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.words import counted
from protalign.reading.content import (
    FETCH_AGAIN,
    BlockReader,
    TooLargeError,
    gunzip_blocks,
    open_file,
    system_problem,
)
from protalign.reading.sources import (
    CONTAINERS,
    PDBBIND_SUFFIX,
    Kind,
    SourceFile,
    is_id,
    split_name,
)

#: Most bytes of a header's extension, such as a long name: tarfile reads it whole.
_MOST_EXTENSION = 1 << 16
#: Most headers that hold for all that follows: tarfile keeps them.
_MOST_GLOBAL = 1000
#: Bytes of a header, and where a block of a sparse file's map tells that another follows.
_BLOCK, _EXTENDED_AT = 512, 504
#: Bytes that are read at once of what is passed over.
_SKIPPED = 1 << 20
#: What tarfile raises at the block of zeros that ends an archive.
_END: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_ADVICE = "pack structure files; archives and FASTA files in it, links and others are passed over"
_REPACK = "unpack it with that program, or pack it with gzip and name it .tar.gz"
#: How compressed data begins, by which program, and what to do.
_PACKERS = (
    (b"\x1f\x8b", "gzip", "rename it to .tar.gz"),
    (b"\xfd7zXZ\0", "xz", _REPACK),
    (b"BZh91AY&SY", "bzip2", _REPACK),
    (b"\x28\xb5\x2f\xfd", "zstd", _REPACK),
)
#: Of a complex in PDBbind's layout, {id}_protein is taken, and this is a part of it.
_POCKET_SUFFIX = "_pocket"


@dataclass(frozen=True, slots=True)
class Member:
    """A structure file of an archive.

    Attributes
    ----------
    source : SourceFile
        The archive's path, and the file's own id and kind.
    name : str
        The file's name, without its folders.
    data : bytes
        Its bytes as they are in the archive.

    Examples
    --------
    >>> from pathlib import Path
    >>> source = SourceFile(Path("af.tar"), id="AF-P00698-F1-model_v4", kind="mmcif")
    >>> Member(source, "AF-P00698-F1-model_v4.cif.gz", b"").source.kind
    'mmcif'
    """

    source: SourceFile
    name: str
    data: bytes


class _Header(tarfile.TarInfo):
    """A header with extensions of bounded size; the archive notes how its headers ended."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise tarfile.ReadError("a size is negative")
        if header.type in _EXTENSIONS and header.size > _MOST_EXTENSION:
            raise tarfile.ReadError("a name is too long")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: _Archive) -> _Header:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile)
        except _END:
            tarfile.ended = True
            raise

    def _proc_sparse(self, tarfile: _Archive) -> _Header:
        """Pass over the map of a sparse file, which may be as long as the archive."""
        _, extended, _ = self._sparse_structs  # type: ignore[attr-defined]
        del self._sparse_structs  # type: ignore[attr-defined]
        while extended:
            block = tarfile.fileobj.read(_BLOCK)
            if len(block) < _BLOCK:
                raise EOFError
            extended = bool(block[_EXTENDED_AT])
        self.sparse = b""
        self.offset_data = tarfile.fileobj.tell()
        tarfile.offset = self.offset_data + self._block(self.size)  # type: ignore[attr-defined]
        return self

    def _proc_gnusparse_00(self, header: _Header, *_: object) -> None:
        """Note that the file is sparse; its map is not read, since sparse files are refused."""
        header.sparse = b""

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class _Archive(tarfile.TarFile):
    """An archive whose end is known: tarfile passes over damage as if nothing followed."""

    tarinfo = _Header
    ended = False
    firstmember: tarfile.TarInfo | None

    def next(self) -> tarfile.TarInfo | None:
        """Return the next header; what lies before it is read until the data ends."""
        if self.firstmember is None:
            self._skip()
        return super().next()

    def _skip(self) -> None:
        """Read up to the next header; tarfile would go on to a claimed size behind the end."""
        stream = self.fileobj
        while stream is not None and (left := self.offset - stream.tell()) > 0:
            wanted = min(left, _SKIPPED)
            if len(stream.read(wanted)) < wanted:
                raise EOFError

    def forget(self) -> None:
        """Forget the members so far, all of which tarfile keeps."""
        self.members: list[tarfile.TarInfo] = []
        if len(self.pax_headers) > _MOST_GLOBAL:
            raise tarfile.ReadError("too many headers")


def read_members(given: SourceFile, limit: int) -> Iterator[Member | Failure]:
    """Yield the structure files of a tar archive, in order.

    Their ids are their names without suffixes and folders. Hidden files, files of other kinds,
    links and devices are passed over, as is a file with the id of the one before it in another
    format (AlphaFold DB's archives hold each model twice), and the pockets of PDBbind's layout.
    Nothing is written, and no name of the archive is opened.

    Parameters
    ----------
    given : SourceFile
        The archive, compressed if its name ends in .gz or .tgz.
    limit : int
        Most bytes of a file.

    Yields
    ------
    Member or Failure
        A Failure without an id is about the archive, and ends it.

    Examples
    --------
    >>> import tarfile, tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "two.tar"
    >>> with tarfile.open(path, "w") as archive:
    ...     archive.add("examples/sample/1bpi_A.cif")
    ...     archive.add("README.md")
    >>> source = SourceFile(path, "two", "tar")
    >>> [member.source.id for member in read_members(source, 1 << 20)]
    ['1bpi_A']
    """
    file, count = path_text(given.path), 0
    try:
        with (
            open_file(given.local) as handle,
            closing(_opened(given.path.name, handle)) as archive,
        ):
            before: tuple[str, Kind | None] | None = None
            while (header := archive.next()) is not None:
                archive.forget()
                if header.size < 0:
                    raise tarfile.ReadError("a size is negative")
                count += 1
                named = _named(header)
                if named is None or (before is not None and _twice(before, named)):
                    continue
                before = named
                if not given.deals_out(named[0]):
                    continue
                source = SourceFile(given.path, named[0], named[1])
                yield _member(archive, header, source, limit)
            if not archive.ended:
                yield _damaged(file, count)
            elif before is None:
                reason = f"it holds no structure file among {counted(count, 'member')}"
                yield Failure("", file, reason, _ADVICE)
    except InputError as error:
        yield Failure("", file, error.reason, error.advice)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError):
        yield _damaged(file, count)
    except OSError as error:
        reason = f"it cannot be read: {system_problem(error)}"
        yield Failure("", file, reason, "check the disk and the file")


def _opened(name: str, handle: io.BufferedReader) -> _Archive:
    """Open an archive as a stream; gzip's checksums are verified, which tarfile does not do."""
    stream: io.BufferedIOBase = handle
    zipped = name.lower().endswith((".gz", ".tgz"))
    for magic, packer, advice in _PACKERS:
        if not zipped and handle.peek(len(magic)).startswith(magic):
            raise InputError(f"it is compressed with {packer}, which its name does not say", advice)
    if zipped:
        stream = io.BufferedReader(BlockReader(gunzip_blocks(handle)), 1 << 16)
    return _Archive.open(fileobj=stream, mode="r|", errors="surrogateescape")


def _named(header: tarfile.TarInfo) -> tuple[str, Kind] | None:
    """Return the id and the kind of a member; None if it is not to be read."""
    path = PurePosixPath(header.name)
    if not header.isreg() or any(map(_is_hidden, path.parts)):
        return None
    name, kind = split_name(path.name)
    folder = path.parent.name
    if kind is None or kind in CONTAINERS or name == folder + _POCKET_SUFFIX:
        return None
    return folder if name == folder + PDBBIND_SUFFIX else name, kind


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..")


def _twice(before: tuple[str, Kind | None], named: tuple[str, Kind]) -> bool:
    return before[0] == named[0] and before[1] != named[1]


def _member(
    archive: tarfile.TarFile, header: tarfile.TarInfo, source: SourceFile, limit: int
) -> Member | Failure:
    """Read a member; its failure names it, since the file is the archive."""
    file, name = path_text(source.path), PurePosixPath(header.name).name
    if not is_id(source.id):
        shown = printable(name)[:60]
        reason = f"{shown} in it: its name cannot be an id: it has white space or odd characters"
        return Failure(printable(name), file, reason, "rename it")
    if header.sparse is not None:
        return Failure(source.id, file, f"{name} in it is a sparse file", "pack it as a usual one")
    if header.size > limit:
        error = TooLargeError(limit)
        return Failure(source.id, file, f"{name} in it: {error.reason}", error.advice)
    opened = archive.extractfile(header)
    data = b"" if opened is None else opened.read()
    if len(data) != header.size:
        raise EOFError
    return Member(source, name, data)


def _damaged(file: str, count: int) -> Failure:
    after = f" after {counted(count, 'member')}" if count else ""
    return Failure("", file, f"its tar data is damaged or ends early{after}", FETCH_AGAIN)
