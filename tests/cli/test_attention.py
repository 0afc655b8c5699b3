"""``protalign attention``."""

from __future__ import annotations

import json
from pathlib import Path

import gemmi

from protalign import EmbeddingStore
from tests.helpers.commands import run


def test_a_file_per_id(finished: Path, tmp_path: Path) -> None:
    """From arguments or a list of ids; a reader opens them and they are not flat."""
    ids = EmbeddingStore.open(finished / "store.zarr").ids[:3].tolist()
    (tmp_path / "ids.txt").write_text(ids[2])
    out = tmp_path / "out"
    text = run(
        *("attention", finished / "store.zarr", *ids[:2], "--ids", tmp_path / "ids.txt"),
        *("--model", finished / "model", "--out", out, "--head", 1),
    ).stdout
    assert text.count("all atoms, highest") == 3
    one = ("attention", finished / "store.zarr", ids[0], "--model", finished / "model")
    again = run(*one, "--out", out, code=3)
    assert "1 failed:" in again.stderr
    files = sorted(out.iterdir())
    assert [path.stem for path in files] == sorted(ids)
    for path in files:
        atoms = list(gemmi.read_structure(str(path))[0].all())
        assert len({round(each.atom.b_iso, 2) for each in atoms}) > 5
    report = json.loads(run(*one, "--out", out, "--overwrite", "--json").stdout)
    assert [(file["id"], file["path"]) for file in report["files"]] == [(ids[0], str(files[0]))]
    assert report["failures"] == []


def test_wrong_usage(finished: Path, tmp_path: Path) -> None:
    """No ids, a file in place of the folder, a model that averages: a line, and exit code 2."""
    words = ["attention", finished / "store.zarr", "--model", finished / "model", "--out"]
    assert "no ids given" in run(*words, tmp_path / "out", code=2).stderr
    (tmp_path / "file").touch()
    assert "file: it is not a folder" in run(*words, tmp_path / "file", "1a2p_A", code=2).stderr
    model, store = tmp_path / "model", finished / "store.zarr"
    run("fit", store, "--out", model, "--pooling", "mean-mlp", "--max-epochs", "2")
    one = EmbeddingStore.open(store).ids[0]
    averaged = ["attention", store, one, "--model", model, "--out", tmp_path / "out"]
    assert "mean-mlp" in run(*averaged, code=2).stderr
