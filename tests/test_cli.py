"""The command line, run as a user runs it: real files, exit codes, what is printed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

from protalign import EmbeddingStore, read_vectors
from protalign.encoders.embedded import EmbeddedEncoder

PROTALIGN = Path(sysconfig.get_path("scripts")) / "protalign"


def run(
    *words: str | Path, code: int = 0, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a protalign command; it must end with this exit code and never with a traceback."""
    done = subprocess.run(
        [PROTALIGN, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="session")
def encoder() -> str:
    """The sequence encoder that ships with the package."""
    return EmbeddedEncoder.models()[0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, sample: Path, encoder: str) -> Path:
    """A folder with the sample's store, model and vectors, made by the public commands."""
    folder = tmp_path_factory.mktemp("finished")
    store, model = folder / "store.zarr", folder / "model"
    run("embed", sample, "--out", store, "--sequence-encoder", encoder)
    run("fit", store, "--out", model, "--max-epochs", "20")
    run("export", store, "--model", model, "--out", folder / "vectors.parquet")
    return folder


@pytest.fixture
def few(tmp_path: Path, sample: Path) -> Path:
    """A folder with four files of the sample."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(sample.glob("*.pdb.gz"))[:4]:
        shutil.copy(path, folder)
    return folder


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


def test_the_same_command_again_does_nothing(few: Path, tmp_path: Path, encoder: str) -> None:
    """A second run reads no file, embeds nothing and leaves every byte as it was."""
    store = tmp_path / "store.zarr"
    command = ("embed", few, "--out", store, "--sequence-encoder", encoder, "--json")
    first = json.loads(run(*command).stdout)
    before = contents(store)
    second = json.loads(run(*command).stdout)
    assert first["files_read"] == 4
    assert second["files_read"] == 0
    assert second["encoded"] == {}
    assert contents(store) == before


def test_new_files_are_added_by_the_same_command(
    few: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """A file that appears in the folder is embedded; the others are left alone."""
    store = tmp_path / "store.zarr"
    command = ("embed", few, "--out", store, "--sequence-encoder", encoder, "--json")
    run(*command)
    old = {
        entry: EmbeddingStore.open(store)[entry].embeddings(encoder)[0]
        for entry in EmbeddingStore.open(store).ids
    }
    shutil.copy(sorted(sample.glob("*.pdb.gz"))[5], few)
    added = json.loads(run(*command).stdout)
    assert (added["files_read"], added["entries"]) == (1, 5)
    now = EmbeddingStore.open(store)
    for entry, rows in old.items():
        np.testing.assert_array_equal(now[entry].embeddings(encoder)[0], rows)


def test_bad_files_are_lines_and_the_rest_is_embedded(
    few: Path, tmp_path: Path, encoder: str
) -> None:
    """Truncated, empty, HTML and duplicate files: exit code 3, a line each, four embedded."""
    good = sorted(few.glob("*.pdb.gz"))
    (few / "truncated.pdb.gz").write_bytes(good[0].read_bytes()[:900])
    (few / "empty.pdb").write_bytes(b"")
    (few / "page.cif").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (few / "again").mkdir()
    shutil.copy(good[1], few / "again" / good[1].name)
    store = tmp_path / "store.zarr"
    done = run("embed", few, "--out", store, "--sequence-encoder", encoder, code=3)
    failures = EmbeddingStore.open(store).failures
    assert len(failures) == 4
    assert len(EmbeddingStore.open(store)) == 4
    for failure in failures:
        assert failure.reason
        assert failure.advice
        assert failure.reason in done.stderr
    # Still so the next time, and no longer once the files have gone or been mended.
    run("embed", few, "--out", store, "--sequence-encoder", encoder, code=3)
    assert len(EmbeddingStore.open(store).failures) == 4


def test_a_mended_file_is_no_longer_a_failure(few: Path, tmp_path: Path, encoder: str) -> None:
    """Replace a truncated file by the whole one and run again: exit code 0, one entry more."""
    whole = sorted(few.glob("*.pdb.gz"))[0]
    bytes_ = whole.read_bytes()
    whole.write_bytes(bytes_[: len(bytes_) // 2])
    store = tmp_path / "store.zarr"
    command = ("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet")
    run(*command, code=3)
    assert len(EmbeddingStore.open(store)) == 3
    whole.write_bytes(bytes_)
    run(*command)
    assert len(EmbeddingStore.open(store)) == 4
    assert EmbeddingStore.open(store).failures == []


def test_a_deleted_file_and_a_wrong_path_are_not_failures_for_ever(
    few: Path, tmp_path: Path, encoder: str
) -> None:
    """Exit code 3 is about what was asked for now: a path mistyped once leaves nothing behind."""
    (few / "empty.pdb").write_bytes(b"")
    store = tmp_path / "store.zarr"
    options = ("--out", store, "--sequence-encoder", encoder, "--quiet")
    assert "nowhere" in run("embed", few, few / "nowhere.pdb", *options, code=3).stderr
    assert [failure.id for failure in EmbeddingStore.open(store).failures] == ["empty"]
    (few / "empty.pdb").unlink()
    run("embed", few, *options)
    assert EmbeddingStore.open(store).failures == []


def test_a_moved_folder_is_known_by_its_content(few: Path, tmp_path: Path, encoder: str) -> None:
    """The same files under another path are the entries that the store has: nothing is read."""
    store = tmp_path / "store.zarr"
    options = ("--out", store, "--sequence-encoder", encoder, "--json")
    run("embed", few, *options)
    moved = few.rename(few.with_name("moved"))
    report = json.loads(run("embed", moved, *options).stdout)
    assert (report["files_read"], report["entries"]) == (0, 4)


def test_a_moved_folder_keeps_its_failures(few: Path, tmp_path: Path, encoder: str) -> None:
    """What failed before the move is told, once, under the path that the file has now."""
    (few / "records.fasta").write_text(">good\nMKVLITG\n>bad\nMK1LITG\n")
    store = tmp_path / "store.zarr"
    options = ("--out", store, "--sequence-encoder", encoder, "--quiet")
    run("embed", few, *options, code=3)
    moved = few.rename(few.with_name("moved"))
    assert "moved" in run("embed", moved, *options, code=3).stderr
    opened = EmbeddingStore.open(store)
    assert len(opened) == 5
    assert [Path(failure.file).parent.name for failure in opened.failures] == ["moved"]


def test_a_file_is_the_same_from_wherever_it_is_named(
    few: Path, tmp_path: Path, encoder: str
) -> None:
    """Through "..", or a link to the folder: the entries that the store has."""
    options = ("--out", tmp_path / "store.zarr", "--sequence-encoder", encoder, "--json")
    run("embed", few, *options)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(few)
    for path in ("../few", "link"):
        report = json.loads(run("embed", path, *options, cwd=elsewhere).stdout)
        assert (report["files_read"], report["entries"]) == (0, 4), path


def test_a_file_that_replaces_another_takes_its_id(
    few: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """x.pdb.gz is deleted and x.cif is there: the id is the new file's, not a duplicate."""
    import gemmi

    store = tmp_path / "store.zarr"
    options = ("--out", store, "--sequence-encoder", encoder, "--quiet")
    run("embed", few, *options)
    old = sorted(few.glob("*.pdb.gz"))[0]
    entry = old.name.removesuffix(".pdb.gz")
    structure = gemmi.read_structure(str(old))
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(few / f"{entry}.cif"))
    old.unlink()
    run("embed", few, *options)
    opened = EmbeddingStore.open(store)
    assert len(opened) == 4
    assert opened.source(entry).endswith(".cif")


