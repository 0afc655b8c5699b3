"""Properties that hold for any input: ragged texts, plans, gathers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import Failure
from protalign.core.protein import AMINO_ACIDS, Chain, Protein
from protalign.stores import EmbeddingStore, StoreWriter
from protalign.stores.filling.plan import plan_tasks
from protalign.stores.format.text import decode_texts, encode_texts
from tests.helpers.stores import OPTIONS

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(texts)
def test_texts_come_back(values: list[str]) -> None:
    """Any Unicode texts, empty ones too, survive the ragged form."""
    data, lengths = encode_texts(values)
    start = np.cumsum(lengths, dtype=np.int64) - lengths
    assert decode_texts(data, start, lengths).tolist() == values


@given(
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 300)), min_size=1),
    st.integers(1, 400),
    st.integers(1, 256),
    st.integers(0, 3),
)
def test_plans_keep_their_promises(
    sizes: list[tuple[int, int]], batch_rows: int, chunk_rows: int, first_chunk: int
) -> None:
    """Tasks own whole chunks that nobody shares, batches keep to their size, rows never overlap."""
    rows = np.array([row for row, _ in sizes])
    cost = np.array([row + extra for row, extra in sizes])
    plan = plan_tasks(
        rows, cost, batch_rows=batch_rows, chunk_rows=chunk_rows, first_row=first_chunk * chunk_rows
    )
    assert plan.row[0] == first_chunk * chunk_rows
    assert (plan.row % chunk_rows == 0).all()
    assert plan.end % chunk_rows == 0
    batch_ends = np.append(plan.batch[1:], len(rows))
    for begin, end in zip(plan.batch, batch_ends, strict=True):
        assert end > begin
        assert cost[begin:end].sum() <= batch_rows or end == begin + 1
    task_items = plan.batch[plan.task]
    item_ends = np.append(task_items[1:], len(rows))
    row_ends = np.append(plan.row[1:], plan.end)
    for begin, end, row, row_end in zip(task_items, item_ends, plan.row, row_ends, strict=True):
        np.testing.assert_array_equal(
            plan.start[begin:end], row + np.cumsum(rows[begin:end]) - rows[begin:end]
        )
        total = rows[begin:end].sum()
        assert row + total <= row_end
        if row_end - row > chunk_rows:  # only one long item takes more than a chunk
            assert end == begin + 1
            assert row_end - row - total < chunk_rows


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12)
sequences = st.lists(st.text(AMINO_ACIDS, min_size=1, max_size=40), min_size=1, max_size=3)
records = st.dictionaries(names.filter(bool), sequences, min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(records, st.lists(st.tuples(names, names, names.filter(bool), names), max_size=4))
def test_any_entries_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    empty: Path,
    entries: dict[str, list[str]],
    logged: list[tuple[str, str, str, str]],
) -> None:
    """Ids, sequences and failures of any text are read as they were written."""
    path = Path(shutil.copytree(empty, tmp_path_factory.mktemp("any") / "store.zarr"))
    failures = {(row[0], row[1]): Failure(*row) for row in logged}
    with StoreWriter(path, OPTIONS) as writer:
        for name, chains in entries.items():
            chain = tuple(Chain.from_sequence(sequence) for sequence in chains)
            writer.add(f"{name}.fa", bytes(32), [Protein(name, f"{name}.fa", chain)])
        for row in logged:
            writer.add_failure(Failure(*row))
    store = EmbeddingStore.open(path)
    assert store.ids.tolist() == list(entries)
    for name, chains in entries.items():
        assert store.sequence(name) == tuple(chains)
    assert {(f.id, f.file): f for f in store.failures} == failures


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_gather_is_indexing(filled: Path, data: st.DataObject) -> None:
    """Any entries, repeated, in any order, give the rows that indexing one by one gives."""
    store = EmbeddingStore.open(filled)
    positions = data.draw(st.lists(st.integers(-len(store), len(store) - 1), max_size=30))
    ragged = store[positions].embeddings("one_hot")
    assert len(ragged) == len(positions)
    for place, position in enumerate(positions):
        alone = store[position].embeddings("one_hot").values
        np.testing.assert_array_equal(ragged[place], alone)
