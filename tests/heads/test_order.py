"""The order of an epoch: every pair once, each chunk read once, in bounded memory."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.shared.made_up import made_up_store
from protalign.core.errors import StoreError
from protalign.core.protein import MODALITIES
from protalign.heads import rows as training_rows
from protalign.heads.inputs import StoreInputs
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.heads.order import Blocks, Order
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import mean_reciprocal_rank
from protalign.heads.rows import Rows
from protalign.heads.seeded import seeded
from protalign.heads.training import TrainingOptions, train
from protalign.stores import EmbeddingStore, Entries
from protalign.stores.format.arrays import LocalArrays
from tests.helpers.estimator_stores import build, read
from tests.helpers.once import made_once

CPU = torch.device("cpu")
#: Chunks of the made-up store have 8192 rows of 4 or 2 values.
DIMS = 4, 2
COUNT, MEDIAN = 600, 100


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two stores; the larger has 600 proteins in about 8 chunks of each modality."""

    def make(folder: Path) -> None:
        made_up_store(folder / "many.zarr", COUNT, median=MEDIAN, dims=DIMS)

    return made_once(tmp_path_factory, "many", make) / "many.zarr"


def pairs_of(entries: Entries) -> Pairs:
    """The pairs of a store's or a view's entries that have both modalities."""
    view = entries[entries.has_structure]
    return Pairs.of(StoreInputs(view, {m: view.encoder_for(m) for m in MODALITIES}))


