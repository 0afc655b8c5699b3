"""Commands killed at random moments leave the old or the new, and no debris after the next run."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from protalign import EmbeddingStore
from protalign.core.files import sha256
from protalign.heads.model_check import verify_model
from protalign.search.word_index import verify_index
from protalign.splits import read_split
from protalign.stores import verify, verify_vectors
from tests.helpers.commands import contents
from tests.helpers.forks import Forks, kill
from tests.helpers.whole_reports import check_report
from tests.reliability import times

Record = Callable[[str, object], None]

#: Kills of each of five commands, and of the slow one, which is left out by default.
KILLS, SLOW_KILLS = times(6, 60), times(0, 20)
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
    record_property: Record,
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
    killed = tries = 0
    while killed < KILLS:
        seed = tries % 2
        pid = forks.begin(*words[seed])
        deadline = time.monotonic() + seconds * 3
        while tries % 4 < 2 and not places.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, WRITING if tries % 4 < 2 else seconds))
        kill(pid)
        killed += forks.end().code < 0
        tries += 1
        assert problems(target) == []
        assert digests(target) in whole.values()
        if tries % 6 == 5:
            assert forks.run(*words[seed]).code == 0
            assert digests(target) == whole[seed]
            assert {path.name for path in target.parent.iterdir()} == {name, *others}
        assert tries < 10 * KILLS, "hardly a kill came before the end"
    record_property("kills", killed)
    shutil.rmtree(target.parent)


def test_embed_ends_with_the_same_bytes(
    forks: Forks, sample: Path, tmp_path: Path, record_property: Record
) -> None:
    """After each kill the store is whole; the run that comes to the end gives the same store.

    Each run continues where the last one was killed. They add to a store of half the proteins.
    """
    rng = random.Random(0)
    folder = tmp_path / "proteins"
    folder.mkdir()
    base, out, alone = (tmp_path / f"{name}.zarr" for name in ("base", "out", "alone"))
    words = ["embed", folder, "--sequence-encoder", "protalign_t6_2M", "--quiet", "--out"]
    files = sorted(path for path in sample.iterdir() if path.name.endswith((".pdb.gz", ".cif")))
    for file in files[:4]:
        shutil.copy(file, folder)
    assert forks.run(*words, base).code == 0
    for file in files[4:8]:
        shutil.copy(file, folder)
    shutil.copytree(base, alone)
    began = time.monotonic()
    assert forks.run(*words, alone).code == 0
    seconds = time.monotonic() - began
    killed = tries = ends = 0
    while killed < KILLS:
        if not out.exists():
            shutil.copytree(base, out)
        pid = forks.begin(*words, out)
        if tries % 3 == 0:  # most of the time nothing is written
            root = (out / "zarr.json").stat().st_mtime_ns
            deadline = time.monotonic() + 2 * seconds
            while (out / "zarr.json").stat().st_mtime_ns == root and time.monotonic() < deadline:
                time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.05 if tries % 3 == 0 else seconds))
        kill(pid)
        code = forks.end().code
        killed += code < 0
        tries += 1
        assert verify(out).ok
        if code == 0 or tries % 5 == 4:
            assert forks.run(*words, out).code == 0
            assert contents(out) == contents(alone)
            ends += 1
            shutil.rmtree(out)
        assert tries < 10 * KILLS, "hardly a kill came before the end"
    record_property("kills", killed)
    record_property("runs to the end", ends)


@pytest.mark.parametrize("is_new", [True, False], ids=["a new index", "one that grows"])
def test_index_ends_with_the_same_bytes(
    is_new: bool, forks: Forks, sample: Path, tmp_path: Path, record_property: Record
) -> None:
    """After each kill there is the older index or the new one; the next run ends as an only one."""
    rng = random.Random(0)
    folder = tmp_path / "proteins"
    folder.mkdir()
    store, model, old, out, alone = (
        tmp_path / name for name in ("s.zarr", "model", "old", "folder/index", "folder/alone")
    )
    embed = ["embed", folder, "--sequence-encoder", "protalign_t6_2M", "--quiet", "--out", store]
    words = ["index", store, "--model", model, "--words", 16, "--quiet", "--out"]
    files = sorted(path for path in sample.iterdir() if path.name.endswith((".pdb.gz", ".cif")))
    for file in files[:6]:
        shutil.copy(file, folder)
    assert forks.run(*embed).code == 0
    few = ["--max-epochs", 2, "--embed-dim", 16]
    assert forks.run("fit", store, "--out", model, *few).code == 0
    if not is_new:
        assert forks.run(*words, old).code == 0
        shutil.copy(files[6], folder)
        assert forks.run(*embed).code == 0
        shutil.copytree(old, alone)
    out.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    assert forks.run(*words, alone).code == 0
    seconds = time.monotonic() - began
    whole = contents(alone)
    shutil.rmtree(alone)
    before = None if is_new else contents(old)["index.json"]
    killed = tries = 0
    while killed < KILLS // 2:
        if not is_new and not out.exists():
            shutil.copytree(old, out)
        pid = forks.begin(*words, out)
        time.sleep(rng.uniform(0, seconds))
        kill(pid)
        killed += forks.end().code < 0
        tries += 1
        if out.exists():
            assert verify_index(out) == []
            assert (out / "index.json").read_bytes() in (before, whole["index.json"])
        else:
            assert is_new
        if tries % 5 == 4:
            assert forks.run(*words, out).code == 0
            assert contents(out) == whole
            assert [path.name for path in out.parent.iterdir()] == [out.name]
            shutil.rmtree(out)
        assert tries < 10 * KILLS, "hardly a kill came before the end"
    record_property("kills", killed)


def test_a_report_is_whole_or_continued(
    forks: Forks, store_path: Path, tmp_path: Path, record_property: Record
) -> None:
    """Finished runs are kept, and the report that is finished in the end is that of one run."""
    if not SLOW_KILLS:
        pytest.skip("a report takes a minute")
    rng = random.Random(0)
    ids = EmbeddingStore.open(store_path).ids.tolist()[:16]
    parts = tmp_path / "parts.csv"
    names = ("train", "train", "validation", "test")
    parts.write_text(
        "id,part\n" + "".join(f"{x},{names[place % 4]}\n" for place, x in enumerate(ids))
    )
    split_file, out = tmp_path / "split.csv", tmp_path / "report"
    words = ["split", store_path, "--by", "column", parts, "--out", split_file]
    assert forks.run(*words).code == 0
    words = ["reproduce", store_path, "--split", split_file, "--quick", "--seeds", 1, "--jobs", 1]
    words += ["--quiet", "--out", out]
    began = time.monotonic()
    assert forks.run(*words).code == 0
    seconds = time.monotonic() - began
    alone = contents(out)
    shutil.rmtree(out)
    killed = tries = 0
    while killed < SLOW_KILLS:
        pid = forks.begin(*words)
        time.sleep(rng.uniform(0, seconds))
        kill(pid)
        code = forks.end().code
        killed += code < 0
        tries += 1
        check_report(contents(out) if out.exists() else {}, alone)
        if code == 0 or tries % 5 == 4:
            assert forks.run(*words).code == 0
            check_report(contents(out) if out.exists() else {}, alone)
            assert set(contents(out)) == set(alone)
            shutil.rmtree(out)
        assert tries < 10 * SLOW_KILLS, "hardly a kill came before the end"
    record_property("kills", killed)
