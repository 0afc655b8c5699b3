"""Damaged vectors are named in one line: no search ends in a traceback, or ranks them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from protalign.core.errors import InputError
from protalign.estimator import VectorLookup
from protalign.search import VectorIndex, index_vectors
from protalign.search.index import KINDS, Index
from protalign.search.searcher import Searcher
from protalign.stores import AlignedVectors, VectorBatch, read_vectors, write_vectors
from protalign.stores.vectors.flat import HEADER
from tests.helpers.commands import run

DIM, ROWS, DAMAGED = 8, 43, 21
#: Numbers that a damaged byte may make of one.
NUMBERS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "huge": 3e38, "long": 9.0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 43 vectors, and its index. The last rows are not a whole group of exact search.

    All are near one direction, so that the damaged one is among the candidates of any query.
    """
    place = tmp_path_factory.mktemp("whole")
    values = np.abs(np.random.default_rng(0).normal(size=(ROWS, DIM))).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    batch = VectorBatch([f"p{row}" for row in range(ROWS)], values, values)
    write_vectors(place / "v", [batch], dim=DIM, metadata={})
    index_vectors(place / "v", place / "index")
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """A copy of the folder and its index, which a test may damage."""
    return copytree(whole, tmp_path / "copy")


def _damage(folder: Path, number: float, row: int = DAMAGED, name: str = "structure") -> None:
    with (folder / f"{name}.npy").open("r+b") as file:
        file.seek(HEADER + 4 * (row * DIM + 3))
        file.write(np.float32(number).tobytes())


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("row", [DAMAGED, ROWS - 1], ids=["in a group", "in the last rows"])
@pytest.mark.parametrize("k", [1, 5, ROWS])
@pytest.mark.parametrize("opened", ["exact", "index"])
def test_a_search_names_a_damaged_vector(
    place: Path, number: float, row: int, k: int, opened: str
) -> None:
    """However many hits are asked for: it hides no other vector and is no hit. No warnings."""
    _damage(place / "v", number, row)
    vectors = read_vectors(place / "v")
    index = Index(vectors) if opened == "exact" else VectorIndex(place / "index", vectors)
    query = vectors.vectors_at("sequence", np.array([3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=rf"v: it is damaged \(the structure vector of p{row}"):
            index.search(query, k)


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exact"])
def test_faiss_gets_no_damaged_vector(place: Path, number: float, kind: str) -> None:
    """Its kinds are built of whole vectors only."""
    pytest.importorskip("faiss", reason="faiss is not installed")
    _damage(place / "v", number)
    vectors = read_vectors(place / "v")
    with pytest.raises(InputError, match=f"structure vector of p{DAMAGED} has not unit length"):
        Index(vectors, kind).search(vectors.vectors_at("sequence", np.array([3])), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [*NUMBERS.values(), 1e-45], ids=[*NUMBERS, "subnormal"])
def test_what_takes_single_vectors_names_a_damaged_one(place: Path, number: float) -> None:
    """Queries by id, selected rows, and vectors for scikit-learn; other ids are not affected."""
    with (place / "v" / "structure.npy").open("r+b") as file:
        file.seek(HEADER + 4 * DAMAGED * DIM)
        file.write(bytes(4 * DIM))
    _damage(place / "v", number)
    vectors, name = read_vectors(place / "v"), f"p{DAMAGED}"
    takers: list[Callable[[str], object]] = [
        lambda entry_id: Searcher(vectors).stored([entry_id], "structure"),
        lambda entry_id: vectors.select([entry_id]),
        lambda entry_id: VectorLookup(place / "v", output="structure").transform([entry_id]),
    ]
    for take in takers:
        take("p3")
        with pytest.raises(InputError, match=f"structure vector of {name} has not unit length"):
            take(name)


def test_an_index_with_damaged_scales_is_named(place: Path) -> None:
    """What is not finite in the cells could keep candidates out."""
    with (place / "index" / "structure_scales.npy").open("r+b") as file:
        file.seek(HEADER)
        file.write(np.float32(np.nan).tobytes())
    vectors = read_vectors(place / "v")
    index = VectorIndex(place / "index", vectors)
    with pytest.raises(InputError, match=r"index: it is damaged \(it has numbers that are not"):
        index.search(vectors.vectors_at("sequence", np.array([3])), 5)


def test_an_index_is_not_built_with_damaged_queries(place: Path) -> None:
    """Vectors of the other modality measure the recall."""
    _damage(place / "v", np.nan)
    with pytest.raises(InputError, match=f"structure vector of p{DAMAGED} has not unit length"):
        index_vectors(place / "v", place / "other")
    assert not (place / "other").exists()


@pytest.mark.parametrize("suffix", ["", ".parquet", ".csv"])
@pytest.mark.parametrize("column", ["structure", "structure_mean"])
@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_no_such_numbers_are_written(
    tmp_path: Path, suffix: str, column: str, number: float
) -> None:
    """Neither vectors nor means with some numbers that are not; the entry is named."""
    values = np.eye(2, dtype=np.float32)
    wrong = values.copy()
    wrong[1, 0] = number
    columns = {"structure": values, "structure_mean": values, column: wrong}
    batch = VectorBatch(["a", "b"], values, **columns)  # type: ignore[arg-type]
    out = tmp_path / f"v{suffix}"
    with pytest.raises(InputError, match=r"^b: its structure (vector has not|mean is not)"):
        write_vectors(out, [batch], dim=2, metadata={}, mean_dims={"structure": 2})
    assert not out.exists()
    with pytest.raises(InputError, match="divide each vector by its length"):
        write_vectors(out, [VectorBatch(["a", "b"], 2 * values)], dim=2, metadata={})


def test_vectors_of_a_program_that_checked_nothing(whole: Path) -> None:
    """In memory they have no path, and are named all the same."""
    mapped = read_vectors(whole / "v")
    structure = np.array(mapped.structure)
    structure[DAMAGED] = np.inf
    here = np.ones(ROWS, dtype=np.bool_)
    vectors = AlignedVectors(mapped.ids, mapped.sequence, structure, here, here)
    with pytest.raises(InputError, match=f"the vectors: they are damaged .* of p{DAMAGED} "):
        Index(vectors).search(structure[:2], 3)


def test_the_command_ends_in_one_line(place: Path) -> None:
    """Not in a traceback, and not in a hit with cosine nan."""
    _damage(place / "v", np.nan)
    for more in ([], ["--index", str(place / "index")]):
        words = ["search", "p1", "--vectors", str(place / "v"), "-k", "40", *more]
        result = run(*words, code=2)
        assert f"the structure vector of p{DAMAGED} has not unit length" in result.stderr
        assert "Traceback" not in result.stderr
