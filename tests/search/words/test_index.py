"""A search by an index of residue words."""

from __future__ import annotations

import copy
import shutil
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import protalign
from protalign import EmbeddingStore, Model
from protalign.core.annotation import Annotation
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES, Modality, Protein
from protalign.estimator.export import export_vectors
from protalign.residues import word_lists
from protalign.residues.words import ResidueWords
from protalign.search import WordIndex, index_store, word_index
from protalign.search.word_files import new_index
from protalign.search.word_parts import PartWriter
from tests.helpers.estimator_stores import build
from tests.search.words import MADE_WITH, WORDS


def test_entries_that_the_store_has_no_longer_are_no_hits(
    small: Path, chains: list[Protein], model: Model, tmp_path: Path
) -> None:
    """A file that was read again has new entries; the old ones' words are passed over.

    An E-value counts those alone that are searched.
    """
    path = Path(shutil.copytree(small, tmp_path / "changed.zarr"))
    file = tmp_path / "changing.pdb"
    file.write_text("once")
    build(path, [replace(chains[8], id="changing", source=str(file))])
    index_store(model, EmbeddingStore.open(path), tmp_path / "index", n_words=WORDS)
    file.write_text("later")
    store = EmbeddingStore.open(build(path, [replace(chains[9], id="changing", source=str(file))]))
    asked: dict[str, Any] = {"model": model, "store": store, "k": 40}
    for rerank in (200, "all"):
        with pytest.warns(UserWarning, match="it lacks 1 entry of the store"):
            hits = protalign.search(chains[0].id, index=tmp_path / "index", rerank=rerank, **asked)
        assert sorted(hit.id for hit in hits) == sorted(chain.id for chain in chains[:8])
    index_store(model, store, tmp_path / "index")
    more = protalign.search(chains[0].id, index=tmp_path / "index", **asked)
    assert {hit.id: hit.evalue for hit in more if hit.id != "changing"} == {
        hit.id: pytest.approx(hit.evalue * 9 / 8) for hit in hits
    }


def reranked(store: EmbeddingStore, model: Model, tmp_path: Path, query: str, **how: Any) -> Any:
    """The hits of a search among all vectors with all entries in the second stage."""
    file = tmp_path / "vectors.parquet"
    if not file.exists():
        export_vectors(model, store, file)
    return protalign.search(query, file, model=model, k=60, rerank=60, **how)


@pytest.mark.parametrize("mode", ["local", "global"])
@pytest.mark.parametrize("query_by", MODALITIES)
def test_hits_are_those_of_a_second_stage_on_everything(
    folder: Path, model: Model, store: EmbeddingStore, tmp_path: Path, mode: str, query_by: str
) -> None:
    """If all entries are candidates: the same hits, scores, cosines, lengths and order."""
    how: dict[str, Any] = {"mode": mode, "query_by": query_by}
    expected = reranked(store, model, tmp_path, "1a2p_A", **how)
    hits = protalign.search("1a2p_A", index=folder, model=model, k=60, rerank=60, **how)
    known = {hit.id: hit for hit in expected if hit.local_score is not None}
    assert {hit.id for hit in hits} == known.keys()
    keys = [hit.global_score if mode == "global" else -hit.evalue for hit in hits]
    assert keys == sorted(keys, reverse=True)
    for hit in hits:
        other = known[hit.id]
        assert (hit.length, hit.against) == (other.length, other.against)
        for name in ("cosine", "local_score", "global_score"):
            assert getattr(hit, name) == pytest.approx(getattr(other, name), abs=1e-4)
        assert hit.evalue == pytest.approx(other.evalue, rel=1e-3)


