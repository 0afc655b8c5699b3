"""Reading a store: one contract for the store, its views, pickled views, and remote stores."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from sklearn.base import clone
from sklearn.model_selection import KFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from protalign.core.errors import InputError, StoreError
from protalign.core.protein import MODALITIES, Backbone, Protein, Structure
from protalign.stores import EmbeddingStore, Entries, StoreWriter
from tests.helpers.one_hot import from_centre, one_hot
from tests.helpers.stores import OPTIONS, build, sequence_only


def _remote(scheme: str, path: Path) -> Entries:
    if scheme == "file":
        return EmbeddingStore.open(f"file://{path}")
    memory = fsspec.filesystem("memory")
    if not memory.exists("/copied/store.zarr"):
        memory.put(str(path), "/copied/store.zarr", recursive=True)
    return EmbeddingStore.open("memory://copied/store.zarr")


def _union(path: Path) -> EmbeddingStore:
    return EmbeddingStore.open(path.parent / "shards" / "*.zarr")


#: Ways to get the same 23 entries, in the same order.
WAYS: dict[str, Callable[[Path], Entries]] = {
    "store": EmbeddingStore.open,
    "view": lambda path: EmbeddingStore.open(path)[:],
    "by ids": lambda path: EmbeddingStore.open(path)[EmbeddingStore.open(path).ids.tolist()],
    "by <U ids": lambda path: EmbeddingStore.open(path)[EmbeddingStore.open(path).ids.astype(str)],
    "view of a view": lambda path: EmbeddingStore.open(path)[::-1][::-1],
    "mask": lambda path: EmbeddingStore.open(path)[np.ones(23, dtype=bool)],
    "sklearn's way": lambda path: EmbeddingStore.open(path)[np.arange(23), ...],
    "pickled": lambda path: pickle.loads(pickle.dumps(EmbeddingStore.open(path)[:])),  # noqa: S301
    "pickled store": lambda path: pickle.loads(pickle.dumps(EmbeddingStore.open(path))),  # noqa: S301
    "copied": lambda path: copy.deepcopy(EmbeddingStore.open(path)[:]),
    "remote file": lambda path: _remote("file", path),
    "remote memory": lambda path: _remote("memory", path),
    "three stores": _union,
    "view of three stores": lambda path: _union(path)[::-1][::-1],
    "three stores by ids": lambda path: _union(path)[_union(path).ids.tolist()],
    "three pickled stores": lambda path: pickle.loads(pickle.dumps(_union(path))),  # noqa: S301
    "pickled view of three": lambda path: pickle.loads(pickle.dumps(_union(path)[:])),  # noqa: S301
    "remote pattern": lambda path: EmbeddingStore.open(f"file://{path.parent}/shards/*.zarr"),
}


@pytest.fixture(params=list(WAYS))
def entries(request: pytest.FixtureRequest, filled: Path, shards: Path) -> Entries:
    assert shards.parent == filled.parent
    return WAYS[request.param](filled)


def test_entries_answer_alike(entries: Entries, proteins: list[Protein]) -> None:
    """However they were reached, entries have the same ids, shape, masks and lengths."""
    assert entries.ids.tolist() == [protein.id for protein in proteins]
    assert entries.shape == (23,)
    assert len(entries) == 23
    assert entries.has_sequence.all()
    assert entries.has_structure.tolist() == [p.structure is not None for p in proteins]
    assert entries.lengths.tolist() == [len(protein) for protein in proteins]
    assert [view.ids.tolist() for view in entries] == [[protein.id] for protein in proteins]
    assert "dimer" in entries
    assert "nobody" not in entries


def test_sequence_embeddings(entries: Entries, proteins: list[Protein]) -> None:
    """The packed rows are what the encoder gave, for every entry in order."""
    ragged = entries.embeddings("one_hot")
    assert ragged.values.dtype == np.float16
    for rows, protein in zip(ragged, proteins, strict=True):
        np.testing.assert_array_equal(rows, one_hot([protein.sequences])[0])


def test_structure_embeddings(entries: Entries, proteins: list[Protein]) -> None:
    """Of the entries that have a structure, in the storage dtype asked for, in any order."""
    some = entries[entries.has_structure][::-1]
    kept = [protein for protein in proteins if protein.structure is not None][::-1]
    ragged = some.embeddings("from_centre")
    assert ragged.values.dtype == np.float32
    for rows, protein in zip(ragged, kept, strict=True):
        np.testing.assert_array_equal(rows, from_centre([protein.structure])[0])
    again = some.embeddings("from_centre", np.array([4, 4, 0]))
    np.testing.assert_array_equal(again[1], ragged[4])
    np.testing.assert_array_equal(again[2], ragged[0])


def test_embeddings_at_a_residue(entries: Entries) -> None:
    """One row of every entry is the same as among all its rows."""
    some = entries[entries.has_structure][::-1]
    for encoder in ("one_hot", "from_centre"):
        ragged = some.embeddings(encoder)
        residues = ragged.lengths // 2
        rows = some.embeddings_at(encoder, residues.tolist())
        assert rows.dtype == ragged.values.dtype
        expected = [rows[residue] for rows, residue in zip(ragged, residues, strict=True)]
        np.testing.assert_array_equal(rows, expected)


def test_an_unknown_residue_is_refused(entries: Entries) -> None:
    """Past the end, before the beginning, too few, or of an entry without the modality."""
    some = entries[entries.has_structure][:2]
    length = int(some.lengths[0])
    with pytest.raises(
        InputError, match=rf"has no residue {length}; give one from 0 to {length - 1}"
    ):
        some.embeddings_at("one_hot", [length, 0])
    with pytest.raises(InputError, match="has no residue -1"):
        some.embeddings_at("one_hot", [0, -1])
    with pytest.raises(InputError, match="give one for each of 2"):
        some.embeddings_at("one_hot", [0])
    with pytest.raises(InputError, match="no from_centre embedding"):
        entries.embeddings_at("from_centre", np.zeros(len(entries)))


def test_missing_modality_is_refused(entries: Entries) -> None:
    """Asking a FASTA record for structure rows names it."""
    with pytest.raises(InputError, match="no from_centre embedding of twin, long;"):
        entries.embeddings("from_centre")
    start, length = entries.rows("from_centre")
    assert start[-2:].tolist() == [-1, -1]
    assert length[-2:].tolist() == [0, 0]


def test_items_are_shared_by_content(entries: Entries, proteins: list[Protein]) -> None:
    """Equal sequences have one item, whatever their ids; structures likewise."""
    items = entries.items("sequence")
    names = [protein.id for protein in proteins]
    assert items[names.index("twin")] == items[5]
    distinct = {protein.sequences for protein in proteins}
    assert len(set(items.tolist())) == len(distinct) < len(proteins)
    structures = entries.items("structure")
    assert (structures >= 0).tolist() == entries.has_structure.tolist()


def test_encoders(entries: Entries) -> None:
    """The only encoder of a modality needs no name; the error for a wrong name lists them."""
    info = entries.encoder_for("sequence")
    assert (info.name, info.dim, info.dtype, info.settings) == (
        "one_hot",
        20,
        "float16",
        {"layer": 1},
    )
    assert info.n_items == info.n_items_total
    assert entries.encoder_for("structure", "from_centre").modality == "structure"
    with pytest.raises(StoreError, match=r"encoder 'esm': not in the store; it has: .*one_hot"):
        entries.encoder_for("sequence", "esm")
    with pytest.raises(StoreError, match="'one_hot': it embeds the sequence, not the structure"):
        entries.encoder_for("structure", "one_hot")


def test_proteins_come_back(entries: Entries, proteins: list[Protein]) -> None:
    """Sequences, structures and notes are what was put in, to the bit."""
    store = entries.store
    for protein in proteins:
        assert store.sequence(protein.id) == protein.sequences
        assert store.notes(protein.id) == protein.notes
        assert store.source(protein.id) == protein.source
        if protein.structure is not None:
            assert store.structure(protein.id).content_hash == protein.structure.content_hash
    with pytest.raises(InputError, match="twin: it has no structure"):
        store.structure("twin")


def test_residue_map_finds_rows_in_the_file(entries: Entries, proteins: list[Protein]) -> None:
    """Each structure row has a chain, number, insertion code and sequence index that agree."""
    dimer = next(protein for protein in proteins if protein.id == "dimer")
    residues = entries.store.residue_map("dimer")
    assert len(residues) == len(dimer.structure)
    letters = "".join(dimer.sequences)
    named = {
        (chain.id, int(number), int(code)): letter
        for chain in dimer.chains
        for number, code, letter in zip(
            chain.residue_numbers, chain.insertion_codes, chain.sequence, strict=True
        )
    }
    for row in range(len(residues)):
        key = (
            residues.chain_ids[row],
            int(residues.residue_numbers[row]),
            int(residues.insertion_codes[row]),
        )
        assert named[key] == letters[residues.sequence_index[row]]
    assert residues.observed.shape == (len(letters),)


def test_chains_have_the_rows_of_their_residues(entries: Entries, proteins: list[Protein]) -> None:
    """Of each modality, in the order of the entries; nothing is asked of no entries."""
    for modality in MODALITIES:
        some = [
            protein for protein in reversed(proteins) if modality == "sequence" or protein.structure
        ]
        found = entries[[protein.id for protein in some]].chain_rows(modality)
        assert [rows.tolist() for rows in found] == [
            protein.chain_rows(modality).tolist() for protein in some
        ]
        assert max(map(len, found)) == 2
        assert entries[:0].chain_rows(modality) == []


def without_backbones(protein: Protein, name: str, residues: list[int]) -> Protein:
    """The protein if its last chain lacks the oxygens of some residues."""
    *others, last = protein.chains
    assert last.backbone is not None
    coordinates = last.backbone.coordinates.copy()
    coordinates[residues, 3] = np.nan
    chains = (*others, replace(last, backbone=Backbone(coordinates)))
    return Protein(name, f"{name}.pdb", chains, Structure(chains, tuple(range(len(chains)))))


def test_rows_have_the_positions_of_their_residues(
    tmp_path: Path, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through all chains; coordinates are read of structures alone that lack a residue."""
    dimer = next(protein for protein in proteins if protein.id == "dimer")
    some = [
        proteins[0],
        without_backbones(dimer, "two", [0, 5, 6, 30]),
        dimer,
        without_backbones(proteins[1], "one", [0, 7, len(proteins[1]) - 1]),
    ]
    store = EmbeddingStore.open(build(tmp_path / "store.zarr", some))[::-1]
    read, asked = EmbeddingStore.sequence_rows, []

    def counted(store: EmbeddingStore, rows: np.ndarray) -> list[np.ndarray]:
        asked.append(len(rows))
        return read(store, rows)

    monkeypatch.setattr(EmbeddingStore, "sequence_rows", counted)
    every = [list(range(len(protein))) for protein in reversed(some)]
    assert [rows.tolist() for rows in store.row_positions("sequence")] == every
    assert not any(asked)
    first = len(dimer.chains[0])
    for place, lacking in ((0, [0, 7, len(some[3]) - 1]), (2, [first + n for n in (0, 5, 6, 30)])):
        every[place] = [row for row in every[place] if row not in lacking]
    assert [rows.tolist() for rows in store.row_positions("structure")] == every
    assert sum(asked) == 2
    assert store[:0].row_positions("structure") == []


