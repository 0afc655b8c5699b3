"""Scores by the residue stage among all candidates, against one alignment at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protalign.core.arrays import Float32
from protalign.core.protein import Backbone, Protein, Structure
from protalign.encoders.recorded import RecordedEncoders
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.cropping import cropped
from protalign.evaluation.residues import residue_scores
from protalign.evaluation.rivals import blosum_rows, blosum_scores, by_hits, mmseqs_hits
from protalign.evaluation.test_set import RetrievalItems, retrieval_items
from protalign.heads.pairs import Pairs
from protalign.residues import align
from protalign.residues.proteins import PackedRows, ProteinRows
from protalign.splits.mmseqs import HomologyError
from protalign.stores import EmbeddingStore
from tests.helpers.estimator_stores import build, read


@pytest.fixture(scope="module")
def items(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> tuple[RetrievalItems, RetrievalItems]:
    """Sequences and structures of eight entries, with residue rows."""
    pairs = Pairs.of(fitted.model_.inputs(store[:8]))
    retrieval = fitted.model_.retrieval_set(pairs)
    vectors = retrieval.sequence, retrieval.structure
    return retrieval_items(store[:8], pairs, vectors, fitted.model_.residue_stage)


def rows_of(items: RetrievalItems) -> PackedRows:
    assert items.residues is not None
    return items.residues


def test_every_score_is_that_of_one_alignment(
    fitted: ProtAlignEstimator, items: tuple[RetrievalItems, RetrievalItems]
) -> None:
    """Both modes of ``align``; without a background the excess is one from either side."""
    stage = fitted.model_.residue_stage
    assert stage is not None
    calibration = stage.calibration
    assert calibration is not None
    assert calibration.background is None
    sequences, structures = map(rows_of, items)
    assert sequences.local.lengths.tolist() == items[0].lengths.tolist()
    scores = residue_scores(stage, sequences, structures)
    other = residue_scores(stage, structures, sequences)
    for name, values in scores.items():
        np.testing.assert_allclose(values, other[name].T, rtol=1e-4, atol=1e-2)
    for q, t in ((0, 0), (0, 3), (5, 2)):
        query, target = sequences.local[q], structures.local[t]
        for mode in ("local", "global"):
            one = align(query, target, "local" if mode == "local" else "global").score
            assert scores[f"residues_{mode}"][q, t] == pytest.approx(one, abs=0.1)
        local, by_chance = align(query, target).score, align(query, target[::-1]).score
        excess = calibration.excess(local, by_chance, len(query), len(target))
        assert scores["residues_excess"][q, t] == pytest.approx(float(excess), abs=0.05)


def test_residues_without_a_row_keep_their_places(
    fitted: ProtAlignEstimator, sample: Path, tmp_path: Path
) -> None:
    """Those of a store's structures, and those of structures that are cut."""
    files = [sample / f"{name}.pdb.gz" for name in ("1a2p_A", "1bp2_A")]
    whole, other = (protein for file in files for protein in read(file))
    (chain,) = whole.chains
    assert chain.backbone is not None
    coordinates = chain.backbone.coordinates.copy()
    coordinates[[0, *range(50, 55)]] = np.nan
    chains = (replace(chain, backbone=Backbone(coordinates)),)
    lacking = Protein("lacking", "lacking.pdb", chains, Structure(chains, (0,)))
    entries = EmbeddingStore.open(build(tmp_path / "store.zarr", [other, lacking]))
    model = fitted.model_
    pairs = Pairs.of(model.inputs(entries))
    retrieval = model.retrieval_set(pairs)
    vectors = retrieval.sequence, retrieval.structure
    sides = retrieval_items(entries, pairs, vectors, model.residue_stage)
    encoders, rng = RecordedEncoders(model.encoders, device="cpu"), np.random.default_rng(0)
    cut = cropped(sides[1], "structure", entries, model, encoders, 1e-9, rng)
    assert rows_of(sides[0]).skipped is None
    for items in (sides[1], cut):
        skipped = rows_of(items).skipped
        assert skipped is not None
        assert np.flatnonzero(skipped).tolist() == [len(other) + 49]
        assert skipped.max() == 5


