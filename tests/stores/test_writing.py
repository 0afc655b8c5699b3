"""Put proteins into a store: once each, resumably, never mixed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign.core.errors import Failure, StoreError
from protalign.core.protein import Chain, Protein, Structure
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.filling.encode import encode_pending
from protalign.stores.format.append import Appender, write_chunks
from protalign.stores.format.layout import ArraySpec
from tests.helpers.one_hot import load_from_centre, load_one_hot
from tests.helpers.stores import (
    CENTRE,
    CHUNK_ROWS,
    ONE_HOT,
    OPTIONS,
    add_all,
    build,
    complex_of,
    digest,
    plan_both,
    sequence_only,
    tree,
)


@pytest.fixture
def path(tmp_path: Path, empty: Path) -> Path:
    """An empty store."""
    return Path(shutil.copytree(empty, tmp_path / "store.zarr"))


def test_same_input_same_bytes(path: Path, proteins: list[Protein], filled: Path) -> None:
    """Nothing in a store depends on when, where or in how many commits it was made."""
    shutil.rmtree(path)
    build(path, proteins, per_commit=3)
    assert tree(path) == tree(filled)


def test_rows_wait_in_their_order_whatever_form_they_have(path: Path, empty: Path) -> None:
    """Numbers, arrays and texts become the same rows, and those that wait are counted."""
    appender = Appender(path)
    appender.append("structures/chain", [3, 1])
    appender.append("structures/chain", np.array([4], np.int32))
    appender.append("structures/chain", [1])
    for name in ("hash", "chains", "rows", "context"):
        appender.append(f"structures/{name}", np.zeros((4, 32) if name == "hash" else 4))
    for name in ("id", "file", "reason", "advice"):
        appender.append_texts(f"failures/{name}", ["a", "bc"])
        appender.append_texts(f"failures/{name}", ["é"])
    assert appender.rows("structures/chain") == 4
    assert appender.rows("failures/id/start") == 3
    assert appender.rows("failures/file/values") == 5
    appender.commit(lambda state: state)
    assert appender.arrays.read("structures/chain").tolist() == [3, 1, 4, 1]
    assert appender.arrays.texts("failures/advice").tolist() == ["a", "bc", "é"]
    assert not appender.waiting


def test_rows_that_do_not_fit_are_not_kept(empty: Path) -> None:
    """A later commit does not find a part of them."""
    appender = Appender(empty)
    with pytest.raises(ValueError, match="reshape"):
        appender.append("sequences/hash", np.zeros(7, np.uint8))
    assert not appender.waiting
    assert appender.rows("sequences/hash") == 0


def test_running_again_changes_nothing(
    tmp_path: Path, proteins: list[Protein], filled: Path
) -> None:
    """The same command on a finished store leaves every byte."""
    again = Path(shutil.copytree(filled, tmp_path / "again.zarr"))
    assert tree(build(again, proteins)) == tree(filled)


def test_new_proteins_are_added(path: Path, proteins: list[Protein]) -> None:
    """Only new items are planned and encoded; what was there keeps its rows."""
    build(path, proteins[:10])
    before = EmbeddingStore.open(path)
    old_rows = before.rows("one_hot")[0]
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, proteins)
        plan = writer.plan("one_hot", ONE_HOT, 200)
        assert plan.pending_items == plan.items - before.encoders["one_hot"].n_items
    report = encode_pending(path, "one_hot", load_one_hot)
    assert report.items == plan.pending_items
    assert report.rows == plan.pending_rows
    after = EmbeddingStore.open(path)
    assert after.rows("one_hot")[0][:10].tolist() == old_rows.tolist()
    assert after.embeddings("one_hot").offsets[-1] == sum(len(p) for p in proteins)
    assert verify(path).ok


def test_a_reader_sees_what_was_committed_when_it_opened(
    path: Path, proteins: list[Protein]
) -> None:
    """An open store does not change under its reader, whatever is appended to the same chunks."""
    build(path, proteins[:10])
    store = EmbeddingStore.open(path)
    build(path, proteins)
    assert len(store) == 10
    assert store.structure("107l_A").content_hash == proteins[0].structure.content_hash
    assert len(store.embeddings("one_hot")) == 10


def test_changed_file_replaces_its_entries(path: Path, proteins: list[Protein]) -> None:
    """The id now has the new contents, the file's other ids are gone, the old items stay."""
    first, second = sequence_only("a", "ACDE"), sequence_only("b", "GHIK")
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.fasta", digest("1"), [first, second])
        assert writer.source_is_current("x.fasta", digest("1"))
        assert not writer.source_is_current("x.fasta", digest("2"))
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.fasta", digest("2"), [sequence_only("a", "ACDEF")])
        assert writer.n_entries == 1
        assert not writer.source_is_current("x.fasta", digest("1"))
    store = EmbeddingStore.open(path)
    assert store.ids.tolist() == ["a"]
    assert store.sequence("a") == ("ACDEF",)
    assert "b" not in store


