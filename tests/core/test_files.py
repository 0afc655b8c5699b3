"""Files and folders appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from protalign.core.errors import WriteError
from protalign.core.files import new_file, new_folder, sha256, write_json, write_text


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The old file is there until the new one is complete; nothing else is left."""
    path = tmp_path / "numbers.txt"
    write_text(path, "old")
    with new_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["numbers.txt"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    """Half a file never takes a name, and is removed."""
    path = tmp_path / "numbers.txt"
    write_text(path, "old")
    with suppress(KeyError), new_file(path) as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["numbers.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    """An empty place is not taken for a file."""
    with pytest.raises(WriteError), new_file(tmp_path / "numbers.txt"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_replaced_whole(tmp_path: Path, exists: bool) -> None:
    """Files of an older folder do not stay in the new one."""
    folder = tmp_path / "above" / "model"
    if exists:
        folder.mkdir(parents=True)
        (folder / "old").touch()
    with new_folder(folder) as unfinished:
        (unfinished / "new").write_text("1")
    assert names(folder) == ["new"]
    assert names(folder.parent) == ["model"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    """Half a folder never takes a name, and is removed."""
    folder = tmp_path / "model"
    with new_folder(folder) as unfinished:
        (unfinished / "old").touch()
    with suppress(KeyError), new_folder(folder) as unfinished:
        (unfinished / "half").touch()
        raise KeyError
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["model"]


def test_json_takes_numpy_and_no_nan(tmp_path: Path) -> None:
    """Arrays are lists, scalars numbers; NaN, which JSON has no word for, is refused."""
    path = tmp_path / "values.json"
    write_json(path, {"array": np.arange(3), "scalar": np.float32(0.5)})
    assert json.loads(path.read_text()) == {"array": [0, 1, 2], "scalar": 0.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text()) == {"array": [0, 1, 2], "scalar": 0.5}


def test_a_digest_is_of_the_bytes(tmp_path: Path) -> None:
    """Equal to hashlib's, whatever the size."""
    data = bytes(range(256)) * 9000
    (tmp_path / "data").write_bytes(data)
    assert sha256(tmp_path / "data") == hashlib.sha256(data).digest()
