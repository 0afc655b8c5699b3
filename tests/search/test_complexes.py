"""Complexes have one global score: that of ``align``, in every kind of search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from protalign import AlignedVectors, EmbeddingStore, Model, read_vectors, search
from protalign.core.protein import Backbone, Modality, Protein, Structure
from protalign.core.words import AlignMode
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.residues import residue_scores
from protalign.evaluation.test_set import retrieval_items
from protalign.heads.pairs import Pairs
from protalign.heads.residue_head import _Network
from protalign.residues import scan
from protalign.search import index_store
from protalign.search.alignments import align_proteins
from protalign.search.residue_rows import stored_rows
from protalign.search.search_options import SearchOptions
from protalign.search.searcher import Searcher
from tests.helpers.estimator_stores import build, read
from tests.helpers.stores import complex_of

#: Name -> the chains of a complex.
COMPLEXES = {
    "monomer": ["1a2p_A"],
    "homodimer": ["1a2p_A", "1a2p_A"],
    "dimer": ["1a2p_A", "1bpi_A"],
    "turned": ["1bpi_A", "1a2p_A"],
    "sibling": ["1a2p_A", "1bti_A"],
    "trimer": ["1b5m_A", "1a2p_A", "1bpi_A"],
    "other": ["1b5m_A"],
}
OTHER: dict[Modality, Modality] = {"sequence": "structure", "structure": "sequence"}
#: What rounds differently: sums of a few hundred float32 numbers.
ROUNDING = {"rel": 1e-4, "abs": 0.02}


def lacking(protein: Protein, name: str) -> Protein:
    """The complex without the backbone of seven residues of its first chain."""
    first, *rest = protein.chains
    assert first.backbone is not None
    coordinates = first.backbone.coordinates.copy()
    coordinates[20:27] = np.nan
    chains = (replace(first, backbone=Backbone(coordinates)), *rest)
    return Protein(name, f"{name}.pdb", chains, Structure(chains, tuple(range(len(chains)))))


@pytest.fixture(scope="module")
def proteins(sample: Path) -> dict[str, Protein]:
    """Real chains put together."""
    chains = {protein.id: protein for protein in read(sample)}
    made = [complex_of(name, *(chains[i] for i in ids)) for name, ids in COMPLEXES.items()]
    every = {protein.id: protein for protein in made}
    return every | {
        "lacking": lacking(every["dimer"], "lacking"),
        "one lacking": lacking(every["monomer"], "one lacking"),
    }


@pytest.fixture(scope="module")
def complexes(
    tmp_path_factory: pytest.TempPathFactory, proteins: dict[str, Protein]
) -> EmbeddingStore:
    """Their store."""
    path = tmp_path_factory.mktemp("complexes") / "store.zarr"
    return EmbeddingStore.open(build(path, list(proteins.values())))


@pytest.fixture(scope="module")
def vectors(
    tmp_path_factory: pytest.TempPathFactory, complexes: EmbeddingStore, fitted: ProtAlignEstimator
) -> AlignedVectors:
    """Their vectors."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    fitted.export(complexes, path)
    return read_vectors(path)