def test_a_freed_id_can_move_to_another_file(path: Path) -> None:
    """An id that its file no longer has may come from another one."""
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.fasta", digest("1"), [sequence_only("a", "ACDE")])
        writer.add("x.fasta", digest("2"), [sequence_only("c", "ACDE")])
        assert writer.add("y.fasta", digest("3"), [sequence_only("a", "GGG")]) == []
    store = EmbeddingStore.open(path)
    assert store.ids.tolist() == ["c", "a"]
    assert store.source("a") == "y.fasta"


def test_duplicate_ids_are_failures(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file keeps the id; the second, and a second record of one file, are reported."""
    monkeypatch.chdir(tmp_path)
    Path("x.fasta").write_text(">a\nACDE\n")
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.fasta", digest("1"), [sequence_only("a", "ACDE")])
        refused = writer.add("y.fasta", digest("2"), [sequence_only("a", "GGG")])
        assert [(f.id, f.file) for f in refused] == [("a", "y.fasta")]
        assert "was read from x.fasta already" in refused[0].reason
        twice = [sequence_only("b", "AAA"), sequence_only("b", "CCC")]
        assert len(writer.add("z.fasta", digest("3"), twice)) == 1
    store = EmbeddingStore.open(path)
    assert store.sequence("a") == ("ACDE",)
    assert store.sequence("b") == ("AAA",)
    assert [f.file for f in store.failures] == ["y.fasta", "z.fasta"]


def test_failures_are_in_the_order_of_the_file(path: Path, tmp_path: Path) -> None:
    """Records whose id another file has stand between those that cannot be read."""
    first, second = tmp_path / "x.fasta", str(tmp_path / "y.fasta")
    first.write_text(">a\nACDE\n")
    bad = [Failure(name, second, "it has only one residue", "leave it out") for name in "bdf"]
    taken = [sequence_only(name, "ACDE") for name in "ac"]
    records = [bad[0], taken[0], bad[1], sequence_only("e", "GGG"), taken[1], bad[2]]
    with StoreWriter(path, OPTIONS) as writer:
        writer.add(str(first), digest("1"), taken)
        refused = writer.add(second, digest("2"), records)
        assert [failure.id for failure in refused] == ["a", "c"]
        assert [failure.id for failure in writer.failures] == list("badcf")
    assert [failure.id for failure in EmbeddingStore.open(path).failures] == list("badcf")


def test_a_file_that_is_gone_keeps_no_id(path: Path) -> None:
    """An id is free again once its file was deleted or renamed."""
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("gone.fasta", digest("1"), [sequence_only("a", "ACDE")])
        assert writer.add("new.fasta", digest("2"), [sequence_only("a", "GGG")]) == []
    store = EmbeddingStore.open(path)
    assert len(store) == 1
    assert store.sequence("a") == ("GGG",)
    assert store.source("a") == "new.fasta"


def test_a_file_in_parts_counts_when_its_last_part_is_in(path: Path, empty: Path) -> None:
    """An interrupted big FASTA file is read again, and its entries are not stored twice."""
    records = [sequence_only(f"r{i}", "ACDEFGHIKL"[: i + 1]) for i in range(6)]
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("big.fasta", digest("1"), records[:2], last=False)
        writer.commit()
        writer.add("big.fasta", digest("1"), records[2:4], last=False)
    assert EmbeddingStore.open(path).ids.tolist() == ["r0", "r1", "r2", "r3"]
    with StoreWriter(path, OPTIONS) as writer:
        assert not writer.source_is_current("big.fasta", digest("1"))
        assert writer.add("big.fasta", digest("1"), records[:3], last=False) == []
        assert writer.add("big.fasta", digest("1"), records[3:]) == []
        assert writer.source_is_current("big.fasta", digest("1"))
    whole = Path(shutil.copytree(empty, path.parent / "whole.zarr"))
    with StoreWriter(whole, OPTIONS) as writer:
        writer.add("big.fasta", digest("1"), records)
    assert tree(path) == tree(whole)


def test_failures_are_in_the_order_of_a_file_that_changed(path: Path) -> None:
    """Those that are left from before, and new ones before and between them."""
    failed = {each: Failure(each, "x.fasta", f"{each} is broken", "mend it") for each in "abcdef"}
    other = Failure("o", "o.fasta", "broken", "mend it")

    def read(ids: str, content: str) -> None:
        with StoreWriter(path, OPTIONS) as writer:
            writer.add("x.fasta", digest(content), [failed[each] for each in ids[:2]], last=False)
            writer.commit()
            writer.add("x.fasta", digest(content), [failed[each] for each in ids[2:]])
            expected = [failed[each] for each in ids]
            assert [f for f in writer.failures if f.file == "x.fasta"] == expected
        assert [f for f in EmbeddingStore.open(path).failures if f.file == "x.fasta"] == expected

    read("ace", "1")
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("o.fasta", digest("o"), [other])
    for number, ids in enumerate(["bcef", "fcb", "cab"]):
        read(ids, f"changed {number}")
    assert other in EmbeddingStore.open(path).failures
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.fasta", digest("whole"), [sequence_only("a", "MK")])
    assert EmbeddingStore.open(path).failures == [other]


def test_failures_are_kept_once_and_resolved(path: Path) -> None:
    """A repeated failure is not appended; another replaces it; a whole file takes it back."""
    failure = Failure("a", "x.pdb", "truncated", "fetch it again")
    for _ in range(2):
        with StoreWriter(path, OPTIONS) as writer:
            writer.add("x.pdb", digest("1"), [failure])
    assert EmbeddingStore.open(path).failures == [failure]
    before = tree(path)
    with StoreWriter(path, OPTIONS) as writer:
        writer.add_failure(failure)
    assert tree(path) == before
    another = Failure("a", "x.pdb", "empty", "fetch it again")
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.pdb", digest("2"), [another])
        assert writer.failures == [another]
    assert EmbeddingStore.open(path).failures == [another]
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("x.pdb", digest("3"), [sequence_only("a", "ACDE")])
        assert writer.failures == []
    assert EmbeddingStore.open(path).failures == []


def test_a_failure_can_be_forgotten(path: Path) -> None:
    """It is gone for later readers; forgetting it again, or one that never was, changes nothing."""
    failure = Failure("", "gone.pdb", "empty file", "fetch it again")
    with StoreWriter(path, OPTIONS) as writer:
        writer.add_failure(failure)
        writer.forget_failure(failure)
        assert writer.failures == []
    before = tree(path)
    with StoreWriter(path, OPTIONS) as writer:
        writer.forget_failure(failure)
        writer.forget_failure(Failure("x", "y", "z", ""))
    assert tree(path) == before
    assert EmbeddingStore.open(path).failures == []


def test_entries_may_be_parts_of_one_complex(path: Path, proteins: list[Protein]) -> None:
    """Per chain, a complex is encoded once, and each chain's entry has its own rows of it."""
    dimer = complex_of("dimer", proteins[3], proteins[8])
    parts = [Protein(f"d_{c.id}", "d.pdb", (c,), dimer.structure) for c in dimer.chains]
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("d.pdb", digest("d"), parts)
        assert writer.plan("from_centre", CENTRE, 200, CHUNK_ROWS).items == 1
    encode_pending(path, "from_centre", load_from_centre)
    store = EmbeddingStore.open(path)
    assert store.items("structure")[0] != store.items("structure")[1]
    whole = np.concatenate([store[part.id].embeddings("from_centre").values for part in parts])
    np.testing.assert_array_equal(whole, load_from_centre("cpu")([dimer.structure])[0])
    second = store.residue_map("d_B")
    assert set(second.chain_ids) == {"B"}
    assert second.sequence_index[0] == 0
    assert len(second) == len(store["d_B"].embeddings("from_centre").values)


def test_chains_outside_their_structure_are_a_fault(path: Path, proteins: list[Protein]) -> None:
    """Chains that the protein's structure does not keep are a programming error, not data."""
    dimer = complex_of("dimer", proteins[3], proteins[8])
    wrong = Protein("w", "w.pdb", dimer.chains, Structure(dimer.chains, (1,)))
    with StoreWriter(path, OPTIONS) as writer, pytest.raises(ValueError, match="not a run of"):
        writer.add("w.pdb", digest("w"), [wrong])


def test_other_options_are_refused(path: Path) -> None:
    """A store keeps to the way its files were read, and says what differs."""
    StoreWriter(path, OPTIONS).__exit__(None, None, None)
    with pytest.raises(StoreError, match=r"per protein, not chain\); use the same ones"):
        StoreWriter(path, {**OPTIONS, "per": "chain"})
    with StoreWriter(path, OPTIONS):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "f" * 64}, "weights 000000000000…, not ffffffffffff…"),
        ({"settings": {"layer": 2}}, "layer 1, not 2"),
        ({"dtype": "float32"}, "stored dtype float16, not float32"),
        ({"model": "other"}, "model one_hot, not other"),
    ],
)
def test_other_encoders_are_never_mixed(path: Path, change: dict[str, str], message: str) -> None:
    """Weights, settings, dtype: any difference is refused by name, and another name is fine."""
    other = replace(ONE_HOT, **change)
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("a.fasta", digest("a"), [sequence_only("a", "ACDE")])
        writer.plan("one_hot", ONE_HOT, 200)
        with pytest.raises(StoreError) as error:
            writer.plan("one_hot", other, 200)
        assert message in str(error.value)
        assert "--sequence-name" in str(error.value)
        assert writer.plan("another", other, 200).pending_items == 1
        writer.plan("one_hot", replace(ONE_HOT, versions={"numpy": "99"}), 200)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"layer": [1]}},
        {"settings": {"scale": float("nan")}},
        {"settings": {1: "a"}},
        {"settings": {"path": Path("x")}},
        {"model": "one\nhot"},
        {"model": "\udcff"},
        {"dim": np.int64(20)},
        {"dim": 0},
        {"dim": 10**8},
        {"modality": "both"},
        {"dtype": "bfloat16"},
        {"weights_sha256": b"0"},
    ],
)
def test_a_record_that_no_reader_takes_closes_no_store(path: Path, change: dict[str, Any]) -> None:
    """Another package's encoder may say anything of itself: what is in the store stays readable."""
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("a.fasta", digest("a"), [sequence_only("a", "ACDE")])
        writer.plan("one_hot", ONE_HOT, 200)
        with pytest.raises(StoreError, match="report this to the encoder's author"):
            writer.plan("another", replace(ONE_HOT, **change), 200)
    assert list(EmbeddingStore.open(path).encoders) == ["one_hot"]
    assert verify(path).ok


