"""``protalign evaluate`` on the sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protalign import EmbeddingStore
from protalign.splits.make import Split, write_split
from tests.helpers.commands import run


def command(folder: Path, split: str | Path = "split.csv") -> list[object]:
    """Return the words that every call begins with."""
    return [
        *("evaluate", folder / "store.zarr", "--model", folder / "model"),
        *("--split", folder / split),
    ]


def evaluated(folder: Path, *options: object) -> dict[str, Any]:
    """Return the JSON that evaluate prints."""
    families = ("--families", folder / "labels.csv", "--family-column", "group")
    words = (*command(folder), *families, "--bootstrap", 0, "--json", *options)
    report: dict[str, Any] = json.loads(run(*words).stdout)
    return report


def test_the_table_has_figures_baselines_and_leakage(finished: Path, tmp_path: Path) -> None:
    """And says what chose the epoch, what the intervals are of, and what each baseline knows."""
    out = tmp_path / "report.json"
    labels = finished / "labels.csv"
    text = run(
        *command(finished),
        *("--families", labels, "--family-column", "group", "--scop", labels, "--out", out),
    ).stdout
    for words in (
        "test part of",
        "in the order of the ids",
        "the model's epoch was chosen by: the validation part of split.csv",
        "95 % bootstrap intervals, 1,000 resamples of whole families",
        "sequence to structure: 10 queries, 10 candidates",
        "another structure of its SCOPe superfamily",
        "random in true family",
        "k-mers (a ceiling)",
        "CCA of means",
        "not in training at 30 % identity",
        "leakage: of 10 sequences",
    ):
        assert words in text, text
    assert "the model was trained on" not in text
    report = json.loads(out.read_text())
    assert report["split"] == {
        "file": str(finished / "split.csv"),
        "how": "in the order of the ids",
        "part": "test",
    }
    recall = report["sequence_to_structure"]["tasks"]["protein"]["model"]["recall_at_1"]
    assert f"{100 * recall['value']:.1f} ({100 * recall['low']:.1f}-" in text


def test_an_audit_of_another_split_says_so(finished: Path, tmp_path: Path) -> None:
    """A model that saw other entries than the split's train part is not called clean by it."""
    ids = EmbeddingStore.open(finished / "store.zarr").ids.tolist()
    other = tmp_path / "other.csv"
    write_split(Split(tuple(ids[:5]), (), tuple(ids[30:])), other)
    text = run(*command(finished, other), "--bootstrap", 0).stdout
    assert "the model was trained on 20 pairs (10 more chose its epoch)" in text
    assert "in brackets" not in text
    empty = run(*command(finished, other), "--part", "validation", code=2).stderr
    assert "its validation part is empty" in empty


def test_parts_can_be_chosen(finished: Path) -> None:
    """Another part has its own queries; nothing is said of leakage into what was trained on."""
    report = evaluated(finished, "--part", "validation")
    assert report["n_sequences"] == 10
    assert report["leakage"]["n_training_sequences"] == 20
    assert evaluated(finished, "--part", "train")["leakage"] is None


def test_cut_queries(finished: Path, tmp_path: Path) -> None:
    """The same seed cuts the same; lengths no longer tell; the report says that it was done."""
    out = tmp_path / "cut.json"
    families = ("--families", finished / "labels.csv", "--family-column", "group")
    crop = ("--crop", 0.2, "--bootstrap", 0, "--out", out)
    table = run(*command(finished), *families, *crop).stdout
    assert "each end of a chain loses a random 0 to 20 % of its residues" in table
    cut = json.loads(out.read_text())
    assert cut["crop"] == 0.2
    assert cut == evaluated(finished, "--crop", 0.2)
    assert cut != evaluated(finished, "--crop", 0.2, "--seed", 1)

    def by_length(report: dict[str, Any]) -> float:
        tasks = report["sequence_to_structure"]["tasks"]
        return float(tasks["protein"]["length"]["mrr"]["value"])

    whole = evaluated(finished)
    assert whole["crop"] is None
    assert by_length(cut) < by_length(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "0.6"], "crop=0.6"),
        (["--families", "labels.csv"], "no column of labels"),
        (["--out", "nowhere/report.json"], "nowhere is not a folder"),
        (["--out", "."], "--out .: it is a folder"),
    ],
)
def test_wrong_usage(finished: Path, options: list[str], message: str) -> None:
    """One line, and exit code 2."""
    words = [finished / word if word.endswith(".csv") else word for word in options]
    assert message in run(*command(finished), *words, code=2).stderr
