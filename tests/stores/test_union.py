"""Several stores that are read as one: what is equal, what is refused, and what is read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.errors import InputError, StoreError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.filling.encode import encode_pending
from protalign.stores.format.arrays import Arrays
from protalign.stores.id_hashes import text_hashes
from protalign.stores.union.numbering import Numbering
from tests.helpers.commands import run
from tests.helpers.one_hot import load_one_hot
from tests.helpers.stores import (
    BATCH_ROWS,
    CENTRE,
    CHUNK_ROWS,
    ONE_HOT,
    OPTIONS,
    add_all,
    build,
    complex_of,
    sequence_only,
)

SEQUENCES = {"a": "MKVLAGIVGIVEQCC", "b": "GIVEQCCTSICSLYQ", "c": "ACDEFGHIKLMNPQ"}


def small(path: Path, *names: str) -> Path:
    """Make a store of a few short sequences."""
    return build(path, [sequence_only(name, SEQUENCES[name]) for name in names])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small stores. Only to be copied."""
    folder = tmp_path_factory.mktemp("pair")
    for name, ids in (("a", "a"), ("b", "bc"), ("again", "ac")):
        small(folder / f"{name}.zarr", *ids)
    return folder


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> Path:
    """A folder of two small stores, a.zarr and b.zarr, which a test may change."""
    for name in ("a.zarr", "b.zarr"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def test_order_is_that_of_names_as_numbers(shards: Path) -> None:
    """9 comes before 10 for a pattern; a list keeps its own order; a store counts once."""
    by_pattern = EmbeddingStore.open(shards / "*.zarr")
    by_list = EmbeddingStore.open([shards / "11.zarr", shards / "9.zarr", shards / "*.zarr"])
    only = EmbeddingStore.open([shards / "9.zarr"])
    assert len(EmbeddingStore.open(shards.glob("*.zarr"))) == len(by_pattern)
    assert verify(shards.glob("*.zarr")).ok
    assert by_pattern.info()["stores"] == by_list.info()["stores"] == 3
    assert only.info()["stores"] == 1
    assert by_pattern.ids[:9].tolist() == only.ids.tolist()
    assert by_list.ids[-1] == by_pattern.ids[9]
    assert sorted(by_list.ids) == sorted(by_pattern.ids)


def test_equal_content_counts_once(tmp_path: Path, proteins: list[Protein]) -> None:
    """Sequences and parts of structures have one code, whichever store they are in."""
    first, second = proteins[3], proteins[8]
    again = replace(first, id="again", source="again.pdb")
    build(tmp_path / "1.zarr", [first, complex_of("dimer", first, second)])
    build(tmp_path / "2.zarr", [second, again, complex_of("dimer_2", first, second)])
    union = EmbeddingStore.open(tmp_path / "?.zarr")
    for modality in ("sequence", "structure"):
        own, dimer, other, twin, dimer_2 = union.items(modality).tolist()
        assert own == twin
        assert dimer == dimer_2
        assert len({own, dimer, other}) == 3
    info = union.info()
    assert (info["entries"], info["unique_sequences"], info["unique_structures"]) == (5, 3, 3)
    both = sum(len(protein) for protein in (first, second))
    assert info["sequence_residues"] == 2 * both


def test_chains_of_one_complex_are_parts_of_it(tmp_path: Path, proteins: list[Protein]) -> None:
    """Each chain has a code of its own, which the same chain in another store shares."""
    whole = complex_of("dimer", proteins[3], proteins[8])
    for store in "12":
        chains = [
            replace(whole, id=f"{chain.id}{store}", source=f"{chain.id}{store}", chains=(chain,))
            for chain in whole.chains
        ]
        build(tmp_path / f"{store}.zarr", [sequence_only(store, SEQUENCES["a"]), *chains])
    union = EmbeddingStore.open(tmp_path / "?.zarr")
    _, a, b, _, other_a, other_b = union.items("structure").tolist()
    assert (a, b) == (other_a, other_b)
    assert a != b
    rows = union[["A2", "B2"]].embeddings("from_centre")
    assert rows.lengths.tolist() == union[["A1", "B1"]].lengths.tolist()


def test_replaced_entries_do_not_count(pair: Path) -> None:
    """A file that was read again in its own store has its new entry only."""
    changed = replace(sequence_only("a", "WWWWW"), source="a.fasta")
    with StoreWriter(pair / "a.zarr", OPTIONS) as writer:
        assert writer.add("a.fasta", bytes(32), [changed]) == []
        writer.commit()
        writer.plan("one_hot", ONE_HOT, BATCH_ROWS, CHUNK_ROWS)
        writer.plan("from_centre", CENTRE, BATCH_ROWS, CHUNK_ROWS)
        encode_pending(pair / "a.zarr", "one_hot", load_one_hot)
    union = EmbeddingStore.open(pair / "*.zarr")
    assert union.ids.tolist() == ["a", "b", "c"]
    assert union.sequence("a") == ("WWWWW",)
    assert union["a"].embeddings("one_hot").values.shape == (5, 20)


def test_an_id_in_two_stores(pair: Path, made: Path) -> None:
    """It is named with both stores when ids are asked for, not at the opening; verify lists all."""
    shutil.copytree(made / "again.zarr", pair / "c.zarr")
    union = EmbeddingStore.open(pair / "*.zarr")
    assert len(union) == 5
    assert union.embeddings("one_hot").values.shape == (union.lengths.sum(), 20)
    asks = (
        lambda: union.ids,
        lambda: "b" in union,
        lambda: union[["b"]],
        lambda: union.items("sequence"),  # as training does, which asks for no id
    )
    for ask in asks:
        with pytest.raises(InputError, match=r"^a: both .*/a\.zarr and .*/c\.zarr have .* 1 more"):
            ask()
    lines = list(verify(pair / "*.zarr").lines())
    assert len(lines) == 2
    assert "a.zarr and " in lines[0]
    assert lines[0].endswith("; ids: a")
    assert "b.zarr and " in lines[1]
    assert lines[1].endswith("; ids: c")


def test_stores_that_do_not_fit(pair: Path) -> None:
    """Other options, other encoders: the error names the store and what differs."""
    protein = [sequence_only("d", "ACDEF")]
    with StoreWriter(pair / "per.zarr", {**OPTIONS, "per": "chain"}) as writer:
        add_all(writer, protein)
        writer.commit()
        writer.plan("one_hot", replace(ONE_HOT, settings={"layer": 2}), BATCH_ROWS, CHUNK_ROWS)
    encode_pending(pair / "per.zarr", "one_hot", load_one_hot)
    with pytest.raises(StoreError) as caught:
        EmbeddingStore.open(pair / "*.zarr")
    message = str(caught.value)
    assert "per.zarr: it differs from " in message
    assert "--per chain, not protein" in message
    assert "encoder from_centre, which it lacks" in message
    assert "one_hot: layer 2, not 1" in message
    assert "\n" not in message
    assert not verify(pair / "*.zarr").ok


def test_unfinished_stores_are_named(pair: Path) -> None:
    """One without embeddings, one whose tasks are not done: the error names both."""
    with StoreWriter(pair / "c.zarr", OPTIONS) as writer:
        add_all(writer, [sequence_only("c2", "ACDEF")])
    with StoreWriter(pair / "d.zarr", OPTIONS) as writer:
        add_all(writer, [sequence_only("d", "ACDEF")])
        writer.commit()
        writer.plan("one_hot", ONE_HOT, BATCH_ROWS, CHUNK_ROWS)
        writer.plan("from_centre", CENTRE, BATCH_ROWS, CHUNK_ROWS)
    with pytest.raises(StoreError, match=r"c\.zarr: it is not finished \(nothing of it.*d\.zarr"):
        EmbeddingStore.open(pair / "*.zarr")
    with pytest.raises(StoreError, match=r"d\.zarr: it is not finished \(1 of 1 tasks of one_hot"):
        EmbeddingStore.open([pair / "a.zarr", pair / "d.zarr"])
    report = verify(pair / "*.zarr")
    assert report.ok
    assert not report.finished
    assert any("it is not finished" in line for line in report.lines())
    finished = {name: verify(pair / f"{name}.zarr").finished for name in "abcd"}
    assert finished == {"a": True, "b": True, "c": False, "d": False}
    for name in ("c.zarr", "d.zarr", "*.zarr"):
        done = run("verify", pair / name, code=3)
        assert "every chunk is whole" in done.stdout
        assert "  not finished: run `protalign embed` again with the same files" in done.stdout
        assert not json.loads(run("verify", pair / name, "--json", code=3).stdout)["finished"]
    run("verify", pair / "a.zarr")


def test_damage_names_its_store(pair: Path) -> None:
    """Of several stores one is damaged: reading and verify name it, and its ids."""
    chunk = next((pair / "b.zarr" / "encoders" / "one_hot" / "values").glob("c.*"))
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    union = EmbeddingStore.open(pair / "*.zarr")
    assert union["a"].embeddings("one_hot").values.shape == (15, 20)
    with pytest.raises(StoreError, match=r"b\.zarr: the store is damaged"):
        union["b"].embeddings("one_hot")
    line, advice, left_out = verify(pair / "*.zarr").lines()
    assert advice.endswith("or remove the store and embed its files again")
    assert "b.zarr: encoders/one_hot/values" in line
    assert line.endswith("ids: b, c")
    assert left_out == "not compared with the others: 1 damaged store"
    (pair / "b.zarr" / "zarr.json").write_text("{}")
    assert not verify(pair / "*.zarr").ok
    with pytest.raises(StoreError, match=r"b\.zarr: its zarr\.json is damaged"):
        EmbeddingStore.open(pair / "*.zarr")


def test_a_store_that_is_removed_while_open(pair: Path) -> None:
    """The error says so and names it; the others can still be read."""
    union = EmbeddingStore.open(pair / "*.zarr")
    assert len(union) == 3
    shutil.rmtree(pair / "b.zarr")
    with pytest.raises(StoreError, match=r"b\.zarr: the store was removed while it was open"):
        union.embeddings("one_hot", np.array([2]))
    assert union.embeddings("one_hot", np.array([0])).values.shape == (15, 20)


def test_patterns(pair: Path) -> None:
    """No match, a match that is not a store, a name with brackets, and a pattern to write to."""
    with pytest.raises(StoreError, match=r"/\*\.zar: no store matches"):
        EmbeddingStore.open(pair / "*.zar")
    with pytest.raises(StoreError, match=r"\*\* stands for nothing"):
        EmbeddingStore.open(pair / "**" / "*.zarr")
    with pytest.raises(InputError, match="it is empty"):
        EmbeddingStore.open([])
    (pair / "log.zarr").write_text("of a task")
    with pytest.raises(StoreError, match=r"log\.zarr: it is a file, not a store"):
        EmbeddingStore.open(pair / "*.zarr")
    (pair / "log.zarr").unlink()
    named = pair / "[ab]"
    named.mkdir()
    (pair / "a.zarr").rename(named / "[1].zarr")
    assert EmbeddingStore.open(named / "[1].zarr").ids.tolist() == ["a"]
    assert EmbeddingStore.open(named / "*.zarr").ids.tolist() == ["a"]
    for bad in ("*.zarr", "[0-9].zarr"):
        with pytest.raises(StoreError, match="a pattern of stores can only be read"):
            StoreWriter(named / bad, OPTIONS)
    with StoreWriter(named / "new.zarr", OPTIONS):
        pass


def test_patterns_are_those_of_a_shell(pair: Path) -> None:
    """Hidden files do not match, equal numbers have an order, odd patterns end in a line."""
    (pair / "._a.zarr").write_bytes(b"what macOS leaves beside a file")
    assert len(EmbeddingStore.open(pair / "*.zarr")) == 3
    (pair / "a.zarr").rename(pair / "01.zarr")
    (pair / "b.zarr").rename(pair / "1.zarr")
    assert EmbeddingStore.open(pair / "?*.zarr").ids.tolist() == ["a", "b", "c"]
    for odd in ("\0*", "\0/*.zarr", f"{'x' * 5000}/*.zarr", "\ud800*"):
        with pytest.raises(StoreError, match="no store matches"):
            EmbeddingStore.open(pair / odd)
    for wide in (str(pair / "*/*/*/*.zarr"), "file:///*/*/*/*"):
        with pytest.raises(StoreError, match="it searches too much; name all folders but 3"):
            EmbeddingStore.open(wide)


def test_damage_of_an_unfinished_store_hides_no_other(pair: Path, made: Path) -> None:
    """Marks of tasks that cannot be read are damage; ids of the whole stores are compared still."""
    shutil.copytree(made / "again.zarr", pair / "c.zarr")
    with StoreWriter(pair / "d.zarr", OPTIONS) as writer:
        add_all(writer, [sequence_only("d", "ACDEF" * 30), sequence_only("e", "ACDEG" * 30)])
        writer.commit()
        writer.plan("one_hot", ONE_HOT, BATCH_ROWS, CHUNK_ROWS)
    (pair / "d.zarr" / "encoders" / "one_hot" / "done" / "c.0").write_bytes(b"torn")
    lines = list(verify(pair / "*.zarr").lines())
    assert any("d.zarr: encoders/one_hot/done c.0: has 4 bytes" in line for line in lines)
    assert any("a.zarr and " in line and line.endswith("; ids: a") for line in lines)
    assert "not compared with the others: 1 damaged store" in lines
    with pytest.raises(StoreError, match=r"d\.zarr: .*done"):
        EmbeddingStore.open(pair / "*.zarr")


def test_remote_stores_are_not_checked(pair: Path) -> None:
    """One line says so; it is not damage of each store."""
    with pytest.raises(StoreError, match=r"a\.zarr: only a local store can be checked"):
        verify(f"file://{pair}/*.zarr")


def test_ids_that_overlap_are_refused(pair: Path) -> None:
    """Ranges of a damaged or hostile index, which may take any memory, are not followed."""
    arrays = Arrays.read

    def read(self: Arrays, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        rows = arrays(self, name, start, stop)
        return np.zeros_like(rows) if name == "entries/id/start" else rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arrays, "read", read)
        with pytest.raises(StoreError, match="entries/id is not cut into consecutive texts"):
            len(EmbeddingStore.open(pair / "*.zarr"))


@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_ids_come_in_the_order_of_their_rows(shards: Path, filled: Path, at_once: int) -> None:
    """Some at a time, of one store and of several."""
    for path in (filled, shards / "*.zarr"):
        store = EmbeddingStore.open(path)
        rows = np.random.default_rng(0).permutation(store.entry_rows)
        assert list(store.log.each_id(rows, at_once)) == store.log.ids_at(rows).tolist()


def test_rows_of_one_store_are_numbered_as_rows_of_several_are() -> None:
    """In any order, with a store that is empty; no rows are of no store."""
    numbering = Numbering([3, 0, 4])
    for numbers in ([2, 0, 1], [6, 3, 3], [5, 1, 3, 0], [4], []):
        found = np.full(len(numbers), -1)
        for store, positions, inside in numbering.parts(np.array(numbers, dtype=np.int64)):
            assert (inside < (3, 0, 4)[store]).all()
            found[positions] = inside + (0, 3, 3)[store]
        assert found.tolist() == numbers


@pytest.mark.parametrize("rows", [[10**9], [0, 10**9], [-1], [-1, 0, 10**9]])
def test_rows_that_no_store_has_are_refused(shards: Path, rows: list[int]) -> None:
    """As of a damaged index: by the arrays of the first or the last store."""
    encoded = EmbeddingStore.open(shards / "*.zarr").encoders.rows("one_hot")
    with pytest.raises(StoreError, match="points outside array"):
        encoded.gather(np.array(rows), np.ones(len(rows), dtype=np.int64))


def test_paths_of_files_are_read_where_they_are_asked_for(pair: Path, shards: Path) -> None:
    """A count keeps no path of any file in memory; an entry has the path of its own."""
    union = EmbeddingStore.open(shards / "*.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arrays, "texts", None)
        assert len(union) == 23
        assert union.source("dimer") == "dimer.pdb"
    rows = union.entry_rows[::-1]
    assert union.log.source_paths_at(rows).tolist() == list(map(union.source, union[::-1].ids))
    assert set(union.log.source_paths) == set(map(union.source, union.ids))


def test_only_ids_that_are_asked_for_are_made(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening, counting, masks and a lookup make no text of an id but of those looked up."""
    asked: list[int] = []
    texts_at = Arrays.texts_at

    def counted(arrays: Arrays, column: str, rows: np.ndarray) -> np.ndarray:
        if column == "entries/id":
            asked.append(len(rows))
        return texts_at(arrays, column, rows)

    def refused(arrays: Arrays, column: str) -> np.ndarray:
        assert column != "entries/id", "all ids were read"
        return texts(arrays, column)

    texts = Arrays.texts
    monkeypatch.setattr(Arrays, "texts_at", counted)
    monkeypatch.setattr(Arrays, "texts", refused)
    union = EmbeddingStore.open(shards / "*.zarr")
    assert (len(union), int(union.has_structure.sum())) == (23, 21)
    assert sum(asked) == 0
    assert "dimer" in union
    assert union.sequence("twin")
    assert sum(asked) == 2


def test_stores_share_the_files_that_may_be_open(
    shards: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many stores there are, no more chunks are mapped than the limit allows."""
    monkeypatch.setattr("protalign.stores.format.arrays._open_files_allowed", lambda: 5)
    one = EmbeddingStore.open(filled)
    want = one.embeddings("one_hot").values  # its files stay open
    union = EmbeddingStore.open(shards / "*.zarr")
    before = open_files()
    np.testing.assert_array_equal(union.embeddings("one_hot").values, want)
    assert 0 < open_files() - before <= 5


def open_files() -> int:
    """Return the number of files that this process has open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("only Linux lists the open files")
    return len(list(folder.iterdir()))


@given(st.lists(st.text("\0aé", max_size=4), min_size=1, max_size=9))
def test_equal_texts_have_equal_hashes(texts: list[str]) -> None:
    """Also with empty texts and null characters; others differ."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    values = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    hashes = text_hashes(values, np.array([len(text) for text in encoded])).tolist()
    for text, value in zip(encoded, hashes, strict=True):
        assert [text == other for other in encoded] == [value == other for other in hashes]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.randoms())
def test_numbers_find_their_store(counts: list[int], random: object) -> None:
    """Every number has the store and the place that counting gives it, in any order."""
    numbering = Numbering(counts)
    places = [(store, own) for store, count in enumerate(counts) for own in range(count)]
    numbers = np.random.default_rng(len(counts)).permutation(len(places)).astype(np.int64)
    found: dict[int, tuple[int, int]] = {}
    for store, positions, own in numbering.parts(numbers):
        found |= {int(numbers[p]): (store, o) for p, o in zip(positions, own.tolist(), strict=True)}
    assert found == dict(enumerate(places))
    assert len(numbering) == len(places)
