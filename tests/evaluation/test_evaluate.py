"""The whole evaluation on a store of real chains: the content of the report, and its sums."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign.core.errors import InputError
from protalign.core.protein import DIRECTIONS, MODALITIES
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.evaluate import BASELINES, evaluate
from protalign.evaluation.labels import classes_of
from protalign.evaluation.residues import OF_RELATIVES, RESIDUE_SCORERS
from protalign.evaluation.summary import retrieval_report
from protalign.evaluation.test_set import chains_of
from protalign.residues.background import Background, CompactRows
from protalign.splits.mmseqs import HomologyError
from protalign.stores import EmbeddingStore

#: Those of every model.
SCORERS = RESIDUE_SCORERS.keys() - {OF_RELATIVES}
FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank")


@pytest.fixture(scope="module")
def families(store: EmbeddingStore) -> dict[str, str]:
    """Five families of about eight entries, by the first letter of the sequence and others."""
    return {entry_id: str(place % 5) for place, entry_id in enumerate(store.ids)}


@pytest.fixture(scope="module")
def report(
    store: EmbeddingStore, fitted: ProtAlignEstimator, families: dict[str, str]
) -> dict[str, Any]:
    """Entries 10 to the end, trained on all: half of what can be asked of it."""
    scop = {i: f"a.{int(f) % 2 + 1}.1.{f}" for i, f in families.items() if f != "4"}
    return evaluate(
        fitted, store[10:], train=store[:20], families=families, scop=scop, n_bootstrap=100
    )


def test_the_model_s_figures_are_the_retrieval_report_s(
    store: EmbeddingStore, fitted: ProtAlignEstimator, report: dict[str, Any]
) -> None:
    """Same candidates, same ranks; each figure within its interval; JSON takes it as it is."""
    json.dumps(report)
    plain = retrieval_report(fitted, store[10:])
    for direction in DIRECTIONS:
        model = report[direction]["tasks"]["protein"]["model"]
        assert report[direction]["n_queries"] == plain[direction]["n_queries"]
        for name in FIGURES:
            figure = model[name]
            assert figure["value"] == pytest.approx(plain[direction][name])
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert report["n_skipped"] == 1  # the FASTA record
    assert report["model"]["validation"] == "none"


def test_baselines_stand_beside_every_figure(report: dict[str, Any]) -> None:
    """Every task has each of them; those that know the family are perfect if any member counts."""
    assert set(report["baselines"]) == set(BASELINES)
    for direction in DIRECTIONS:
        tasks = report[direction]["tasks"]
        assert {"protein", "family", "within_family", "scop_fold", "clean_95"} <= set(tasks)
        for figures in tasks.values():
            if figures["n_queries"]:
                assert set(BASELINES) | SCORERS | {"model"} <= set(figures)
        assert tasks["family"]["family"]["recall_at_1"]["value"] == 1
        assert tasks["within_family"]["chance"] == tasks["within_family"]["family"]
        for scorer in ("kmers", "mmseqs"):
            assert tasks["protein"][scorer]["recall_at_5"]["value"] > 0.9
        chance = tasks["protein"]["chance"]["recall_at_1"]["value"]
        assert chance == pytest.approx(1 / report[direction]["n_candidates"], rel=0.1)


def test_the_residue_stage_ranks_beside_the_vectors(report: dict[str, Any]) -> None:
    """Both directions have the same alignments; the stage knows siblings that vectors confuse."""
    assert report["residues"] == "all queries against all candidates"
    assert set(report["scorers"]) == SCORERS  # the model keeps no background
    for direction in DIRECTIONS:
        figures = report[direction]["tasks"]["protein"]
        assert figures["residues_global"]["mrr"]["value"] > figures["model"]["mrr"]["value"]
        remote = report[direction]["remote"]["scop"]
        assert list(remote) == ["family", "superfamily", "fold"]
        assert remote["family"]["left_out"]["unlabelled"] > 0
        for name in (*SCORERS, "model", "mmseqs", "length"):
            assert 0 <= remote["family"][name]["sensitivity"]["value"] <= 1


def test_backing_is_for_relatives(
    store: EmbeddingStore, fitted: ProtAlignEstimator, families: dict[str, str]
) -> None:
    """A model that keeps a background has it among them, and not among tasks of own proteins."""
    model = copy(fitted.model_)
    stage = model.residue_scorer()
    assert stage.calibration is not None
    rows = {}
    for modality in MODALITIES:
        block = model.inputs(store[:10]).rows(modality, np.arange(10))
        rows[modality] = CompactRows.of(
            modality, replace(block, values=stage.rows(modality, block.values))
        )
    calibration = replace(stage.calibration, background=Background(rows))
    model.residue_stage = replace(stage, calibration=calibration)
    scop = {entry_id: f"a.1.1.{family}" for entry_id, family in families.items()}
    report = evaluate(model, store[20:], families=families, scop=scop, n_bootstrap=0, method="kmer")
    assert set(report["scorers"]) == set(RESIDUE_SCORERS)
    for direction in DIRECTIONS:
        assert OF_RELATIVES not in report[direction]["tasks"]["protein"]
        assert OF_RELATIVES in report[direction]["remote"]["scop"]["family"]


def test_the_residue_stage_may_be_left_out(
    store: EmbeddingStore, fitted: ProtAlignEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is not wanted, would take hours, or does not exist; the report says why."""
    quickly: dict[str, Any] = {"n_bootstrap": 0, "method": "kmer"}
    report = evaluate(fitted, store[:6], residues=False, **quickly)
    assert report["residues"] == "left out, as asked"
    assert not report["scorers"]
    assert "residues_local" not in report["sequence_to_structure"]["tasks"]["protein"]
    assert "mmseqs" not in report["baselines"]
    monkeypatch.setattr("protalign.evaluation.evaluate.MOST_PAIRS", 1e3)
    assert "would take long" in evaluate(fitted, store[:6], **quickly)["residues"]
    insisted = evaluate(fitted, store[:6], residues=True, **quickly)
    assert insisted["residues"] == "all queries against all candidates"
    monkeypatch.setattr(fitted.model_, "residue_stage", None)
    assert "has no residue stage" in evaluate(fitted, store[:6], **quickly)["residues"]
    with pytest.raises(InputError, match="the model has no residue stage"):
        evaluate(fitted, store[:6], residues=True, **quickly)


