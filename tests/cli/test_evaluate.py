"""``protalign evaluate`` and ``protalign attention``, run as a user runs them on the sample."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from protalign import EmbeddingStore, ProtAlignEstimator
from protalign.cli import main
from protalign.core.protein import MODALITIES
from protalign.encoders.esm2.shipped import EmbeddedEncoder
from protalign.encoders.recorded import RecordedEncoders
from protalign.evaluation.cropping import cropped
from protalign.evaluation.test_set import sides_of
from protalign.heads.inputs import Pairs, StoreInputs
from protalign.splits.make import Split, write_split


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def run(*words: object, code: int = 0) -> Done:
    """Run a protalign command in this process; it must end with this exit code."""
    out, err = StringIO(), StringIO()
    ended = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["protalign", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
    assert ended == code, (ended, out.getvalue(), err.getvalue())
    return Done(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """The sample's store, a split of it, a model fitted on that, and tables of labels."""
    folder = tmp_path_factory.mktemp("evaluate")
    store = folder / "store.zarr"
    run("embed", sample, "--out", store, "--sequence-encoder", EmbeddedEncoder.models()[0])
    ids = EmbeddingStore.open(store).ids.tolist()
    write_split(
        Split(tuple(ids[:20]), tuple(ids[20:30]), tuple(ids[30:]), how="in the order of the ids"),
        folder / "split.csv",
    )
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "group", "sccs"])
        rows.writerows([i, place % 3, f"a.1.{place % 2 + 1}.1"] for place, i in enumerate(ids))
    run(
        *("fit", store, "--out", folder / "model", "--split", folder / "split.csv"),
        *("--max-epochs", "15", "--pooling", "attention"),
    )
    return folder


def evaluated(folder: Path, *options: object) -> dict[str, Any]:
    """The JSON that evaluate prints."""
    families = ("--families", folder / "labels.csv", "--family-column", "group")
    found = run(*command(folder), *families, "--bootstrap", 50, "--json", *options).stdout
    report: dict[str, Any] = json.loads(found)
    return report


def command(folder: Path) -> list[object]:
    """What every call begins with."""
    store, model, split = (folder / name for name in ("store.zarr", "model", "split.csv"))
    return ["evaluate", store, "--model", model, "--split", split]


def test_the_table_has_figures_baselines_and_leakage(folder: Path) -> None:
    """And says what chose the epoch, what the intervals are of, and what each baseline knows."""
    out = folder / "report.json"
    labels = folder / "labels.csv"
    done = run(
        *command(folder),
        *("--families", labels, "--family-column", "group", "--scop", labels, "--out", out),
    )
    text = done.stdout
    for words in (
        "test part of",
        "in the order of the ids",
        "epoch of the model chosen by: the validation part of split.csv",
        "95 % bootstrap intervals, 1,000 resamples of whole families",
        "sequence to structure: 10 queries, 10 candidates",
        "another of its SCOPe superfamily",
        "random in true family",
        "k-mers (a ceiling)",
        "CCA of means",
        "not in training at 30 % identity",
        "leakage: of 10 sequences",
    ):
        assert words in text, text
    report = json.loads(out.read_text())
    assert report["split"] == {
        "file": str(folder / "split.csv"),
        "how": "in the order of the ids",
        "part": "test",
    }
    recall = report["sequence_to_structure"]["tasks"]["protein"]["model"]["recall_at_1"]
    assert f"{100 * recall['value']:.1f} ({100 * recall['low']:.1f}-" in text


def test_an_audit_of_another_split_says_so(folder: Path, tmp_path: Path) -> None:
    """A model that saw other entries than the split's train part is not called clean by it."""
    ids = EmbeddingStore.open(folder / "store.zarr").ids.tolist()
    other = tmp_path / "other.csv"
    write_split(Split(tuple(ids[:5]), (), tuple(ids[30:])), other)
    words = ["evaluate", folder / "store.zarr", "--model", folder / "model", "--bootstrap", 0]
    said = run(*words, "--split", other).stdout
    assert "the model was trained on 20 pairs (10 more chose its epoch)" in said
    assert "in brackets" not in said
    assert "the model was trained on" not in run(*words, "--split", folder / "split.csv").stdout


def test_parts_can_be_chosen(folder: Path) -> None:
    """Another part has its own queries; nothing is said of leakage into what was trained on."""
    found = evaluated(folder, "--part", "validation")
    assert found["n_sequences"] == 10
    assert found["leakage"]["n_training_sequences"] == 20
    assert evaluated(folder, "--part", "train")["leakage"] is None


