"""Fit on a store that is larger than the memory allowed, in bounded memory.

    python benchmarks/speed/larger_than_memory.py                              # 2 GB, 1 GB allowed
    python benchmarks/speed/larger_than_memory.py --store-gb 20 --memory-gb 4 --folder /data
    python benchmarks/speed/larger_than_memory.py --store-gb 0.05 --held-gb 0.02  # a quick check

It writes a store of made-up embeddings (D = 1280 and 128, as of ESM2-650M and ProteinMPNN) and fits
on it in fresh processes. Two fits use as many of its entries as --held-gb holds, one held in memory
and one streamed from the store, in windows; their losses should be close. The third fit streams the
whole store. The streaming processes may allocate --memory-gb at most (RLIMIT_DATA,
which does not count memory mapped from files: the system may drop that at any time). The peak of
the memory that they held (RssAnon) is reported.

An epoch is the training on each pair once; the last one counts, since chunks are checked when they
are first read. Beside it the same rows are read once, in their order on the disk. Before both the
system drops what it keeps of the store in memory, so both read from the disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.made_up import made_up_store
from benchmarks.shared.measuring import Summary, arguments, evict, write
from protalign.stores import Entries

MEDIAN = 300
#: An epoch is to take at most 1.5 times as long as one reading.
LEAST_RATIO = 0.67


def main() -> None:
    options = parse()
    if options.fit:
        print(json.dumps(fit(options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(options, Path(folder))
    for row in rows:
        print(
            f"{row['run']:28} {row['entries']:7,} entries {row['gb']:6.2f} GB  "
            f"{row['epoch_seconds']:7.1f} s an epoch  peak {row['peak_gb']:5.2f} GB  "
            f"loss {row['loss_curve'][-1]:.6f}"
        )
    held, streamed, whole = rows
    times = whole["epoch_seconds"] / whole["read_seconds"]
    print(
        f"an epoch takes {times:.2f} times one reading, {1 / LEAST_RATIO:.1f} at most is the target"
    )
    lines: list[Summary] = [
        {
            "part": f"fit over {whole['gb']:.1f} GB of embeddings with {options.memory_gb:g} GB of "
            "memory allowed",
            "peer": "reading the same bytes once",
            "ratio": whole["read_seconds"] / whole["epoch_seconds"],
            "target": LEAST_RATIO,
            "figure": f"{whole['epoch_seconds']:.0f} s an epoch, a peak of {whole['peak_gb']:.2f} "
            "GB held",
            "limit": f"reads {whole['gb'] / whole['epoch_seconds']:.2f} GB/s from the store; "
            f"reading the same bytes once takes {whole['read_seconds']:.0f} s; the whole fit of "
            f"{options.epochs} epochs {whole['fit_seconds']:.0f} s",
            "equal": f"a last loss of {streamed['loss_curve'][-1]:.3f}, held "
            f"{held['loss_curve'][-1]:.3f}",
        }
    ]
    write(options, "larger_than_memory", rows, lines)


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--store-gb", type=float, default=2.0)
    parser.add_argument("--memory-gb", type=float, default=1.0, help="allowed when streaming")
    parser.add_argument("--held-gb", type=float, default=1.0, help="size of the fit held in memory")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--dims", type=int, nargs=2, default=[1280, 128], help="of the embeddings")
    parser.add_argument("--batch", type=int, help="pairs; default: as many as the memory holds")
    parser.add_argument("--folder", type=Path, help="folder for the store")
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--entries", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    bytes_of_one = 2 * sum(options.dims) * MEDIAN * np.exp(0.125)  # the mean of a log-normal length
    count = int(1e9 * options.store_gb / bytes_of_one)
    # Three windows have a quarter of the memory; a batch keeps those that it is of.
    batch = options.batch or min(1024, max(2, int(1e9 * options.memory_gb / 12 / bytes_of_one)))
    dims = options.dims[0], options.dims[1]
    path = made_up_store(folder / "made-up.zarr", count, median=MEDIAN, dims=dims)
    few = min(count, int(1e9 * options.held_gb / bytes_of_one))

    def run(name: str, entries: int, *, held: bool) -> dict[str, Any]:
        command = [sys.executable, __file__, "--fit", str(path), "--entries", str(entries)]
        numbers = ["--threads", options.threads, "--epochs", options.epochs, "--batch", batch]
        numbers += ["--dims", *options.dims]
        limit = ["--held"] if held else ["--memory-gb", options.memory_gb]
        command += [str(word) for word in [*numbers, *limit]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {"run": name, "entries": entries, "batch": batch, **json.loads(done.stdout)}

    return [
        run("held in memory", few, held=True),
        run("the same, streamed", few, held=False),
        run("the whole store, streamed", count, held=False),
    ]


def fit(options: argparse.Namespace) -> dict[str, Any]:
    """Fit; this runs in a new process."""
    from protalign import EmbeddingStore, ProtAlignEstimator
    from protalign.heads import rows as training_rows
    from protalign.heads import training
    from protalign.heads.inputs import read_inputs

    torch.set_num_threads(options.threads)
    if options.held:
        training_rows.MEMORY_PART = 1.0
    else:
        limit = int(1e9 * options.memory_gb)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        # What a fit would hold of so much memory, also if the limit leaves it more than the rows.
        training_rows.LEAST_WINDOW = int(training_rows.MEMORY_PART * limit / training_rows.WINDOWS)
        training_rows.MEMORY_PART = 0.0
    peak = _PeakMemory()
    store = EmbeddingStore.open(options.fit)[: options.entries]
    model = ProtAlignEstimator(
        max_epochs=options.epochs,
        batch_size=options.batch,
        early_stopping=False,
        random_state=0,
        device="cpu",
    )
    epochs: list[float] = []
    epoch = training._epoch

    def timed(*words: Any) -> float:
        let_go(store)
        start = time.perf_counter()
        loss = epoch(*words)
        epochs.append(time.perf_counter() - start)
        return loss

    training._epoch = timed
    start = time.perf_counter()
    model.fit(store)
    seconds = time.perf_counter() - start
    let_go(store)
    read = -time.perf_counter()
    inputs = read_inputs(store)
    for modality in ("sequence", "structure"):
        deque(inputs.blocks(modality, np.arange(len(store))), maxlen=0)
    read += time.perf_counter()
    rows = [store.rows(f"made_up_{kind}")[1].sum() for kind in ("sequence", "structure")]
    return {
        "gb": sum(2 * int(n) * dim for n, dim in zip(rows, options.dims, strict=True)) / 1e9,
        "fit_seconds": seconds,
        "epoch_seconds": epochs[-1],
        "epochs": epochs,
        "read_seconds": read,
        "peak_gb": peak.stop() / 1e9,
        "loss_curve": model.loss_curve_,
    }


def let_go(entries: Entries) -> None:
    """Close a store's chunks, which the system keeps as long as they are mapped, and evict them."""
    entries.store._contents.arrays.kept._chunks.clear()  # type: ignore[attr-defined]
    evict([Path(entries.store.path)])


class _PeakMemory:
    """The largest RssAnon of this process: memory that is not mapped from a file."""

    def __init__(self) -> None:
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.01):
            status = Path("/proc/self/status").read_text()
            held = 1024 * int(status.partition("RssAnon:")[2].split()[0])
            self._peak = max(self._peak, held)

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self._peak


if __name__ == "__main__":
    main()
