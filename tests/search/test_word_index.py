"""An index of residue words: its contents, what is added to it, damage, and searches by it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import protalign
from protalign import EmbeddingStore, Model, ProtAlignEstimator
from protalign.core.annotation import Annotation
from protalign.core.digests import sealed
from protalign.core.errors import InputError, ModelError, StoreError
from protalign.core.files import json_text
from protalign.core.protein import MODALITIES, Modality, Protein
from protalign.estimator.export import export_vectors
from protalign.residues.words import ResidueWords
from protalign.search import WordIndex, index_store, word_building, word_files, word_index
from protalign.search.word_files import (
    IndexManifest,
    PartReader,
    PartWriter,
    ids_digest,
    new_index,
    read_manifest,
)
from protalign.search.word_index import recorded_store, verify_index
from protalign.stores.format.lock import StoreLock
from tests.helpers.commands import contents
from tests.helpers.estimator_stores import PROTEINMPNN, build, read, sequence_only
from tests.search.test_rerank import with_damaged_rows

ENCODERS: dict[Modality, str] = {"sequence": "one_hot", "structure": PROTEINMPNN}
WORDS = 40


@pytest.fixture(scope="module")
def model(fitted: ProtAlignEstimator) -> Model:
    """A model with a residue stage."""
    return fitted.model_


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Model, store: EmbeddingStore) -> Path:
    """An index of the store. Only to be read."""
    path = tmp_path_factory.mktemp("words") / "index"
    index_store(model, store, path, n_words=WORDS)
    return path


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Path:
    """The index, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def chains(sample: Path) -> list[Protein]:
    """The sample's chains, short ones first: they are embedded soonest."""
    return sorted(read(sample), key=len)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, chains: list[Protein]) -> Path:
    """A store of 8 chains. Only to be read."""
    return build(tmp_path_factory.mktemp("small") / "store.zarr", chains[:8])


@pytest.fixture
def grown(
    small: Path, chains: list[Protein], tmp_path: Path
) -> tuple[Path, Callable[[], EmbeddingStore]]:
    """A store of 8 chains, and what makes it one of 11."""
    path = Path(shutil.copytree(small, tmp_path / "grown.zarr"))
    return path, lambda: EmbeddingStore.open(build(path, chains[8:11]))


def check_words(index: WordIndex, model: Model, store: EmbeddingStore) -> None:
    """Every entry of the store has the words of its residues, in the order of the embeddings."""
    stage = model.residue_scorer()
    for modality in MODALITIES:
        entries = store[store.rows(ENCODERS[modality])[1] > 0]
        assert sorted(index.entry_rows(modality)) == sorted(entries.entry_rows)
        begins = dict(zip(entries.entry_rows, entries.rows(ENCODERS[modality])[0], strict=True))
        for reader in index._parts[modality]:
            assert (np.diff([begins[row] for row in reader.rows]) >= 0).all()
            words = np.split(reader.words(), reader.offsets[1:-1])
            for row, own in zip(reader.rows, words, strict=True):
                entry = store[[str(store.log.ids_at(np.array([row]))[0])]]
                rows = stage.rows(modality, entry.embeddings(ENCODERS[modality]).values)
                assert own.tolist() == index.words.of(modality, rows).tolist()


def test_it_holds_the_words_of_every_residue(
    folder: Path, model: Model, store: EmbeddingStore
) -> None:
    """Of both modalities; a FASTA record has words of its sequence only."""
    index = WordIndex(folder)
    assert index.modalities == MODALITIES
    assert [index.n_entries(m) for m in MODALITIES] == [43, 42]
    assert {len(words) for words in index.words.centroids.values()} <= set(range(20, WORDS + 1))
    starts = store.rows(ENCODERS["structure"])[0]
    assert (np.diff(starts[starts >= 0]) < 0).any()  # not in the order of their entries
    check_words(index, model, store)
    assert verify_index(folder) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of the store is missing
        protalign.search("1a2p_A", index=folder, model=model)


