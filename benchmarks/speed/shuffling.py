"""Epochs over rows on a disk: their growth, beside one reading of the bytes, and what they teach.

    python benchmarks/speed/shuffling.py                          # 10 k and 100 k proteins
    python benchmarks/speed/shuffling.py --sizes 100000 1000000 --folder /data
    python benchmarks/speed/shuffling.py --sizes 60 120 --window-mb 0.05     # a quick check

Each size is a new store of made-up proteins of about 10 residues, with embeddings of 32 values in
both modalities. No rows are held, and a window has --window-mb, whatever the size. "fit" is all of
``ProtAlignEstimator.fit`` with one epoch, "epoch" trains on each pair once, "batches" only makes
the epoch's batches, and "read" reads the same bytes once, in their order on the disk. The slopes
are those of the last two sizes; 1 means that cost grows as the size does.

Then full shuffles and windows teach models on the store of the first size, one of each for every
seed. Recall@1 and MRR (sequence -> structure) are those of --queries pairs that were not trained
on, among themselves. Neighbours in a made-up store are not alike: a store that is sorted by family
is another case.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.made_up import kept_store
from benchmarks.shared.measuring import Summary, arguments, write
from protalign import EmbeddingStore, ProtAlignEstimator
from protalign.core.protein import MODALITIES
from protalign.heads import rows as training_rows
from protalign.heads.inputs import read_inputs
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import mean_reciprocal_rank, recall_at_k
from protalign.heads.rows import Rows
from protalign.heads.seeded import seeded
from protalign.heads.training import TrainingOptions, train

#: Of ``fit``, to be called linear.
MOST_SLOPE = 1.1
MEDIAN, DIMS, BATCH = 10, (32, 32), 1024
TIMES = ("fit", "epoch", "batches", "read")
ORDERS = ("full shuffle", "windows")
CPU = torch.device("cpu")


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows, taught = [], []
    print(f"{'proteins':>9}" + "".join(f"{part + ' s':>11}" for part in TIMES) + f"{'MB':>8}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            path = (options.folder or Path(scratch)) / f"shuffling-{size}.zarr"
            store = EmbeddingStore.open(kept_store(path, size, median=MEDIAN, dims=DIMS))
            rows.append(measure(store, options))
            if size == options.sizes[0]:
                taught = [teach(store, seed, options) for seed in range(options.seeds)]
        times = "".join(f"{rows[-1][part]:11.3f}" for part in TIMES)
        print(f"{size:9,}{times}{rows[-1]['mb']:8.1f}", flush=True)
    print("slope    " + "".join(f"{slope(rows, part):11.2f}" for part in TIMES))
    print(f"fit's slope is to be at most {MOST_SLOPE}")
    print(f"an epoch takes {rows[-1]['epoch'] / rows[-1]['read']:.2f} times one reading")
    for row in taught:
        found = (f"{name} R@1 {100 * row[name][0]:.1f} MRR {row[name][1]:.3f}" for name in ORDERS)
        print(f"seed {row['seed']}: " + ", ".join(found))
    write(options, "shuffling", [*rows, *taught], summary(rows, taught))


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=[10_000, 100_000])
    parser.add_argument("--window-mb", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of the models that are compared")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="folder for the stores, which stay there")
    return parser.parse_args()


def on_disk(window: float) -> Any:
    """Let no rows be held, and windows have so many bytes."""
    return patch.multiple(training_rows, MEMORY_PART=0.0, LEAST_WINDOW=window)


def measure(store: EmbeddingStore, options: argparse.Namespace) -> dict[str, Any]:
    with on_disk(1e6 * options.window_mb):
        pairs = Pairs.of(read_inputs(store))
        rows = Rows(pairs, CPU)
        order = rows.order(BATCH, np.random.default_rng(0))
        parts = [pairs.inputs.blocks(modality, pairs.positions) for modality in MODALITIES]
        # Each chunk is checked when it is first read: both sides read checked chunks.
        consume(rows.batches(order.batches, order.windows))
        estimator = ProtAlignEstimator(
            max_epochs=1, batch_size=BATCH, early_stopping=False, random_state=0, device="cpu"
        )
        lengths = [pairs.inputs.lengths(modality).sum() for modality in MODALITIES]
        return {
            "proteins": len(store),
            "windows": len(order.windows),
            "mb": sum(2 * int(n) * dim for n, dim in zip(lengths, DIMS, strict=True)) / 1e6,
            "read": timed(lambda: [consume(part) for part in parts]),
            "batches": timed(lambda: consume(rows.batches(order.batches, order.windows))),
            "epoch": timed(lambda: trained(pairs, 0, 1)),
            "fit": timed(lambda: estimator.fit(store)),
        }


def teach(store: EmbeddingStore, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return Recall@1 and MRR of a model for each order, of pairs that were not trained on."""
    pairs = Pairs.of(read_inputs(store))
    drawn = np.random.default_rng(seed).permutation(len(pairs))
    queries = min(options.queries, len(pairs) // 4)
    own, others = (pairs.select(np.sort(part)) for part in np.split(drawn, [queries]))
    row: dict[str, Any] = {"seed": seed, "queries": queries}
    for name, window in zip(ORDERS, (1e18, 1e6 * options.window_mb), strict=True):
        with on_disk(window):
            model = trained(others, seed, options.epochs)
        ranks = model.retrieval_set(own).ranks()
        row[name] = recall_at_k(ranks, 1), mean_reciprocal_rank(ranks)
    return row


def trained(pairs: Pairs, seed: int, epochs: int) -> Model:
    with seeded(seed):
        model = Model(dict(pairs.inputs.dims), ContrastiveLoss())
    settings = TrainingOptions(BATCH, 0.001, epochs, n_iter_no_change=1, tol=0.0)
    train(model, pairs, None, settings, np.random.default_rng(seed), lambda line: None)
    return model


def consume(items: Iterable[Any]) -> None:
    deque(items, maxlen=0)


def timed(run: Callable[[], Any]) -> float:
    """Return the wall-clock seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def slope(rows: list[dict[str, Any]], part: str) -> float:
    """Return the slope of the two sizes on logarithmic axes."""
    times, sizes = (np.log([row[name] for row in rows]) for name in (part, "proteins"))
    return float(np.diff(times)[0] / np.diff(sizes)[0])


def summary(rows: list[dict[str, Any]], taught: list[dict[str, Any]]) -> list[Summary]:
    last = rows[-1]
    found = {name: np.array([row[name] for row in taught]).mean(axis=0).tolist() for name in ORDERS}
    recall, reciprocal = zip(*found.values(), strict=True)
    return [
        {
            "part": f"fit over rows on the disk, {last['proteins']:,} proteins of few residues",
            "peer": "itself at a tenth",
            "ratio": None,
            "target": None,
            "figure": f"{last['fit']:.1f} s, an epoch {last['epoch']:.1f} s",
            "limit": f"slope {slope(rows, 'fit'):.2f} (to be at most {MOST_SLOPE}), of an epoch "
            f"{slope(rows, 'epoch'):.2f}; the batches {last['batches']:.1f} s, reading their bytes "
            f"once {last['read']:.1f} s",
            "equal": f"Recall@1 {100 * recall[1]:.1f} % and MRR {reciprocal[1]:.3f} with "
            f"{rows[0]['windows']} windows, full shuffle {100 * recall[0]:.1f} % and "
            f"{reciprocal[0]:.3f}, means of {len(taught)} seeds",
        }
    ]


if __name__ == "__main__":
    main()