def test_names_that_cannot_be_folders_are_refused(path: Path) -> None:
    """An encoder's name cannot leave the store."""
    with StoreWriter(path, OPTIONS) as writer:
        for name in ("../x", "", ".hidden", "a/b"):
            with pytest.raises(StoreError, match="cannot be an encoder's name"):
                writer.plan(name, ONE_HOT, 200)


def test_second_writer_is_refused(path: Path) -> None:
    """Two writers would lose each other's rows: the second one gets an error, in any process."""
    script = (
        "import sys\nfrom protalign.stores import StoreWriter\n"
        f"StoreWriter({str(path)!r}, {OPTIONS!r})"
    )
    with StoreWriter(path, OPTIONS):
        with pytest.raises(StoreError, match="being written to by another process"):
            StoreWriter(path, OPTIONS)
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "being written to by another process" in other.stderr
    with StoreWriter(path, OPTIONS):
        pass


@pytest.mark.parametrize("text", [b"process 1 on \x1b[2J\n", b"process 1 on x; \n", b"\xff" * 200])
def test_what_a_lock_says_is_not_trusted(text: bytes, path: Path) -> None:
    """Words that no writer wrote are not shown, and what is no lock's is not written over."""
    with StoreWriter(path, OPTIONS):
        (path / ".lock").write_bytes(text)
        with pytest.raises(StoreError, match=r"by another process; wait until that is done$"):
            StoreWriter(path, OPTIONS)
    assert (path / ".lock").read_bytes() == (text if len(text) > 128 else b"")


