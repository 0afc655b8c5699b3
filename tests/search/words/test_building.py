"""The building of an index, what is added to one, and what it records."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import protalign
from protalign import EmbeddingStore, Model
from protalign.core.errors import InputError, StoreError
from protalign.core.protein import MODALITIES, Modality, Protein
from protalign.residues.context import REACH, ResidueContext
from protalign.residues.words import ResidueWords
from protalign.search import WordIndex, index_store, word_building, word_index, word_parts
from protalign.search.word_index import recorded_store, verify_index
from protalign.stores.format.lock import StoreLock
from tests.helpers.commands import contents
from tests.helpers.estimator_stores import build, sequence_only
from tests.search.test_rerank import with_damaged_rows
from tests.search.words import ENCODERS, WORDS


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
                values = entry.embeddings(ENCODERS[modality]).values
                rows = stage.plain_rows(modality, values)
                assert own.tolist() == index.words.of(modality, rows).tolist()


def test_a_context_changes_no_word(
    folder: Path, model: Model, store: EmbeddingStore, tmp_path: Path
) -> None:
    """Words are of residues by themselves: an index serves a model before and after it has one.

    Both find the same candidates; the second stage orders them by rows of its own.
    """
    stage = model.residue_scorer()
    with_context = copy.deepcopy(model)
    with_context.residue_stage = replace(stage, context=random_context(model, 0))
    index_store(with_context, store, tmp_path / "index", n_words=WORDS)
    check_words(WordIndex(tmp_path / "index"), with_context, store)
    queries = ["1a2p_A", str(store.ids[3])]
    for modality in MODALITIES:
        before, after = (
            protalign.search(queries, index=folder, model=each, query_by=modality, rerank=5, k=5)
            for each in (model, with_context)
        )
        assert {(hit.query, hit.id) for hit in before} == {(hit.query, hit.id) for hit in after}
        assert len(before) == 10
        assert {hit.evalue for hit in before}.isdisjoint(hit.evalue for hit in after)


def test_the_place_of_a_run_that_was_killed_at_its_end_is_removed(
    folder: Path, model: Model, store: EmbeddingStore, tmp_path: Path
) -> None:
    """It had put the index in its place, and had not taken its own away."""
    index = shutil.copytree(folder, tmp_path / "index")
    place = tmp_path / ".index.partial" / "0123"
    place.mkdir(parents=True)
    (place / "lock").touch()
    assert index_store(model, store, index).added == {"sequence": 0, "structure": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def random_context(model: Model, seed: int) -> ResidueContext:
    """A context of a model's widths."""
    rng = np.random.default_rng(seed)
    k, d = len(model.residue_scorer().correlations), model.dims
    linear = {
        m: {"mean": rng.normal(size=d[m]), "projection": rng.normal(size=(d[m], k))} for m in d
    }
    network = {"read": (d["sequence"], 5), "inner": (5 * (2 * REACH + 1), 6), "inner_bias": 6}
    network |= {"middle": (6, 6), "middle_bias": 6, "outer": (6, k), "shift": k}
    linear["sequence"] |= {name: rng.normal(size=size) for name, size in network.items()}
    parameters = {m: {n: a.astype(np.float32) for n, a in p.items()} for m, p in linear.items()}
    return ResidueContext(parameters, np.linspace(0.9, 0.1, k, dtype=np.float32), 0.9, {})


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
    monkeypatch.setattr(word_parts, "BLOCK", 100)
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