def test_index_errors(entries: Entries) -> None:
    """A wrong id, mask or position ends in one line."""
    with pytest.raises(InputError, match=r"no entry 'dimmer'; did you mean 'dimer'"):
        entries["dimmer"]
    with pytest.raises(InputError, match="no entry 'w', 'x', 'y' and 1 more"):
        entries[["w", "x", "y", "z"]]
    with pytest.raises(IndexError, match="mask"):
        entries[np.ones(5, dtype=bool)]
    with pytest.raises(IndexError):
        entries[23]
    with pytest.raises(IndexError):
        entries[0, 1]
    with pytest.raises(IndexError):
        entries[[0.5]]
    with pytest.raises(InputError, match="this view has no entry 'dimer'"):
        entries[:3]["dimer"]


def test_single_entries_and_empty_views(entries: Entries) -> None:
    """An id or a position gives a view of one entry; nothing gives a view of none."""
    assert entries["dimer"].ids.tolist() == ["dimer"]
    assert entries[-1].ids.tolist() == ["long"]
    for nothing in ([], slice(0, 0), np.zeros(23, dtype=bool)):
        assert entries[nothing].shape == (0,)
    assert entries[[]].embeddings("one_hot").values.shape == (0, 20)


def test_scikit_learn_slices_entries(filled: Path) -> None:
    """train_test_split, KFold and a Pipeline take a store, and get views."""
    store = EmbeddingStore.open(filled)
    train, test, _, labels = train_test_split(store, np.arange(23), random_state=0)
    assert isinstance(train, Entries)
    assert test.ids.tolist() == store.ids[labels].tolist()
    for fold, _ in KFold(3).split(store):
        assert store[fold].ids.tolist() == store.ids[fold].tolist()
    lengths = FunctionTransformer(lambda entries: entries.lengths[:, None], validate=False)
    assert clone(Pipeline([("lengths", lengths)])).fit_transform(store).shape == (23, 1)


