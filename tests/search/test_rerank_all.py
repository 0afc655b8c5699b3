"""Every entry compared with a query by residues: ``rerank="all"``, on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import protalign
from protalign import AlignedVectors, EmbeddingStore, Model, ProtAlignEstimator, read_vectors
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.residues import scan
from protalign.search import Hit, index_store
from tests.helpers.estimator_stores import build, read
from tests.helpers.rows_read import counted_reads
from tests.search.test_rerank import model_with_head, with_damaged_rows

#: Without a GPU, the kernel of one is interpreted.
GPU = "cuda" if torch.cuda.is_available() else "cpu"
#: Entries that the scan is to keep, of forty, so that it has to choose.
FEW = 4


@pytest.fixture(scope="module")
def model(fitted: ProtAlignEstimator) -> Model:
    """A model with a calibrated residue stage."""
    assert fitted.model_.residue_scorer().calibration is not None
    return fitted.model_


@pytest.fixture(scope="module")
def vectors(
    tmp_path_factory: pytest.TempPathFactory, fitted: ProtAlignEstimator, store: EmbeddingStore
) -> AlignedVectors:
    """The vectors of the sample and three entries more; one has no structure."""
    path = tmp_path_factory.mktemp("all") / "vectors.parquet"
    fitted.export(store, path)
    return read_vectors(path)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan keeps few entries."""
    monkeypatch.setattr("protalign.search.searcher.CANDIDATES", FEW)