def test_a_changed_file_replaces_its_entry(few: Path, tmp_path: Path, encoder: str) -> None:
    """Other coordinates under the same name: the id now has the new embedding."""
    store = tmp_path / "store.zarr"
    command = ("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet")
    run(*command)
    path = sorted(few.glob("*.pdb.gz"))[0]
    entry = path.name.removesuffix(".pdb.gz")
    before = EmbeddingStore.open(store)[entry].embeddings("proteinmpnn_v_48_020")[0]
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    atoms = [line for line in lines if line.startswith("ATOM")]
    last = atoms[-1][21:27]
    path.write_bytes(gzip.compress("".join(x for x in lines if x[21:27] != last).encode()))
    run(*command)
    after = EmbeddingStore.open(store)
    assert len(after) == 4
    assert len(after[entry].embeddings("proteinmpnn_v_48_020")[0]) == len(before) - 1


def test_fasta_has_sequences_only_and_is_exported_with_nulls(
    finished: Path, tmp_path: Path, encoder: str
) -> None:
    """A FASTA record is embedded, and exported with a null in place of its structure vector."""
    fasta = tmp_path / "query.fasta"
    fasta.write_text(
        ">ubq human ubiquitin\nMQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDG\n"
    )
    store = tmp_path / "store.zarr"
    run("embed", fasta, "--out", store, "--sequence-encoder", encoder)
    out = tmp_path / "vectors.parquet"
    run("export", store, "--model", finished / "model", "--out", out)
    vectors = read_vectors(out)
    assert vectors.ids.tolist() == ["ubq"]
    assert vectors.has_sequence.tolist() == [True]
    assert vectors.has_structure.tolist() == [False]


def test_per_chain_and_deposited_are_kept_by_the_store(
    few: Path, tmp_path: Path, encoder: str
) -> None:
    """Other reading options than the store's are refused, with a line saying which."""
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--per", "chain")
    done = run("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet", code=2)
    assert "per" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_other_settings_of_an_encoder_are_refused_unless_named(
    few: Path, tmp_path: Path, encoder: str
) -> None:
    """Another layer under the same name is an error; under another name it stands beside."""
    store = tmp_path / "store.zarr"
    command = ("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet")
    run(*command)
    (few / "new.fasta").write_text(">new\nMKVLITGAGSGIG\n")
    done = run(*command, "--layer", "2", code=2)
    assert "layer" in done.stderr
    assert "new" not in EmbeddingStore.open(store)  # refused before anything is read
    run(*command, "--layer", "2", "--sequence-name", "second")
    assert {"second", encoder} < set(EmbeddingStore.open(store).encoders)


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


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_leaves_a_store_that_resumes_to_the_same_bytes(
    tmp_path: Path, sample: Path, encoder: str
) -> None:
    """Interrupted at several moments, then run to the end: equal to an undisturbed run."""
    undisturbed, interrupted = tmp_path / "a.zarr", tmp_path / "b.zarr"
    arguments = ["embed", str(sample), "--sequence-encoder", encoder, "--quiet", "--out"]
    run(*arguments, undisturbed)
    for seconds in (2.0, 5.0, 8.0):
        process = subprocess.Popen(
            [PROTALIGN, *arguments, str(interrupted)], stderr=subprocess.PIPE, text=True
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate()[1]
    run(*arguments, interrupted)
    assert contents(interrupted) == contents(undisturbed)


def test_a_dask_cluster_gives_the_same_bytes(
    finished: Path, tmp_path: Path, sample: Path, encoder: str
) -> None:
    """--scheduler with worker processes of a real cluster: the same store, byte for byte."""
    from distributed import LocalCluster

    store = tmp_path / "store.zarr"
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        address = cluster.scheduler_address
        run("embed", sample, "--out", store, "--sequence-encoder", encoder, "--scheduler", address)
    assert contents(store) == contents(finished / "store.zarr")


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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its lock, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