def test_a_pickled_view_is_small_and_keeps_its_entries(
    tmp_path: Path, proteins: list[Protein]
) -> None:
    """It is a path and row numbers, and means the same entries after the store has grown."""
    path = tmp_path / "store.zarr"
    with StoreWriter(path, OPTIONS) as writer:
        for protein in proteins:
            writer.add(f"{protein.id}.pdb", bytes(32), [protein])
    view = EmbeddingStore.open(path)[["twin", "dimer"]]
    data = pickle.dumps(view)
    assert len(data) < 1000
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("dimer.pdb", bytes(31) + b"1", [sequence_only("dimer", "ACDE")])
    restored = pickle.loads(data)  # noqa: S301
    assert restored.ids.tolist() == ["twin", "dimer"]
    assert restored.lengths.tolist() == view.lengths.tolist()
    assert EmbeddingStore.open(path)["dimer"].lengths.tolist() == [4]
    shutil.rmtree(path)
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("a.fasta", bytes(32), [sequence_only(f"s{i}", "A" * (i + 1)) for i in range(30)])
    with pytest.raises(StoreError, match="no longer the store"):
        pickle.loads(data)  # noqa: S301


def test_unfinished_and_unknown_encoders(tmp_path: Path, proteins: list[Protein]) -> None:
    """A store without embeddings says how to make them."""
    path = tmp_path / "store.zarr"
    with StoreWriter(path, OPTIONS) as writer:
        writer.add("a.fasta", bytes(32), [sequence_only("a", "ACDE")])
    with pytest.raises(StoreError, match="no structure embeddings; make them"):
        EmbeddingStore.open(path).encoder_for("structure")


