"""Growth of cost: embed, fit, verify and search with 1,000 to 1,000,000 made-up proteins.

    python benchmarks/speed/scaling.py                                    # 1 k, 10 k, 100 k
    python benchmarks/speed/scaling.py --sizes 1000 10000 100000 1000000 --folder /data
    python benchmarks/speed/scaling.py --sizes 50 100 --plot /tmp/scaling.svg    # a quick check

Each size is a new store of made-up proteins of about 60 residues, with embeddings of 32 values in
both modalities, in float16. "embed" is everything but the encoders, which esm2.py measures:
hashing, deduplication, plan, tasks, chunks written. "fit" is one epoch, "verify" reads every chunk,
"search" is the top 5 of 64 queries among the exported vectors. --plot draws it on logarithmic axes:
cost that grows as the size does is a line of slope 1. benchmarks/report.py draws docs/scaling.svg
of the results. A million proteins need about 12 GB of disk.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.growth import draw_growth, slope
from benchmarks.shared.made_up import made_up_store, proteins
from benchmarks.shared.measuring import MACHINE, Summary, arguments, write
from protalign import EmbeddingStore, ProtAlignEstimator, read_vectors
from protalign.search import Index
from protalign.stores import verify

PARTS = ("embed", "fit", "verify", "search")
MEDIAN, DIMS, QUERIES = 60, (32, 32), 64
WARM_UP = 200


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'proteins':>9}" + "".join(f"{part + ' s':>12}" for part in PARTS) + f"{'GB':>8}")
    # The first store also pays for imports and for starting threads: it is a warm-up.
    for number, size in enumerate([min(WARM_UP, *options.sizes), *options.sizes]):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            row = measure(size, Path(folder))
        if number == 0:
            continue
        rows.append(row)
        times = "".join(f"{row[part]:12.3f}" for part in PARTS)
        print(f"{size:9,}{times}{row['gb']:8.2f}", flush=True)
    slopes = {part: slope(rows, part) for part in PARTS} if len(rows) > 1 else {}
    print("slope    " + "".join(f"{slopes.get(part, math.nan):12.2f}" for part in PARTS))
    if options.plot:
        draw_growth(rows, [], MACHINE["processor"], options.threads, options.plot)
    write(options, "scaling", rows, summary(rows, slopes), ["dask", "pyarrow"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="folder for the stores")
    parser.add_argument("--plot", type=Path, help="a file for a plot of the results")
    return parser.parse_args()


def measure(size: int, folder: Path) -> dict[str, Any]:
    path = folder / "made-up.zarr"
    row: dict[str, Any] = {"proteins": size}
    making, _ = timed(lambda: deque(proteins(size, MEDIAN), maxlen=0))
    embedding, _ = timed(lambda: made_up_store(path, size, median=MEDIAN, dims=DIMS))
    row["embed"] = embedding - making
    store = EmbeddingStore.open(path)
    row["residues"] = int(store.lengths.sum())
    row["gb"] = store.info()["bytes"] / 1e9
    model = ProtAlignEstimator(max_epochs=1, early_stopping=False, random_state=0, device="cpu")
    row["fit"], _ = timed(lambda: model.fit(store))
    row["verify"], report = timed(lambda: verify(path))
    assert report.ok, list(report.lines())
    model.export(store, folder / "vectors.parquet")
    vectors = read_vectors(folder / "vectors.parquet")
    queries = vectors.sequence[:QUERIES]
    index = Index(vectors)
    index.search(queries, k=5)
    row["search"], _ = timed(lambda: index.search(queries, k=5))
    return row


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall-clock seconds and the result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def summary(rows: list[dict[str, Any]], slopes: dict[str, float]) -> list[Summary]:
    last = rows[-1]
    rates = {
        "embed": f"{last['residues'] / last['embed']:,.0f} residues/s without the encoders",
        "fit": f"{last['proteins'] / last['fit']:,.0f} pairs/s",
        "verify": f"{last['gb'] / last['verify']:.2f} GB/s",
        "search": f"{QUERIES} queries in {1e3 * last['search']:.0f} ms",
    }
    return [
        {
            "part": f"{part} at {last['proteins']:,} proteins",
            "peer": "itself at a tenth" if slopes else "",
            "ratio": None,
            "target": None,
            "figure": f"{last[part]:.2f} s, {rates[part]}",
            "limit": f"slope {slopes[part]:.2f} (1: cost grows as the size)" if slopes else "",
            "equal": "",
        }
        for part in PARTS
    ]


if __name__ == "__main__":
    main()