@pytest.fixture(scope="module")
def models(fitted: ProtAlignEstimator, tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """The model of the sample, and the same with a head, whose rows depend on neighbours."""
    path = tmp_path_factory.mktemp("model") / "model"
    fitted.save(path)
    plain, with_head = Model.load(path, "cpu"), Model.load(path, "cpu")
    stage = plain.residue_scorer()
    scales = {modality: np.ones_like(mean) for modality, mean in stage.means.items()}
    network = _Network(stage, scales, np.random.default_rng(0))
    for side in network.sides.values():
        torch.nn.init.normal_(side["outer"], std=0.05)
    with_head.residue_stage = replace(stage, head=network.head({"hidden": 64}))
    return [plain, with_head]


def of_align(
    model: Model, store: EmbeddingStore, ids: tuple[str, str], query_by: Modality
) -> float:
    """What ``align --mode global`` reports as the score of the whole."""
    query = stored_rows(model, store, ids[0], query_by)
    target = stored_rows(model, store, ids[1], OTHER[query_by])
    assert query is not None
    assert target is not None
    return align_proteins(model, query, target, "global").whole.alignment.score


@pytest.mark.parametrize("mode", ["local", "global"])
@pytest.mark.parametrize("query_by", ["sequence", "structure"])
@pytest.mark.parametrize("head", [False, True])
def test_a_search_scores_as_align_does(
    complexes: EmbeddingStore,
    vectors: AlignedVectors,
    models: list[Model],
    head: bool,
    query_by: Modality,
    mode: AlignMode,
) -> None:
    """Every complex against every one: in both, in one, a chain that is missing, a homodimer."""
    model = models[head]
    ids = complexes.ids.tolist()
    hits = search(ids, vectors, model=model, k=99, rerank=99, mode=mode, query_by=query_by)
    assert len(hits) == len(ids) ** 2
    scores = {}
    for hit in hits:
        expected = of_align(model, complexes, (hit.query, hit.id), query_by)
        assert hit.global_score == pytest.approx(expected, **ROUNDING), (hit.query, hit.id)
        scores[hit.query, hit.id] = hit.global_score
    own = scores["monomer", "monomer"]
    if query_by == "sequence" and not head:
        # The homodimer's structure was encoded as a whole, so that its score is another one.
        assert scores["homodimer", "monomer"] == pytest.approx(own, **ROUNDING)
        # The diagonal goes on behind seven residues without a backbone: 81 of 108 are behind them.
        assert scores["monomer", "one lacking"] > 0.77 * own
        assert scores["dimer", "lacking"] > own  # both chains count
    if mode == "global":
        first = {hit.query for hit in hits if hit.rank == 1 and hit.id == hit.query}
        assert first >= {"dimer", "trimer"}


@pytest.mark.parametrize(("head", "on_gpu"), [(False, False), (True, False), (True, True)])
def test_the_best_of_all_are_found_by_the_same_score(
    complexes: EmbeddingStore,
    vectors: AlignedVectors,
    models: list[Model],
    monkeypatch: pytest.MonkeyPatch,
    head: bool,
    on_gpu: bool,
) -> None:
    """A scan that keeps three of them, on a processor, or on a GPU, which is interpreted here."""
    monkeypatch.setattr("protalign.search.searcher.CANDIDATES", 3)
    device = "cpu"
    if on_gpu:
        monkeypatch.setattr(scan, "runs_triton", lambda device: True)
        monkeypatch.setattr(scan, "Correlation", None)
        device = "cuda" if torch.cuda.is_available() else "cpu"
    hits = search(
        "dimer", vectors, model=models[head], k=3, rerank="all", mode="global", device=device
    )
    every = search("dimer", vectors, model=models[head], k=99, rerank=99, mode="global")
    assert len(every) == len(complexes) == 9
    expected = [hit.global_score for hit in every]
    assert [hit.global_score for hit in hits] == pytest.approx(expected[:3], **ROUNDING)


def test_an_index_of_words_scores_as_align_does(
    complexes: EmbeddingStore, models: list[Model], tmp_path: Path
) -> None:
    """Its second stage is the same."""
    index_store(models[0], complexes, tmp_path / "index", n_words=20)
    searcher = Searcher(index=tmp_path / "index", model=models[0])
    hits = searcher.search(["dimer", "lacking"], SearchOptions(k=99, mode="global"))
    assert {hit.id for hit in hits} == set(complexes.ids)
    for hit in hits:
        expected = of_align(models[0], complexes, (hit.query, hit.id), "sequence")
        assert hit.global_score == pytest.approx(expected, **ROUNDING), (hit.query, hit.id)


@pytest.mark.parametrize("head", [False, True])
def test_the_alignment_of_a_hit_has_its_score(
    complexes: EmbeddingStore, vectors: AlignedVectors, models: list[Model], head: bool
) -> None:
    """The residues that are shown are those that were counted."""
    hits = search(
        ["dimer", "homodimer"], vectors, model=models[head], k=99, rerank=99, mode="global"
    )
    assert hits.comparison is not None
    for hit, place in zip(hits, hits.places, strict=True):
        shown = hits.comparison.alignment(place, hit)
        if shown is None:
            assert hit.global_score == 0
            continue
        assert shown.alignment.score == pytest.approx(hit.global_score, **ROUNDING)
        assert shown.alignment.residue_scores.sum() == pytest.approx(hit.global_score, **ROUNDING)


@pytest.mark.parametrize("head", [False, True])
def test_proteins_that_are_read_score_as_entries_do(
    complexes: EmbeddingStore,
    vectors: AlignedVectors,
    models: list[Model],
    proteins: dict[str, Protein],
    head: bool,
) -> None:
    """A protein in memory, which is what a file gives, and the server's comparison of two."""
    searcher = Searcher(vectors, model=models[head])
    names = ["dimer", "lacking", "homodimer", "monomer"]
    queries = searcher.pooled([proteins[name] for name in names], residues=True)
    for target in complexes.ids.tolist():
        hits = searcher.compare(queries, target, "global")
        for hit, name in zip(hits, names, strict=True):
            expected = of_align(models[head], complexes, (name, target), "structure")
            # The store rounds embeddings to float16.
            assert hit.global_score == pytest.approx(expected, rel=5e-3, abs=1)


@pytest.mark.parametrize("head", [False, True])
def test_an_evaluation_scores_as_align_does(
    complexes: EmbeddingStore, models: list[Model], head: bool
) -> None:
    """All queries against all candidates."""
    model = models[head]
    pairs = Pairs.of(model.inputs(complexes))
    retrieval = model.retrieval_set(pairs)
    both = retrieval.sequence, retrieval.structure
    sequences, structures = retrieval_items(complexes, pairs, both, model.residue_scorer())
    assert sequences.residues is not None
    assert structures.residues is not None
    scores = residue_scores(model.residue_scorer(), sequences.residues, structures.residues)
    for q, query in enumerate(sequences.ids):
        for t, target in enumerate(structures.ids):
            expected = of_align(model, complexes, (query, target), "sequence")
            assert scores["residues_global"][q, t] == pytest.approx(expected, **ROUNDING)
