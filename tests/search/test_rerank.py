"""The second stage of a search: hits ordered by their residues."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import protalign
from protalign import AlignedVectors, EmbeddingStore, Model, ProtAlignEstimator, read_vectors
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.core.words import AlignMode
from protalign.heads.residue_head import _Network
from protalign.residues.background import Background, CompactRows
from protalign.residues.backing import FIRST_HITS
from protalign.search.hit import Hit
from protalign.stores.store import StoreView
from tests.helpers.rows_read import counted_reads

SEQUENCE, STRUCTURE = "protalign_t6_2M", "proteinmpnn_v_48_020"
#: Entries of one family.
BPTI = ("1bpi_A", "1bpt_A", "1fan_A", "1bti_A")
#: One entry of each of the other families.
UNRELATED = (
    *("107l_A", "1a2p_A", "1acb_I", "1azp_A", "1b5m_A", "1b7s_A", "1bp2_A", "1c2r_A", "1c9o_A"),
    *("1cdc_B", "1e6k_A", "1ey4_A", "1fkb_A", "1gob_A", "1vqb_A"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """A folder with a model of the whole sample, and vectors."""
    folder = tmp_path_factory.mktemp("rerank")
    store = EmbeddingStore.open(finished / "store.zarr")
    estimator = ProtAlignEstimator(embed_dim=16, max_epochs=3, random_state=0, device="cpu")
    estimator.fit(store).save(folder / "model")
    estimator.export(store, folder / "vectors.parquet")
    return folder


@pytest.fixture(scope="module")
def vectors(work: Path) -> AlignedVectors:
    """The exported vectors."""
    return read_vectors(work / "vectors.parquet")


@pytest.mark.parametrize("query_by", ["sequence", "structure"])
@pytest.mark.parametrize("mode", ["local", "global"])
def test_scores_are_those_of_the_alignments(
    finished: Path, work: Path, query_by: str, mode: str
) -> None:
    """Every hit's two scores and its E-value are what ``Model.align`` gives for the two alone."""
    model = Model.load(work / "model")
    store = EmbeddingStore.open(finished / "store.zarr")
    hits = protalign.search(
        "1bpi_A", work / "vectors.parquet", model=model, k=40, rerank=40, mode=mode,
        query_by=query_by,
    )  # fmt: skip
    assert len(hits) == 40
    assert [hit.rank for hit in hits] == list(range(1, 41))
    encoders = [SEQUENCE, STRUCTURE]
    if query_by == "structure":
        encoders.reverse()
    query = store["1bpi_A"].embeddings(encoders[0]).values
    for hit in hits[::7]:
        target = store[hit.id].embeddings(encoders[1]).values
        local = model.align(query, target, query_by=query_by, n_targets=40)
        assert hit.local_score == pytest.approx(local.score, abs=0.2)
        assert hit.evalue == pytest.approx(local.evalue, rel=0.05)
        assert hit.probability == pytest.approx(local.probability, abs=0.01)
        diagonal = model.align(query, target, "global", query_by=query_by)
        assert hit.global_score == pytest.approx(diagonal.score, abs=0.01)
    keys = [-hit.evalue if mode == "local" else hit.global_score for hit in hits]
    assert keys == sorted(keys, reverse=True)
    assert hits[0].id in BPTI