def test_cut_queries(folder: Path) -> None:
    """The same seed cuts the same; lengths no longer tell; the report says that it was done."""
    cut, again, other = (
        evaluated(folder, "--crop", 0.2, "--seed", seed, "--bootstrap", 0) for seed in (0, 0, 1)
    )
    assert cut == again != other
    assert cut["crop"] == 0.2
    table = run(*command(folder), "--bootstrap", 0, "--crop", 0.2).stdout
    assert "each end of a chain by 0 to 20 % of its residues" in table

    def by_length(report: dict[str, Any]) -> float:
        tasks = report["sequence_to_structure"]["tasks"]
        return float(tasks["protein"]["length"]["mrr"]["value"])

    whole = evaluated(folder, "--bootstrap", 0)
    assert whole["crop"] is None
    assert by_length(cut) < by_length(whole)


def test_what_is_cut(folder: Path) -> None:
    """Each end of a chain, by at most the part asked for; embedded anew, and as long as it is."""
    store = EmbeddingStore.open(folder / "store.zarr")
    model = ProtAlignEstimator.load(folder / "model")
    pairs = Pairs.of(StoreInputs(store, {m: store.encoder_for(m) for m in MODALITIES}))
    vectors = model.retrieval_set(store)
    sides = sides_of(store, pairs, (vectors.sequence, vectors.structure))
    encoders = RecordedEncoders(model.encoders_, device="cpu")
    for side, modality in zip(sides, MODALITIES, strict=True):
        rng = np.random.default_rng(0)
        cut = cropped(side, modality, store, model, encoders, 0.3, rng)
        assert (cut.lengths < side.lengths).any()
        for ours, theirs, length in zip(cut.chains, side.chains, cut.lengths, strict=True):
            for part, chain in zip(ours, theirs, strict=True):
                place = chain.index(part)
                assert place <= 0.3 * len(chain) >= len(chain) - place - len(part)
            assert length == sum(map(len, ours))
        assert not np.allclose(cut.vectors, side.vectors)
        uncut = cropped(side, modality, store, model, encoders, 1e-9, rng)
        np.testing.assert_allclose(uncut.vectors, side.vectors, atol=5e-3)  # float16 in the store


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "0.6"], "crop=0.6"),
        (["--families", "labels.csv"], "no column of labels"),
        (["--out", "nowhere/report.json"], "nowhere is no folder"),
        (["--out", "."], ". is a folder"),
    ],
)
def test_wrong_usage(folder: Path, options: list[str], message: str) -> None:
    """One line, and exit code 2."""
    words = [folder / word if word.endswith(".csv") else word for word in options]
    assert message in run(*command(folder), *words, code=2).stderr


def test_attention_files(folder: Path, tmp_path: Path) -> None:
    """A file an id, out of arguments or a list, which a reader opens and which is not flat."""
    ids = EmbeddingStore.open(folder / "store.zarr").ids[:3].tolist()
    (tmp_path / "ids.txt").write_text(ids[2])
    out = tmp_path / "out"
    said = run(
        *("attention", folder / "store.zarr", *ids[:2], "--ids", tmp_path / "ids.txt"),
        *("--model", folder / "model", "--out", out, "--head", 1),
    ).stdout
    assert said.count("all atoms, highest") == 3
    once_more = run(
        *("attention", folder / "store.zarr", ids[0], "--model", folder / "model", "--out", out),
        code=3,
    )
    assert "it is there already" in once_more.stderr
    files = sorted(out.iterdir())
    assert [path.stem for path in files] == sorted(ids)
    for path in files:
        atoms = list(gemmi.read_structure(str(path))[0].all())
        assert len({round(each.atom.b_iso, 2) for each in atoms}) > 5


def test_attention_of_a_mean(folder: Path, tmp_path: Path) -> None:
    """A model that averages has none: a line, exit code 2; so has a call without ids."""
    model = tmp_path / "model"
    store = folder / "store.zarr"
    run("fit", store, "--out", model, "--pooling", "mean-mlp", "--max-epochs", "2")
    words = ["attention", store, "--model", model, "--out", tmp_path / "out"]
    assert "no ids are given" in run(*words, code=2).stderr
    (tmp_path / "file").touch()
    named = ["--out", tmp_path / "file"]
    assert "file is no folder" in run(*words[:-2], *named, "1a2p_A", code=2).stderr
    one = EmbeddingStore.open(store).ids[0]
    assert "weighs all residues alike" in run(*words, one, code=2).stderr
