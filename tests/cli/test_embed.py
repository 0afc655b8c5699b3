"""``protalign embed`` again and again: what is added, replaced, moved, refused."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from protalign import EmbeddingStore
from tests.helpers.commands import contents, run
from tests.helpers.reading_files import DATA


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_per_chain_and_deposited_are_kept_by_the_store(
    few: Path, tmp_path: Path, encoder: str
) -> None:
    """Other reading options than the store's are refused, with a line saying which."""
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--per", "chain")
    done = run("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet", code=2)
    assert "per" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_assembly_is_built_and_kept_by_the_store(tmp_path: Path, encoder: str) -> None:
    """Both chains of the dimer are context; another value is refused; no assembly, one line."""
    store = tmp_path / "store.zarr"
    options = ("--out", store, "--sequence-encoder", encoder)
    files = [DATA / "1a8o.cif.gz", DATA / "2beg.pdb.gz"]
    done = run("embed", *files, *options, "--assembly", "1", code=3)
    assert "(2beg): it has no assembly 1, and names none; read it without assembly" in done.stderr
    opened = EmbeddingStore.open(store)
    assert opened.options["assembly"] == "1"
    structure = opened.structure("1a8o")
    assert [chain.id for chain in structure.chains] == ["A", "A-2"]
    assert opened["1a8o"].annotations["accession"] == ["P12497"]
    for other in ((), ("--assembly", "2")):
        done = run("embed", files[0], *options, "--quiet", *other, code=2)
        assert "was made with other options (assembly 1, not" in done.stderr
    assert "cannot" not in run("embed", files[0], *options, "--assembly", "1").stderr


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


def test_without_network_the_missing_weights_are_named(few: Path, tmp_path: Path) -> None:
    """No ESM2 at hand and no network: which file, from where, to where; nothing is written."""
    store = tmp_path / "store.zarr"
    env = {"TORCH_HOME": str(tmp_path / "hub"), "https_proxy": "http://127.0.0.1:9"}
    done = run("embed", few, "--out", store, code=2, env=env)
    for word in ("esm2_t33_650M_UR50D.pt", str(tmp_path / "hub"), "--sequence-weights"):
        assert word in done.stderr
    assert "--sequence-encoder" in done.stderr  # the small one is offered, by name only
    assert not store.exists()


def test_an_archive_gives_what_its_files_give(few: Path, tmp_path: Path, encoder: str) -> None:
    """The same embeddings, and a second run reads nothing."""
    archive, store = tmp_path / "few.tar.gz", tmp_path / "store.zarr"
    with tarfile.open(archive, "w:gz") as written:
        written.add(few, "few")
    words = ("--sequence-encoder", encoder, "--structure-encoder", "none", "--json")
    done = json.loads(run("embed", archive, "--out", store, *words).stdout)
    assert (done["files_read"], done["failures"]) == (1, [])
    run("embed", few, "--out", tmp_path / "files.zarr", *words)
    ours, theirs = EmbeddingStore.open(store), EmbeddingStore.open(tmp_path / "files.zarr")
    assert ours.ids.tolist() == theirs.ids.tolist()
    np.testing.assert_array_equal(*(each.embeddings(encoder).values for each in (ours, theirs)))
    assert json.loads(run("embed", archive, "--out", store, *words).stdout)["files_read"] == 0


def test_shards_have_every_file_once(few: Path, tmp_path: Path, encoder: str) -> None:
    """The stores of all parts have what one store of all files has."""
    words = ("--sequence-encoder", encoder, "--structure-encoder", "none")
    ids = []
    for number in (1, 2):
        store = tmp_path / f"{number}.zarr"
        run("embed", few, "--out", store, "--shard", f"{number}/2", *words)
        ids += EmbeddingStore.open(store).ids.tolist()
    assert sorted(ids) == sorted(path.name.removesuffix(".pdb.gz") for path in few.iterdir())
    for wrong in ("3/2", "0/2", "a/b"):
        refused = run("embed", few, "--out", tmp_path / "x", "--shard", wrong, *words, code=2)
        assert len(refused.stderr.splitlines()) == 1
        assert not (tmp_path / "x").exists()