def test_hits_of_an_index_are_described_by_its_store(
    tmp_path: Path, model: Model, chains: list[Protein]
) -> None:
    """The index has no names: they come from the store, for the hits alone."""
    few = [replace(p, annotation=Annotation(f"the {p.id}", taxid=9606)) for p in chains[:2]]
    path = build(tmp_path / "store.zarr", [*few, chains[2]])
    index_store(model, EmbeddingStore.open(path), tmp_path / "index", n_words=WORDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hits = protalign.search(chains[0].id, index=tmp_path / "index", model=model, k=4)
    assert {hit.id: hit.description for hit in hits} == {
        **{protein.id: f"the {protein.id}" for protein in few},
        chains[2].id: None,
    }


def test_memory_does_not_grow_with_the_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are compared some at a time, and find what they find alone."""
    rng = np.random.default_rng(0)
    words = ResidueWords({"structure": rng.normal(size=(40, 12)).astype(np.float32)})
    lengths = rng.integers(10, 60, 8000)
    with new_index(tmp_path / "index", MADE_WITH, words) as made:
        segment, parts = made
        with PartWriter(segment, "structure", words) as writer:
            writer.add(np.arange(8000), lengths, rng.integers(0, 40, lengths.sum()))
            parts["structure"] = writer.finish([str(number) for number in range(8000)], [])
    index = WordIndex(tmp_path / "index")
    queries = [rng.normal(size=(n, 12)).astype(np.float32) for n in rng.integers(1, 90, 400)]
    monkeypatch.setattr(word_index, "_RESIDUES_AT_ONCE", 10_000)
    peaks, found = [], []
    for count in (40, 40, 400):  # the first also reads the index; the hits themselves take little
        tracemalloc.start()
        found = index.nearest("structure", queries[:count], 3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]
    for place in (0, 39, 40, 399):
        [(rows, scores)] = index.nearest("structure", queries[place : place + 1], 3)
        assert found[place][0].tolist() == rows.tolist()
        assert found[place][1].tolist() == scores.tolist()


def test_of_equal_segments_that_of_the_shorter_entry_is_first(tmp_path: Path) -> None:
    """A long one has it by chance more often; entries of at most 50 residues count alike."""
    words = ResidueWords({"structure": np.eye(3, 5, dtype=np.float32)})
    lengths = np.array([200, 60, 40, 20])
    targets = [np.r_[0, 1, 0, 1, np.full(length - 4, 2)] for length in lengths]
    with new_index(tmp_path / "index", MADE_WITH, words) as made:
        segment, parts = made
        with PartWriter(segment, "structure", words) as writer:
            writer.add(np.arange(4), lengths, np.concatenate(targets))
            parts["structure"] = writer.finish(list("abcd"), [])
    query = 9 * np.eye(2, 5, dtype=np.float32) - 3
    [(rows, scores)] = WordIndex(tmp_path / "index").nearest("structure", [query], k=4)
    assert rows.tolist() == [2, 3, 1, 0]
    assert scores.tolist() == pytest.approx([12, 12, 12 - 15 * np.log(1.2), 12 - 15 * np.log(4)])
    with pytest.raises(InputError, match="k=0: not a whole number of at least 1"):
        WordIndex(tmp_path / "index").nearest("structure", [query], k=0)


@pytest.mark.parametrize("columns", [64, 200, 1 << 16])
def test_of_equal_entries_the_first_are_the_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """However many of them are looked at together: they are found again by the next search.

    Each has 64 columns, so a block has one of them, three, or all.
    """
    monkeypatch.setattr(word_lists, "MOST_COLUMNS", columns)
    monkeypatch.setattr(word_index, "_WORDS_AT_ONCE", 1)
    words = ResidueWords({"structure": np.eye(3, 5, dtype=np.float32)})
    with new_index(tmp_path / "index", MADE_WITH, words) as made:
        segment, parts = made
        with PartWriter(segment, "structure", words) as writer:
            writer.add(np.arange(7), np.full(7, 4), np.tile([0, 1, 0, 1], 7))
            parts["structure"] = writer.finish(list("abcdefg"), [])
    query = 9 * np.eye(2, 5, dtype=np.float32) - 3
    [(rows, scores)] = WordIndex(tmp_path / "index").nearest("structure", [query], k=3)
    assert rows.tolist() == [0, 1, 2]
    assert len(set(scores.tolist())) == 1


def test_few_candidates_hold_the_own_structure(
    folder: Path, model: Model, store: EmbeddingStore
) -> None:
    """Of ten candidates of 42 the second stage finds the best of all."""
    ids = store[store.has_structure].ids.tolist()
    for mode in ("local", "global"):
        few = protalign.search(ids, index=folder, model=model, k=1, rerank=10, mode=mode)
        best = protalign.search(ids, index=folder, model=model, k=1, rerank=60, mode=mode)
        same = [
            a.local_score == pytest.approx(b.local_score) for a, b in zip(few, best, strict=True)
        ]
        assert np.mean(same) >= 0.95


def test_other_kinds_of_queries(
    folder: Path, model: Model, store: EmbeddingStore, tmp_path: Path
) -> None:
    """Embeddings and entries of a file of vectors find what the id finds."""
    reranked(store, model, tmp_path, "1a2p_A")
    vectors = protalign.read_vectors(tmp_path / "vectors.parquet")
    rows = store["1a2p_A"].embeddings("one_hot")[0]
    given = [rows, vectors.select(["1a2p_A"]), "1a2p_A"]
    hits = protalign.search(given, index=folder, model=model, k=3)
    assert len({tuple(hit.id for hit in hits[start : start + 3]) for start in (0, 3, 6)}) == 1
    other = protalign.AlignedVectors(
        *(getattr(vectors, name) for name in ("ids", "sequence", "structure")),
        *(getattr(vectors, name) for name in ("has_sequence", "has_structure")),
        {**vectors.metadata, "store": {"path": "/nowhere"}},
    )
    hits = protalign.search(other.select(["1a2p_A"]), index=folder, model=model)
    assert [failure.id for failure in hits.failures] == ["1a2p_A"]


def shrunk(stage: Any, name: str, modality: Modality) -> dict[Modality, Any]:
    """A stage's arrays of one name, of which one is a little smaller."""
    arrays: dict[Modality, Any] = getattr(stage, name)
    return {**arrays, modality: np.float32(0.9) * arrays[modality]}


def test_mistakes_are_one_line(
    folder: Path, model: Model, store: EmbeddingStore, tmp_path: Path, small: Path
) -> None:
    """Another model, store or folder; both or neither to search; no model; the same modality."""
    with pytest.raises(InputError, match="it needs vectors, an index of words"):
        protalign.search("1a2p_A")
    with pytest.raises(InputError, match="an index of words has no vectors"):
        protalign.search("1a2p_A", "vectors.parquet", index=folder)
    with pytest.raises(InputError, match="needs a model"):
        protalign.search("1a2p_A", index=folder)
    with pytest.raises(InputError, match="residue by residue"):
        protalign.search("1a2p_A", index=folder, model=model, against="sequence")
    with pytest.raises(InputError, match="'nothing': not an id of the store, and no file"):
        protalign.search("nothing", index=folder, model=model)
    with pytest.raises(InputError, match="it does not exist; name a folder"):
        protalign.search("1a2p_A", index=tmp_path / "nothing", model=model)
    with pytest.raises(InputError, match="it is not an index of words"):
        protalign.search("1a2p_A", index=store.path, model=model)
    with pytest.raises(InputError, match="it exists but is not an index"):
        index_store(model, store, store.path)
    other = EmbeddingStore.open(small)
    with pytest.raises(InputError, match="entries are not those of"):
        protalign.search("1a2p_A", index=folder, model=model, store=other)
    with pytest.raises(InputError, match="entries are not those of"):
        index_store(model, other, folder)
    another = copy.deepcopy(model)
    stage = model.residue_scorer()
    assert stage.largest is not None
    for changes in (
        {"largest": None},
        {"largest": 0.9 * stage.largest},
        {"correlations": stage.correlations * np.float32(0.9)},
        *({name: shrunk(stage, name, m)} for name in ("means", "projections") for m in MODALITIES),
    ):
        another.residue_stage = replace(stage, **changes)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="the residue stage of another model made its words"):
            protalign.search("1a2p_A", index=folder, model=another)
    with pytest.raises(ModelError, match="the residue stage of another model made its words"):
        index_store(another, store, folder)
