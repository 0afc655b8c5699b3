"""Writers that are killed, that meet, or that have no room."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from protalign.core import unfinished
from protalign.core.errors import WriteError
from protalign.core.files import new_file, new_folder, write_text
from protalign.core.unfinished import place_beside, places_of, put_back


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def killed(code: str, *arguments: object) -> None:
    """Run lines of Python that end their process at once, as a kill does."""
    lines = (
        "import os, sys; from pathlib import Path\n"
        "from protalign.core import unfinished\n"
        "from protalign.core.files import new_file, new_folder\n" + code
    )
    ended = subprocess.run([sys.executable, "-c", lines, *map(str, arguments)], check=False)
    assert ended.returncode == 9


HALF_FILE = "with new_file(sys.argv[1]) as half: half.write_text('half'); os._exit(9)"
HALF_FOLDER = "with new_folder(sys.argv[1]) as half: (half / 'x').touch(); os._exit(9)"
BETWEEN_TWO_RENAMES = """
unfinished._exchange = lambda first, second: False
rename = Path.rename
def aside(path, target):
    rename(path, target)
    if path.name == Path(sys.argv[1]).name: os._exit(9)
Path.rename = aside
with new_folder(sys.argv[1]) as new: (new / 'new').touch()
"""


KILLED_AT_REMOVAL = """
left = int(sys.argv[2])
def counted(call):
    def removing(*arguments, **words):
        global left
        if left == 0: os._exit(9)
        left -= 1
        return call(*arguments, **words)
    return removing
os.unlink, os.rmdir = counted(os.unlink), counted(os.rmdir)
with new_folder(sys.argv[1]) as new: (new / 'y').touch()
os._exit(9)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Half a file, half a folder, and the folders that they are in."""
    file, folder = tmp_path / "numbers.txt", tmp_path / "model"
    write_text(file, "old")
    killed(HALF_FILE, file)
    killed(HALF_FILE, file)
    killed(HALF_FOLDER, folder)
    assert names(tmp_path) == [".model.partial", ".numbers.txt.partial", "numbers.txt"]
    assert file.read_text() == "old"
    write_text(file, "new")
    with new_folder(folder) as new:
        (new / "x").touch()
    assert names(tmp_path) == ["model", "numbers.txt"]


@pytest.mark.parametrize("call", range(5))
def test_a_writer_killed_while_it_cleans_up_leaves_nothing_for_ever(
    call: int, tmp_path: Path
) -> None:
    """Killed at any removal of a file or a folder of its place, or of another's that was killed."""
    folder = tmp_path / "model"
    killed(HALF_FOLDER, folder)
    killed(KILLED_AT_REMOVAL, folder, call)
    with new_folder(folder) as new:
        (new / "x").touch()
    assert names(tmp_path) == ["model"]


def test_writers_of_one_target_leave_each_other_alone(tmp_path: Path) -> None:
    """A second one takes nothing from a first that is still writing; the last to end wins."""
    target = tmp_path / "numbers.txt"
    with new_file(target) as first:
        first.write_text("first")
        with new_file(target) as second:
            second.write_text("second")
        assert target.read_text() == "second"
        assert first.read_text() == "first"
    assert target.read_text() == "first"
    assert names(tmp_path) == ["numbers.txt"]


@pytest.mark.parametrize("exchange", [True, False])
def test_many_writers_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """Each puts a whole folder there, in any order, also where folders cannot be exchanged."""
    if not exchange:
        monkeypatch.setattr(unfinished, "_exchange", lambda first, second: False)
    target, failures = tmp_path / "model", []

    def write(name: str) -> None:
        try:
            for _ in range(10):
                with new_folder(target) as folder:
                    (folder / "a").write_text(name)
                    (folder / "b").write_text(name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (target / "a").read_text() == (target / "b").read_text()
    assert names(tmp_path) == ["model"]


def test_a_folder_that_had_stepped_aside_is_put_back(tmp_path: Path) -> None:
    """Killed between two renames, where folders cannot be exchanged: the old one is still there."""
    target = tmp_path / "model"
    with new_folder(target) as folder:
        (folder / "old").touch()
    killed(BETWEEN_TWO_RENAMES, target)
    assert not target.exists()
    put_back(target)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]
    killed(BETWEEN_TWO_RENAMES, target)
    with new_folder(target) as folder:
        (folder / "newer").touch()
    assert names(target) == ["newer"]
    assert names(tmp_path) == ["model"]


