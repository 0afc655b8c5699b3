"""Scorers that align, in both directions, against searches of one query at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from protalign.core.protein import MODALITIES
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.aligned import Sides, aligned_scorers
from protalign.evaluation.residues import CUT_FLOOR, residue_scores
from protalign.evaluation.rivals import mmseqs_hits
from protalign.evaluation.test_set import retrieval_items
from protalign.heads.pairs import Pairs
from protalign.residues import ResidueStage
from protalign.residues.background import Background, CompactRows
from protalign.residues.backing import backing
from protalign.residues.targets import score_targets
from protalign.stores import EmbeddingStore

N = 10
#: Proteins of other families, one each.
OTHERS = (
    *("1bp2_A", "1bpi_A", "1c2r_A", "1c9o_A", "1cdc_B", "1e6k_A", "1ey4_A", "1fkb_A"),
    *("1gob_A", "1vqb_A"),
)
#: Each entry's sequence and structure are one protein.
OWN = (np.eye(N, dtype=np.bool_).__getitem__,) * 2


@pytest.fixture(scope="module")
def stage(store: EmbeddingStore, fitted: ProtAlignEstimator) -> ResidueStage:
    """A stage whose calibration has a background: ten other proteins."""
    model = fitted.model_
    stage = model.residue_scorer()
    assert stage.calibration is not None
    pairs = Pairs.of(model.inputs(store[list(OTHERS)]))
    rows = {}
    for column, modality in enumerate(MODALITIES):
        (block,) = pairs.inputs.blocks(modality, pairs.positions_of_items(column))
        rows[modality] = CompactRows.of(
            modality, replace(block, values=stage.rows(modality, block.values))
        )
    calibration = replace(
        stage.calibration, background=Background(rows), query_start=0.5, query_scale=1.5
    )
    return replace(stage, calibration=calibration)


@pytest.fixture(scope="module")
def sides(store: EmbeddingStore, fitted: ProtAlignEstimator, stage: ResidueStage) -> Sides:
    """Sequences and structures of ten entries."""
    pairs = Pairs.of(fitted.model_.inputs(store[:N]))
    retrieval = fitted.model_.retrieval_set(pairs)
    return retrieval_items(store[:N], pairs, (retrieval.sequence, retrieval.structure), stage)


def matrices(
    stage: ResidueStage, queries: Sides, candidates: Sides, *, cut: bool
) -> list[dict[str, npt.NDArray[np.float32]]]:
    """All scores of each direction."""
    both = aligned_scorers(stage, False, queries, candidates, OWN, cut=cut)
    return [
        {name: scorer(slice(0, len(side.ids))) for name, scorer in scorers.items()}
        for side, scorers in zip(queries, both, strict=True)
    ]


@pytest.mark.parametrize("cut", [False, True])
def test_each_query_ranks_by_its_own_chance(stage: ResidueStage, sides: Sides, cut: bool) -> None:
    """As a search for it does, also if structures are the queries, whole or cut."""
    found = matrices(stage, sides, sides, cut=cut)
    for column, scores in enumerate(found):
        queries, candidates = sides[column].residues, sides[1 - column].residues
        assert queries is not None
        assert candidates is not None
        for query, excess in zip(queries, scores["residues_excess"], strict=True):
            alone = score_targets(query, candidates, stage.calibration)
            assert alone.excess is not None
            np.testing.assert_allclose(excess, alone.excess, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cut", [False, True])
def test_first_hits_speak_but_for_the_own_protein(
    stage: ResidueStage, sides: Sides, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a search, in which the own protein is unknown."""
    # The sample's relatives have enough by themselves.
    monkeypatch.setattr("protalign.residues.backing._ENOUGH", 100.0)
    assert stage.calibration is not None
    background = stage.calibration.background
    assert background is not None
    spoken = 0
    for column, scores in enumerate(matrices(stage, sides, sides, cut=cut)):
        queries, candidates = sides[column].residues, sides[1 - column].residues
        assert queries is not None
        assert candidates is not None
        said = scores["residues_backed"] - scores["residues_excess"]
        for place, query in enumerate(queries.local):
            excess, silent = scores["residues_excess"][place], np.arange(N) == place
            expected = backing(
                query,
                excess,
                candidates.local.lengths,
                candidates.local.take,
                background,
                N,
                silent,
            )
            np.testing.assert_allclose(said[place], expected, atol=1e-3)
            with_own = backing(
                query, excess, candidates.local.lengths, candidates.local.take, background, N
            )
            spoken += int(not np.allclose(with_own, expected))
    assert spoken > 0


def test_queries_in_several_blocks_have_the_scores_of_one(
    stage: ResidueStage, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three queries at once, and one at last; each by its own chance."""
    whole = matrices(stage, sides, sides, cut=False)
    monkeypatch.setattr("protalign.evaluation.residues.ALIGNED_AT_ONCE", 3 * N)
    monkeypatch.setattr("protalign.evaluation.residues.SCORES_AT_ONCE", 3 * N)
    for scores, expected in zip(matrices(stage, sides, sides, cut=False), whole, strict=True):
        assert scores.keys() == expected.keys()
        for name, values in scores.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("cut", [False, True])
def test_mmseqs_searches_in_each_direction(
    store: EmbeddingStore, fitted: ProtAlignEstimator, cut: bool
) -> None:
    """Of all proteins: hits of structures' letters are not those of sequences turned round."""
    pairs = Pairs.of(fitted.model_.inputs(store))
    retrieval = fitted.model_.retrieval_set(pairs)
    sides = retrieval_items(store, pairs, (retrieval.sequence, retrieval.structure))
    both = aligned_scorers(None, True, sides, sides, OWN, cut=cut)
    found = [
        scorers["mmseqs"](slice(0, len(side.ids)))
        for side, scorers in zip(sides, both, strict=True)
    ]
    for column, scores in enumerate(found):
        hits = mmseqs_hits(sides[column].chains, sides[1 - column].chains)
        np.testing.assert_array_equal(np.where(np.isfinite(scores), scores, 0), hits.toarray())
    assert (found[0] != found[1].T).any()


def test_pairs_of_cut_queries_count_the_floor_at_least(stage: ResidueStage, sides: Sides) -> None:
    """On diagonals, in both directions; whole queries have no floor."""
    found = {cut: matrices(stage, sides, sides, cut=cut) for cut in (False, True)}
    for column in (0, 1):
        queries, candidates = sides[column].residues, sides[1 - column].residues
        assert queries is not None
        assert candidates is not None
        for cut, floor in ((False, None), (True, CUT_FLOOR)):
            expected = residue_scores(stage, queries, candidates, floor=floor)["residues_global"]
            diagonal = found[cut][column]["residues_global"]
            np.testing.assert_allclose(diagonal, expected, rtol=1e-4, atol=1e-2)
        whole, cut_scores = (found[cut][column]["residues_global"] for cut in (False, True))
        assert (cut_scores - whole).max() > 1
