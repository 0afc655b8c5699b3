"""An index of vectors: exact cosines, nearly all of the nearest, and no trust in its files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

import protalign
from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError, WriteError
from protalign.core.machine import computing_with
from protalign.core.protein import MODALITIES
from protalign.search import VectorIndex, index_vectors
from protalign.search.cell_building import building_bytes
from protalign.search.index import Index
from protalign.search.rescored import (
    RescoredCells,
    exact_of,
    fitting_nprobe,
    some_vectors,
)
from protalign.search.vector_index import verify_vector_index
from protalign.stores import AlignedVectors, VectorBatch, read_vectors, write_vectors
from protalign.stores.vectors.flat import HEADER, checksum_of
from tests.helpers.commands import run

ROWS, DIM = 4000, 32


def _vectors(seed: int = 0) -> VectorBatch:
    """Entries about 80 centres, as families are; every seventh has no structure."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(80, DIM))
    values = (centres[np.arange(ROWS) % 80] + 0.5 * generator.normal(size=(ROWS, DIM))).astype("f4")
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    structure = np.where((np.arange(ROWS) % 7 > 0)[:, None], values, np.float32(np.nan))
    return VectorBatch([f"p{row}" for row in range(ROWS)], values, structure)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors as a file and as a folder, and the folder's index. Only to be read."""
    place = tmp_path_factory.mktemp("vectors")
    for name in ("vectors.parquet", "vectors"):
        write_vectors(place / name, [_vectors()], dim=DIM, metadata={})
    cells = index_vectors(place / "vectors", place / "index").modalities
    counts = {modality: each.count for modality, each in cells.items()}
    assert counts == {"sequence": ROWS, "structure": ROWS - -(-ROWS // 7)}
    assert all(each.recall >= 0.99 for each in cells.values())
    assert 1 < cells["structure"].nprobe < cells["structure"].cells == 85
    return place


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """A copy of the index, to damage."""
    return copytree(place / "index", tmp_path / "copy")


def test_nearly_all_of_the_nearest_with_exact_cosines(place: Path) -> None:
    """99 % of the 10 nearest, ordered by the cosines of an exact search, in both modalities."""
    vectors = read_vectors(place / "vectors")
    exact, index = Index(vectors), VectorIndex(place / "index", vectors)
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


def test_a_search_reads_as_many_cells_as_was_measured(place: Path) -> None:
    """The recorded number is used, and measuring again gives it; fewer find less."""
    index = VectorIndex(place / "index", place / "vectors")
    index.search(index.vectors.vectors_at("sequence", np.arange(1)))
    record = index.record.modalities["structure"]
    rescored = index._built["structure"]
    assert isinstance(rescored, RescoredCells)
    assert rescored.nprobe == record.nprobe
    exact = exact_of(*index.vectors.candidates("structure"))
    others = some_vectors(*index.vectors.candidates("sequence"))
    assert fitting_nprobe(rescored, exact, others) == (record.nprobe, record.recall)

    def recall(nprobe: int) -> float:
        """Of queries far from the vectors, which need more cells than most."""
        rescored.nprobe = nprobe
        queries = np.random.default_rng(1).normal(size=(500, DIM)).astype(np.float32)
        expected = exact.nearest(queries, 10)[0]
        return float((rescored.nearest(queries, 10)[0][:, :, None] == expected[:, None]).mean())

    assert recall(record.nprobe - 1) < recall(record.nprobe) < recall(record.cells)


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
    cells = index._built["structure"].cells  # type: ignore[attr-defined]
    own = fitting_nprobe(
        RescoredCells(tmp_path, cells, 1, structure, every), exact_of(structure, every)
    )
    assert own[0] < record.nprobe


def test_candidates_are_rescored(place: Path) -> None:
    """The order is that of the vectors themselves, not that of their rounded numbers."""
    vectors = read_vectors(place / "vectors")
    index = VectorIndex(place / "index", vectors)
    queries = vectors.vectors_at("sequence", np.arange(50))
    index.search(queries[:1], 1)
    cells = index._built["structure"].cells  # type: ignore[attr-defined]
    rounded = cells.nearest(queries, len(cells.centroids), 10)
    exact = Index(vectors).search(queries, 10)[0]
    assert (np.sort(rounded) != np.sort(exact)).any()
    rescored = RescoredCells(place, cells, len(cells.centroids), *vectors.candidates("structure"))
    np.testing.assert_array_equal(rescored.nearest(queries, 10)[0], exact)


def test_a_file_and_a_folder_are_the_same_vectors(place: Path) -> None:
    """An index of the one is an index of the other; a changed vector or id is refused."""
    vectors = read_vectors(place / "vectors.parquet")
    for modality in MODALITIES:
        assert vectors.digest(modality) == read_vectors(place / "vectors").digest(modality)
    VectorIndex(place / "index", place / "vectors.parquet")
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
            VectorIndex(place / "index", other)


def test_search_takes_vectors_and_their_index(place: Path) -> None:
    """The function and the commands, with the same hits; each wrong pair is a line."""
    vectors, index = place / "vectors", place / "index"
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
        protalign.search("p1", vectors, index=place / "none")


def test_the_command_makes_an_index(place: Path, tmp_path: Path) -> None:
    """Of a file or a folder; options of words are refused; a store needs a model."""
    out = tmp_path / "index"
    command = ("index", place / "vectors.parquet", "--out", out)
    said = json.loads(run(*command, "--json").stdout)
    assert min(said.pop("recall").values()) >= 0.99
    assert said == {"index": str(out), "vectors": {"sequence": 4000, "structure": 3428}}
    assert "it is whole" in run("verify", out).stdout
    assert "--model: indexing vectors does without" in run(*command, "-m", out, code=2).stderr
    assert "indexed alone" in run(*command, place / "vectors", code=2).stderr
    assert "--model: it is missing" in run("index", tmp_path, "--out", out, code=2).stderr


def test_only_an_index_of_vectors_is_replaced(place: Path, tmp_path: Path) -> None:
    """Something else is left as it is, and so is everything if a vector is wrong."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WriteError, match="exists and is not an index of vectors"):
        index_vectors(place / "vectors", tmp_path)
    vectors = read_vectors(place / "vectors.parquet")
    long = AlignedVectors(
        vectors.ids, 2 * vectors.sequence, vectors.structure, vectors.has_sequence,
        vectors.has_structure,
    )  # fmt: skip
    with pytest.raises(InputError, match="sequence vectors have no unit length"):
        index_vectors(long, tmp_path / "index")
    with pytest.raises(InputError, match="there are none to index"):
        index_vectors(vectors[np.zeros(ROWS, dtype=bool)], tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_writer_leaves_nothing(place: Path, tmp_path: Path) -> None:
    """No index, and nothing beside it."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_vectors(place / "vectors", tmp_path / "index", on_progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_no_index(place: Path, tmp_path: Path) -> None:
    """The next one builds it, and removes what is left."""
    code = (
        "import os, signal, sys\n"
        "from protalign.search import index_vectors\n"
        "def kill(done, total):\n"
        "    if done == total:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "index_vectors(*sys.argv[1:], on_progress=kill)\n"
    )
    out = tmp_path / "index"
    command = [sys.executable, "-c", code, str(place / "vectors"), str(out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    assert list(tmp_path.iterdir())
    index_vectors(place / "vectors", out)
    assert verify_vector_index(out) == []
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_the_same_vectors_give_the_same_bytes(place: Path, tmp_path: Path) -> None:
    """Of a file or a folder, by one thread or by three."""
    expected = {path.name: path.read_bytes() for path in (place / "index").iterdir()}
    assert len(expected) == 11
    for name, threads in (("vectors", 3), ("vectors.parquet", 1)):
        with computing_with(threads):
            index_vectors(place / name, tmp_path / "index")
        assert {p.name: p.read_bytes() for p in (tmp_path / "index").iterdir()} == expected


def test_hits_do_not_depend_on_threads_or_company(place: Path) -> None:
    """Several threads ask one index; queries come together, singly, and by one thread or three."""
    index = VectorIndex(place / "index", place / "vectors")
    queries = np.random.default_rng(2).normal(size=(300, DIM)).astype(np.float32)
    with computing_with(1):
        rows, cosines = index.search(queries, 10)

    def ask(threads: int) -> None:
        with computing_with(threads):
            for first in range(0, 300, 100):
                found = index.search(queries[first : first + 100], 10)
                np.testing.assert_array_equal(found[0], rows[first : first + 100])
                np.testing.assert_allclose(found[1], cosines[first : first + 100], atol=1e-5)
            for place in range(0, 300, 30):
                found = index.search(queries[[place]], 10)
                np.testing.assert_array_equal(found[0][0], rows[place])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, [1, 3, 3, 3]))


def test_an_index_of_the_earlier_schema_is_replaced(place: Path, tmp_path: Path) -> None:
    """It is not read, and the line says what to do."""
    out = tmp_path / "index"
    out.mkdir()
    document = sealed({"schema": "protalign-vector-index/1", "entries": ROWS})
    (out / "vector-index.json").write_text(json.dumps(document))
    (out / "sequence.usearch").touch()
    with pytest.raises(InputError, match=r"index/1, this version reads .*; build it again with"):
        VectorIndex(out, place / "vectors")
    index_vectors(place / "vectors", out)
    assert verify_vector_index(out) == []
    assert not (out / "sequence.usearch").exists()


def test_it_says_what_memory_it_needs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built: four bytes for each of many vectors, and little else."""
    assert building_bytes(200_000_000, 128) < 4 * 200_000_000 + 2e9
    needed = building_bytes(ROWS, DIM)
    monkeypatch.setattr("protalign.search.vector_index.usable_memory", lambda: needed / 2)
    with pytest.raises(InputError, match="GB of memory, and this process"):
        index_vectors(place / "vectors", place / "other")


FILES = [
    f"{modality}_{kind}.npy"
    for modality in MODALITIES
    for kind in ("centroids", "offsets", "rows", "scales", "vectors")
]


@pytest.mark.parametrize("name", [*FILES, "vector-index.json"])
def test_damage_is_found(place: Path, copy: Path, name: str) -> None:
    """A changed byte, a shorter file, a missing one, a link: one line of verify.

    A search says the same line, or finds entries that exist.
    """
    path = copy / name
    content = path.read_bytes()

    def link() -> None:
        other = copy.parent / "elsewhere"
        other.write_bytes(content)
        path.symlink_to(other)

    changes: list[Callable[[], object]] = [
        lambda: path.write_bytes(content[:300] + bytes([content[300] ^ 4]) + content[301:]),
        lambda: path.write_bytes(content[:-2]),
        path.unlink,
        link,
    ]
    for change in changes:
        change()
        (problem,) = verify_vector_index(copy)
        assert problem.startswith(str(copy)), problem
        assert "`protalign index`" in problem
        assert "\n" not in problem
        modality = "structure" if "structure" in name else "sequence"
        said = _search(copy, place, modality)
        changed_byte_of_large = change is changes[0] and name.endswith(
            ("rows.npy", "scales.npy", "vectors.npy")
        )
        assert said == problem or changed_byte_of_large


@pytest.mark.parametrize("value", ["zeros", "ones", "noise"])
@pytest.mark.parametrize("kind", ["centroids", "offsets", "rows", "scales", "vectors"])
def test_hostile_numbers_do_no_harm(place: Path, copy: Path, kind: str, value: str) -> None:
    """Also if the document has their checksum: a line, or hits that exist; verify tells.

    Centroids and vectors may be any numbers: they decide only what is found.
    """
    name = f"sequence_{kind}.npy"
    content = bytearray((copy / name).read_bytes())
    size = len(content) - HEADER
    content[HEADER:] = {
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "noise": np.random.default_rng(0).bytes(size),
    }[value]
    _put(copy, name, bytes(content))
    problems = verify_vector_index(copy)
    if kind in ("rows", "offsets", "scales") or (kind, value) == ("centroids", "ones"):
        assert len(problems) == 1
        assert problems[0].startswith(f"{copy}: it is damaged (sequence_{kind}.npy ")
    _search(copy, place, "sequence")


def test_hostile_offsets_lead_nowhere(place: Path, copy: Path) -> None:
    """Those that fall, begin elsewhere, or end behind the last vector are refused."""
    name = "sequence_offsets.npy"
    content = (copy / name).read_bytes()
    good = np.frombuffer(content, dtype="<i8", offset=HEADER)
    for position, number in ((0, 1), (0, -1), (-1, ROWS + 1), (5, ROWS + 1), (5, -1)):
        changed = good.copy()
        changed[position] = number
        _put(copy, name, content[:HEADER] + changed.tobytes())
        (problem,) = verify_vector_index(copy)
        assert "sequence_offsets.npy does not rise to the last vector" in problem
        assert _search(copy, place, "sequence") == problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 0),
        ("count", ROWS + 1),
        ("cells", 1 << 40),
        ("cells", 0),
        ("nprobe", 0),
        ("nprobe", 1 << 40),
        ("nprobe", 1.5),
        ("recall", "all"),
        ("recall", float("1e400")),
        ("checksums", {}),
        ("checksums", None),
    ],
)
def test_a_hostile_document_is_one_line(place: Path, copy: Path, key: str, value: object) -> None:
    """Numbers out of their limits, with a whole seal."""
    document = unsealed(json.loads((copy / "vector-index.json").read_text()))
    assert document is not None
    document["modalities"]["sequence"][key] = 0 if value == float("inf") else value
    if value == float("inf"):
        text = json.dumps(sealed(document)).replace('"recall": 0', '"recall": 1e400')
    else:
        text = json.dumps(sealed(document))
    (copy / "vector-index.json").write_text(text)
    (problem,) = verify_vector_index(copy)
    assert "\n" not in problem
    assert "build it again with `protalign index`" in problem
    assert _search(copy, place, "sequence") == problem


def test_another_index_is_refused_by_its_sizes(place: Path, copy: Path) -> None:
    """Files of fewer vectors are not those that the document describes."""
    few = read_vectors(place / "vectors").select([f"p{row}" for row in range(100)])
    index_vectors(few, copy.parent / "few")
    for name in FILES:
        (copy / name).write_bytes((copy.parent / "few" / name).read_bytes())
    said = _search(copy, place, "sequence")
    assert said.startswith(f"{copy}: it is damaged (sequence_centroids.npy is not an array of")


def test_rows_that_are_not_in_the_vectors_are_refused(place: Path, copy: Path) -> None:
    """Rows out of range, twice, or of entries without a structure: none is a hit."""
    name = "structure_rows.npy"
    content = (copy / name).read_bytes()
    good = np.frombuffer(content, dtype="<i8", offset=HEADER)
    for number in (-1, ROWS, 1 << 40, 0, int(good[0])):  # entry 0 has no structure
        _put(copy, name, content[:HEADER] + np.full_like(good, number).tobytes())
        said = _search(copy, place, "structure")
        assert said.startswith(f"{copy}: it is damaged (its cells name entries ")


def _search(index: Path, place: Path, modality: str) -> str:
    """Search an index that may be damaged; return the error's line, "" if hits are whole."""
    vectors = read_vectors(place / "vectors")
    try:
        rows, cosines = VectorIndex(index, vectors).search(
            vectors.vectors_at("sequence", np.arange(1, 40)),
            against=modality,  # type: ignore[arg-type]
        )
    except InputError as error:
        return str(error)
    assert rows.min() >= 0
    assert vectors.present(modality)[rows].all()  # type: ignore[arg-type]
    assert np.isfinite(cosines).all()
    return ""


def _put(index: Path, name: str, content: bytes) -> None:
    """Put an array into an index, with a document that has its checksum."""
    (index / name).write_bytes(content)
    document = unsealed(json.loads((index / "vector-index.json").read_text()))
    assert document is not None
    numbers = np.frombuffer(content, dtype=np.uint8, offset=HEADER)
    checksums = document["modalities"][name.partition("_")[0]]["checksums"]
    checksums[name] = checksum_of(numbers)
    document = {"schema": document.pop("schema"), **document}
    (index / "vector-index.json").write_text(json.dumps(sealed(document)))
