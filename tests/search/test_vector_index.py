"""An index of vectors: exact cosines, and nearly all of the nearest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

import protalign
from protalign.core.digests import sealed
from protalign.core.errors import InputError, WriteError
from protalign.core.machine import computing_with
from protalign.core.protein import MODALITIES
from protalign.search import VectorIndex, cell_building, cells, index_vectors
from protalign.search.cell_building import building_bytes
from protalign.search.index import Index
from protalign.search.rescored import (
    RescoredCells,
    exact_of,
    fitting_nprobe,
    some_vectors,
)
from protalign.search.vector_index import verify_vector_index
from protalign.stores import AlignedVectors, read_vectors
from tests.helpers.commands import run
from tests.helpers.indexed_vectors import DIM, ROWS


def test_nearly_all_of_the_nearest_with_exact_cosines(indexed: Path) -> None:
    """99 % of the 10 nearest, ordered by the cosines of an exact search, in both modalities."""
    vectors = read_vectors(indexed / "vectors")
    exact, index = Index(vectors), VectorIndex(indexed / "index", vectors)
    queries = vectors.vectors_at("sequence", np.arange(0, ROWS, 20))
    for modality in MODALITIES:
        expected, cosines = exact.search(queries, 10, against=modality)
        rows, found = index.search(queries, 10, against=modality)
        assert (rows[:, :, None] == expected[:, None]).any(axis=1).mean() >= 0.99
        assert vectors.present(modality)[rows].all()
        same = rows == expected
        np.testing.assert_allclose(found[same], cosines[same], atol=3e-7)
        assert (np.diff(found, axis=1) <= 0).all()
    one = index.search(queries[:1], 10)
    np.testing.assert_array_equal(one[0], index.search(queries, 10)[0][:1])
    assert index.search(queries[:0], 10)[0].shape == (0, 10)
    everything = index.search(queries[:2], ROWS)[0]
    assert everything.shape == (2, ROWS - -(-ROWS // 7))
    assert (np.sort(everything) == np.flatnonzero(vectors.has_structure)).all()


def test_a_search_reads_as_many_cells_as_was_measured(indexed: Path) -> None:
    """The recorded number is used, and measuring again gives it; fewer find less."""
    index = VectorIndex(indexed / "index", indexed / "vectors")
    record = index.record.modalities["structure"]
    rescored = index._built["structure"]
    assert isinstance(rescored, RescoredCells)
    assert rescored.nprobe == record.nprobe
    exact = exact_of(*index.vectors.candidates("structure"))
    others = some_vectors(index.vectors, "sequence")
    assert fitting_nprobe(rescored, exact, others) == (record.nprobe, record.recall)

    def recall(nprobe: int) -> float:
        """Of queries far from the vectors, which need more cells than most."""
        rescored.nprobe = nprobe, nprobe
        queries = np.random.default_rng(1).normal(size=(500, DIM)).astype(np.float32)
        expected = exact.nearest(queries, 10)[0]
        return float((rescored.nearest(queries, 10)[0][:, :, None] == expected[:, None]).mean())

    few, _ = record.nprobe
    assert rescored.cells_for(10) == few
    assert recall(few - 1) < recall(few) < recall(record.cells)


def test_many_hits_are_looked_for_in_more_cells(tmp_path: Path) -> None:
    """Nearly all of 200 nearest are found, and of a number between or beyond."""
    vectors = np.random.default_rng(0).normal(size=(20_000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids, every = np.arange(len(vectors)).astype(str).astype(object), np.ones(20_000, np.bool_)
    aligned = AlignedVectors(ids, np.full_like(vectors, np.nan), vectors, ~every, every)
    record = index_vectors(aligned, tmp_path / "index").modalities["structure"]
    few, many = record.nprobe
    assert few < many < record.cells
    index, exact = VectorIndex(tmp_path / "index", aligned), Index(aligned)
    moved = np.random.default_rng(1).normal(size=(100, DIM)).astype(np.float32)
    queries = vectors[:100] + 0.7 * moved / np.linalg.norm(moved, axis=1, keepdims=True)
    built = index._built["structure"]
    assert isinstance(built, RescoredCells)
    assert [built.cells_for(k) for k in (1, 10, 200, 10**6)] == [few, few, many, record.cells]
    for k in (10, 50, 200, 1000):
        least = exact.search(queries, k)[1][:, -1:] - 1e-6
        assert (index.search(queries, k)[1] >= least).mean() > 0.97


def test_queries_of_the_other_modality_count(tmp_path: Path) -> None:
    """A search reads more cells if the other modality's vectors are harder to answer."""
    generator = np.random.default_rng(5)
    families = np.repeat(generator.normal(size=(ROWS // 10, DIM)), 10, axis=0)
    structure = families + 0.05 * generator.normal(size=families.shape)
    sequence = generator.normal(size=families.shape)  # far from all structures
    sequence, structure = (
        (each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32)
        for each in (sequence, structure)
    )
    every = np.ones(ROWS, dtype=np.bool_)
    ids = np.array([f"p{n}" for n in range(ROWS)], dtype=object)
    vectors = AlignedVectors(ids, sequence, structure, every, every)
    record = index_vectors(vectors, tmp_path / "index").modalities["structure"]
    index = VectorIndex(tmp_path / "index", vectors)
    expected = Index(vectors).search(sequence[:512], 10)[0]
    found = index.search(sequence[:512], 10)[0]
    assert record.recall >= 0.99
    assert (found[:, :, None] == expected[:, None]).any(axis=1).mean() >= 0.98
    built = index._built["structure"].cells  # type: ignore[attr-defined]
    own = fitting_nprobe(
        RescoredCells(tmp_path, built, (1, 1), structure, every), exact_of(structure, every)
    )
    assert own[0][0] < record.nprobe[0]


def test_candidates_are_rescored(indexed: Path) -> None:
    """The order is that of the vectors themselves, not that of their rounded numbers."""
    vectors = read_vectors(indexed / "vectors")
    index = VectorIndex(indexed / "index", vectors)
    queries = vectors.vectors_at("sequence", np.arange(50))
    built = index._built["structure"].cells  # type: ignore[attr-defined]
    rounded = built.nearest(queries, len(built.centroids), 10)
    exact = Index(vectors).search(queries, 10)[0]
    assert (np.sort(rounded) != np.sort(exact)).any()
    rescored = RescoredCells(
        indexed, built, (len(built.centroids),) * 2, *vectors.candidates("structure")
    )
    np.testing.assert_array_equal(rescored.nearest(queries, 10)[0], exact)


def test_a_file_and_a_folder_are_the_same_vectors(indexed: Path) -> None:
    """An index of the one is an index of the other; a changed vector or id is refused."""
    vectors = read_vectors(indexed / "vectors.parquet")
    for modality in MODALITIES:
        assert vectors.digest(modality) == read_vectors(indexed / "vectors").digest(modality)
    VectorIndex(indexed / "index", indexed / "vectors.parquet")
    changed = vectors.sequence.copy()
    changed[3, :2] = changed[3, 1::-1]
    names = vectors.ids.copy()
    names[5] = "another"
    both = vectors.has_sequence, vectors.has_structure
    for other in (
        AlignedVectors(vectors.ids, changed, vectors.structure, *both),
        AlignedVectors(names, vectors.sequence, vectors.structure, *both),
        vectors[vectors.ids[::-1]],
        vectors[vectors.ids[1:]],
        AlignedVectors(vectors.ids, vectors.structure, vectors.sequence, *both[::-1]),
    ):
        with pytest.raises(InputError, match="index: it is an index of other vectors; name the"):
            VectorIndex(indexed / "index", other)


def test_search_takes_vectors_and_their_index(indexed: Path) -> None:
    """The function and the commands, with the same hits; each wrong pair is a line."""
    vectors, index = indexed / "vectors", indexed / "index"
    hits = protalign.search(["p1", "p9"], vectors, index=index, k=3)
    exact = protalign.search(["p1", "p9"], vectors, k=3)
    assert [hit.id for hit in hits] == [hit.id for hit in exact]
    np.testing.assert_allclose(*([hit.cosine for hit in each] for each in (hits, exact)), atol=3e-7)
    table = run("search", "p1", "--vectors", vectors, "--index", index, "--format", "tsv").stdout
    assert table == run("search", "p1", "--vectors", vectors, "--format", "tsv").stdout
    with pytest.raises(InputError, match="it is an index of vectors; name the vectors too"):
        protalign.search("p1", index=index)
    with pytest.raises(InputError, match="vectors: it is not an index of vectors"):
        protalign.search("p1", vectors, index=vectors)
    with pytest.raises(InputError, match="none: it does not exist"):
        protalign.search("p1", vectors, index=indexed / "none")


def test_the_command_makes_an_index(indexed: Path, tmp_path: Path) -> None:
    """Of a file or a folder; options of words are refused; a store needs a model."""
    out = tmp_path / "index"
    command = ("index", indexed / "vectors.parquet", "--out", out)
    said = json.loads(run(*command, "--json").stdout)
    assert min(said.pop("recall").values()) >= 0.99
    assert said == {"index": str(out), "vectors": {"sequence": 4000, "structure": 3428}}
    assert "it is whole" in run("verify", out).stdout
    assert "--model: indexing vectors does without" in run(*command, "-m", out, code=2).stderr
    assert "indexed alone" in run(*command, indexed / "vectors", code=2).stderr
    assert "it is not a ProtAlign store" in run("index", tmp_path, "--out", out, code=2).stderr


def test_only_an_index_of_vectors_is_replaced(indexed: Path, tmp_path: Path) -> None:
    """Something else is left as it is, and so is everything if a vector is wrong."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WriteError, match="exists and is not an index of vectors"):
        index_vectors(indexed / "vectors", tmp_path)
    vectors = read_vectors(indexed / "vectors.parquet")
    long = AlignedVectors(
        vectors.ids, 2 * vectors.sequence, vectors.structure, vectors.has_sequence,
        vectors.has_structure,
    )  # fmt: skip
    with pytest.raises(InputError, match="sequence vectors have no unit length"):
        index_vectors(long, tmp_path / "index")
    with pytest.raises(InputError, match="there are none to index"):
        index_vectors(vectors[np.zeros(ROWS, dtype=bool)], tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


STEPS = ("learning cells", "filling cells", "writing cells", "measuring recall")


def test_every_step_is_reported(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each modality in turn, from its first vectors to its last."""
    monkeypatch.setattr(cell_building, "BLOCK", 1000)
    reports: list[tuple[str, int, int]] = []
    index_vectors(
        indexed / "vectors", tmp_path / "index", on_progress=lambda *each: reports.append(each)
    )
    names = [f"{modality}s: {step}" for modality in MODALITIES for step in STEPS]
    assert list(dict.fromkeys(name for name, _, _ in reports)) == names
    for name in names:
        counts = [(done, total) for each, done, total in reports if each == name]
        assert len({total for _, total in counts}) == 1
        done = [done for done, _ in counts]
        assert done == sorted(set(done))
        assert len(done) > 1
        if not name.endswith("recall"):
            assert counts[-1][0] == counts[-1][1]
    assert ("structures: filling cells", 3428, 3428) in reports


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_writer_leaves_nothing(indexed: Path, tmp_path: Path, step: str) -> None:
    """No index, and nothing beside it, at whatever step."""

    def interrupt(name: str, done: int, total: int) -> None:
        if step in name:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_vectors(indexed / "vectors", tmp_path / "index", on_progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # a process of its own imports for seconds
def test_a_killed_writer_leaves_no_index(indexed: Path, tmp_path: Path) -> None:
    """The next one builds it, and removes what is left."""
    code = (
        "import os, signal, sys\n"
        "from protalign.search.vector_index import index_vectors\n"
        "def kill(name, done, total):\n"
        "    if 'writing' in name:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "index_vectors(*sys.argv[1:], on_progress=kill)\n"
    )
    out = tmp_path / "index"
    command = [sys.executable, "-c", code, str(indexed / "vectors"), str(out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    assert list(tmp_path.iterdir())
    index_vectors(indexed / "vectors", out)
    assert verify_vector_index(out) == []
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_the_same_vectors_give_the_same_bytes(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file or a folder, by one thread or by three, which have tens of tasks."""
    monkeypatch.setattr(cell_building, "_PRODUCTS", 1 << 13)
    monkeypatch.setattr(cell_building, "_TURNS", 2)
    monkeypatch.setattr(cell_building, "BLOCK", 1500)
    monkeypatch.setattr(cells, "THREAD_PAIRS", 1)
    built = []
    for name, threads in (("vectors", 1), ("vectors", 3), ("vectors.parquet", 2)):
        with computing_with(threads):
            index_vectors(indexed / name, tmp_path / "index")
        built.append({path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()})
    assert len(built[0]) == 11
    assert built[0] == built[1] == built[2]
    assert built[0]["structure_rows.npy"] == (indexed / "index/structure_rows.npy").read_bytes()


def test_an_index_that_is_replaced_stays_as_it_was_opened(indexed: Path, tmp_path: Path) -> None:
    """A server goes on; who opens the new one is told that it is of other vectors."""
    vectors, path = read_vectors(indexed / "vectors"), tmp_path / "index"
    copytree(indexed / "index", path)
    index = VectorIndex(path, vectors)
    queries = vectors.vectors_at("sequence", np.arange(0, ROWS, 50))
    index_vectors(vectors[vectors.ids[:300]], path)
    for modality in MODALITIES:
        expected = VectorIndex(indexed / "index", vectors).search(queries, 7, against=modality)
        np.testing.assert_array_equal(index.search(queries, 7, against=modality)[0], expected[0])
    with pytest.raises(InputError, match="it is an index of other vectors"):
        VectorIndex(path, vectors)


def test_hits_do_not_depend_on_threads_or_company(indexed: Path) -> None:
    """Several threads ask one index; queries come together, singly, and by one thread or three."""
    index = VectorIndex(indexed / "index", indexed / "vectors")
    queries = np.random.default_rng(2).normal(size=(300, DIM)).astype(np.float32)
    with computing_with(1):
        rows, cosines = index.search(queries, 10)

    def ask(threads: int) -> None:
        with computing_with(threads):
            for first in range(0, 300, 100):
                found = index.search(queries[first : first + 100], 10)
                np.testing.assert_array_equal(found[0], rows[first : first + 100])
                np.testing.assert_allclose(found[1], cosines[first : first + 100], atol=1e-5)
            for row in range(0, 300, 30):
                found = index.search(queries[[row]], 10)
                np.testing.assert_array_equal(found[0][0], rows[row])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, [1, 3, 3, 3]))


def test_an_index_of_the_earlier_schema_is_replaced(indexed: Path, tmp_path: Path) -> None:
    """It is not read, and the line says what to do."""
    out = tmp_path / "index"
    out.mkdir()
    document = sealed({"schema": "protalign-vector-index/1", "entries": ROWS})
    (out / "vector-index.json").write_text(json.dumps(document))
    (out / "sequence.usearch").touch()
    with pytest.raises(InputError, match=r"index/1, this version reads .*; build it again with"):
        VectorIndex(out, indexed / "vectors")
    index_vectors(indexed / "vectors", out)
    assert verify_vector_index(out) == []
    assert not (out / "sequence.usearch").exists()


def test_it_says_what_memory_it_needs(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built: four bytes for each of many vectors, and little else."""
    assert building_bytes(200_000_000, 128) < 4 * 200_000_000 + 2e9
    needed = building_bytes(ROWS, DIM)
    monkeypatch.setattr("protalign.search.vector_index.usable_memory", lambda: needed / 2)
    with pytest.raises(InputError, match="GB of memory, and this process"):
        index_vectors(indexed / "vectors", indexed / "other")