def test_scop_leaves_out_entries_without_a_label(report: dict[str, Any]) -> None:
    """Entries without a label are counted apart, and a fold holds what its families hold."""
    tasks = report["sequence_to_structure"]["tasks"]
    assert tasks["scop_fold"]["left_out"]["unlabelled"] > 0
    assert tasks["scop_fold"]["n_queries"] >= tasks["scop_family"]["n_queries"]
    fold, family = (
        tasks[f"scop_{level}"]["chance"]["mrr"]["value"] for level in ("fold", "family")
    )
    assert fold > family


def test_the_audit_counts_training_sequences(
    store: EmbeddingStore, fitted: ProtAlignEstimator, report: dict[str, Any]
) -> None:
    """Entries 10 to 20 are in both; the clean part is the rest, and among the same candidates."""
    leakage = report["leakage"]
    both = set(store.items("sequence")[10:20]) & set(store.items("sequence")[:20])
    assert leakage["exact"] >= len(both)
    assert leakage["exact"] <= leakage["at_95"] <= leakage["at_30"]
    for limit in (95, 30):
        clean = report["sequence_to_structure"]["tasks"][f"clean_{limit}"]
        assert clean["n_queries"] == leakage["n_sequences"] - leakage[f"at_{limit}"]
    without = evaluate(fitted, store[10:], n_bootstrap=0, method="kmer")
    assert without["leakage"] is None
    assert "cca" not in without["baselines"]
    assert "clean_95" not in without["sequence_to_structure"]["tasks"]
    assert "95 % sequence identity" in without["families"]["how"]


