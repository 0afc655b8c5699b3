"""Register accuracy of relatives in the whole evaluation: which pairs count, and what is right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign.core.protein import Backbone, Protein, Structure
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation import register
from protalign.evaluation.evaluate import evaluate
from protalign.stores import EmbeddingStore
from tests.helpers.estimator_stores import build, read

#: Two T4 lysozymes and two barnases; the last two are alike in their label only.
CODES = {
    "107l_A": "d.2.1.1",
    "108l_A": "d.2.1.2",
    "1a2p_A": "d.1.1.1",
    "1bao_B": "d.1.1.2",
    "1bpi_A": "g.8.1.1",
    "1azp_A": "g.8.2.1",
}
MEASURES = {"exact", "near", "exact_of_aligned", "near_of_aligned"}


@pytest.fixture(scope="module")
def report(store: EmbeddingStore, fitted: ProtAlignEstimator) -> dict[str, Any]:
    return evaluate(fitted, store[list(CODES)], scop=CODES, n_bootstrap=50, method="kmer")


def test_relatives_are_aligned_as_their_structures_are(report: dict[str, Any]) -> None:
    """Near-identical pairs, named relatives, lie residue on residue, for either aligner."""
    json.dumps(report)
    levels = report["register"]["scop"]
    assert list(levels) == ["family", "superfamily", "fold"]
    figures = levels["superfamily"]
    assert (figures["n_pairs"], figures["n_superposed"]) == (4, 4)
    assert set(report["aligners"]) == set(figures) - {"n_pairs", "n_superposed"}
    for name in report["aligners"]:
        assert set(figures[name]) == MEASURES
        assert figures[name]["near"]["value"] > 0.9
        for figure in figures[name].values():
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert figures["blosum"]["exact"]["value"] > 0.95


def test_pairs_that_are_not_alike_do_not_count(report: dict[str, Any]) -> None:
    """Of two structures with one label and different folds no alignment can be right."""
    levels = report["register"]["scop"]
    assert levels["fold"] == {"n_pairs": 0, "n_superposed": 2}
    assert levels["family"] == {"n_pairs": 0, "n_superposed": 0}


def test_residues_without_a_backbone_are_counted(
    fitted: ProtAlignEstimator, sample: Path, tmp_path: Path
) -> None:
    """A sequence has them and its structure has not: what follows them is aligned all the same."""
    one, other = (protein for protein in read(sample) if protein.id in ("107l_A", "108l_A"))
    (chain,) = one.chains
    assert chain.backbone is not None
    coordinates = chain.backbone.coordinates.copy()
    coordinates[10:15] = np.nan
    cut = replace(chain, backbone=Backbone(coordinates))
    built = build(
        tmp_path / "store.zarr",
        [Protein("cut", "cut.pdb", (cut,), Structure((cut,), (0,))), other],
    )
    codes = {"cut": "d.2.1.1", other.id: "d.2.1.2"}
    store = EmbeddingStore.open(built)
    report = evaluate(fitted, store, scop=codes, n_bootstrap=0, method="kmer")
    figures = report["register"]["scop"]["superfamily"]
    assert figures["n_pairs"] == 2
    assert figures["blosum"]["exact"]["value"] > 0.95


def test_it_is_bounded(
    store: EmbeddingStore, fitted: ProtAlignEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more pairs are measured, or superimposed, than the limits say."""
    quickly: dict[str, Any] = {"scop": CODES, "n_bootstrap": 0, "method": "kmer"}
    monkeypatch.setattr(register, "PAIRS", 3)
    levels = evaluate(fitted, store[list(CODES)], **quickly)["register"]["scop"]
    assert (levels["superfamily"]["n_pairs"], levels["superfamily"]["n_superposed"]) == (3, 3)
    monkeypatch.setattr(register, "TRIED", 1)
    levels = evaluate(fitted, store[list(CODES)], **quickly)["register"]["scop"]
    assert [levels[level]["n_superposed"] for level in levels] == [0, 1, 1]


def test_nothing_is_measured_without_labels_or_residues(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """There are no relatives without labels, and no alignments without the residue stage."""
    few = store[list(CODES)]
    assert evaluate(fitted, few, n_bootstrap=0, method="kmer")["register"] == {}
    without = evaluate(fitted, few, scop=CODES, residues=False, n_bootstrap=0, method="kmer")
    assert (without["register"], without["aligners"]) == ({}, {})
