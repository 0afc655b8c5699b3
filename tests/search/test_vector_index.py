"""An index of vectors: exact cosines, nearly all of the nearest, and no trust in its files."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import google_crc32c
import numpy as np
import pytest

import protalign
from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError, WriteError
from protalign.core.protein import MODALITIES
from protalign.search import VectorIndex, index_vectors
from protalign.search.index import Index
from protalign.search.rescored import (
    RescoredGraph,
    exact_of,
    fitting_expansion,
    some_vectors,
)
from protalign.search.vector_graphs import LINKS, graph_bytes
from protalign.search.vector_index import verify_vector_index
from protalign.stores import AlignedVectors, VectorBatch, read_vectors, write_vectors
from tests.helpers.commands import run

pytest.importorskip("usearch", reason="usearch is not installed")

ROWS, DIM = 4000, 32
#: Where the parts of a graph's file begin.
HEAD = 8 + ROWS * DIM
LEVELS = HEAD + 64 + 40
NODES = LEVELS + 2 * ROWS


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
    graphs = index_vectors(place / "vectors", place / "index").graphs
    counts = {modality: graph.count for modality, graph in graphs.items()}
    assert counts == {"sequence": ROWS, "structure": ROWS - -(-ROWS // 7)}
    assert all(graph.recall >= 0.99 for graph in graphs.values())
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
    assert (everything >= 0).mean() > 0.99


def test_a_search_looks_as_far_as_was_measured(place: Path) -> None:
    """The recorded expansion is used, and is the one that measuring it again gives."""
    index = VectorIndex(place / "index", place / "vectors")
    queries = index.vectors.vectors_at("sequence", np.arange(200))
    expected = Index(index.vectors).search(queries, 10, against="sequence")[0]

    def recall() -> float:
        found = index.search(queries, 10, against="sequence")[0]
        return float((found[:, :, None] == expected[:, None]).any(axis=1).mean())

    assert recall() >= 0.99
    graph = index._built["sequence"].graph  # type: ignore[attr-defined]
    assert graph.expansion == index.record.graphs["sequence"].expansion
    again = fitting_expansion(
        RescoredGraph(place, graph, *index.vectors.candidates("sequence")),
        Index(index.vectors)._build("sequence"),  # type: ignore[arg-type]
        some_vectors(*index.vectors.candidates("structure")),
    )
    assert again[0] == index.record.graphs["sequence"].expansion


def test_queries_of_the_other_modality_count(tmp_path: Path) -> None:
    """A search looks further if the other modality's vectors are harder to answer."""
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
    record = index_vectors(vectors, tmp_path / "index").graphs["structure"]
    index = VectorIndex(tmp_path / "index", vectors)
    expected = Index(vectors).search(sequence[:512], 10)[0]
    found = index.search(sequence[:512], 10)[0]
    assert record.recall >= 0.99
    assert (found[:, :, None] == expected[:, None]).any(axis=1).mean() >= 0.98
    own = fitting_expansion(
        RescoredGraph(tmp_path, index._built["structure"].graph, structure, every),  # type: ignore[attr-defined]
        exact_of(structure, every),
    )
    assert own[0] < record.expansion


def test_candidates_are_rescored(place: Path) -> None:
    """The order is that of the vectors themselves, not that of their rounded numbers."""
    vectors = read_vectors(place / "vectors")
    index = VectorIndex(place / "index", vectors)
    queries = vectors.vectors_at("sequence", np.arange(50))
    index.search(queries[:1], 1)
    rounded = index._built["structure"].graph.nearest(queries, 10)  # type: ignore[attr-defined]
    assert (rounded != index.search(queries, 10)[0]).any()


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


