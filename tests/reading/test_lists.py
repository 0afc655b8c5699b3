"""Lists of paths and addresses: streamed, and each bad line a line of its own."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from protalign.core.errors import Failure, InputError
from protalign.core.urls import Url, parse_url
from protalign.reading import find_given, given, read_list


def write(folder: Path, text: bytes) -> Path:
    path = folder / "paths.txt"
    path.write_bytes(text)
    return path


def test_lines_name_paths_and_addresses(tmp_path: Path) -> None:
    """Relative to the list's folder; comments and blank lines say nothing; any line end."""
    text = b"\xef\xbb\xbf# mine\r\n\r\n  a b.pdb \r\nsub/../c.cif\n/data/d.cif\nhttps://h.org/e.cif"
    named = list(read_list(write(tmp_path, text)))
    assert [str(each) for each in named] == [
        *(str(tmp_path / "a b.pdb"), str(tmp_path / "c.cif")),
        *("/data/d.cif", "https://h.org/e.cif"),
    ]
    assert isinstance(named[3], Url)


def test_bad_lines_are_failures_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too long, with a null character, of another scheme; the lines after them are read."""
    monkeypatch.setattr(given, "_LONGEST_LINE", 100)
    text = b"x" * 1000 + b"\na\0b\ndata:text/x\ngopher://h/x.cif\nzip://x::file:///etc/x\na.pdb\n"
    named = list(read_list(write(tmp_path, text)))
    bad = [each for each in named if isinstance(each, Failure)]
    assert [each.reason.partition(":")[0] for each in bad] == [
        f"line {number}" for number in (1, 2, 4, 5)
    ]
    assert all(each.file == str(tmp_path / "paths.txt") and each.advice for each in bad)
    assert named[-1] == tmp_path / "a.pdb"


def test_a_list_and_the_command_name_each_file_once(sample: Path, tmp_path: Path) -> None:
    """Given twice, read once; what is missing is a failure of its own."""
    (tmp_path / "link").symlink_to(sample)
    text = f"{sample}/1bpi_A.cif\nlink/1bpi_A.cif\nnone.pdb\n".encode()
    found = find_given([sample / "1bpi_A.cif"], [write(tmp_path, text)])
    assert [source.id for source in found.sources] == ["1bpi_A"]
    assert [failure.file for failure in found.failures] == [str(tmp_path / "none.pdb")]
    names = [f"{sample.resolve()}/{name}" for name in ("1bpi_A.cif", "107l_A.pdb.gz")]
    kept = found.about(Failure("", name, "a reason", "some advice") for name in names)
    assert [failure.file for failure in kept] == names[:1]


def test_the_lines_are_dealt_out(sample: Path, tmp_path: Path) -> None:
    """Each file and each address belongs to one of the parts, wherever the folder is."""
    urls = [f"https://h.org/{number}.cif" for number in range(40)]
    text = "\n".join([str(sample), *urls, "bad\0"]).encode()
    whole = find_given([], [write(tmp_path, text)])
    parts = [whole.part(number, 3) for number in (1, 2, 3)]
    ids = sorted(source.id for part in parts for source in part.sources)
    assert ids == sorted(source.id for source in whole.sources)
    assert all(len(part.sources) > 10 for part in parts)
    assert sum(len(part.mistakes) for part in parts) == 1
    with pytest.raises(InputError, match="no such part"):
        whole.part(4, 3)


def test_standard_input_is_a_list(
    sample: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Paths are relative to the current folder; a bad line is named."""
    (tmp_path / "1bpi_A.cif").symlink_to(sample / "1bpi_A.cif")
    monkeypatch.chdir(tmp_path)
    text = io.TextIOWrapper(io.BytesIO(b"1bpi_A.cif\ngopher://h/x.cif\n"))
    monkeypatch.setattr(sys, "stdin", text)
    found = find_given([], ["-"])
    assert [source.path for source in found.sources] == [tmp_path / "1bpi_A.cif"]
    assert [failure.file for failure in found.mistakes] == ["standard input"]


def test_an_empty_standard_input_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in all other messages."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert [mistake.file for mistake in find_given([], ["-"]).mistakes] == ["standard input"]


@pytest.mark.parametrize("text", [b"", b"# nothing\n\n"])
def test_an_empty_list_is_a_mistake(text: bytes, tmp_path: Path) -> None:
    """Whatever should have filled it has failed."""
    [mistake] = find_given([], [write(tmp_path, text)]).mistakes
    assert (mistake.file, mistake.reason) == (
        str(tmp_path / "paths.txt"),
        "it names nothing to read",
    )


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_list_that_cannot_be_read_ends_the_call(name: str, tmp_path: Path) -> None:
    """It is a mistake of the call, in one line."""
    with pytest.raises(InputError, match=str(tmp_path)):
        find_given([], [tmp_path / name])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("HTTPS://me:pw@H.org:81/a/b.cif.gz?sig=1#x", "https://h.org:81/a/b.cif.gz"),
        ("s3://bucket/a%20b.cif?versionId=2", "s3://bucket/a%20b.cif"),
        ("http://[::1]:80/x.pdb", "http://[::1]:80/x.pdb"),
    ],
)
def test_an_address_shows_no_secret(address: str, shown: str) -> None:
    """Neither as text nor as a value; opened is what was given."""
    url = parse_url(address)
    assert isinstance(url, Url)
    assert (str(url), url.whole) == (shown, address)
    assert "pw" not in repr(url)
    assert "sig" not in repr(url)


@pytest.mark.parametrize(
    "address",
    [
        *("https://me:secret@h.org", "https:///x.cif?secret", "https://h.org:secret/x.cif"),
        *("file://secret@other/x", "filecache::https://secret@h/x", "dir://secret/x.cif"),
        *("https://secret@h.org/a b.cif", "https://secret@h.org/" + "x" * 5000),
        "memory://secret/1abc.cif::file:///etc/secret.cif",
        "s3://bucket/1abc.cif?x=secret::memory://a.cif",
    ],
)
def test_an_address_that_is_not_read_is_refused(address: str) -> None:
    """In one line, without the secret in it."""
    with pytest.raises(InputError) as caught:
        parse_url(address)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_file_address_is_its_path() -> None:
    """With spaces and colons as they are."""
    assert parse_url("file:///data/a%20b.cif") == Path("/data/a b.cif")
    assert parse_url("file:///data/a::b.cif") == Path("/data/a::b.cif")


def test_addresses_that_look_alike_are_not_mixed_up() -> None:
    """Their difference is not shown, so the second one is a failure; so is an id that is taken."""
    found = find_given(
        [f"https://h.org/{end}" for end in ("a.cif?v=1", "a.cif?v=2", "b/a.pdb", "x", "b.cif")]
    )
    assert [str(source.path) for source in found.sources] == [
        "https://h.org/a.cif",
        "https://h.org/b.cif",
    ]
    twice, taken, unknown = found.failures
    assert "given twice" in twice.reason
    assert taken.reason == "the id a is taken by https://h.org/a.cif"
    assert unknown.reason == "its suffix is unknown"
