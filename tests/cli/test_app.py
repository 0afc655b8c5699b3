"""The command line, run as a user runs it: real files, exit codes, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from protalign import EmbeddingStore, read_vectors
from tests.helpers.commands import run


def test_embed_then_info_tells_what_is_in_the_store(finished: Path, encoder: str) -> None:
    """All 40 proteins, both encoders complete, nothing failed."""
    facts = json.loads(run("info", finished / "store.zarr", "--json").stdout)
    assert facts["entries"] == 40
    assert set(facts["encoders"]) == {encoder, "proteinmpnn_v_48_020"}
    for described in facts["encoders"].values():
        assert described["items"] == described["items_total"] > 0
        assert len(described["weights_sha256"]) == 64
    assert facts["failures"] == []
    assert "40" in run("info", finished / "store.zarr").stdout


def test_export_gives_unit_vectors_of_every_id(finished: Path) -> None:
    """The Parquet file has all ids, and both vectors of each have length one."""
    vectors = read_vectors(finished / "vectors.parquet")
    assert sorted(vectors.ids) == sorted(EmbeddingStore.open(finished / "store.zarr").ids)
    for modality in (vectors.sequence, vectors.structure):
        assert modality.shape == (40, 128)
        np.testing.assert_allclose(np.linalg.norm(modality, axis=1), 1, atol=1e-5)


def test_export_of_means_in_another_format(finished: Path, tmp_path: Path) -> None:
    """--features aligned,mean beside the vectors, CSV by the file's name; unknown ones are told."""
    export = ("export", finished / "store.zarr", "--model", finished / "model", "--out")
    run(*export, tmp_path / "v.csv", "--features", "aligned, mean")
    header, *rows = (tmp_path / "v.csv").read_text().splitlines()
    assert len(rows) == 40
    assert {"id", "length", "structure127", "sequence_mean0"} <= {
        name.strip('"') for name in header.split(",")
    }
    wrong = run(*export, tmp_path / "w.csv", "--features", "aligned,meen", code=2)
    assert "did you mean 'mean'" in wrong.stderr
    assert "no known format" in run(*export, tmp_path / "w.txt", code=2).stderr


def test_score_prints_both_directions(finished: Path) -> None:
    """Recall and MRR in a table and in JSON, the same numbers."""
    arguments = ("score", finished / "store.zarr", "--model", finished / "model")
    report = json.loads(run(*arguments, "--json").stdout)
    shown = run(*arguments).stdout
    for direction in ("sequence_to_structure", "structure_to_sequence"):
        assert 0 <= report[direction]["recall_at_1"] <= report[direction]["recall_at_5"] <= 1
        assert f"{100 * report[direction]['recall_at_1']:.1f} %" in shown


def test_validation_entries_are_not_trained_on(finished: Path, tmp_path: Path) -> None:
    """--validation-ids leaves them out of training, also where --ids names them."""
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


def test_verify_names_the_damaged_ids(few: Path, tmp_path: Path, encoder: str) -> None:
    """A whole store passes; one flipped byte is found, with exit code 3 and the ids it hit."""
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet")
    assert "whole" in run("verify", store).stdout
    chunk = next((store / "encoders" / encoder / "values").glob("c*"))
    damaged = bytearray(chunk.read_bytes())
    damaged[1000] ^= 1
    chunk.write_bytes(bytes(damaged))
    shown = run("verify", store, code=3).stdout
    assert EmbeddingStore.open(store).ids[0] in shown
    assert json.loads(run("verify", store, "--json", code=3).stdout)


def test_a_sequence_is_searched_among_structures_and_back(finished: Path, tmp_path: Path) -> None:
    """A mutant that is not in the store finds its family; a structure file finds itself."""
    store = EmbeddingStore.open(finished / "store.zarr")
    letters = store.sequence("1b5m_A")[0]
    query = tmp_path / "query.fasta"
    query.write_text(f">mutant\n{letters[:20]}A{letters[21:]}\n")
    arguments = ("--vectors", finished / "vectors.parquet", "--model", finished / "model")
    hits = json.loads(run("search", query, *arguments, "-k", "3", "--format", "json").stdout)[
        "hits"
    ]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert hits[0]["cosine"] >= hits[1]["cosine"] >= hits[2]["cosine"]
    assert {hit["against"] for hit in hits} == {"structure"}
    path = store.source("1b5m_A")
    table = run(
        "search", path, *arguments, "-k", "1", "--against", "structure", "--format", "tsv"
    ).stdout.splitlines()
    assert table[1].split("\t")[:4] == ["1b5m_A", "1", "1b5m_A", "1.0000"]


def test_a_query_that_cannot_be_read_is_a_line(finished: Path, tmp_path: Path) -> None:
    """Search goes on with the other queries and exits with 3."""
    query = tmp_path / "query.fasta"
    query.write_text(">good\nMQIFVKTLTGKTITLEVEPSD\n>bad\nMQ1FVK\n")
    arguments = ("--vectors", finished / "vectors.parquet", "--model", finished / "model")
    done = run("search", query, *arguments, "-k", "1", code=3)
    assert "good" in done.stdout
    assert "bad" in done.stderr