def test_words_are_made_of_residues_drawn_by_chance(
    small: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of as many as may be, and no more; the seed draws them. An empty folder is filled."""
    drawn: list[dict[Modality, Any]] = []

    def noted(rows: dict[Modality, Any], n_words: int, seed: int) -> ResidueWords:
        drawn.append(rows)
        return real(rows, n_words, seed)

    real = ResidueWords.fit
    monkeypatch.setattr(ResidueWords, "fit", noted)
    monkeypatch.setattr(word_building, "SAMPLED", 150)
    store = EmbeddingStore.open(small)
    for place, seed in enumerate([0, 0, 1]):
        (tmp_path / str(place)).mkdir()
        index_store(model, store, tmp_path / str(place), n_words=WORDS, seed=seed)
    assert [len(rows[m]) for rows in drawn for m in MODALITIES] == [150] * 6
    once, again, others = ({row.tobytes() for row in rows["structure"]} for rows in drawn)
    assert once == again != others


def test_progress_counts_the_residues_of_both_modalities(
    small: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rises from block to block, and ends with all, which the report says too."""
    monkeypatch.setattr(word_building, "_RESIDUES_AT_ONCE", 100)
    store = EmbeddingStore.open(small)
    calls: list[tuple[int, int]] = []

    def keep(done: int, total: int) -> None:
        calls.append((done, total))

    report = index_store(model, store, tmp_path / "index", n_words=WORDS, on_progress=keep)
    assert report.residues == sum(int(store.rows(name)[1].sum()) for name in ENCODERS.values())
    done = [each for each, _ in calls]
    assert len(done) > 4
    assert done == sorted(set(done))
    assert {total for _, total in calls} == {done[-1]} == {report.residues}


def test_each_block_of_words_has_a_checksum(
    small: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks go on from one part of the entries to the next; damage names its block."""
    monkeypatch.setattr(word_files, "BLOCK", 100)
    monkeypatch.setattr(word_building, "_RESIDUES_AT_ONCE", 150)
    store = EmbeddingStore.open(small)
    index_store(model, store, tmp_path / "index", n_words=WORDS)
    check_words(WordIndex(tmp_path / "index"), model, store)
    assert verify_index(tmp_path / "index") == []
    file = tmp_path / "index" / "segment-0" / "structure.words"
    before = file.read_bytes()
    ends = range(199, len(before) + 199, 200)  # a word is two bytes
    assert len(ends) > 3
    for block, end in enumerate(ends):
        flipped = bytearray(before)
        flipped[min(end, len(before) - 1)] ^= 1
        file.write_bytes(flipped)
        (problem,) = verify_index(tmp_path / "index")
        assert f"block {block} of segment-0/structure.words is not as written" in problem


def test_an_index_of_sequences_grows_until_there_are_structures(
    chains: list[Protein], model: Model, tmp_path: Path
) -> None:
    """An encoder that has embedded nothing yet stops nobody; words of structures cannot be added.

    The words are made when the index is built, and it was built without any.
    """
    alone = [sequence_only(f"f{n}", chain.sequences[0]) for n, chain in enumerate(chains[:3])]
    store, index = tmp_path / "store.zarr", tmp_path / "index"
    index_store(model, EmbeddingStore.open(build(store, alone[:2])), index, n_words=WORDS)
    report = index_store(model, EmbeddingStore.open(store), index)
    assert (report.added, report.entries) == ({"sequence": 0}, {"sequence": 2})
    report = index_store(model, EmbeddingStore.open(build(store, alone[2:])), index)
    assert (report.added, report.entries) == ({"sequence": 1}, {"sequence": 3})
    opened = EmbeddingStore.open(build(store, chains[3:4]))
    before = contents(index)
    with pytest.raises(InputError, match="it has no words of a structure, which the store had not"):
        index_store(model, opened, index)
    assert contents(index) == before


def test_entries_are_kept_in_every_segment_and_piece(
    grown: tuple[Path, Callable[[], EmbeddingStore]],
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each entry alone is found as itself, wherever it lies."""
    path, grow = grown
    index_store(model, EmbeddingStore.open(path), tmp_path / "index", n_words=WORDS)
    index_store(model, grow(), tmp_path / "index")
    index = WordIndex(tmp_path / "index")
    monkeypatch.setattr(word_index, "_WORDS_AT_ONCE", 1)
    rows = index.entry_rows("structure")
    assert len(rows) == 11
    query = index.words.centroids["structure"][:40]
    for place, row in enumerate(rows):
        kept = np.arange(len(rows)) == place
        [(found, _)] = index.nearest("structure", [query], 5, kept)
        assert found.tolist() == [row]


def test_an_index_that_is_added_to_is_that_of_the_whole_store(
    grown: tuple[Path, Callable[[], EmbeddingStore]], model: Model, tmp_path: Path
) -> None:
    """Only new entries are added, with the words that it had; and nothing without new ones."""
    path, grow = grown
    store = EmbeddingStore.open(path)
    report = index_store(model, store, tmp_path / "index", n_words=WORDS)
    assert (report.is_new, report.added) == (True, {"sequence": 8, "structure": 8})
    before = contents(tmp_path / "index")
    report = index_store(model, store, tmp_path / "index")
    assert (report.is_new, report.added) == (False, {"sequence": 0, "structure": 0})
    assert contents(tmp_path / "index") == before
    store = grow()
    with pytest.warns(UserWarning, match="it lacks 3 entries of the store"):
        protalign.search(str(store.ids[0]), index=tmp_path / "index", model=model)
    report = index_store(model, store, tmp_path / "index")
    assert report.added == {"sequence": 3, "structure": 3}
    assert report.entries == {"sequence": 11, "structure": 11}
    after = contents(tmp_path / "index")
    assert {name for name in before if after[name] != before[name]} == {"index.json"}
    check_words(WordIndex(tmp_path / "index"), model, store)
    assert verify_index(tmp_path / "index") == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hits = protalign.search(store.ids.tolist(), index=tmp_path / "index", model=model, k=1)
    assert len(hits) == 11


def test_an_interrupted_run_leaves_what_was_there(
    grown: tuple[Path, Callable[[], EmbeddingStore]], model: Model, tmp_path: Path
) -> None:
    """Nothing at first; the old index later; the next run goes on."""

    def interrupt(done: int, total: int) -> None:
        assert 0 < done <= total
        raise KeyboardInterrupt

    path, grow = grown
    store = EmbeddingStore.open(path)
    with pytest.raises(KeyboardInterrupt):
        index_store(model, store, tmp_path / "index", n_words=WORDS, on_progress=interrupt)
    assert [each.name for each in tmp_path.iterdir()] == ["grown.zarr"]
    index_store(model, store, tmp_path / "index", n_words=WORDS)
    before = contents(tmp_path / "index")
    store = grow()
    with pytest.raises(KeyboardInterrupt):
        index_store(model, store, tmp_path / "index", on_progress=interrupt)
    assert contents(tmp_path / "index") == before
    # A run that was killed between the segment and the manifest leaves a segment of no index.
    shutil.copytree(tmp_path / "index" / "segment-0", tmp_path / "index" / "segment-1")
    shutil.copytree(tmp_path / "index" / "segment-0", tmp_path / "index" / "segment-7")
    index_store(model, store, tmp_path / "index")
    check_words(WordIndex(tmp_path / "index"), model, store)
    assert not (tmp_path / "index" / "segment-7").exists()
    # So does the run after which nothing is new.
    shutil.copytree(tmp_path / "index" / "segment-0", tmp_path / "index" / "segment-7")
    (tmp_path / "index" / ".segment-1.partial" / "left" / "new").mkdir(parents=True)
    index_store(model, store, tmp_path / "index")
    names = {each.name for each in (tmp_path / "index").iterdir()}
    assert {name for name in names if "segment" in name} == {"segment-0", "segment-1"}


def test_a_link_leads_nothing_elsewhere(
    grown: tuple[Path, Callable[[], EmbeddingStore]], model: Model, tmp_path: Path
) -> None:
    """An index may come from anybody: what a link in it names is not written to."""
    path, grow = grown
    index_store(model, EmbeddingStore.open(path), tmp_path / "index", n_words=WORDS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (tmp_path / "index" / "segment-1").symlink_to(tmp_path / "mine")
    index_store(model, grow(), tmp_path / "index")
    assert (tmp_path / "mine" / "file").read_text() == "mine"
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["file"]
    assert verify_index(tmp_path / "index") == []


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38], ids=str)
def test_an_entry_whose_residues_are_not_finite_is_named(
    grown: tuple[Path, Callable[[], EmbeddingStore]],
    chains: list[Protein],
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: float,
) -> None:
    """When words are made of it, and when it is added; what was there stays."""
    path, grow = grown
    index_store(model, EmbeddingStore.open(path), tmp_path / "index", n_words=WORDS)
    store, before = grow(), contents(tmp_path / "index")
    with_damaged_rows(monkeypatch, chains[9].id, number)
    problem = f"^{chains[9].id}: its structure embedding holds NaN, infinity or huge values; embed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in ("new", "index"):
            with pytest.raises(InputError, match=problem):
                index_store(model, store, tmp_path / folder, n_words=WORDS)
    assert not (tmp_path / "new").exists()
    assert contents(tmp_path / "index") == before


def test_one_process_adds_at_a_time(changed: Path, model: Model, store: EmbeddingStore) -> None:
    """A second one is told."""
    with StoreLock(changed), pytest.raises(StoreError, match="being written to by another"):
        index_store(model, store, changed)


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
    lengths = rng.integers(10, 60, 2000)
    with new_index(tmp_path / "index", {"stage_sha256": "", "store": {}}, words) as made:
        segment, parts = made
        with PartWriter(segment, "structure") as writer:
            writer.add(np.arange(2000), lengths, rng.integers(0, 40, lengths.sum()))
        parts["structure"] = writer.finish([str(number) for number in range(2000)])
    index = WordIndex(tmp_path / "index")
    queries = [rng.normal(size=(n, 12)).astype(np.float32) for n in rng.integers(1, 90, 400)]
    monkeypatch.setattr(word_index, "_RESIDUES_AT_ONCE", 10_000)
    peaks, found = [], []
    for count in (40, 40, 400):  # the first also reads the index
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
    with new_index(tmp_path / "index", {"stage_sha256": "", "store": {}}, words) as made:
        segment, parts = made
        with PartWriter(segment, "structure") as writer:
            writer.add(np.arange(4), lengths, np.concatenate(targets))
        parts["structure"] = writer.finish(list("abcd"))
    query = 9 * np.eye(2, 5, dtype=np.float32) - 3
    [(rows, scores)] = WordIndex(tmp_path / "index").nearest("structure", [query], k=4)
    assert rows.tolist() == [2, 3, 1, 0]
    assert scores.tolist() == pytest.approx([12, 12, 12 - 15 * np.log(1.2), 12 - 15 * np.log(4)])
    with pytest.raises(InputError, match="k=0: not a whole number of at least 1"):
        WordIndex(tmp_path / "index").nearest("structure", [query], k=0)


@pytest.mark.parametrize("at_once", [1, 64, 10_000])
def test_of_equal_entries_the_first_are_the_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However many of them are looked at together: they are found again by the next search."""
    words = ResidueWords({"structure": np.eye(3, 5, dtype=np.float32)})
    with new_index(tmp_path / "index", {"stage_sha256": "", "store": {}}, words) as made:
        segment, parts = made
        with PartWriter(segment, "structure") as writer:
            writer.add(np.arange(7), np.full(7, 4), np.tile([0, 1, 0, 1], 7))
        parts["structure"] = writer.finish(list("abcdefg"))
    monkeypatch.setattr(word_index, "_WORDS_AT_ONCE", at_once)
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


def shrunk(stage: Any, name: str, modality: Modality) -> dict[Modality, Any]:
    """A stage's arrays of one name, of which one is a little smaller."""
    arrays: dict[Modality, Any] = getattr(stage, name)
    return {**arrays, modality: np.float32(0.9) * arrays[modality]}


def everything(path: Path, model: Model, store: EmbeddingStore) -> None:
    """Read all of an index as searches do."""
    for query_by in MODALITIES:
        protalign.search("1a2p_A", index=path, model=model, store=store, query_by=query_by)


def test_damage_is_found(changed: Path, model: Model, store: EmbeddingStore) -> None:
    """A changed byte, a shorter or missing file, a link or a pipe, in any file: one line."""
    files = [path for path in sorted(changed.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert len(files) == 9
    for file in files:
        before = file.read_bytes()
        flipped = bytearray(before)
        flipped[len(flipped) // 2] ^= 1
        other = file.with_name("other")
        other.write_bytes(before)

        def link(file: Path = file, other: Path = other) -> None:
            file.symlink_to(other)

        for damage in (
            lambda file=file, flipped=flipped: file.write_bytes(flipped),
            lambda file=file, before=before: file.write_bytes(before[:-2]),
            lambda file=file, before=before: file.write_bytes(before + b"  "),
            lambda: None,
            link,
            lambda file=file: os.mkfifo(file),
        ):
            file.unlink()
            damage()
            (problem,) = verify_index(changed)
            assert "\n" not in problem
            if "the spaces in its" not in problem:
                with pytest.raises(InputError):
                    everything(changed, model, store)
            file.unlink(missing_ok=True)
            file.write_bytes(before)
        other.unlink()
    assert verify_index(changed) == []


def forged(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Change a manifest, with its digest; return what ``verify_index`` says."""
    before = (path / "index.json").read_text()
    value = json.loads(before)
    del value["sha256"]
    change(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    value["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "index.json").write_text(json_text(value))
    (problem, *_) = verify_index(path)
    (path / "index.json").write_text(before)
    return problem


@pytest.mark.parametrize("number", [7, -1, 2**70, 1.5, "7", None, True, [], 10**12])
@pytest.mark.parametrize("key", ["entries", "residues", "rows", "offsets", "words"])
def test_a_forged_number_is_refused(changed: Path, key: str, number: object) -> None:
    """Counts and checksums of any size take no memory, and end in one line."""

    def change(value: dict[str, Any]) -> None:
        value["segments"]["segment-0"]["structure"][key] = number

    assert "damaged" in forged(changed, change)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("format", "another"),
        ("format_version", "2.0"),
        ("segments", {"../segment-0": {}}),
        ("segments", {"segment-0": {"shape": {}}}),
        ("segments", []),
        ("centroids", {"structure": [2**40, 50, 0]}),
        ("centroids", {"structure": [0, 50, 0]}),
        ("centroids", {"structure": [1024, 50, 0]}),
        ("centroids", {}),
        ("centroids", None),
        ("provenance", {}),
        ("provenance", {"stage_sha256": 1, "store": {}}),
    ],
)
def test_a_forged_manifest_is_refused(changed: Path, place: str, value: object) -> None:
    """Names, versions and shapes."""
    assert ";" in forged(changed, lambda manifest: manifest.update({place: value}))


def test_a_later_minor_version_is_read(changed: Path) -> None:
    """It only has more than this version knows of."""
    manifest = changed / "index.json"
    value = json.loads(manifest.read_text())
    del value["sha256"]
    manifest.write_text(json_text(sealed({**value, "format_version": "1.9"})))
    assert WordIndex(changed).modalities == MODALITIES


def test_a_manifest_without_words_ends_in_one_line(
    changed: Path, model: Model, store: EmbeddingStore
) -> None:
    """It is whole by its digest, but nothing can be searched."""
    manifest = IndexManifest(read_manifest(changed).provenance, {}, {})
    (changed / "index.json").write_text(manifest.text())
    with pytest.raises(InputError, match="it has no words of a structure"):
        everything(changed, model, store)


def test_a_forged_array_is_refused(changed: Path) -> None:
    """Numbers that are whole by their checksums, but mean nothing."""
    import google_crc32c

    def forge(name: str, key: str, data: bytes) -> str:
        file = changed / "segment-0" / f"structure.{name}"
        before = file.read_bytes()
        assert len(data) == len(before)
        file.write_bytes(data)
        checksum = google_crc32c.value(data)

        def change(value: dict[str, Any]) -> None:
            number = [checksum] if key == "words" else checksum
            value["segments"]["segment-0"]["structure"][key] = number

        problem = forged(changed, change)
        file.write_bytes(before)
        return problem

    part = changed / "segment-0" / "structure"
    rows = np.frombuffer(part.with_suffix(".rows").read_bytes(), "<i8").copy()
    rows[0] = rows[1]
    assert "names an entry twice" in forge("rows", "rows", rows.tobytes())
    rows[0] = -1
    assert "names an entry twice" in forge("rows", "rows", rows.tobytes())
    offsets = np.frombuffer(part.with_suffix(".offsets").read_bytes(), "<i8").copy()
    offsets[3] = 10**9
    assert "does not ascend" in forge("offsets", "offsets", offsets.tobytes())
    offsets = np.frombuffer(part.with_suffix(".offsets").read_bytes(), "<i8").copy()
    offsets[3:5] = 2**63 - 1, -2  # their differences leave 64 bits, and look like rising ones
    assert "does not ascend" in forge("offsets", "offsets", offsets.tobytes())
    words = np.frombuffer(part.with_suffix(".words").read_bytes(), "<u2").copy()
    for unknown in (65_535, len(WordIndex(changed).words.centroids["structure"])):
        words[7] = unknown
        assert "words that the index has not" in forge("words", "words", words.tobytes())


@pytest.mark.parametrize("number", [np.nan, -np.inf, 3e38], ids=str)
def test_forged_centroids_are_refused(changed: Path, number: float) -> None:
    """Scores with them would be no numbers."""
    import google_crc32c

    manifest, file = read_manifest(changed), changed / "structure.centroids"
    values = np.frombuffer(file.read_bytes(), "<f4").copy()
    values[5] = number
    file.write_bytes(values.tobytes())
    *shape, _ = manifest.centroids["structure"]
    checksum = google_crc32c.value(values.tobytes())
    centroids = {**manifest.centroids, "structure": (*shape, checksum)}
    written = replace(manifest, centroids=centroids)
    (changed / "index.json").write_text(written.text())
    with pytest.raises(InputError, match=r"structure\.centroids has numbers that are not finite"):
        WordIndex(changed)


def test_an_entry_in_two_segments_is_refused(
    changed: Path, model: Model, store: EmbeddingStore
) -> None:
    """Each segment is whole, but their entries would be hits twice."""
    shutil.copytree(changed / "segment-0", changed / "segment-1")
    manifest = read_manifest(changed)
    twice = manifest.with_segment("segment-1", manifest.segments["segment-0"])
    (changed / "index.json").write_text(twice.text())
    problem = "damaged \\(two segments have words of the same sequence\\); remove the folder"
    with pytest.raises(InputError, match=problem):
        everything(changed, model, store)
    with pytest.raises(InputError, match=problem):
        index_store(model, store, changed)
    assert len(verify_index(changed, store)) == 1


def test_rows_beyond_the_store_are_refused(
    changed: Path, model: Model, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index may name entries that its store never had, one after its last or far behind."""
    real = PartReader.rows.fget
    assert real is not None
    for behind in (0, 10**6):
        shift = len(store.log) + behind - WordIndex(changed).entry_rows("sequence").max()
        with monkeypatch.context() as patch:
            patch.setattr(PartReader, "rows", property(lambda self, by=shift: real(self) + by))
            with pytest.raises(InputError, match="entries are not those of"):
                everything(changed, model, store)


@pytest.mark.parametrize("count", [0, 1, 2, 1 << 16, (1 << 16) + 1, 200_000])
def test_a_digest_of_ids_does_not_show_how_they_were_read(count: int) -> None:
    """Some ids at a time, out of any iterable: the digest is that of all in one text."""
    ids = [f"é{number}" for number in range(count)]
    assert ids_digest(iter(ids)) == hashlib.sha256("\n".join(ids).encode()).hexdigest()


def test_a_store_that_was_built_again_with_the_same_ids_is_refused(
    chains: list[Protein], model: Model, tmp_path: Path
) -> None:
    """Its proteins are others: their words are not those of the index."""
    path = tmp_path / "store.zarr"
    index_store(model, EmbeddingStore.open(build(path, chains[:3])), tmp_path / "i", n_words=WORDS)
    shutil.rmtree(path)
    names = [chain.id for chain in chains[:3]]
    other = [replace(p, id=name) for p, name in zip(chains[3:6], names, strict=True)]
    store = EmbeddingStore.open(build(path, other))
    with pytest.raises(InputError, match="have the same ids but other sequences than"):
        index_store(model, store, tmp_path / "i")
    with pytest.raises(InputError, match="have the same ids but other sequences than"):
        protalign.search(names[0], index=tmp_path / "i", model=model)


def test_an_index_records_where_its_store_is_now(
    chains: list[Protein], model: Model, tmp_path: Path
) -> None:
    """A copy of the store with more entries is what the index is of; one that was moved as well."""
    index = tmp_path / "i"
    index_store(model, EmbeddingStore.open(build(tmp_path / "a", chains[:3])), index, n_words=WORDS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path, proteins, added in (("b", chains[:5], 2), ("c", chains[:5], 0)):
        if added:
            build(tmp_path / path, proteins)
        else:
            shutil.move(tmp_path / "b", tmp_path / path)
        store = EmbeddingStore.open(tmp_path / path)
        assert index_store(model, store, index).added["structure"] == added
        recorded = recorded_store(index)
        assert recorded is not None
        assert Path(recorded.path) == tmp_path / path
        assert verify_index(index) == []
        hits = protalign.search(chains[4].id, index=index, model=model, k=1)
        assert [hit.id for hit in hits] == [chains[4].id]
    before = (index / "index.json").stat().st_mtime_ns
    index_store(model, store, index)
    assert (index / "index.json").stat().st_mtime_ns == before


def test_an_index_keeps_its_words(changed: Path, model: Model, store: EmbeddingStore) -> None:
    """Another number or seed is refused, and one that no index can have before anything is read."""
    before = contents(changed)
    for given, built_with in (
        ({"n_words": WORDS - 1}, f"{WORDS} words, not {WORDS - 1}"),
        ({"n_words": WORDS + 1}, f"{WORDS} words, not {WORDS + 1}"),
        ({"seed": 1}, "seed 0, not 1"),
    ):
        with pytest.raises(InputError, match=f"it was built with {built_with}, and .*; leave"):
            index_store(model, store, changed, **given)
    for wrong in (1, 65_536):
        with pytest.raises(
            InputError, match=f"n_words={wrong}: not a whole number from 2 to 65,535"
        ):
            index_store(model, store, changed, n_words=wrong)
    assert index_store(model, store, changed, n_words=WORDS, seed=0).residues == 0
    assert contents(changed) == before


def test_an_index_that_does_not_say_how_it_was_built(
    changed: Path, model: Model, store: EmbeddingStore
) -> None:
    """Of earlier versions: fewer words than it has are refused; more may have been asked for."""
    manifest = changed / "index.json"
    value = json.loads(manifest.read_text())
    del value["sha256"], value["provenance"]["n_words"], value["provenance"]["seed"]
    manifest.write_text(json_text(sealed(value)))
    most = max(map(len, WordIndex(changed).words.centroids.values()))
    with pytest.raises(InputError, match=f"it was built with {most} words, not {most - 1}"):
        index_store(model, store, changed, n_words=most - 1)
    for given in ({"n_words": most}, {"n_words": most + 1}, {"seed": 5}):
        assert index_store(model, store, changed, **given).residues == 0


def test_an_index_without_a_digest_of_contents_is_read(
    changed: Path, model: Model, store: EmbeddingStore
) -> None:
    """Earlier versions wrote none; what is added has one."""
    manifest = changed / "index.json"
    value = json.loads(manifest.read_text())
    del value["sha256"]
    for part in value["segments"]["segment-0"].values():
        del part["contents_sha256"]
    manifest.write_text(json_text(sealed(value)))
    assert verify_index(changed) == []
    before = contents(changed)
    assert index_store(model, store, changed).residues == 0
    assert contents(changed) == before
    everything(changed, model, store)