def test_chains_of_cut_queries_have_diagonals_of_their_own(
    fitted: ProtAlignEstimator, items: tuple[RetrievalItems, RetrievalItems]
) -> None:
    """A pair of residues counts the floor at least, on the diagonals of chains as well."""
    stage = fitted.model_.residue_stage
    assert stage is not None
    sequences, structures = map(rows_of, items)
    two = [
        ProteinRows(each.local, each.diagonal, np.array([10, len(each.local) - 10]))
        for each in sequences
    ]
    scores = residue_scores(stage, PackedRows.of(two), structures, floor=-1.5)
    query, target = sequences.local[1], structures.local[4]
    parts = [align(part, target, "global", floor=-1.5).score for part in (query[:10], query[10:])]
    # The structure has one chain: one of the two lies on it.
    assert scores["residues_global"][1, 4] == pytest.approx(max(*parts, 0), abs=0.1)
    whole = residue_scores(stage, sequences, structures)
    np.testing.assert_array_equal(scores["residues_local"], whole["residues_local"])


#: Two proteins that have nothing in common.
PROTEIN, OTHER = "MKVLAAGIVGLCHWERTYPDNQ" * 2, "GSHMASWPLEDNCYFTRQIKVA" * 2


@pytest.fixture(scope="module")
def bits(items: tuple[RetrievalItems, RetrievalItems]) -> Float32:
    """MMseqs2's bits of the eight entries, then of the two proteins: it takes seconds to start."""
    queries = [*items[0].chains, (PROTEIN, "G"), (OTHER,)]
    hits = mmseqs_hits(queries, [*items[1].chains, (OTHER,), (PROTEIN,)])
    return by_hits(hits)(slice(0, len(queries)))


def test_sequence_searches_find_the_own_letters(
    items: tuple[RetrievalItems, RetrievalItems], bits: Float32
) -> None:
    """A structure with its letters is found by them; Smith-Waterman equals an alignment's score."""
    chains = items[0].chains, items[1].chains
    blosum = blosum_scores(*chains)
    own = np.arange(len(blosum))
    bits = bits[: len(blosum), : blosum.shape[1]]
    assert (np.diag(bits) >= bits.max(axis=1) - 30).all()
    assert (np.diag(blosum) >= 0.9 * blosum.max(axis=1)).all()
    query, target = "".join(chains[0][0]), "".join(chains[1][3])
    rows = blosum_rows(query, 0), blosum_rows(target, 1)
    one = align(*rows, gap_open=12, gap_extend=1)
    assert blosum[0, 3] == one.score
    assert own.size == blosum.shape[1]


def test_what_a_search_does_not_report_is_minus_infinity(
    bits: Float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unrelated letters are not reported; without the program the error says what to install."""
    scores = bits[-2:, -2:]
    assert scores[0, 1] > 0
    assert scores[1, 0] > 0
    assert scores[0, 0] == -np.inf or scores[0, 0] < scores[0, 1]
    assert mmseqs_hits([("",)], [(PROTEIN,)]).nnz == 0
    part = PROTEIN[:32]
    queries = [(PROTEIN,), (part,), (PROTEIN, part), (part, PROTEIN)]
    whole, less, *several = mmseqs_hits(queries, [(PROTEIN,)]).toarray()[:, 0]
    assert whole > less > 0
    assert several == [whole, whole]  # the best pair of chains counts, whichever is first
    monkeypatch.setattr("protalign.evaluation.rivals.find_mmseqs", lambda: None)
    with pytest.raises(HomologyError, match="MMseqs2: not found"):
        mmseqs_hits([(PROTEIN,)], [(OTHER,)])
