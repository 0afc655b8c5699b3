"""``protalign fit``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protalign import EmbeddingStore
from protalign.heads import training
from protalign.heads.model import Model
from tests.helpers.commands import run


def test_validation_entries_are_not_trained_on(finished: Path, tmp_path: Path) -> None:
    """--validation-ids leaves them out of training, even if --ids names them."""
    ids = EmbeddingStore.open(finished / "store.zarr").ids.tolist()
    (tmp_path / "ids.txt").write_text("\n".join(ids[:30]))
    (tmp_path / "validation.txt").write_text("\n".join(ids[20:40]))
    summary = json.loads(
        run(
            *("fit", finished / "store.zarr", "--out", tmp_path / "model", "--max-epochs", "1"),
            *("--ids", tmp_path / "ids.txt", "--validation-ids", tmp_path / "validation.txt"),
            "--json",
        ).stdout
    )
    assert summary["pairs"] == 20
    record = Model.load(tmp_path / "model").training_record
    assert record is not None
    assert record.n_validation_pairs == 20
    assert record.validation == "the entries of validation.txt"


def test_a_split_says_what_is_trained_on(finished: Path, tmp_path: Path) -> None:
    """Its train and validation part; other files of ids are refused; one line sums it up."""
    record = Model.load(finished / "model").training_record
    assert record is not None
    assert (record.n_pairs, record.n_validation_pairs) == (20, 10)
    split = ("--split", finished / "split.csv")
    fit = ("fit", finished / "store.zarr", "--out", tmp_path / "model", "--max-epochs", "2")
    text = run(*fit, *split).stdout
    assert "model: trained on 20 pairs; keeps epoch " in text
    refused = run(*fit, *split, "--ids", finished / "labels.csv", code=2)
    assert "--split: cannot be combined" in refused.stderr


def test_an_existing_model_is_replaced_only_if_asked(finished: Path, tmp_path: Path) -> None:
    """A folder with a model is an error; --overwrite replaces it, but nothing that is no model."""
    fit = ("fit", finished / "store.zarr", "--max-epochs", "1", "--out")
    run(*fit, tmp_path / "model")
    assert "exists" in run(*fit, tmp_path / "model", code=2).stderr
    run(*fit, tmp_path / "model", "--overwrite", "--pooling", "mean-linear")
    assert Model.load(tmp_path / "model").pooling == "mean-linear"
    assert "not a saved model" in run(*fit, finished, "--overwrite", code=2).stderr


def test_ctrl_c_saves_the_best_model_so_far(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first epoch there is one, before it there is none; the exit code is Ctrl-C's."""
    epochs, last = training._epoch, 2

    def interrupted(*arguments: object) -> float:
        nonlocal last
        last -= 1
        if last < 0:
            raise KeyboardInterrupt
        return epochs(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_epoch", interrupted)
    fit = ("fit", finished / "store.zarr", "--out", tmp_path / "model")
    done = run(*fit, code=130)
    assert "trained on" in done.stdout
    assert done.stderr == "protalign: interrupted; the best model so far is saved\n"
    record = Model.load(tmp_path / "model").training_record
    assert record is not None
    assert record.n_epochs == 2
    done = run(*fit, "--overwrite", code=130)
    assert done.stderr.strip() == "protalign: interrupted; no model was saved"


def test_a_store_that_lacks_a_modality(sample: Path, tmp_path: Path) -> None:
    """The error names the command that makes what is missing."""
    store = tmp_path / "store.zarr"
    encoders = "--sequence-encoder", "protalign_t6_2M", "--structure-encoder", "none"
    run("embed", sample / "1bpi_A.cif", "--out", store, *encoders, "-q")
    problem = run("fit", store, "--out", tmp_path / "model", code=2).stderr
    assert "X: the structure embeddings are missing; training needs both: run `prota" in problem
    assert "protalign embed` to the end, with an encoder of each modality" in problem
