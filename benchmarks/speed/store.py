"""Reading a random batch of proteins' embeddings from a store: ProtAlign against the Zarr API.

    python benchmarks/speed/store.py                          # 3,000 made-up proteins, D = 320
    python benchmarks/speed/store.py --proteins 10000 --dim 1280 --json store.json
    python benchmarks/speed/store.py --proteins 50 --batch 20 --turns 1    # a quick check

The peer reads the same chunks with zarr, one slice of the values for each protein. The limit is one
flat file of all rows, memory-mapped, with one slice copied for each protein. All sides read from
the page cache, the same proteins in the same order, and must give the same bits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.made_up import SEQUENCE, made_up_store
from benchmarks.shared.measuring import Summary, arguments, take_turns, times_faster, write
from protalign.stores import EmbeddingStore

TARGET = 20

Array = npt.NDArray[np.float16]


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        path = made_up_store(
            Path(folder) / "made-up.zarr",
            options.proteins,
            median=options.median,
            dims=(options.dim, 8),
        )
        row = measure(path, options)
    print(
        f"{options.batch} of {options.proteins} proteins, {row['rows']:,} rows of {options.dim} "
        f"float16, median of {options.turns} turns\n"
        f"ProtAlign {1e3 * row['protalign_seconds']:.0f} ms, Zarr API "
        f"{1e3 * row['zarr_seconds']:.0f} ms ({row['ratio']:.1f} times), flat memmap "
        f"{1e3 * row['memmap_seconds']:.0f} ms; the same bits: {row['equal']}"
    )
    write(options, "store", [row], [summary(row, options)])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--proteins", type=int, default=3000)
    parser.add_argument("--median", type=int, default=245, help="residues of a protein")
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--batch", type=int, default=1024, help="proteins read at once")
    return parser.parse_args()


def measure(path: Path, options: argparse.Namespace) -> dict[str, float]:
    store = EmbeddingStore.open(path)
    positions = np.random.default_rng(2).permutation(len(store))[: options.batch]
    start, length = store[positions].rows(SEQUENCE)
    values = zarr.open_group(path, mode="r")[f"encoders/{SEQUENCE}/values"]
    flat_file = path.parent / "flat.npy"
    np.save(flat_file, values[:])
    flat = np.load(flat_file, mmap_mode="r")

    def by_slices(source: object) -> Array:
        out = np.empty((int(length.sum()), options.dim), dtype=np.float16)
        done = 0
        for first, count in zip(start.tolist(), length.tolist(), strict=True):
            out[done : done + count] = source[first : first + count]  # type: ignore[index]
            done += count
        return out

    sides = {
        "protalign": lambda: store.embeddings(SEQUENCE, positions).values,
        "zarr": lambda: by_slices(values),
        "memmap": lambda: by_slices(flat),
    }
    outputs = [run() for run in sides.values()]
    # threads=0 compares wall-clock time, since Zarr reads in other threads.
    seconds = take_turns(sides, options.turns, threads=0, warm=False)
    median = {f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()}
    return {
        "rows": int(length.sum()),
        **median,
        "ratio": times_faster(seconds, "zarr", "protalign"),
        "of_memmap": times_faster(seconds, "memmap", "protalign"),
        "equal": all(np.array_equal(outputs[0], other) for other in outputs[1:]),
    }


def summary(row: dict[str, float], options: argparse.Namespace) -> Summary:
    return {
        "part": f"random batch of {options.batch} proteins from a local store, D = {options.dim}",
        "peer": "the Zarr API on the same store",
        "ratio": row["ratio"],
        "target": TARGET,
        "figure": f"{1e3 * row['protalign_seconds']:.0f} ms for {row['rows']:,} residues",
        "limit": f"one flat memmap: {1e3 * row['memmap_seconds']:.0f} ms",
        "equal": "bit-equal" if row["equal"] else "NOT EQUAL",
    }


if __name__ == "__main__":
    main()