def test_folders_are_exchanged_here(tmp_path: Path) -> None:
    """On this system no moment is without the folder."""
    for name in ("first", "second"):
        (tmp_path / name / name).mkdir(parents=True)
    assert unfinished._exchange(tmp_path / "first", tmp_path / "second")
    assert names(tmp_path / "first") == ["second"]
    with pytest.raises(FileNotFoundError):
        unfinished._exchange(tmp_path / "first", tmp_path / "third")


def test_what_may_belong_to_a_living_writer_stays_for_a_day(tmp_path: Path) -> None:
    """Of another machine, whose locks may not reach here, until nothing has changed for a day."""
    target = tmp_path / "numbers.txt"
    killed(HALF_FILE, target)
    (place,) = places_of(target).iterdir()
    (place / "lock").write_text("another machine")
    write_text(target, "new")
    assert place.exists()
    before = time.time() - 100_000
    for path in (*place.iterdir(), place):
        os.utime(path, (before, before))
    write_text(target, "newer")
    assert names(tmp_path) == ["numbers.txt"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written, and nothing that may be in use is removed."""

    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    target = tmp_path / "numbers.txt"
    killed(HALF_FILE, target)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    write_text(target, "new")
    assert target.read_text() == "new"
    assert len(list(places_of(target).iterdir())) == 1
    monkeypatch.undo()
    write_text(target, "newer")
    assert names(tmp_path) == ["numbers.txt"]


def test_a_writer_that_begins_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may clean up between the making of a place and its lock: it is made again."""
    target, flock, removed = tmp_path / "numbers.txt", fcntl.flock, []

    def clean_first(handle: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not removed:
            removed.append(True)
            unfinished.clear_left_behind(target)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", clean_first)
    write_text(target, "new")
    assert removed
    assert target.read_text() == "new"
    assert names(tmp_path) == ["numbers.txt"]


def test_links_are_written_through(tmp_path: Path) -> None:
    """A link to a larger disk stays one; what it names is replaced."""
    (tmp_path / "large").mkdir()
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "large" / name)
    for text in ("old", "new"):
        write_text(tmp_path / "file", text)
        with new_folder(tmp_path / "folder") as folder:
            (folder / text).touch()
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "large" / "file").read_text() == "new"
    assert (tmp_path / "folder").is_symlink()
    assert names(tmp_path / "large" / "folder") == ["new"]
    assert names(tmp_path) == ["file", "folder", "large"]


def test_what_is_not_a_file_is_not_replaced(tmp_path: Path) -> None:
    """A folder, a device, a pipe."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(WriteError, match=r"it is a folder|not a regular file"):
            write_text(path, "new")
    assert Path("/dev/null").is_char_device()
    assert (tmp_path / "pipe").is_fifo()


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    """A name of 255 bytes leaves no room for more; one of 256 is refused in one line."""
    write_text(tmp_path / ("Å" * 127), "new")
    assert names(tmp_path) == ["Å" * 127]
    with pytest.raises(WriteError, match=r"\(File name too long\); name another place"):
        write_text(tmp_path / ("Å" * 128), "new")
    assert names(tmp_path) == ["Å" * 127]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_tells_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where the last bytes fail only as the file is flushed, the old one stays."""
    target = tmp_path / "numbers.txt"
    write_text(target, "old")

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=rf"it cannot be written \({os.strerror(code)}\)"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["numbers.txt"]


def test_errors_of_other_files_keep_their_words(tmp_path: Path) -> None:
    """A block may read something as well, whose fault is not this file's."""
    with pytest.raises(FileNotFoundError, match="missing"), new_file(tmp_path / "numbers.txt"):
        (tmp_path / "missing").read_text()
    with pytest.raises(WriteError, match=r"no/numbers.txt: it cannot be written .*make its folder"):
        write_text(tmp_path / "no" / "numbers.txt", "new")
    with pytest.raises(ZeroDivisionError), place_beside(tmp_path / "numbers.txt"):
        _ = 1 / 0
    assert names(tmp_path) == []