def test_opening_something_that_is_not_a_store(tmp_path: Path, filled: Path) -> None:
    """Missing, foreign, newer and damaged stores have an error each."""
    with pytest.raises(StoreError, match="does not exist"):
        EmbeddingStore.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a ProtAlign store"):
        EmbeddingStore.open(tmp_path)
    zarr.create_group(tmp_path / "foreign")
    with pytest.raises(StoreError, match="not a ProtAlign store"):
        EmbeddingStore.open(tmp_path / "foreign")
    with pytest.raises(StoreError, match="cannot be opened"):
        EmbeddingStore.open("memory://nowhere/store.zarr")
    root = json.loads((filled / "zarr.json").read_text())
    for version, words in (("1.2", "newer than"), ("0.9", "older than"), ("x", "is not one")):
        root["attributes"]["protalign"]["format"] = version
        copied = tmp_path / version
        copied.mkdir()
        (copied / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(StoreError, match=words):
            EmbeddingStore.open(copied)
    (copied / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        EmbeddingStore.open(copied)


def test_zarr_reads_the_same_arrays(filled: Path) -> None:
    """Any Zarr v3 reader sees the embeddings: nothing about the arrays is special."""
    group = zarr.open_group(filled, mode="r")
    store = EmbeddingStore.open(filled)
    start, length = store.rows("one_hot")
    values = group["encoders/one_hot/values"][:]
    for place in range(len(store)):
        rows = values[start[place] : start[place] + length[place]]
        np.testing.assert_array_equal(rows, store[place].embeddings("one_hot").values)


def test_info(filled: Path, proteins: list[Protein]) -> None:
    """Counts, encoders and size, ready for JSON."""
    facts = EmbeddingStore.open(filled).info()
    json.dumps(facts)
    assert facts["entries"] == len(proteins)
    assert facts["unique_sequences"] == len({protein.sequences for protein in proteins})
    assert facts["unique_structures"] == 21
    assert facts["bytes"] == sum(f.stat().st_size for f in filled.rglob("*") if f.is_file())
    assert set(facts["encoders"]) == {"one_hot", "from_centre"}
    assert facts["encoders"]["one_hot"]["items"] == facts["unique_sequences"]
    assert facts["options"] == OPTIONS
    assert facts["failures"] == []


def test_a_store_shows_no_password(filled: Path) -> None:
    """Neither in a notebook nor in what is written about it."""
    memory, place = fsspec.filesystem("memory"), "me:SECRET@copied/store.zarr"
    memory.put(str(filled), f"/{place}", recursive=True)
    try:
        store = EmbeddingStore.open(f"memory://{place}")
        shown = f"{store!r} {store[:1]!r} {store.info()}"
    finally:
        memory.rm(f"/{place}", recursive=True)
    assert "memory://copied/store.zarr" in shown
    assert "SECRET" not in shown
