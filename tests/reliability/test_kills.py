"""Writers killed at random moments leave the old or the new, and no debris after the next run."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from protalign.core.files import sha256
from protalign.heads.model_check import verify_model
from protalign.splits import read_split
from protalign.stores import verify_vectors
from tests.helpers.forks import Forks, kill
from tests.reliability import FACTOR

#: Kills of each command.
KILLS = 12 * FACTOR
#: Seconds after the first sign of a writer within which every second kill comes.
WRITING = 0.02


def fit(store: Path, made: Path, target: Path, seed: int) -> Sequence[object]:
    """A model over an older one."""
    words = ["fit", store, "--out", target, "--seed", seed, "--overwrite", "--max-epochs", 2]
    return [*words, "--embed-dim", 16]


def export(store: Path, made: Path, target: Path, seed: int) -> Sequence[object]:
    """Vectors of some ids over those of others."""
    ids = target.with_name(f"ids{seed}.txt")
    ids.write_text("\n".join(["1a2p_A", "1bpi_A"][: seed + 1]))
    return ["export", store, "--model", made / "model", "--out", target, "--ids", ids]


def split(store: Path, made: Path, target: Path, seed: int) -> Sequence[object]:
    """A split over one of another seed."""
    words = ["split", store, "--by", "cluster", "--method", "kmer", "--seed", seed]
    return [*words, "--out", target]


def whole_split(path: Path) -> list[str]:
    """Nothing is wrong with a split that can be read; the test compares its bytes."""
    read_split(path)
    return []


def digests(path: Path) -> list[bytes]:
    """The SHA-256 of a file, or of each file of a folder."""
    return [sha256(p) for p in (sorted(path.iterdir()) if path.is_dir() else [path])]


@pytest.mark.parametrize(
    ("command", "name", "problems"),
    [
        (fit, "model", verify_model),
        (export, "vectors.parquet", verify_vectors),
        (split, "split.csv", whole_split),
    ],
)
def test_old_or_new_and_no_debris(
    command: Callable[[Path, Path, Path, int], Sequence[object]],
    name: str,
    problems: Callable[[Path], list[str]],
    forks: Forks,
    made: Path,
    store_path: Path,
    tmp_path: Path,
) -> None:
    """After each kill the target is whole, and one of two; a run to the end leaves it alone there.

    Every second kill waits for the writer's first sign on the disk, since most moments are before.
    """
    rng = random.Random(0)
    target = tmp_path / "out" / name
    target.parent.mkdir()
    places = target.with_name(f".{name}.partial")
    whole: dict[int, list[bytes]] = {}
    words = {seed: command(store_path, made, target, seed) for seed in (0, 1)}
    others = {path.name for path in target.parent.iterdir()} - {name}
    for seed in (1, 0):
        began = time.monotonic()
        assert forks.run(*words[seed]).code == 0
        seconds = time.monotonic() - began
        whole[seed] = digests(target)
    assert whole[0] != whole[1]
    killed = 0
    for number in range(KILLS):
        seed = number % 2
        pid = forks.begin(*words[seed])
        deadline = time.monotonic() + seconds * 3
        while number % 4 < 2 and not places.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, WRITING if number % 4 < 2 else seconds))
        kill(pid)
        killed += forks.end().code < 0
        assert problems(target) == []
        assert digests(target) in whole.values()
        if number % 6 == 5:
            assert forks.run(*words[seed]).code == 0
            assert digests(target) == whole[seed]
            assert {path.name for path in target.parent.iterdir()} == {name, *others}
    assert killed > KILLS / 4, "hardly a kill came before the end"
    shutil.rmtree(target.parent)