def test_wrong_usage_is_exit_code_2(tmp_path: Path, few: Path, encoder: str) -> None:
    """No such store, no such encoder, no such option value: one line, exit code 2."""
    missing = run("info", tmp_path / "none.zarr", code=2)
    assert "none.zarr" in missing.stderr
    unknown = run(
        "embed", few, "--out", tmp_path / "s.zarr", "--sequence-encoder", "esm2_t6_9M", code=2
    )
    assert "esm2_t6_8M_UR50D" in unknown.stderr
    swapped = run(
        *("embed", few, "--out", tmp_path / "s.zarr"),
        *("--sequence-encoder", "proteinmpnn_v_48_020", "--structure-encoder", "none"),
        code=2,
    )
    assert "--structure-encoder" in swapped.stderr
    nowhere = run(
        *("embed", few / "nowhere", "--out", tmp_path / "s.zarr", "--sequence-encoder", encoder),
        code=2,
    )
    assert "nowhere" in nowhere.stderr
    assert not (tmp_path / "s.zarr").exists()
    run("embed", few, "--out", tmp_path / "s.zarr", "--per", "residue", code=2)
    run("fit", tmp_path / "none.zarr", "--out", tmp_path / "model", code=2)


CLUSTERS = "--by cluster or --validation cluster"


@pytest.mark.parametrize(
    ("words", "wants"),
    [
        ("split store.zarr --by cluster --year 2020", "--by pdbbind"),
        ("split store.zarr --by pdbbind --index . --fractions 1,0,0", "--by cluster"),
        ("split store.zarr --by cluster --id-column name", "--by column"),
        ("split store.zarr --by cluster --index .", "--by pdbbind"),
        ("split store.zarr --by cluster --validation random", "--by pdbbind"),
        ("split store.zarr --by cluster --part-column name", "--by column"),
        ("split store.zarr table.csv --by column --seed 1", f"{CLUSTERS} or random"),
        ("split store.zarr --by pdbbind --index . --seed 1", f"{CLUSTERS} or random"),
        ("split store.zarr --by pdbbind --index . --identity 0.9", CLUSTERS),
        ("split store.zarr --by pdbbind --validation random --method kmer", CLUSTERS),
        ("score store.zarr --model model --part train", "--split"),
        ("evaluate store.zarr --model model --split s.csv --scop-column c", "--scop"),
        ("evaluate store.zarr --model model --split s.csv --family-column c", "--families"),
        ("evaluate store.zarr --model model --split s.csv --sequence-weights w.pt", "--crop"),
        ("evaluate store.zarr --model model --split s.csv --structure-weights w.pt", "--crop"),
        ("embed . --out s.zarr --sequence-encoder none --sequence-weights w.pt", "an encoder"),
        ("embed . --out s.zarr --sequence-encoder none --layer 3", "an encoder"),
        ("embed . --out s.zarr --structure-encoder none --structure-name mpnn", "an encoder"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path: Path, words: str, wants: str) -> None:
    """Rather than leave a user to think that it was heeded."""
    done = run(*words.split(), code=2, cwd=tmp_path)
    option = words.split()[-2]
    assert done.stderr == f"protalign: {option} goes with {wants}; give both, or neither\n"


def test_without_network_the_missing_weights_are_named(few: Path, tmp_path: Path) -> None:
    """No ESM2 at hand and no network: which file, from where, to where; nothing is written."""
    store = tmp_path / "store.zarr"
    env = {"TORCH_HOME": str(tmp_path / "hub"), "https_proxy": "http://127.0.0.1:9"}
    done = run("embed", few, "--out", store, code=2, env=env)
    for word in ("esm2_t33_650M_UR50D.pt", str(tmp_path / "hub"), "--sequence-weights"):
        assert word in done.stderr
    assert "--sequence-encoder" in done.stderr  # the small one is offered, by name only
    assert not store.exists()


def test_a_model_refuses_a_store_of_another_encoder(
    finished: Path, few: Path, tmp_path: Path, encoder: str
) -> None:
    """Vectors of another layer's embeddings are not pooled with heads that never saw them."""
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--layer", "1", "--quiet")
    done = run("score", store, "--model", finished / "model", code=2)
    assert "layer" in done.stderr


def test_weights_lists_every_model_and_where_it_is(encoder: str) -> None:
    """The shipped ones with their SHA-256, ESM2 by name whether it is here or not."""
    entries = {
        entry["model"]: entry for entry in json.loads(run("weights", "--json").stdout)["weights"]
    }
    assert len(entries[encoder]["sha256"]) == 64
    assert entries[encoder]["source"] == "package"
    assert "esm2_t48_15B_UR50D" in entries
    assert entries["proteinmpnn_v_48_020"]["sha256"]
    assert encoder in run("weights").stdout


def test_version_and_bare_call() -> None:
    """--version prints it; a bare call shows the help."""
    from protalign import __version__

    assert __version__ in run("--version").stdout
    assert "embed" in (lambda done: done.stdout + done.stderr)(run(code=2))
