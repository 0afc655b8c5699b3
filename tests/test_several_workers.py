"""Export, index, evaluate and verify by a scheduler's workers: what one process gives.

The workers are threads of this process, and two processes: both are slow to start.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import LocalCluster
from distributed.protocol.pickle import dumps, loads

from protalign import EmbeddingStore, ProtAlignEstimator, embed, evaluate
from protalign.core.errors import InputError, ProtAlignError, StoreError
from protalign.encoders.recorded import RecordedEncoders
from protalign.estimator.export import _check, export_vectors
from protalign.search import index_store
from protalign.stores import StoreWriter, verify
from protalign.stores.checking.chunks import ChunkCheck, ChunkRange
from protalign.stores.format.state import load_state
from protalign.stores.part import StorePart, _SentPart
from tests.helpers.commands import contents, run


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.slow) for kind in ("threads", "processes")],
)
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a scheduler with two workers."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=request.param == "processes",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the sample into several tasks, with workers and without."""
    monkeypatch.setattr("protalign.estimator.export._ENTRIES_AT_ONCE", 9)
    monkeypatch.setattr("protalign.search.word_building._RESIDUES_AT_ONCE", 700)
    monkeypatch.setattr("protalign.evaluation.cropping._PROTEINS_AT_ONCE", 3)
    monkeypatch.setattr("protalign.stores.checking.verify.CHUNKS_PER_TASK", 2)


def test_export(
    scheduler: str,
    fitted: ProtAlignEstimator,
    store: EmbeddingStore,
    tmp_path: Path,
) -> None:
    """The file's bytes are the same, also of a view in another order."""
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    for entries in (store, store[::-2]):
        for path, address in ((here, None), (there, scheduler)):
            n = fitted.export(entries, path, features=("aligned", "mean"), scheduler=address)
            assert n == len(entries)
        assert there.read_bytes() == here.read_bytes()


def test_vectors_of_other_sizes_are_refused(fitted: ProtAlignEstimator) -> None:
    """They are of another model than the command's."""
    model = fitted.model_
    right, wrong = (np.zeros((3, width), np.float32) for width in (model.embed_dim, 1))
    _check({"sequence": right}, {}, 3, model)
    for vectors, means in (({"sequence": wrong}, {}), ({}, {"sequence": wrong})):
        with pytest.raises(ProtAlignError, match="a task returned float32 of shape"):
            _check(vectors, means, 3, model)


def test_index(
    scheduler: str, fitted: ProtAlignEstimator, store: EmbeddingStore, tmp_path: Path
) -> None:
    """Every file's bytes are the same, and so are the report and the progress."""
    reports = []
    for name, address in (("here", None), ("there", scheduler)):
        steps: list[tuple[int, int]] = []

        def add(done: int, total: int, steps: list[tuple[int, int]] = steps) -> None:
            steps.append((done, total))

        path = tmp_path / name
        model = fitted.model_
        report = index_store(model, store, path, n_words=64, scheduler=address, on_progress=add)
        reports.append((report, steps))
    assert reports[0] == reports[1]
    assert len(reports[0][1]) > 4
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_evaluate(scheduler: str, finished: Path) -> None:
    """The cut queries get the same embeddings, and so every number is the same."""

    def report(address: str | None) -> dict[str, Any]:
        store = EmbeddingStore.open(finished / "store.zarr")[:4]
        options: dict[str, Any] = {"crop": 0.3, "residues": False, "method": "kmer"}
        return evaluate(finished / "model", store, n_bootstrap=0, **options, scheduler=address)

    assert report(scheduler) == report(None)


