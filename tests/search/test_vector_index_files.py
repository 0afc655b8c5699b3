"""Files of an index of vectors that are damaged, or that somebody wrote on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES
from protalign.search import VectorIndex, index_vectors, vector_index
from protalign.search.vector_index import verify_vector_index
from protalign.stores import read_vectors
from protalign.stores.vectors.flat import HEADER, checksum_of
from tests.helpers.indexed_vectors import ROWS

FILES = [
    f"{modality}_{kind}.npy"
    for modality in MODALITIES
    for kind in ("centroids", "offsets", "rows", "scales", "vectors")
]


@pytest.fixture
def copy(indexed: Path, tmp_path: Path) -> Path:
    """A copy of the index, to damage."""
    return copytree(indexed / "index", tmp_path / "copy")


@pytest.mark.parametrize("name", [*FILES, "vector-index.json"])
def test_damage_is_found(indexed: Path, copy: Path, name: str) -> None:
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
        said = _search(copy, indexed, modality)
        changed_byte_of_large = change is changes[0] and name.endswith(
            ("rows.npy", "scales.npy", "vectors.npy")
        )
        assert said == problem or changed_byte_of_large


@pytest.mark.parametrize("value", ["zeros", "ones", "noise"])
@pytest.mark.parametrize("kind", ["centroids", "offsets", "rows", "scales", "vectors"])
def test_hostile_numbers_do_no_harm(indexed: Path, copy: Path, kind: str, value: str) -> None:
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
    _search(copy, indexed, "sequence")


def test_hostile_offsets_lead_nowhere(indexed: Path, copy: Path) -> None:
    """Those that fall, begin elsewhere, or end behind the last vector are refused.

    Also if they fall so far that the differences leave 64 bits and look like rising ones.
    """
    name = "sequence_offsets.npy"
    content = (copy / name).read_bytes()
    good = np.frombuffer(content, dtype="<i8", offset=HEADER)
    hostile = ((0, [1]), (0, [-1]), (len(good) - 1, [ROWS + 1]), (5, [ROWS + 1]), (5, [-1]))
    for position, numbers in (*hostile, (5, [2**63 - 1, -2])):
        changed = good.copy()
        changed[position : position + len(numbers)] = numbers
        _put(copy, name, content[:HEADER] + changed.tobytes())
        (problem,) = verify_vector_index(copy)
        assert "sequence_offsets.npy does not rise to the last vector" in problem
        assert _search(copy, indexed, "sequence") == problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 0),
        ("count", ROWS + 1),
        ("cells", 1 << 40),
        ("cells", 0),
        ("nprobe", 1),
        ("nprobe", [0, 1]),
        ("nprobe", [2, 1]),
        ("nprobe", [1, 1 << 40]),
        ("nprobe", [1, 1.5]),
        ("recall", "all"),
        ("recall", -0.1),
        ("recall", 1.5),
        ("recall", 10**400),
        ("checksums", {}),
        ("checksums", None),
    ],
)
def test_a_hostile_document_is_one_line(indexed: Path, copy: Path, key: str, value: object) -> None:
    """Numbers out of their limits, with a whole seal."""
    document = unsealed(json.loads((copy / "vector-index.json").read_text()))
    assert document is not None
    document["modalities"]["sequence"][key] = value
    (copy / "vector-index.json").write_text(json.dumps(sealed(document)))
    (problem,) = verify_vector_index(copy)
    assert "\n" not in problem
    assert "build it again with `protalign index`" in problem
    assert _search(copy, indexed, "sequence") == problem


def test_more_entries_than_memory_are_a_line(copy: Path) -> None:
    """To see that no row comes twice takes a byte for each entry, of which a document may lie."""
    document = unsealed(json.loads((copy / "vector-index.json").read_text()))
    assert document is not None
    assert verify_vector_index(copy) == []
    document["entries"] = 1 << 36
    (copy / "vector-index.json").write_text(json.dumps(sealed(document)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "usable_memory", lambda: 2.0**35)
        problems = verify_vector_index(copy)
    assert len(problems) == 2
    assert all("to check its 68,719,476,736 entries needs" in problem for problem in problems)


def test_another_index_is_refused_by_its_sizes(indexed: Path, copy: Path) -> None:
    """Files of fewer vectors are not those that the document describes."""
    few = read_vectors(indexed / "vectors").select([f"p{row}" for row in range(100)])
    index_vectors(few, copy.parent / "few")
    for name in FILES:
        (copy / name).write_bytes((copy.parent / "few" / name).read_bytes())
    said = _search(copy, indexed, "sequence")
    assert said.startswith(f"{copy}: it is damaged (sequence_centroids.npy is not an array of")


def test_rows_that_are_not_in_the_vectors_are_refused(indexed: Path, copy: Path) -> None:
    """Rows out of range, twice, or of entries without a structure: none is a hit."""
    name = "structure_rows.npy"
    content = (copy / name).read_bytes()
    good = np.frombuffer(content, dtype="<i8", offset=HEADER)
    every = [np.full_like(good, number) for number in (-1, ROWS, 1 << 40, 0, int(good[0]))]
    one = np.where(good == 1, 0, good)  # a search finds entry 1, and 0 has no structure
    for rows in (*every, one):
        _put(copy, name, content[:HEADER] + rows.tobytes())
        said = _search(copy, indexed, "structure")
        assert said.startswith(f"{copy}: it is damaged (its cells name entries ")


def _search(index: Path, indexed: Path, modality: str) -> str:
    """Search an index that may be damaged; return the error's line, "" if hits are whole."""
    vectors = read_vectors(indexed / "vectors")
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