def test_it_says_what_memory_it_needs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built: about the size of its largest file."""
    size = (place / "index" / "sequence.usearch").stat().st_size
    assert size == pytest.approx(graph_bytes(ROWS, DIM), rel=0.02)
    monkeypatch.setattr("protalign.search.vector_index.usable_memory", lambda: size / 2)
    with pytest.raises(InputError, match="GB of memory, and this process"):
        index_vectors(place / "vectors", place / "other")


@pytest.mark.parametrize("name", ["structure.usearch", "vector-index.json"])
def test_damage_is_refused_before_usearch_opens_it(place: Path, copy: Path, name: str) -> None:
    """A changed byte, a shorter file, a missing one, a link: one line, the same of verify."""
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
        with pytest.raises(InputError) as error:
            VectorIndex(copy, place / "vectors").search(np.eye(1, DIM, dtype=np.float32))
        assert str(error.value) == problem
        assert "\n" not in problem


#: Places in a graph's file, and what a hostile one may have there.
HOSTILE = {
    "rows": (0, "<I", ROWS + 1),
    "width": (4, "<I", 1 << 30),
    "word": (HEAD, "<7s", b"usurped"),
    "kind of number": (HEAD + 14, "<B", 11),
    "present": (HEAD + 17, "<Q", 1 << 40),
    "deleted": (HEAD + 25, "<Q", 1),
    "dimensions": (HEAD + 33, "<Q", 1 << 33),
    "nodes": (HEAD + 64, "<Q", 1 << 40),
    "links": (HEAD + 72, "<Q", 1 << 20),
    "other links": (HEAD + 72, "<Q", 16),
    "low links": (HEAD + 80, "<Q", 1 << 20),
    "top": (HEAD + 88, "<Q", 1 << 20),
    "entry": (HEAD + 96, "<Q", 1 << 31),
    "a level": (LEVELS, "<h", 9),
    "a level below 0": (LEVELS, "<h", -1),
    "a key": (NODES, "<Q", 1 << 50),
    "a node's level": (NODES + 8, "<h", 5),
    "number of links": (NODES + 10, "<I", 2 * LINKS + 1),
    "a link": (NODES + 14, "<I", ROWS),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_verify_finds_a_graph_that_leads_elsewhere(copy: Path, kind: str) -> None:
    """Also if the document has the checksum of the hostile file."""
    path = copy / "sequence.usearch"
    content = bytearray(path.read_bytes())
    place, form, value = HOSTILE[kind]
    struct.pack_into(form, content, place, value)
    _put(copy, bytes(content))
    (problem,) = verify_vector_index(copy)
    assert problem.startswith(f"{copy}: it is damaged (sequence.usearch: ")


def test_verify_finds_a_link_to_a_level_that_is_not_there(copy: Path) -> None:
    """Its list would be read from the next node."""
    path = copy / "sequence.usearch"
    content = bytearray(path.read_bytes())
    levels = np.frombuffer(bytes(content[LEVELS:NODES]), dtype="<i2")
    upper = int(np.flatnonzero(levels > 0)[0])
    low = int(np.flatnonzero(levels == 0)[0])
    low_list, upper_list = 4 * (1 + 2 * LINKS), 4 * (1 + LINKS)
    sizes = 10 + low_list + levels.astype(int) * upper_list
    place = NODES + int(sizes[:upper].sum()) + 10 + low_list
    (count,) = struct.unpack_from("<I", content, place)
    assert 0 < count <= LINKS
    struct.pack_into("<I", content, place + 4, low)
    _put(copy, bytes(content))
    assert "a link leads to a node that its level has not" in verify_vector_index(copy)[0]


def test_another_graph_is_refused_by_its_head(place: Path, copy: Path) -> None:
    """A graph of other counts, whose checksum the document has; and one that is none."""
    few = read_vectors(place / "vectors").select([f"p{row}" for row in range(100)])
    index_vectors(few, copy.parent / "few")
    for content in ((copy.parent / "few" / "sequence.usearch").read_bytes(), b"nothing" * 100):
        _put(copy, content)
        index = VectorIndex(copy, place / "vectors")
        with pytest.raises(InputError, match="not the graph that the index describes"):
            index.search(np.eye(1, DIM, dtype=np.float32), against="sequence")


def _put(index: Path, content: bytes) -> None:
    """Put a graph into an index, with a document that describes it."""
    (index / "sequence.usearch").write_bytes(content)
    document = unsealed(json.loads((index / "vector-index.json").read_text()))
    assert document is not None
    graph = document["graphs"]["sequence"]
    graph["bytes"], graph["crc32c"] = len(content), google_crc32c.value(content)
    document = {"schema": document.pop("schema"), **document}
    (index / "vector-index.json").write_text(json.dumps(sealed(document)))


def test_without_usearch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is one line."""
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(InputError, match=r"pip install \"protalign\[usearch\]\""):
        index_vectors(place / "vectors", place / "other")