def _damaged(store_path: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(store_path, tmp_path / "damaged.zarr"))
    chunks = sorted(file for file in path.rglob("c.*") if file.is_file())
    for chunk in chunks[:: len(chunks) // 6]:
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(bytes(data))
    chunks[1].unlink()
    return path


def test_verify(scheduler: str, store_path: Path, tmp_path: Path) -> None:
    """The same damages with the same ids in the same order; of one store, and of several."""
    path = _damaged(store_path, tmp_path)
    here, there = (verify(path, scheduler=address) for address in (None, scheduler))
    assert there == here
    assert len(there.damages) > 5
    assert verify(store_path, scheduler=scheduler) == verify(store_path)
    both = [path, store_path]
    assert list(verify(both, scheduler=scheduler).lines()) == list(verify(both).lines())


def test_a_store_that_a_worker_does_not_see_is_no_damage(store_path: Path, tmp_path: Path) -> None:
    """A check does not reach a machine that lacks the store, or has less under its path."""
    path = Path(shutil.copytree(store_path, tmp_path / "store.zarr"))
    check = dumps(ChunkCheck(path, load_state(path)))
    some = ChunkRange("entries/source", np.array([0]))
    assert loads(check)(some).faults == []
    shutil.rmtree(path)
    with pytest.raises(StoreError, match=r"store\.zarr: "):
        loads(check)
    with StoreWriter(path, {}):
        pass
    with pytest.raises(StoreError, match="another store here"):
        loads(check)


def test_a_part_is_sent_without_its_store(store: EmbeddingStore, store_path: Path) -> None:
    """It is looked at by the function once, not by every task; a part of others is refused."""
    sent = dumps(StorePart(store[[5, 3]]))
    assert str(store_path).encode() in dumps(store[[5, 3]])
    assert str(store_path).encode() not in sent
    assert loads(sent).of(store).ids.tolist() == store.ids[[5, 3]].tolist()
    for rows in ([3, 5], [5, len(store.log)]):
        other = _SentPart(np.array(rows), store[[5, 3]].fingerprint())
        with pytest.raises(StoreError, match="no longer the store of the view"):
            other.of(store)


def test_errors_are_those_of_one_process(
    scheduler: str, fitted: ProtAlignEstimator, store: EmbeddingStore, tmp_path: Path
) -> None:
    """A model that gives NaN is refused in the same words, and no file is left."""
    model = copy.deepcopy(fitted.model_)
    with torch.no_grad():
        for parameter in model.structure.parameters():
            parameter.fill_(torch.nan)
    words = []
    for address in (None, scheduler):
        with pytest.raises(InputError, match="hold NaN, infinity or huge values") as caught:
            export_vectors(model, store, tmp_path / "vectors.parquet", scheduler=address)
        words.append(str(caught.value))
    assert words[0] == words[1]
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_opened_anew(
    scheduler: str, fitted: ProtAlignEstimator, store_path: Path, tmp_path: Path
) -> None:
    """What was damaged after an earlier run is found, though the workers had the store open."""
    path = Path(shutil.copytree(store_path, tmp_path / "store.zarr"))
    file = tmp_path / "vectors.parquet"
    fitted.export(EmbeddingStore.open(path), file, scheduler=scheduler)
    values = path / "encoders" / "one_hot" / "values"
    for chunk in values.rglob("c.*"):
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.unlink()
        chunk.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="does not match its checksum"):
        fitted.export(EmbeddingStore.open(path), file, scheduler=scheduler)


def test_weights_that_a_worker_does_not_find(
    scheduler: str, finished: Path, tmp_path: Path
) -> None:
    """The line is that of one process."""
    store = EmbeddingStore.open(finished / "store.zarr")[:7]
    model = ProtAlignEstimator.load(finished / "model").model_
    other = {"sequence": str(tmp_path / "none.pt")}
    words = []
    for address in (None, scheduler):
        encoders = RecordedEncoders(model.encoders, other, "cpu")
        with pytest.raises(Exception, match=r"none\.pt") as caught:
            evaluate(model, store, crop=0.2, encoders=encoders, scheduler=address)
        words.append((type(caught.value), str(caught.value)))
    assert words[0] == words[1]


def test_no_scheduler_is_one_line_and_leaves_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command says so, with exit code 2, and has written nothing."""
    monkeypatch.setattr("protalign.core.cluster.ANSWER_SECONDS", 0.1)
    store, model = finished / "store.zarr", ("--model", finished / "model")
    split, nobody = finished / "split.csv", ("--scheduler", "tcp://127.0.0.1:9")
    sample, encoders = "examples/sample", ("--structure-encoder", "none")
    for words in (
        ("embed", sample, "--out", tmp_path / "store.zarr", *encoders),
        ("embed", tmp_path / "missing", "--out", store),
        ("export", store, *model, "--out", tmp_path / "vectors.parquet"),
        ("index", store, *model, "--out", tmp_path / "index"),
        ("evaluate", store, *model, "--split", split, "--crop", 0.1),
        ("verify", store),
    ):
        printed = run(*words, *nobody, code=2).stderr
        assert printed.startswith("protalign: no Dask scheduler answers at tcp://127.0.0.1:9: ")
        assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="no Dask scheduler"):
        verify(store, scheduler="tcp://127.0.0.1:9")


def test_a_scheduler_is_asked_before_long_work(
    fitted: ProtAlignEstimator, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before files are read, and before proteins are pooled and clustered."""
    monkeypatch.setattr("protalign.core.cluster.ANSWER_SECONDS", 0.1)
    for work in ("embedding.find_given", "evaluation.evaluate.retrieval_items"):
        monkeypatch.setattr(f"protalign.{work}", lambda *_: pytest.fail("work before it"))
    with pytest.raises(StoreError, match="no Dask scheduler"):
        embed("examples/sample", "never.zarr", ["protalign_t6_2M"], scheduler="tcp://127.0.0.1:9")
    with pytest.raises(StoreError, match="no Dask scheduler"):
        evaluate(fitted, store, crop=0.1, scheduler="tcp://127.0.0.1:9")


def test_where_a_scheduler_is_of_no_use(finished: Path) -> None:
    """The option is refused where nothing would be spread."""
    for words, line in (
        (("verify", finished / "model"), "--scheduler: "),
        (
            ("evaluate", "s.zarr", "--model", "m", "--split", "s.csv"),
            "--scheduler: has no effect without --crop",
        ),
    ):
        assert line in run(*words, "--scheduler", "tcp://127.0.0.1:9", code=2).stderr