def test_another_file_is_not_written_over_as_a_lock(path: Path, tmp_path: Path) -> None:
    """A second name of somebody's file in place of the lock: it keeps its bytes."""
    (tmp_path / "letter").write_text("dear")
    (path / ".lock").unlink()
    (path / ".lock").hardlink_to(tmp_path / "letter")
    with StoreWriter(path, OPTIONS):
        pass
    assert (tmp_path / "letter").read_text() == "dear"


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, lambda lock: lock.symlink_to("elsewhere")],
    ids=["folder", "link"],
)
def test_what_is_not_a_file_is_no_lock(path: Path, make: Callable[[Path], None]) -> None:
    """If something else has the lock's name, the error names it and says what to do."""
    (path / ".lock").unlink()
    make(path / ".lock")
    with pytest.raises(StoreError, match=r"/\.lock: it is not a file; remove it$"):
        StoreWriter(path, OPTIONS)


def test_a_file_that_cannot_be_opened_leaves_the_index_whole(path: Path, tmp_path: Path) -> None:
    """It has no content hash: its failure is kept, and no row of sources goes out of step."""
    failure = Failure("gone", "/data/gone.pdb", "cannot be opened", "check the path")
    first, second = (Protein(i, f"/data/{i}", (Chain.from_sequence("ACDE"),)) for i in ("a", "b"))
    with StoreWriter(path, OPTIONS) as writer:
        writer.add(first.source, b"1" * 32, [first])
        writer.add(failure.file, b"", [failure])
        writer.add(second.source, b"2" * 32, [second])
    assert verify(path).ok
    with StoreWriter(path, OPTIONS) as writer:
        assert writer.source_is_current(second.source, b"2" * 32)
    opened = EmbeddingStore.open(path)
    assert (opened.ids.tolist(), opened.failures) == (["a", "b"], [failure])


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    """A folder with other things in it, a file, or a URL does not become a store."""
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="exists and is not a store"):
        StoreWriter(tmp_path, OPTIONS)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match="is a file"):
        StoreWriter(tmp_path / "thesis.tex", OPTIONS)
    with pytest.raises(StoreError, match="local or mounted folder"):
        StoreWriter("s3://bucket/store.zarr", OPTIONS)