@pytest.mark.parametrize("query_by", ["sequence", "structure"])
def test_first_hits_back_those_that_are_like_them(
    finished: Path, work: Path, query_by: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local hits are in the order of excess and backing, and so of their probability.

    The E-value is the pair's. Rows that are not kept are read again some at a time, with the same
    outcome. Without a background, of one entry alone and in mode "global" nothing is said.
    """
    model, store = Model.load(work / "model"), EmbeddingStore.open(finished / "store.zarr")
    stage = model.residue_scorer()
    assert stage.calibration is not None

    def hits_of(rerank: int = 40, mode: AlignMode = "local") -> list[Hit]:
        found = protalign.search(
            "1bpi_A", work / "vectors.parquet", model=model, k=rerank, rerank=rerank, mode=mode,
            query_by=query_by, store=store,
        )  # fmt: skip
        return list(found)

    plain = {hit.id: hit for hit in hits_of()}
    assert {hit.backing for hit in plain.values()} == {None}
    rows = {
        modality: Ragged.pack(
            [stage.rows(modality, store[i].embeddings(encoder)[0]) for i in UNRELATED]
        )
        for modality, encoder in zip(MODALITIES, (SEQUENCE, STRUCTURE), strict=True)
    }
    background = Background({m: CompactRows.of(m, each) for m, each in rows.items()})
    calibration = replace(stage.calibration, background=background)
    model.residue_stage = replace(stage, calibration=calibration)
    sure = {hit.id: hit.backing for hit in hits_of()}
    assert {sure[entry_id] for entry_id in BPTI} == {0.0}  # good hits need none
    monkeypatch.setattr("protalign.residues.backing._ENOUGH", 100.0)  # now these do
    hits = hits_of()
    backed = {hit.id: hit.backing or 0.0 for hit in hits}
    family = [backed.pop(entry_id) for entry_id in BPTI]
    assert min(family) > 1
    assert 0 <= min(backed.values()) <= max(backed.values()) < 1
    keys = [hit.probability for hit in hits]
    assert keys == sorted(keys, key=lambda key: -(key or 0))
    for hit in hits:
        assert hit.bits is not None
        assert hit.evalue == pytest.approx(40 * 2**-hit.bits, rel=1e-3)
    for entry_id in BPTI:  # bits of good hits are the excess
        hit = next(each for each in hits if each.id == entry_id)
        assert hit.bits is not None
        assert hit.backing is not None
        excess = np.log(2) * hit.bits + hit.backing
        assert hit.probability == pytest.approx(float(calibration.probability(excess)), rel=0.01)
    reads = counted_reads(monkeypatch)
    assert [hit.id for hit in hits_of()] == [hit.id for hit in hits]
    kept = sum(entries for entries, _ in reads)
    monkeypatch.setattr("protalign.search.rerank._KEPT", 0)
    monkeypatch.setattr("protalign.residues.backing.RESIDUES_AT_ONCE", 500)
    del reads[:]
    again = hits_of()
    assert sum(entries for entries, _ in reads) == kept + 40 + FIRST_HITS
    assert sum(residues <= 500 for _, residues in reads) > 5
    assert [hit.id for hit in again] == [hit.id for hit in hits]
    for one, two in zip(again, hits, strict=True):
        assert one.backing == pytest.approx(two.backing, abs=1e-4)
    # The search has 40 entries; more would have to say less.
    monkeypatch.setattr("protalign.residues.backing._HEARD", 1e-300)
    assert {hit.backing for hit in hits_of()} == {0.0}
    assert hits_of(rerank=1)[0].backing is None
    by_diagonal = hits_of(mode="global")
    assert {hit.backing for hit in by_diagonal} == {None}
    for hit in by_diagonal:
        assert hit.bits is not None
        assert hit.probability is not None
        if hit.bits > 5:
            alone = calibration.probability(np.log(2) * hit.bits)
            assert hit.probability == pytest.approx(float(alone), rel=0.02)


def test_only_the_nearest_are_looked_at(vectors: AlignedVectors, work: Path) -> None:
    """``rerank`` entries by cosine; ``k`` of them come back, in another order."""
    nearest = protalign.search("1bpi_A", vectors, k=10)
    hits = protalign.search("1bpi_A", vectors, model=work / "model", k=10, rerank=10)
    assert {hit.id for hit in hits} == {hit.id for hit in nearest}
    assert {hit.id: hit.cosine for hit in hits} == {hit.id: hit.cosine for hit in nearest}
    first = protalign.search("1bpi_A", vectors, model=work / "model", k=3, rerank=10)
    assert [hit.id for hit in first] == [hit.id for hit in hits[:3]]
    fewer = protalign.search("1bpi_A", vectors, model=work / "model", k=4, rerank=2)
    assert len(fewer) == 4


def test_all_kinds_of_queries_score_the_same(
    finished: Path, work: Path, vectors: AlignedVectors, tmp_path: Path, sample: Path
) -> None:
    """A protein as an id, FASTA, text, residue embeddings, a file of vectors; a structure file."""
    store = EmbeddingStore.open(finished / "store.zarr")
    sequence = store.sequence("1bpi_A")[0]
    fasta = tmp_path / "query.fasta"
    fasta.write_text(f">again\n{sequence}\n")
    rows = store["1bpi_A"].embeddings(SEQUENCE)[0]
    given = [fasta, sequence, rows, "1bpi_A", vectors.select(["1bpi_A"])]
    hits = protalign.search(given, vectors, model=work / "model", k=3, rerank=20)
    assert len(hits) == 15
    for start in range(0, 15, 3):
        assert [hit.id for hit in hits[start : start + 3]] == [hit.id for hit in hits[9:12]]
        np.testing.assert_allclose(
            [hit.local_score for hit in hits[start : start + 3]],
            [hit.local_score for hit in hits[9:12]],
            rtol=5e-3,  # the store holds float16
        )
    [file] = protalign.search(
        sample / "1bpi_A.cif", vectors, model=work / "model", k=1, rerank=40, mode="global"
    )
    assert file.against == "sequence"
    assert file.global_score is not None


def test_entries_without_the_modality_come_last(
    work: Path, tmp_path: Path, vectors: AlignedVectors, sample: Path
) -> None:
    """A store that lacks a candidate, or has it without a structure, does not stop the search."""
    store = tmp_path / "few.zarr"
    protalign.embed(sorted(sample.glob("*.pdb.gz"))[:3], store, [SEQUENCE, STRUCTURE])
    query = protalign.EmbeddingStore.open(store).ids[0]
    hits = protalign.search(query, vectors, model=work / "model", k=40, rerank=40, store=store)
    assert len(hits) == 40
    assert [hit.local_score is None for hit in hits] == [False] * 3 + [True] * 37


def test_the_rows_of_few_candidates_are_read_at_once(
    work: Path, vectors: AlignedVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are compared; the hits are the same, and come in the same order."""
    options = {"model": work / "model", "k": 40, "rerank": 40}
    want = protalign.search("1bpi_A", vectors, **options)
    reads = counted_reads(monkeypatch)
    monkeypatch.setattr("protalign.residues.targets.RESIDUES_AT_ONCE", 1000)
    monkeypatch.setattr("protalign.search.rerank.RESIDUES_AT_ONCE", 1000)
    monkeypatch.setattr("protalign.residues.targets.threads_here", lambda: 1)
    hits = protalign.search("1bpi_A", vectors, **options)
    longest = max(hit.length for hit in hits if hit.length)
    assert len(reads) > 4
    assert max(residues for _, residues in reads) <= max(1000, 8 * longest)
    assert [hit.id for hit in hits] == [hit.id for hit in want]
    for name in ("local_score", "global_score", "evalue", "rank"):
        found, expected = ([getattr(hit, name) for hit in each] for each in (hits, want))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38], ids=str)