@pytest.fixture(params=["processor", "gpu"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a device; the transforms of the processor are out of reach of a GPU's search."""
    if request.param == "processor":
        return "cpu"
    monkeypatch.setattr(scan, "runs_triton", lambda device: True)
    monkeypatch.setattr(scan, "Correlation", None)
    return GPU


def some_of(vectors: AlignedVectors) -> AlignedVectors:
    """A third of the vectors, with relatives of the queries: an interpreter is slow."""
    return vectors.select(["1bpi_A", "1bpt_A", "fasta", *vectors.ids[:8].tolist()])


def check_same(hits: list[Hit], expected: list[Hit]) -> None:
    """The same hits in the same order, and the same scores but for rounding."""
    assert [(hit.query, hit.id, hit.rank) for hit in hits] == [
        (hit.query, hit.id, hit.rank) for hit in expected
    ]
    assert hits[0].evalue is not None
    for name in ("cosine", "local_score", "global_score", "evalue", "length"):
        ours, theirs = ([getattr(hit, name) for hit in each] for each in (hits, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize(
    ("query_by", "length_term"), [("sequence", 0), ("structure", 0), ("structure", 2)]
)
def test_the_best_by_global_scores_are_those_of_a_second_stage_of_all(
    model: Model, vectors: AlignedVectors, device: str, length_term: float, query_by: Modality
) -> None:
    """Entry by entry, whether a processor or a GPU looks for them."""
    asked: dict[str, Any] = {
        "model": model, "k": FEW, "mode": "global", "length_term": length_term,
        "query_by": query_by,
    }  # fmt: skip
    few = some_of(vectors)
    hits = protalign.search("1bpi_A", few, rerank="all", device=device, **asked)
    check_same(list(hits), list(protalign.search("1bpi_A", few, rerank=len(few), **asked)))
    assert len(hits) == FEW


def test_a_head_makes_the_scores_that_choose(
    fitted: ProtAlignEstimator, vectors: AlignedVectors, device: str, tmp_path: Path
) -> None:
    """They are not those of the correlations."""
    fitted.save(tmp_path / "model")
    asked: dict[str, Any] = {"model": model_with_head(tmp_path), "k": FEW, "mode": "global"}
    few = some_of(vectors)
    hits = protalign.search("1bpi_A", few, rerank="all", device=device, **asked)
    check_same(list(hits), list(protalign.search("1bpi_A", few, rerank=len(few), **asked)))


def test_the_best_by_local_scores_are_those_of_a_second_stage_of_all(
    model: Model, vectors: AlignedVectors
) -> None:
    """By their excess above chance, which E-values show."""
    asked: dict[str, Any] = {"model": model, "k": FEW}
    queries = ["1bpi_A", "1a2p_A"]
    hits = protalign.search(queries, vectors, rerank="all", **asked)
    check_same(list(hits), list(protalign.search(queries, vectors, rerank=99, **asked)))
    assert len(hits) == 2 * FEW


def test_vectors_do_not_decide(model: Model, vectors: AlignedVectors) -> None:
    """The best by residues comes first, though it is the last by its cosine."""
    turned = AlignedVectors(
        vectors.ids, vectors.sequence, -vectors.structure, vectors.has_sequence,
        vectors.has_structure, vectors.metadata, vectors.lengths,
    )  # fmt: skip
    asked: dict[str, Any] = {"model": model, "k": 1, "mode": "global"}
    [hit] = protalign.search("1acb_I", turned, rerank="all", **asked)
    assert hit.id == "1acb_I"
    assert hit.cosine < 0
    [other] = protalign.search("1acb_I", turned, rerank=3, **asked)
    assert other.id != hit.id


@pytest.mark.parametrize("mode", ["local", "global"])
def test_rows_are_read_once_for_all_queries_and_few_at_a_time(
    model: Model, vectors: AlignedVectors, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """But for those of the entries that are kept."""
    reads = counted_reads(monkeypatch)
    monkeypatch.setattr("protalign.search.rerank.RESIDUES_AT_ONCE", 1000)
    monkeypatch.setattr("protalign.search.rerank._ENTRIES_AT_ONCE", 15)
    asked: dict[str, Any] = {"model": model, "k": 1, "mode": mode}
    one = protalign.search("1bpi_A", vectors, rerank="all", **asked)
    of_one = sum(entries for entries, _ in reads)
    queries = ["1bpi_A", "1a2p_A", "1acb_I", "1b5m_A", "1bp2_A", "1c9o_A"]
    hits = protalign.search(queries, vectors, rerank="all", **asked)
    # One entry has no structure; of the others those that filters may want are read again, and of
    # these the hit in mode "local", for its global score.
    assert len(vectors) - 1 + FEW <= of_one < len(vectors) + 2 * FEW
    of_all = sum(entries for entries, _ in reads) - of_one
    assert of_all < len(vectors) + 2 * len(queries) * FEW
    assert max(residues for _, residues in reads) <= 1000
    assert hits[0].id == one[0].id


def test_an_index_of_words_may_be_passed_over(
    model: Model, store: EmbeddingStore, vectors: AlignedVectors, tmp_path: Path
) -> None:
    """Its entries are those that are compared, and the hits have their cosines."""
    index_store(model, store, tmp_path / "index", n_words=20)
    asked: dict[str, Any] = {"model": model, "rerank": "all", "mode": "global", "k": FEW}
    hits = protalign.search("1bpi_A", index=tmp_path / "index", **asked)
    check_same(list(hits), list(protalign.search("1bpi_A", vectors, **asked)))


def test_entries_that_the_store_lacks_are_no_hits(
    model: Model, tmp_path: Path, vectors: AlignedVectors, sample: Path
) -> None:
    """Nothing is known of their residues."""
    store = build(tmp_path / "few.zarr", read(sample)[:3])
    ids = EmbeddingStore.open(store).ids.tolist()
    hits = protalign.search(ids[0], vectors, model=model, k=40, rerank="all", store=store)
    assert sorted(hit.id for hit in hits) == sorted(ids)


def test_what_cannot_be_compared_is_named(
    model: Model, vectors: AlignedVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query whose residues are unknown, an entry with damaged ones, a word that is not "all"."""
    asked: dict[str, Any] = {"model": model, "rerank": "all", "k": 1}
    alone = AlignedVectors(
        np.array(["mine"], dtype=object), vectors.sequence[:1], vectors.structure[:1],
        np.ones(1, np.bool_), np.ones(1, np.bool_),
        {"model": vectors.metadata["model"]},
    )  # fmt: skip
    hits = protalign.search([alone, "1bpi_A"], vectors, **asked)
    assert [hit.query for hit in hits] == ["1bpi_A"]
    [failure] = hits.failures
    assert (failure.id, failure.reason) == ("mine", "its residues are unknown")
    with pytest.raises(InputError, match="rerank='every': not one of 'all'"):
        protalign.search("1bpi_A", vectors, model=model, rerank="every")  # type: ignore[arg-type]
    with_damaged_rows(monkeypatch, "1bpt_A", np.nan)
    for mode in ("local", "global"):
        with pytest.raises(InputError, match=r"^1bpt_A: its structure embedding holds NaN"):
            protalign.search("1bpi_A", vectors, mode=mode, **asked)


def test_queries_of_several_rounds_have_their_own_hits(
    model: Model, vectors: AlignedVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are compared together are told apart from those before them."""
    queries = ["1bpi_A", "1a2p_A", "1acb_I", "1b5m_A", "1bp2_A"]
    asked: dict[str, Any] = {"model": model, "k": 1, "mode": "global", "rerank": "all"}
    together = protalign.search(queries, vectors, **asked)
    monkeypatch.setattr("protalign.search.rerank._QUERIES_AT_ONCE", 2)
    check_same(list(protalign.search(queries, vectors, **asked)), list(together))