def windows_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let nothing be held, and windows have ``size`` bytes."""
    monkeypatch.setattr(training_rows, "LEAST_WINDOW", size)
    monkeypatch.setattr(training_rows, "usable_memory", lambda: 0.0)


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=80) | st.just([10] * 200),
    per_chunk=st.integers(1, 9),
    part=st.sampled_from([0.001, 0.1, 0.3, 0.6, 1.0]),
    batch=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_an_epoch_has_every_pair_once(
    sizes: list[int], per_chunk: int, part: float, batch: int, seed: int
) -> None:
    """Batches and windows have all pairs; batches are as large as those of a full shuffle."""
    n, window = len(sizes), max(1.0, part * sum(sizes))
    in_order = np.random.default_rng(seed).permutation(n)
    chunk = np.arange(n) // per_chunk
    blocks = Blocks(in_order, np.array(sizes, dtype=np.float64), chunk, window)
    order, again = (blocks.order(batch, np.random.default_rng(seed)) for _ in range(2))
    full = Order.cut(np.random.default_rng(seed).permutation(n), batch)
    assert [len(each) for each in order.batches] == [len(each) for each in full.batches]
    assert all(np.array_equal(*both) for both in zip(order.batches, again.batches, strict=True))
    read = np.concatenate(order.windows)
    np.testing.assert_array_equal(np.sort(read), np.arange(n))
    taken = np.concatenate([np.empty(0, np.int64), *order.batches])
    assert len(np.unique(taken)) == len(taken) >= n - 1

    place = np.argsort(in_order)
    of_pair = np.array(sizes)[place]
    largest_chunk = np.bincount(chunk, sizes).max()
    for pairs in order.windows:
        assert (np.diff(place[pairs]) > 0).all()
        assert of_pair[pairs].sum() <= max(window, window / 16 + largest_chunk + max(sizes))
    if largest_chunk <= window:
        chunks = [set(chunk[place[pairs]].tolist()) for pairs in order.windows]
        assert sum(map(len, chunks)) == chunk[-1] + 1
    if sum(sizes) <= window:
        assert all(np.array_equal(*both) for both in zip(order.batches, full.batches, strict=True))


def test_blocks_are_drawn_and_their_pairs_shuffled() -> None:
    """A window is read in order, of blocks from all over; its batches mix all of them."""
    blocks = Blocks(np.arange(2000), np.ones(2000), np.arange(2000) // 5, 400)
    generator = np.random.default_rng(1)
    first, second = (blocks.order(50, generator) for _ in range(2))
    for order in (first, second):
        for pairs in order.windows:
            assert (np.diff(pairs) > 0).all()
            assert np.ptp(pairs) > 1000
        for batch in order.batches:
            assert len(np.unique(batch // 25)) > 8
            assert (np.diff(batch) < 0).any()
    assert not np.array_equal(first.windows[0], second.windows[0])


def test_a_chunk_is_read_once_an_epoch_in_ascending_order(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the larger modality; rows are those of each pair, as they are one by one."""
    store = EmbeddingStore.open(many)
    rows = Rows(pairs := pairs_of(store), CPU, memory=0)
    rows._window_bytes = 300_000
    opened: list[tuple[str, int]] = []
    chunk = LocalArrays.chunk

    def counted(self: LocalArrays, name: str, index: int) -> Any:
        if name.endswith("/values") and name.startswith("encoders/"):
            opened.append((name, index))
        return chunk(self, name, index)

    monkeypatch.setattr(LocalArrays, "chunk", counted)
    order = rows.order(32, np.random.default_rng(0))
    assert len(order.windows) > 2
    found = list(rows.batches(order.batches, order.windows))
    larger = [index for name, index in opened if "made_up_sequence" in name]
    visits = [a for a, b in pairwise([*larger, -1]) if a != b]
    assert sorted(visits) == list(range(max(visits) + 1))
    assert len(visits) > len(order.windows)
    descents = sum(b < a for a, b in pairwise(visits))
    assert descents < len(order.windows)

    alone = rows.batches(order.batches)
    for ours, theirs in zip(found, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert all(map(torch.equal, one.proteins, other.proteins))
    assert len(found[0][0]) == 32 < len(pairs)


def test_memory_is_that_of_three_windows(many: Path) -> None:
    """However large the store is."""
    rows = Rows(pairs_of(EmbeddingStore.open(many)), CPU, memory=0)
    rows._window_bytes = 200_000
    order = rows.order(8, np.random.default_rng(0))
    assert len(order.windows) >= 4
    for _ in rows.batches(order.batches[:3]):  # what is read once is kept
        pass
    tracemalloc.start()
    for _ in rows.batches(order.batches, order.windows):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 200_000 + 300_000  # views and indices of 600 proteins are the rest


def test_a_part_of_each_batch_reads_its_pairs_alone(many: Path) -> None:
    """Batches may leave out pairs of the windows, even all of a window's."""
    rows = Rows(pairs_of(EmbeddingStore.open(many)), CPU, memory=0)
    rows._window_bytes = 200_000
    order = rows.order(8, np.random.default_rng(0))
    part = [batch[1::2] for batch in order.batches[len(order.batches) // 2 :]]
    found = list(rows.batches(part, order.windows))
    for ours, theirs in zip(found, rows.batches(part), strict=True):
        assert all(map(torch.equal, ours[1].proteins, theirs[1].proteins))


def test_entries_in_any_order_that_share_items_are_read_as_they_are(store: EmbeddingStore) -> None:
    """A view is read by the places of its rows; an item of several windows is the same in each."""
    pairs = pairs_of(store[np.random.default_rng(0).permutation(len(store))])
    rows = Rows(pairs, CPU, memory=0)
    rows._window_bytes = 400_000
    order = rows.order(5, np.random.default_rng(0))
    windows = [set(pairs.items[window, 0].tolist()) for window in order.windows]
    assert sum(map(len, windows)) > len(set().union(*windows))
    found = list(rows.batches(order.batches, order.windows))
    for ours, theirs in zip(found, Rows(pairs, CPU).batches(order.batches), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert all(map(torch.equal, one.proteins, other.proteins))


def test_no_thread_outlives_the_rows(many: Path, tmp_path: Path) -> None:
    """All epochs share two, also if one is left early, has no batch or meets a damaged chunk."""
    shutil.copytree(many, tmp_path / "damaged.zarr")
    before = threading.active_count()
    pairs = pairs_of(EmbeddingStore.open(tmp_path / "damaged.zarr"))
    rows = Rows(pairs, CPU, memory=0)
    rows._window_bytes = 200_000
    order = rows.order(8, np.random.default_rng(0))
    for count in (0, 1, 20):
        batches = rows.batches(order.batches, order.windows)
        for _ in range(count):
            next(batches)
        del batches
        assert threading.active_count() <= before + 2
    assert list(rows.batches([], order.windows)) == []
    del rows
    assert threads_end(before)

    (tmp_path / "damaged.zarr/encoders/made_up_structure/values/c.5.0").write_bytes(b"")
    damaged = Rows(pairs_of(EmbeddingStore.open(tmp_path / "damaged.zarr")), CPU, memory=0)
    with pytest.raises(StoreError, match=r"chunk c\.5\.0"):
        list(damaged.batches(order.batches, order.windows))
    del damaged
    gc.collect()  # the error's frames refer to each other
    assert threads_end(before)


def threads_end(before: int) -> bool:
    """Whether there are only so many threads again, soon."""
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() == before


def trained(pairs: Pairs, pooling: str, seed: int = 0) -> tuple[Model, list[float]]:
    """A model after 12 epochs, and its losses."""
    with seeded(seed):
        model = Model(pairs.inputs.dims, ContrastiveLoss(), pooling=pooling, embed_dim=32)
    options = TrainingOptions(8, 0.003, max_epochs=12, n_iter_no_change=1, tol=0.0)
    generator = np.random.default_rng(seed)
    return model, train(model, pairs, None, options, generator, lambda line: None).loss


@pytest.mark.parametrize("pooling", ["attention", pytest.param("codebook", marks=pytest.mark.slow)])
def test_a_store_beyond_memory_is_learned_as_well(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    """On real chains it is retrieved about as well as after full shuffles."""
    pairs = pairs_of(store)
    monkeypatch.setattr("protalign.heads.summaries.memory_for_rows", lambda device: 0.0)
    found, losses = [], []
    for size in (1 << 26, 400_000, 400_000):
        windows_of(monkeypatch, size)
        model, loss = trained(pairs, pooling)
        found.append(mean_reciprocal_rank(model.retrieval_set(pairs).ranks()))
        losses.append(loss)
    assert losses[1] == losses[2] != losses[0]  # a seed gives the same bits
    assert found[0] > 0.5
    assert found[1] == found[2] > found[0] - 0.2


def test_rows_that_are_held_give_the_model_of_a_full_shuffle(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fits into one window is trained on as one that is held, to the bit."""
    pairs = pairs_of(store)
    held, losses = trained(pairs, "attention")
    windows_of(monkeypatch, 1 << 26)
    window, same_losses = trained(pairs, "attention")
    assert same_losses == losses
    theirs = held.state_dict()
    assert all(torch.equal(own, theirs[n]) for n, own in window.state_dict().items())


def test_several_stores_are_one(sample: Path, tmp_path: Path) -> None:
    """The chunks of the second store follow those of the first."""
    chains = read(sample)[:6]
    paths = [
        build(tmp_path / f"{name}.zarr", part)
        for name, part in (("a", chains[:3]), ("b", chains[3:]))
    ]
    pairs = pairs_of(EmbeddingStore.open(paths))
    places = pairs.inputs.places("structure", pairs.positions)
    assert places is not None
    first_row, chunk = places
    assert len(np.unique(chunk[:3])) == len(np.unique(chunk[3:])) == 1
    assert chunk[2] < chunk[3]
    assert (np.diff(first_row) > 0).all()
    rows = Rows(pairs, CPU, memory=0)
    rows._window_bytes = 1
    order = rows.order(2, np.random.default_rng(3))
    found = list(rows.batches(order.batches, order.windows))
    for ours, theirs in zip(found, rows.batches(order.batches), strict=True):
        assert all(map(torch.equal, ours[1].proteins, theirs[1].proteins))


def test_rows_in_memory_are_shuffled_in_full(store: EmbeddingStore) -> None:
    """The order is the generator's permutation; one pair left over has no negatives."""
    pairs = pairs_of(store)
    rows = Rows(pairs, CPU)
    for size in (7, len(pairs) - 1):
        order = rows.order(size, np.random.default_rng(5))
        expected = np.random.default_rng(5).permutation(len(pairs))
        taken = np.concatenate(order.batches)
        np.testing.assert_array_equal(taken, expected[: len(taken)])
        assert len(pairs) - len(taken) == (len(pairs) % size == 1)
        assert order.windows == []