@pytest.mark.parametrize("mode", ["local", "global"])
def test_a_candidate_whose_residues_are_not_finite_is_named(
    work: Path,
    vectors: AlignedVectors,
    monkeypatch: pytest.MonkeyPatch,
    number: float,
    mode: AlignMode,
) -> None:
    """By its id, with what to do; so is a query of the store. There are no warnings."""
    with_damaged_rows(monkeypatch, "1bpt_A", number)
    options = {"model": work / "model", "k": 5, "rerank": 40, "mode": mode}
    named = r"^1bpt_A: its structure embedding holds NaN, infinity or huge values; embed it again"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=named):
            protalign.search("1bpi_A", vectors, **options)
        with pytest.raises(InputError, match=named):
            protalign.search("1bpt_A", vectors, query_by="structure", **options)


def with_damaged_rows(monkeypatch: pytest.MonkeyPatch, entry: str, number: float) -> None:
    """Let the structure rows that a store gives for an entry begin with a number: a bad disk."""
    inner = StoreView.embeddings

    def damaged(store: StoreView, encoder: str) -> Ragged:
        rows = inner(store, encoder)
        if encoder != STRUCTURE or entry not in store.ids:
            return rows
        values = rows.values.astype(np.float32)
        place = int(np.flatnonzero(store.ids == entry)[0])
        values[rows.offsets[place], 1] = number
        return Ragged(values, rows.offsets)

    monkeypatch.setattr(StoreView, "embeddings", damaged)


def test_what_is_missing_is_named(work: Path, vectors: AlignedVectors, tmp_path: Path) -> None:
    """A model, a residue stage, a store, the other modality."""
    with pytest.raises(InputError, match="rerank: it needs a model; give"):
        protalign.search("1bpi_A", vectors, rerank=5)
    with pytest.raises(InputError, match="a query by structure cannot be compared with a struct"):
        protalign.search(
            "1bpi_A", vectors, model=work / "model", rerank=5, query_by="structure",
            against="structure",
        )  # fmt: skip
    with pytest.raises(InputError, match="the store is missing"):
        protalign.search("1bpi_A", vectors, model=work / "model", rerank=5, store=tmp_path / "no")
    with pytest.raises(InputError, match="rerank"):
        protalign.search("1bpi_A", vectors, model=work / "model", rerank=-1)
    without = Model.load(work / "model")
    without.residue_stage = None
    with pytest.raises(ModelError, match="has no residue stage"):
        protalign.search("1bpi_A", vectors, model=without, rerank=5)