def test_the_audit_says_if_the_model_was_trained_on_other_pairs(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """An audit of other entries than the model's says so; entries without a pair train nothing."""
    quickly: dict[str, Any] = {"n_bootstrap": 0, "method": "kmer"}
    report = evaluate(fitted, store[30:], train=store, **quickly)
    assert report["leakage"]["pairs_agree"]
    model, others = report["model"], evaluate(fitted, store[:5], train=store[30:], **quickly)
    n_pairs = model["n_pairs"] + model["n_validation_pairs"]
    assert report["leakage"]["n_training_pairs"] == n_pairs
    assert not others["leakage"]["pairs_agree"]
    paired = store.items("sequence")[store.has_structure]
    assert report["leakage"]["n_training_sequences"] == len(set(paired.tolist()))


def test_an_audit_by_the_fallback_says_so(
    store: EmbeddingStore, fitted: ProtAlignEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fallback cannot see 30 % identity, so the report names it, chosen or not."""
    chosen = evaluate(fitted, store[:8], train=store[8:20], n_bootstrap=0, method="kmer")
    monkeypatch.setattr("protalign.splits.clusters.find_mmseqs", lambda: None)
    report = evaluate(fitted, store[:8], train=store[8:20], n_bootstrap=0)
    assert "k-mer fallback" in report["leakage"]["how"]
    assert "k-mer fallback" in report["families"]["how"]
    assert chosen == report
    with pytest.raises(HomologyError, match="MMseqs2: not found"):
        evaluate(fitted, store[:8], n_bootstrap=0, method="mmseqs")


def test_a_model_may_be_an_estimator_its_model_or_a_path(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """All three give the same report."""
    fitted.save(tmp_path / "model")
    families = {str(entry_id): "one" for entry_id in store.ids}
    reports = [
        evaluate(model, store[:8], families=families, n_bootstrap=0, method="kmer")
        for model in (fitted, fitted.model_, tmp_path / "model")
    ]
    assert reports[0] == reports[1] == reports[2]
    summaries = [retrieval_report(m, store[:8]) for m in (fitted, tmp_path / "model")]
    assert summaries[0] == summaries[1]


def test_entries_of_unknown_family_are_counted(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """Each such entry is a family of its own, and the report says how many there are."""
    known = {str(i): "one" for i in store.ids[:6]}
    found = evaluate(fitted, store[:9], families=known, n_bootstrap=0, method="kmer")
    assert found["families"] == {"n": 4, "how": "given", "n_unlabelled": 3}


def test_a_task_without_queries_has_no_figures(
    store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """A task without a query has no figures, and does not fail."""
    found = evaluate(fitted, store[:8], train=store, n_bootstrap=10, method="kmer")
    assert found["leakage"]["exact"] == found["n_sequences"]
    clean = found["structure_to_sequence"]["tasks"]["clean_30"]
    assert clean["n_queries"] == 0
    assert "model" not in clean


def test_structures_have_the_residues_of_their_rows(store: EmbeddingStore) -> None:
    """As many as the embedding has rows, read off the residue map."""
    ids = store.ids[store.has_structure][:10].tolist()
    chains = chains_of(store, ids, "structure")
    rows = store[ids].rows(store.encoder_for("structure").name)[1]
    assert [sum(map(len, own)) for own in chains] == rows.tolist()
    index = store.residue_map(ids[0]).sequence_index
    whole = "".join(store.sequence(ids[0]))
    assert "".join(chains[0]) == "".join(whole[place] for place in index)


def test_scop_labels() -> None:
    """A level is the code up to its number; an entry may have several; 0 is not a class."""
    cath = classes_of([["g"]], {"g": "3.40.50.1260 b.1.1.1"}, "cath", "topology").of
    assert cath == [{"3.40.50"}]
    labels = {"a": "b.1.1.1", "b": "b.1.1.0, c.2.1.3", "c": "", "d": "b.1", "f": "d.1.1.1 e.2.1.1"}
    items = [["a"], ["b"], ["c"], ["d"], ["e"]]
    by_level = {level: classes_of(items, labels, "scop", level).of for level in ("fold", "family")}
    (both,) = classes_of([["a", "f"]], labels, "scop", "superfamily").of
    assert sorted(both) == ["b.1.1", "d.1.1", "e.2.1"]
    assert [sorted(own) for own in by_level["fold"]] == [["b.1"], ["b.1", "c.2"], [], ["b.1"], []]
    assert [sorted(own) for own in by_level["family"]] == [["b.1.1.1"], ["c.2.1.3"], [], [], []]


def test_unusable_input_is_refused(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """Labels of other ids, arrays, and entries without structures give an error of one line."""
    with pytest.raises(InputError, match="names none of the entries"):
        evaluate(fitted, store[:5], families={"nobody": "x"})
    with pytest.raises(InputError, match=r"no label is an sccs.*'Ig-like'"):
        evaluate(fitted, store[:5], scop={str(store.ids[0]): "Ig-like"})
    with pytest.raises(InputError, match=r"cath: no label is a code such as.*'b.1.1.1'"):
        evaluate(fitted, store[:5], cath={str(store.ids[0]): "b.1.1.1"})
    with pytest.raises(InputError, match="not fitted"):
        evaluate(ProtAlignEstimator(), store[:5])
    with pytest.raises(InputError, match="use retrieval_report"):
        evaluate(fitted, np.zeros((5, 4)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no entry has both"):
        evaluate(fitted, store[["fasta"]])
