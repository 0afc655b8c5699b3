"""``protalign export``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from protalign import EmbeddingStore, read_vectors
from tests.helpers.commands import run


def test_every_id_has_unit_vectors(finished: Path) -> None:
    """The Parquet file has all ids, and both vectors of each have length one."""
    vectors = read_vectors(finished / "vectors.parquet")
    assert sorted(vectors.ids) == sorted(EmbeddingStore.open(finished / "store.zarr").ids)
    for modality in (vectors.sequence, vectors.structure):
        assert modality.shape == (40, 128)
        np.testing.assert_allclose(np.linalg.norm(modality, axis=1), 1, atol=1e-5)


def test_means_in_another_format(finished: Path, tmp_path: Path) -> None:
    """--features aligned,mean adds columns, the file's name gives the format; typos are named."""
    export = ("export", finished / "store.zarr", "--model", finished / "model", "--out")
    run(*export, tmp_path / "v.csv", "--features", "aligned, mean")
    header, *rows = (tmp_path / "v.csv").read_text().splitlines()
    assert len(rows) == 40
    assert {"id", "length", "structure127", "sequence_mean0"} <= {
        name.strip('"') for name in header.split(",")
    }
    wrong = run(*export, tmp_path / "w.csv", "--features", "aligned,meen", code=2)
    assert "did you mean 'mean'" in wrong.stderr
    assert "w.txt" in run(*export, tmp_path / "w.txt", code=2).stderr


def test_ids_and_json(finished: Path, tmp_path: Path) -> None:
    """--ids selects entries; --json counts them; a file without ids is a line."""
    ids = EmbeddingStore.open(finished / "store.zarr").ids.tolist()[:3]
    (tmp_path / "ids.txt").write_text("# some\n" + "\n".join(ids))
    out = tmp_path / "v.parquet"
    export = ("export", finished / "store.zarr", "--model", finished / "model", "--out", out)
    report = json.loads(run(*export, "--ids", tmp_path / "ids.txt", "--json").stdout)
    assert report == {"file": str(out), "ids": 3, "sequence_vectors": 3, "structure_vectors": 3}
    assert read_vectors(out).ids.tolist() == ids
    (tmp_path / "none.txt").write_text("# none\n")
    assert "contains no ids" in run(*export, "--ids", tmp_path / "none.txt", code=2).stderr
    assert "cannot be read" in run(*export, "--ids", tmp_path / "gone.txt", code=2).stderr


def test_a_fasta_record_has_no_structure_vector(
    finished: Path, tmp_path: Path, encoder: str
) -> None:
    """A FASTA record is embedded, and exported with a null in place of its structure vector."""
    fasta = tmp_path / "query.fasta"
    fasta.write_text(
        ">ubq human ubiquitin\nMQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDG\n"
    )
    store, out = tmp_path / "store.zarr", tmp_path / "vectors.parquet"
    run("embed", fasta, "--out", store, "--sequence-encoder", encoder)
    run("export", store, "--model", finished / "model", "--out", out)
    vectors = read_vectors(out)
    assert vectors.ids.tolist() == ["ubq"]
    assert vectors.has_sequence.tolist() == [True]
    assert vectors.has_structure.tolist() == [False]


def test_not_in_several_processes(finished: Path, tmp_path: Path) -> None:
    """All processes that torchrun starts would write the same file; so would those of `index`."""
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    words = finished / "store.zarr", "--model", finished / "model", "--out", tmp_path / "vectors"
    for command in ("export", "index"):
        done = run(command, *words, code=2, env={**place, "TORCHELASTIC_RUN_ID": "none"})
        assert done.stderr == (
            f"protalign: {command}: every process would do all of it; run it without torchrun\n"
        )
    assert list(tmp_path.iterdir()) == []
    run("export", *words, "-q", env=place)  # variables that a cluster sets by itself