def test_a_length_term_is_asked_for(work: Path, vectors: AlignedVectors) -> None:
    """It takes so many nats for each residue off the score of the order, and off nothing else."""
    options = {"model": work / "model", "k": 20, "rerank": 20, "mode": "global"}
    without = {hit.id: hit for hit in protalign.search("1bpi_A", vectors, **options)}
    hits = protalign.search("1bpi_A", vectors, length_term=2, **options)
    assert {hit.id for hit in hits} == set(without)
    own = without["1bpi_A"].length
    assert own is not None
    for hit in hits:
        plain = without[hit.id]
        assert hit == replace(plain, rank=hit.rank, score=hit.score)
        assert hit.length is not None
        assert plain.score == plain.global_score is not None
        expected = plain.global_score - 2 * abs(hit.length - own)
        assert hit.score == pytest.approx(expected, abs=0.01)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit.id for hit in hits] != list(without)
    every, most = (
        protalign.search("1bpi_A", vectors, length_term=2, **(options | {"rerank": count}))
        for count in ("all", len(vectors))
    )
    assert [(hit.id, hit.score) for hit in every] == [(hit.id, hit.score) for hit in most]
    least = scores[10]
    kept = protalign.search("1bpi_A", vectors, length_term=2, min_score=least, **options)
    assert [hit.id for hit in kept] == [hit.id for hit in hits[:11]]
    for wrong in ({"length_term": -1}, {"length_term": 2, "mode": "local"}):
        with pytest.raises(InputError, match="length_term"):
            protalign.search("1bpi_A", vectors, **(options | wrong))
    with pytest.raises(InputError, match="only global scores have a length term"):
        protalign.search("1bpi_A", vectors, length_term=2)


def model_with_head(work: Path) -> Model:
    """The model with a head of random numbers."""
    model = Model.load(work / "model")
    stage = model.residue_scorer()
    scales = {modality: np.ones_like(mean) for modality, mean in stage.means.items()}
    network = _Network(stage, scales, np.random.default_rng(0))
    torch.nn.init.normal_(network.sides["sequence"]["outer"], std=0.02)
    model.residue_stage = replace(stage, head=network.head({"hidden": 64}))
    return model


def test_a_number_that_is_too_large_for_the_head_is_named(
    work: Path, vectors: AlignedVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local rows are scaled down to a limit; those of the head have none, and are checked too."""
    with_damaged_rows(monkeypatch, "1bpt_A", 1e20)
    options = {"k": 5, "rerank": 40}
    protalign.search("1bpi_A", vectors, model=work / "model", **options)
    with pytest.raises(InputError, match=r"^1bpt_A: its structure embedding holds NaN, infinity"):
        protalign.search("1bpi_A", vectors, model=model_with_head(work), **options)


@pytest.mark.parametrize("mode", ["local", "global"])
def test_a_head_makes_the_global_scores(
    finished: Path, work: Path, vectors: AlignedVectors, mode: AlignMode
) -> None:
    """Local scores and E-values stay those of the correlations; each kind of query agrees."""
    store = EmbeddingStore.open(finished / "store.zarr")
    model, with_head = Model.load(work / "model"), model_with_head(work)
    given = ["1bpi_A", store["1bpi_A"].embeddings(SEQUENCE)[0]]
    options = {"k": 10, "rerank": 10, "mode": mode}
    plain = protalign.search("1bpi_A", vectors, model=model, **options)
    hits = protalign.search(given, vectors, model=with_head, **options)
    assert len(hits) == 20
    by_id = {hit.id: hit for hit in plain}
    for hit in hits:
        assert hit.local_score == pytest.approx(by_id[hit.id].local_score, rel=1e-4)
        assert hit.global_score != by_id[hit.id].global_score
        target = store[hit.id].embeddings(STRUCTURE).values
        one = with_head.align(given[1], target, "global").score
        assert hit.global_score == pytest.approx(one, abs=0.05)
