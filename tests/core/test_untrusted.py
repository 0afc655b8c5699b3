"""Files that anybody may have made: opened only if regular, parsed only within limits."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.files import read_text
from protalign.core.untrusted import folder_inside, parse_json, read_bytes, read_json

#: Values as deep as the limit allows, with strings that hold brackets, quotes and backslashes.
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='[]{}"\\aä\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(_VALUES, st.booleans())
def test_what_json_writes_comes_back(value: object, ascii_only: bool) -> None:
    """Any value within the limits is read as Python's own reader reads it."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text, "x", "y", depth=1000) == value
    assert parse_json(text.encode(), "x", "y", depth=1000) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 33 + "]" * 33, "nested deeper than 32"),
        ("[" * 1_000_000, "nested deeper than 32"),
        ('{"a":' * 100_000, "nested deeper than 32"),
        ('{"a": 1, "a": 2}', "a key twice"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "too large"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ('["\\ud800"]', "not UTF-8"),
        (b'["\xff"]', "not UTF-8"),
        ("", "Expecting value in line 1"),
        ('{"a": "\\"\\"\\"', "Unterminated string"),
        ('"' + '\\"' * 200_000, "Unterminated string"),
        ("[1, 2", "in line 1"),
        ("[1] []", "Extra data"),
        ("[" + "{}," * 2_000_000 + "{}]", "more than 2,000,000 values"),
        ('{"a":' + "0," * 2_000_000 + "0}", "more than 2,000,000 values"),
    ],
)
def test_bad_documents_end_in_one_line(text: str | bytes, words: str) -> None:
    """Deep, doubled, infinite, half: each is refused in one line, and quickly."""
    with pytest.raises(InputError) as error:
        parse_json(text, "config.json", "save it again")
    line = str(error.value)
    assert line.startswith("config.json: ")
    assert line.endswith("; save it again")
    assert words in line
    assert "\n" not in line
    assert len(line) < 200


def test_brackets_in_strings_are_no_depth() -> None:
    """Only brackets outside strings count."""
    value = {"a": "[" * 1000 + '"\\' + "{" * 1000}
    assert parse_json(json.dumps(value), "x", "y") == value


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    """No more than the limit is taken into memory, whatever the file's size."""
    file = tmp_path / "large.json"
    file.touch()
    os.truncate(file, 10**12)  # a hole: it takes no disk
    with pytest.raises(InputError, match=r"large.json: more than 1,000 bytes"):
        read_json(file, "y", most=1000)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe does not make the reader wait; a device, a folder or a missing file is one line."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match=r"cannot be read \(.*; give another"):
            read_json(path, "give another")
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_json(tmp_path / "nothing", "give another")


def test_links_are_followed_unless_refused(tmp_path: Path) -> None:
    """A user's own link is fine; inside a store it may lead out of it."""
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", "y") == b"1"
    with pytest.raises(InputError, match="not a regular file"):
        read_bytes(tmp_path / "link", "y", links=False)


@pytest.mark.parametrize("writes_late", [False, True])
def test_a_pipe_that_a_shell_gives_is_read_to_its_end(writes_late: bool) -> None:
    """As `--ids <(sort all.txt)` gives it, whether its writer has begun or not."""
    reader, writer = os.pipe()
    text = "1abc\n" * 30_000

    def write() -> None:
        with os.fdopen(writer, "w") as file:
            file.write(text)

    thread = threading.Timer(0.05 if writes_late else 0, write)
    thread.start()
    try:
        assert read_text(f"/dev/fd/{reader}", "y") == text
    finally:
        thread.join()
        os.close(reader)


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path: Path) -> None:
    """Nobody waits for a writer; a device is refused, and a text that does not fit."""
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "pipe", "y") == ""
    with pytest.raises(InputError, match="not a regular file"):
        read_text("/dev/zero", "y")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 10**13)  # a hole: it takes no disk
    with pytest.raises(InputError, match="large: more than"):
        read_text(tmp_path / "large", "y")


def test_folders_inside(tmp_path: Path) -> None:
    """A linked folder, a file, the folder above and a missing folder are not inside."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "file").touch()
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "linked_root").symlink_to(root)
    assert folder_inside(tmp_path / "linked_root", "a")
    for names in (["link"], ["file"], [".."], ["a", ".."], ["missing"], ["link", "root"]):
        assert not folder_inside(root, *names), names
