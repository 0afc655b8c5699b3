"""Marks of tasks under way, which a process that ends leaves behind."""

from __future__ import annotations

from pathlib import Path

from protalign.stores.filling.attempts import FOLDER, Attempts, attempts


def marks(path: Path) -> list[str]:
    """The names of the marks in a store."""
    folder = path / FOLDER
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def test_a_process_that_ends_twice_in_a_task_makes_it_a_suspect(tmp_path: Path) -> None:
    """Its marks stay, with a count; a task that is finished, or no longer pending, has none."""
    for ends in range(3):
        killed = Attempts(tmp_path, "esm2", range(5))
        assert killed.suspects == ({3} if ends == 2 else set())
        for index in (2, 3):
            killed.begin(index)
        killed.end(2)
        assert marks(tmp_path) == [f"esm2.3.{ends}"]  # and the process is no more
    after = Attempts(tmp_path, "esm2", range(5))
    after.end(3)  # in a process of its own
    after.close()
    assert not (tmp_path / FOLDER).exists()


def test_an_exception_is_no_sudden_end(tmp_path: Path) -> None:
    """After Ctrl-C there is no mark of this process; what it knew of earlier ones stays known."""
    Attempts(tmp_path, "esm2", [1]).begin(1)
    for _ in range(3):
        try:
            with attempts(tmp_path, "esm2", [1, 2]) as running:
                assert running.suspects == set()
                running.begin(1)
                running.begin(2)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert marks(tmp_path) == ["esm2.1.0"]
    with attempts(tmp_path, "esm2", [2]):  # task 1 has been done elsewhere
        pass
    assert marks(tmp_path) == []


def test_marks_of_another_encoder_and_other_files_are_left_alone(tmp_path: Path) -> None:
    """A name may hold dots; what no run made is not read, and a link is not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / FOLDER).symlink_to(outside)
    with attempts(tmp_path, "esm2", [7]) as running:
        running.begin(7)
        assert marks(outside.parent) == ["esm2.7.0"]
        assert list(outside.iterdir()) == []
        (tmp_path / FOLDER / "esm2.v2.7.4").touch()
        (tmp_path / FOLDER / "esm2.seven.1").mkdir()
    assert marks(tmp_path) == ["esm2.seven.1", "esm2.v2.7.4"]
    assert Attempts(tmp_path, "esm2.v2", [7]).suspects == {7}
    assert Attempts(tmp_path, "esm2", [7]).suspects == set()
