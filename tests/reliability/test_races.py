"""Several processes that write to one place, and readers beside a writer."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from protalign.core.files import sha256
from protalign.core.protein import Protein
from protalign.heads.model_check import verify_model
from protalign.stores import EmbeddingStore, StoreWriter, verify, verify_vectors
from protalign.stores.filling.encode import encode_pending
from tests.helpers.commands import contents
from tests.helpers.forks import Forks
from tests.helpers.one_hot import load_slowly, one_hot
from tests.helpers.stores import CHUNK_ROWS, ONE_HOT, OPTIONS, add_all
from tests.reliability import times

Record = Callable[[str, object], None]

REPOSITORY = Path(__file__).parents[2]


RACE = """
import os, sys
import protalign.embedding, protalign.encoders.esm2, protalign.stores
from protalign.core.errors import ProtAlignError

count, source, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
children, (waiting, go) = [], os.pipe()
for _ in range(count):
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(waiting, 1)
        try:
            report = protalign.embedding.embed(source, out, ["protalign_t6_2M"], processes=1)
            print(f"embedded {report.entries}\\n", end="", flush=True)
        except ProtAlignError as error:
            print(f"{error}\\n", end="", flush=True)
        os._exit(0)
    children.append(pid)
os.close(go)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_racing_writers(tmp_path: Path, sample: Path, record_property: Record) -> None:
    """Many begin at once: one embeds, the others are told that another process writes."""
    out, alone = tmp_path / "store.zarr", tmp_path / "alone.zarr"
    source = sample / "1bpi_A.cif"
    for count, path in ((1, alone), (times(10, 50), out)):
        done = subprocess.run(
            [sys.executable, "-c", RACE, str(count), str(source), str(path)],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == count
        embedded = [line for line in lines if line.startswith("embedded ")]
        assert embedded
        assert set(embedded) == {"embedded 1"}
        others = set(lines) - set(embedded)
        assert all(line.startswith(f"{path}: it is being written to by") for line in others)
    assert contents(out) == contents(alone)
    record_property("embeds at once", count)
    record_property("told that another writes", len(lines) - len(embedded))


def test_readers_beside_a_writer(
    tmp_path: Path, proteins: list[Protein], record_property: Record
) -> None:
    """Whatever moment a reader opens the store at: whole rows, the right ones, or none yet."""
    path = tmp_path / "store.zarr"
    with StoreWriter(path, OPTIONS) as planning:
        add_all(planning, proteins)
        planning.plan("one_hot", ONE_HOT, 200, CHUNK_ROWS)
    writer = threading.Thread(
        target=encode_pending,
        args=(path, "one_hot", partial(load_slowly, seconds=times(2, 10) / 100)),
    )
    writer.start()
    looks = rows_seen = 0
    while writer.is_alive() or looks == 0:
        store = EmbeddingStore.open(path)
        present = store[store.rows("one_hot")[0] >= 0]
        for view, rows in zip(present, present.embeddings("one_hot"), strict=True):
            np.testing.assert_array_equal(rows, one_hot([store.sequence(view.ids[0])])[0])
        looks, rows_seen = looks + 1, max(rows_seen, len(present))
        time.sleep(0.005)
    writer.join()
    assert looks > 3
    record_property("looks at a store that is written", looks)
    assert verify(path).ok


@pytest.fixture(scope="module")
def two_forks() -> Iterator[tuple[Forks, Forks]]:
    """Two processes that run commands at once."""
    with Forks() as first, Forks() as second:
        yield first, second


@pytest.mark.parametrize("kind", ["fit", "export"])
def test_two_writers_of_one_target(
    kind: str,
    two_forks: tuple[Forks, Forks],
    made: Path,
    store_path: Path,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """The target is whole afterwards, one of the two's, and nothing is left beside it."""
    target = tmp_path / "out" / ("model" if kind == "fit" else "vectors.parquet")
    target.parent.mkdir()
    commands = [[kind, store_path, "--out", target] for _ in range(2)]
    for seed, words in enumerate(commands):
        if kind == "fit":
            words += ["--seed", seed, "--overwrite", "--max-epochs", 2, "--embed-dim", 16]
        else:
            ids = tmp_path / f"{seed}.txt"
            ids.write_text("\n".join(["1a2p_A", "1bpi_A"][: seed + 1]))
            words += ["--model", made / "model", "--ids", ids]
    results = []
    for words in commands:
        assert two_forks[0].run(*words).code == 0
        results.append(digests(target))
    assert results[0] != results[1]
    rounds = times(2, 20)
    for number in range(rounds):
        two_forks[0].begin(*commands[0])
        time.sleep(0.02 * (number % 3))
        two_forks[1].begin(*commands[1])
        for forks in two_forks:
            ended = forks.end()
            assert ended.code in (0, 2), ended
            assert len(ended.stderr.splitlines()) <= 5, ended
            assert "Traceback" not in ended.stderr
        assert digests(target) in results
        assert (verify_model if kind == "fit" else verify_vectors)(target) == []
        assert [path.name for path in target.parent.iterdir()] == [target.name]
    record_property(f"pairs of {kind}", rounds)


def digests(path: Path) -> list[bytes]:
    """The SHA-256 of a file, or of each file of a folder."""
    return [sha256(p) for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