def test_an_exception_discards_what_waits(path: Path) -> None:
    """Leaving the writer with an error commits nothing that was not committed before."""

    def interrupted() -> None:
        with StoreWriter(path, OPTIONS) as writer:
            writer.add("a.fasta", digest("a"), [sequence_only("a", "ACDE")])
            writer.commit()
            writer.add("b.fasta", digest("b"), [sequence_only("b", "ACDE")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert EmbeddingStore.open(path).ids.tolist() == ["a"]


def test_planning_twice_plans_nothing_new(path: Path, proteins: list[Protein]) -> None:
    """The recorded plan stays; a second call tells what of it is left."""
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, proteins)
        plan_both(writer)
        first = writer.plan("one_hot", ONE_HOT, 200)
        assert first.pending_tasks == first.tasks > 3
        encode_pending(path, "one_hot", load_one_hot)
        again = writer.plan("one_hot", ONE_HOT, 12345)
        assert (again.tasks, again.pending_tasks, again.pending_rows) == (first.tasks, 0, 0)
        assert again.longest == max(len(s) for p in proteins for s in p.sequences)


def test_chunks_of_zeros_are_written(tmp_path: Path) -> None:
    """A chunk of zeros, of a task with every item refused, is a file like any other."""
    (tmp_path / "a").mkdir()
    spec = ArraySpec(np.dtype("<f4"), (2,), 3)
    write_chunks(tmp_path, "a", spec, 4, np.zeros((5, 2), np.float32))
    files = sorted((tmp_path / "a").iterdir())
    assert [file.name for file in files] == ["c.4.0", "c.5.0"]
    assert all(file.stat().st_size == 3 * 2 * 4 + 4 for file in files)
