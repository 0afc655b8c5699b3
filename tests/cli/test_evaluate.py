"""``protalign evaluate`` on the sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign import EmbeddingStore
from protalign.core.protein import MODALITIES
from protalign.encoders.recorded import RecordedEncoders
from protalign.evaluation.cropping import cropped
from protalign.evaluation.test_set import retrieval_items
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs
from protalign.splits import Split, write_split
from tests.helpers.commands import run


def command(folder: Path, split: str | Path = "split.csv") -> list[object]:
    """Return the words that every call begins with."""
    return [
        *("evaluate", folder / "store.zarr", "--model", folder / "model"),
        *("--split", folder / split),
    ]


def evaluated(folder: Path, *options: object, split: str | Path = "split.csv") -> dict[str, Any]:
    """Return the JSON that evaluate prints."""
    families = ("--families", folder / "labels.csv", "--family-column", "group")
    quickly = ("--bootstrap", 0, "--method", "kmer")
    words = (*command(folder, split), *families, *quickly, "--json", *options)
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
        "residue stage: all queries against all candidates",
        "residues, best diagonal",
        "the same SCOPe fold, another superfamily",
        "sensitivity %",
        "residues of a sequence on a relative's structure",
        "within 4 %",
        "BLOSUM62 (needs sequences)",
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
    families = ("--families", finished / "labels.csv", "--family-column", "group")
    quickly = ("--bootstrap", 0, "--method", "kmer")
    text = run(*command(finished, other), *families, *quickly).stdout
    assert "the model was trained on 20 pairs (10 more chose its epoch)" in text
    assert "in brackets" not in text
    empty = run(*command(finished, other), "--part", "validation", code=2).stderr
    assert "its validation part is empty" in empty


def test_residues_can_be_left_out(finished: Path) -> None:
    """The residue stage ranks unless it is refused; the report says which."""
    plain, without = evaluated(finished), evaluated(finished, "--no-residues")
    assert plain["residues"] == "all queries against all candidates"
    assert without["residues"] == "left out, as asked"
    task = without["sequence_to_structure"]["tasks"]["protein"]
    assert "residues_local" not in task
    assert task["model"] == plain["sequence_to_structure"]["tasks"]["protein"]["model"]


def test_parts_can_be_chosen(finished: Path) -> None:
    """Another part has its own queries; nothing is said of leakage into what was trained on."""
    report = evaluated(finished, "--part", "validation")
    assert report["n_sequences"] == 10
    assert report["leakage"]["n_training_sequences"] == 20
    assert evaluated(finished, "--part", "train")["leakage"] is None


@pytest.mark.slow
def test_cut_queries(finished: Path, tmp_path: Path) -> None:
    """The same seed cuts the same; lengths no longer tell; the report says that it was done."""
    out, split = tmp_path / "cut.json", tmp_path / "split.csv"
    ids = EmbeddingStore.open(finished / "store.zarr").ids.tolist()
    write_split(Split((), (), tuple(ids[30:36])), split)  # without training, no leakage to look for
    families = ("--families", finished / "labels.csv", "--family-column", "group")
    crop = ("--crop", 0.2, "--bootstrap", 0, "--method", "kmer", "--out", out)
    table = run(*command(finished, split), *families, *crop).stdout
    assert "each end of a chain loses a random 0 to 20 % of its residues" in table
    cut = json.loads(out.read_text())
    assert cut["crop"] == 0.2
    assert "residues_global" in cut["structure_to_sequence"]["tasks"]["protein"]
    assert cut == evaluated(finished, "--crop", 0.2, split=split)
    assert cut != evaluated(finished, "--crop", 0.2, "--seed", 1, split=split)

    def by_length(report: dict[str, Any]) -> float:
        tasks = report["sequence_to_structure"]["tasks"]
        return float(tasks["protein"]["length"]["mrr"]["value"])

    whole = evaluated(finished, split=split)
    assert whole["crop"] is None
    assert by_length(cut) < by_length(whole)


def test_what_is_cut(finished: Path) -> None:
    """Each end of a chain, by at most the part asked for; embedded anew, and as long as it is."""
    entries = EmbeddingStore.open(finished / "store.zarr")[:8]
    model = Model.load(finished / "model", "cpu")
    vectors = model.retrieval_set(entries)
    pairs = Pairs.of(model.inputs(entries))
    sides = retrieval_items(entries, pairs, (vectors.sequence, vectors.structure))
    encoders = RecordedEncoders(model.encoders, device="cpu")
    for side, modality in zip(sides, MODALITIES, strict=True):
        rng = np.random.default_rng(0)
        cut = cropped(side, modality, entries, model, encoders, 0.3, rng)
        assert (cut.lengths < side.lengths).any()
        lost: list[tuple[int, int]] = []
        for cut_chains, chains, length in zip(cut.chains, side.chains, cut.lengths, strict=True):
            for part, chain in zip(cut_chains, chains, strict=True):
                start = chain.index(part)
                assert start <= 0.3 * len(chain) >= len(chain) - start - len(part)
                lost.append((start, len(chain) - start - len(part)))
            assert length == sum(map(len, cut_chains))
        assert all(any(ends) for ends in zip(*lost, strict=True))  # first ends, and last ones
        assert not np.allclose(cut.vectors, side.vectors)
        uncut = cropped(side, modality, entries, model, encoders, 1e-9, rng)
        np.testing.assert_allclose(uncut.vectors, side.vectors, atol=5e-3)  # float16 in the store


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "0.6"], "crop=0.6"),
        (["--families", "labels.csv"], "no column of labels"),
        (["--cath", "labels.csv", "--cath-column", "group"], "cath: no label is a code such as"),
        (["--cath-column", "group"], "--cath"),
        (["--out", "nowhere/report.json"], "nowhere is not a folder"),
        (["--out", "."], "--out .: it is a folder"),
    ],
)
def test_wrong_usage(finished: Path, options: list[str], message: str) -> None:
    """One line, and exit code 2."""
    words = [finished / word if word.endswith(".csv") else word for word in options]
    assert message in run(*command(finished), *words, code=2).stderr
