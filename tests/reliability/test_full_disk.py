"""A disk without room: one line, an exit code, and everything as it was before."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from protalign.stores import verify
from tests.helpers.commands import PROTALIGN
from tests.helpers.forks import Forks
from tests.helpers.whole_reports import check_report
from tests.reliability import FACTOR, times

Record = Callable[[str, object], None]

#: Sizes at which the disk is full, for each command.
SIZES = times(2, 20)
#: Commands that take long; only above the default size.
SLOW = ("report.json", "report")
#: The least room: with less, Python itself finds no folder for temporary files.
LEAST = 64


def commands(store: Path, made: Path) -> dict[str, Sequence[object]]:
    """Every command that writes a file or a folder to --out, by the name of what it writes."""
    model = ["--model", made / "model"]
    hits = ["1a2p_A", "--vectors", made / "vectors.parquet", "--store", store]
    return {
        "split.csv": ["split", store, "--by", "column", made / "parts.csv"],
        "model": ["fit", store, "--max-epochs", 2, "--embed-dim", 16, "--overwrite"],
        "vectors.parquet": ["export", store, *model],
        "vectors.csv": ["export", store, *model],
        "vectors.h5ad": ["export", store, *model],
        "attention": ["attention", store, "1a2p_A", "1bpi_A", *model, "--overwrite"],
        "fit": ["attention", store, "1a2p_A", *model, "--overwrite", "--fit"],
        "alignment": ["align", "1a2p_A", "1bpi_A", "--store", store, *model],
        "hits.m8": ["search", *hits, *model, "--rerank", 20],
        "hits.html": ["search", *hits, *model, "--rerank", 20],
        "report.json": ["evaluate", store, *model, "--split", made / "s.csv", "--bootstrap", 0],
        "report": [
            "reproduce",
            store,
            "--split",
            made / "s.csv",
            "--quick",
            "--seeds",
            1,
            "-j",
            1,
            "-q",
        ],
    }


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        *("split.csv", "model", "vectors.parquet", "vectors.csv", "vectors.h5ad"),
        *("attention", "fit", "alignment", "hits.m8", "hits.html"),
        *(SLOW if FACTOR > 1 else ()),
    ],
)
def test_nothing_half(
    name: str,
    forks: Forks,
    made: Path,
    store_path: Path,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """With too little room there is one line and exit code 2, and the old files are as they were.

    The system's limit on a file's size stands for the disk: a write fails in the middle of a file.
    """
    out = tmp_path / "out"
    out.mkdir()
    words = [*commands(store_path, made)[name], "--out", out / name]
    assert forks.run(*words).code == 0
    before = contents(out)
    largest = max(map(len, before.values()))
    least = min(LEAST, largest - 1)
    rooms = {least + (largest - 1 - least) * step // (SIZES - 1) for step in range(SIZES)}
    record_property("sizes", len(rooms))
    for room in sorted(rooms):
        ended = forks.run(*words, room=room)
        assert ended.code == 2, (room, ended)
        assert len(ended.stderr.splitlines()) == 1, (room, ended.stderr)
        assert os.strerror(errno.EFBIG) in ended.stderr, (room, ended.stderr)
        if name == "report":  # file by file: a report that was not finished is gone on with
            assert contents(out).keys() == before.keys()
            check_report(contents(out), before)
        else:
            assert contents(out) == before, room
    assert forks.run(*words).code == 0


def test_embed_goes_on(forks: Forks, sample: Path, tmp_path: Path, record_property: Record) -> None:
    """A store without room is whole at any size, and ends with the bytes of one that had room."""
    source = tmp_path / "proteins"
    source.mkdir()
    for name in ("1bpi_A.cif", "107l_A.pdb.gz"):
        shutil.copy(sample / name, source)
    out, alone = tmp_path / "out.zarr", tmp_path / "alone.zarr"
    words = ["embed", source, "--sequence-encoder", "protalign_t6_2M", "--quiet", "--out"]
    assert forks.run(*words, alone).code == 0
    sizes = sorted({len(data) for data in contents(alone).values()})
    rooms = {max(sizes[len(sizes) * step // SIZES] - 1, LEAST) for step in range(SIZES)}
    rooms |= {sizes[-1] * step // SIZES for step in range(1, SIZES, 3)} | {sizes[-1] - 1}
    for room in sorted(rooms):
        ended = forks.run(*words, out, room=room)
        assert ended.code == 2, (room, ended)
        assert len(ended.stderr.splitlines()) == 1, (room, ended.stderr)
        assert os.strerror(errno.EFBIG) in ended.stderr, (room, ended.stderr)
        assert not (out / "zarr.json").exists() or verify(out).ok, room
    record_property("sizes", len(rooms))
    assert forks.run(*words, out).code == 0
    assert contents(out) == contents(alone)


def test_index_goes_on(
    forks: Forks, made: Path, store_path: Path, tmp_path: Path, record_property: Record
) -> None:
    """An index without room is not there at all, and is that of an only run when there is room."""
    out, alone = tmp_path / "out" / "index", tmp_path / "alone"
    out.parent.mkdir()
    words = ["index", store_path, "--model", made / "model", "--words", 16, "--quiet", "--out"]
    assert forks.run(*words, alone).code == 0
    largest = max(map(len, contents(alone).values()))
    rooms = {max(largest * step // SIZES, LEAST) for step in range(SIZES - 1)} | {largest - 1}
    for room in sorted(rooms):
        ended = forks.run(*words, out, room=room)
        assert ended.code == 2, (room, ended)
        assert len(ended.stderr.splitlines()) == 1, (room, ended.stderr)
        assert os.strerror(errno.EFBIG) in ended.stderr, (room, ended.stderr)
        assert list(out.parent.iterdir()) == [], room
    record_property("sizes", len(rooms))
    assert forks.run(*words, out).code == 0
    assert contents(out) == contents(alone)


def test_output_that_finds_no_room() -> None:
    """Results that go to a full disk by > are not lost in silence."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [PROTALIGN, "weights"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr == (
        "protalign: standard output: No space left on device; make some room there, or check its "
        "permissions\n"
    )
