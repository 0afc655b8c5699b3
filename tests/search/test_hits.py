"""Search in Python: every kind of query, the same hits as from stored vectors."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import protalign
from protalign import AlignedVectors, EmbeddingStore, ProtAlignEstimator, read_vectors
from protalign.core.annotation import Annotation
from protalign.core.errors import InputError, ModelError
from protalign.search import Hit, Hits, Index, search
from protalign.search.provenance import check_made_by
from protalign.stores.vectors.annotations import Annotations

SHIPPED = "protalign_t6_2M"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """A folder with a store, a model and vectors of six chains of the sample."""
    folder = tmp_path_factory.mktemp("search")
    files = sorted(sample.glob("*.pdb.gz"))[:6]
    protalign.embed(files, folder / "store.zarr", [SHIPPED, "proteinmpnn_v_48_020"])
    store = EmbeddingStore.open(folder / "store.zarr")
    estimator = ProtAlignEstimator(embed_dim=16, max_epochs=3, random_state=0, device="cpu")
    estimator.fit(store).save(folder / "model")
    estimator.export(store, folder / "vectors.parquet")
    return folder


@pytest.fixture(scope="module")
def vectors(work: Path) -> AlignedVectors:
    """The exported vectors."""
    return read_vectors(work / "vectors.parquet")


def test_the_package_is_the_function(vectors: AlignedVectors) -> None:
    """``protalign.search`` can be called before and after its modules are imported."""
    query = vectors.ids[0]
    assert protalign.search(query, vectors, k=1)[0] == search(query, vectors, k=1)[0]
    assert list(inspect.signature(protalign.search).parameters)[:2] == ["queries", "vectors"]


def test_hits_say_what_they_are(vectors: AlignedVectors) -> None:
    """Name, organism, taxid and accession are the entry's; None in a file without them."""
    about = [
        Annotation(f"protein {i}", "Homo sapiens", 9606 + n) for n, i in enumerate(vectors.ids)
    ]
    described = replace(vectors, annotations=Annotations.of(about))
    query = str(vectors.ids[2])
    hits = protalign.search(query, described, k=3)
    assert [hit.description for hit in hits] == [f"protein {hit.id}" for hit in hits]
    rows = [vectors.ids.tolist().index(hit.id) for hit in hits]
    assert [hit.taxid for hit in hits] == [9606 + row for row in rows]
    assert {(hit.organism, hit.accession) for hit in hits} == {("Homo sapiens", None)}
    for without in (vectors, replace(vectors, annotations=None)):
        plain = protalign.search(query, without, k=3)
        assert [hit.id for hit in plain] == [hit.id for hit in hits]
        assert {(hit.description, hit.taxid) for hit in plain} == {(None, None)}


def test_an_id_needs_no_model(vectors: AlignedVectors) -> None:
    """Hits are those of the index, best first, with the entries' lengths."""
    query = str(vectors.ids[2])
    hits = protalign.search(query, vectors, k=3)
    rows, cosine = Index(vectors).search(vectors.sequence[[2]], 3)
    assert [hit.id for hit in hits] == vectors.ids[rows[0]].tolist()
    assert [hit.cosine for hit in hits] == cosine[0].tolist()
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert vectors.lengths is not None
    assert [hit.length for hit in hits] == vectors.lengths[rows[0]].tolist()
    assert {(hit.query, hit.against) for hit in hits} == {(query, "structure")}
    assert isinstance(hits, Hits)
    assert isinstance(hits[0], Hit)
    assert hits.failures == ()


def test_all_kinds_of_queries_find_the_same(
    work: Path, vectors: AlignedVectors, tmp_path: Path
) -> None:
    """A stored protein as an id, a FASTA file, text, residue embeddings or a file of vectors."""
    store = EmbeddingStore.open(work / "store.zarr")
    query = str(vectors.ids[1])
    sequence = store.sequence(query)[0]
    fasta = tmp_path / "query.fasta"
    fasta.write_text(f">again\n{sequence}\n")
    rows = store[[query]].embeddings(SHIPPED)[0]
    given = [fasta, sequence, rows, query, vectors.select([query])]
    hits = search(given, vectors, model=work / "model", k=3)
    names = ["again", "query_1", "embedding_1", query, query]
    assert [hit.query for hit in hits] == [name for name in names for _ in range(3)]
    for start in range(0, 15, 3):
        assert [hit.id for hit in hits[start : start + 3]] == [hit.id for hit in hits[9:12]]
        np.testing.assert_allclose(
            [hit.cosine for hit in hits[start : start + 3]],
            [hit.cosine for hit in hits[9:12]],
            atol=2e-3,  # the store holds float16
        )


def test_structures_are_searched_among_sequences(
    work: Path, vectors: AlignedVectors, sample: Path
) -> None:
    """A structure file is pooled by its structure; its TM-score with itself is 1."""
    path = sorted(sample.glob("*.pdb.gz"))[3]
    hits = search(path, vectors, model=work / "model", k=6, tm_score=True)
    assert {hit.against for hit in hits} == {"sequence"}
    scores = {hit.id: hit.tm_score for hit in hits}
    itself = scores[str(vectors.ids[3])]
    assert itself is not None
    assert itself > 0.999
    structure = store_rows(work, str(vectors.ids[3]))
    again = search(structure, vectors, model=work / "model", k=6)
    assert [hit.id for hit in again] == [hit.id for hit in hits]


def store_rows(work: Path, entry_id: str) -> np.ndarray:
    """(L, 128) ProteinMPNN's embeddings of an entry."""
    store = EmbeddingStore.open(work / "store.zarr")
    return store[[entry_id]].embeddings("proteinmpnn_v_48_020")[0]


def test_failures_do_not_stop_the_others(
    work: Path, vectors: AlignedVectors, tmp_path: Path
) -> None:
    """A file that cannot be read is a failure beside the hits."""
    broken = tmp_path / "broken.pdb"
    broken.write_text("HEADER\n")
    hits = search([broken, str(vectors.ids[0])], vectors, model=work / "model", k=1)
    assert len(hits) == 1
    assert [failure.file for failure in hits.failures] == [str(broken)]


def test_wrong_queries_are_one_line(vectors: AlignedVectors) -> None:
    """Each error names the query and what to do."""
    name = str(vectors.ids[0])
    with pytest.raises(InputError, match=f"did you mean {name!r}"):
        search(name.upper().replace("_A", "_a"), vectors)
    with pytest.raises(InputError, match="it has no vector yet; give the model"):
        search("MKTAYIAKQRQISFVKSHF", vectors)
    with pytest.raises(InputError, match="against='sequnce'"):
        search(name, vectors, against="sequnce")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="k=0"):
        search(name, vectors, k=0)
    with pytest.raises(InputError, match="a query of type int"):
        search([3], vectors)  # type: ignore[list-item]


def test_another_models_vectors_are_not_searched(work: Path, vectors: AlignedVectors) -> None:
    """The file knows the model that made it: queries pooled by another find nonsense."""
    store = EmbeddingStore.open(work / "store.zarr")
    other = ProtAlignEstimator(embed_dim=16, max_epochs=1, random_state=1, device="cpu").fit(store)
    check_made_by(vectors, protalign.Model.load(work / "model"))
    with pytest.raises(ModelError, match="another model made them"):
        search("MKTAYIAKQRQISFVKSHF", vectors, model=other)
