"""Exact search for the nearest of 1 M vectors: ProtAlign against faiss and plain numpy.

    python benchmarks/speed/search.py              # 1,000,000 x 128, batches of 1, 8, 64, 256
    python benchmarks/speed/search.py --threads 2 --json benchmarks/results/search.json
    python benchmarks/speed/search.py --vectors 2000 --turns 1    # a quick check that it runs

faiss is its flat index, tuned: products by the matrix library from 20 queries on
(``distance_compute_blas_threshold``). numpy is a product in blocks and argpartition. All three find
the same neighbours. On a processor with AMX, ProtAlign makes a copy of the vectors in bfloat16 in
the first few hundred queries; it is timed after that. The limits are measured in the same run, in
the dtype of ProtAlign's product: the longer of reading the vectors once at memory bandwidth and the
multiplications at the speed of a large square matrix product; and only the product of these queries
and vectors, block by block, without a search of the result.
Needs `pip install 'protalign[faiss]'`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from threadpoolctl import threadpool_limits

from benchmarks.shared.measuring import (
    Summary,
    arguments,
    matrix_peak,
    read_bandwidth,
    take_turns,
    write,
)
from benchmarks.shared.measuring import times_faster as times
from protalign.core.arrays import Float32, Int64
from protalign.core.machine import processor_computes_in
from protalign.search.kernels.exact import ExactIndex
from protalign.search.kernels.sizes import ExactSizes

#: Queries in a batch from which faiss uses the matrix library.
FAISS_BLAS_THRESHOLD = 20
NUMPY_BLOCK = 1 << 16
#: The ratio to faiss's speed to reach, and the batch size at which.
TARGET, TARGET_BATCH = 2.0, 64

DTYPES = (torch.float32, torch.bfloat16)


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    faiss.cvar.distance_compute_blas_threshold = FAISS_BLAS_THRESHOLD
    candidates = unit_vectors(options.vectors, options.dim, 0)
    index = faiss.IndexFlatIP(options.dim)
    index.add(candidates)
    with threadpool_limits(options.threads, user_api="blas"):
        limits = {
            "bandwidth": read_bandwidth(options.threads),
            **{f"peak_{t}": matrix_peak(t, threads=options.threads) for t in DTYPES},
        }
        rows = [measure(candidates, index, batch, limits, options) for batch in options.batches]
    print(
        f"{options.vectors:,} x {options.dim} float32, {options.k} nearest, {options.threads} "
        f"threads; memory {limits['bandwidth'] / 1e9:.1f} GB/s, matrix product "
        + ", ".join(f"{limits[f'peak_{t}'] / 1e9:.0f} GFLOP/s in {t}" for t in DTYPES)
        + "\n"
        f"{'batch':>6}{'protalign':>12}{'faiss':>10}{'numpy':>10}{'product':>10}{'limit':>10}"
        f"{'x faiss':>10}{'x numpy':>10}{'same':>9}   (ms a query)"
    )
    for row in rows:
        print(
            f"{row['batch']:>6}{row['protalign_ms']:>12.2f}{row['faiss_ms']:>10.2f}"
            f"{row['numpy_ms']:>10.2f}{row['product_ms']:>10.2f}{row['limit_ms']:>10.2f}"
            f"{row['ratio']:>10.2f}{row['of_numpy']:>10.2f}{row['same']:>9.2%}"
        )
    write(options, "search", rows, [summary(row, options) for row in rows], ["faiss-cpu"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    return parser.parse_args()


def unit_vectors(count: int, dim: int, seed: int) -> Float32:
    """Return (count, dim) vectors in random directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(
    candidates: Float32,
    index: faiss.Index,
    batch: int,
    limits: dict[str, float],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return the milliseconds a query of each side, and how well they agree."""
    queries = unit_vectors(batch, options.dim, batch)
    present = np.ones(len(candidates), dtype=np.bool_)
    exact = ExactIndex(candidates, present)
    sides: dict[str, Callable[[], Any]] = {
        "protalign": lambda: exact.nearest(queries, options.k),
        "faiss": lambda: index.search(queries, options.k),
        "numpy": lambda: with_numpy(queries, candidates, options.k),
    }
    before = time.perf_counter()
    large = len(candidates) >= ExactSizes().rounded_vectors
    while (
        large
        and batch >= ExactSizes().rounded_batch
        and processor_computes_in("bfloat16")
        and not exact.memory_bytes
    ):
        sides["protalign"]()  # until it has the copy that long searches use
    preparing = time.perf_counter() - before
    (ours, our_values), (their_values, theirs), _ = (run() for run in sides.values())
    dtype = torch.bfloat16 if exact.memory_bytes else torch.float32
    vectors = torch.from_numpy(candidates).to(dtype)
    sides["product"] = lambda: product_alone(torch.from_numpy(queries).to(dtype), vectors)
    np.testing.assert_allclose(our_values, their_values, atol=2e-6)
    seconds = take_turns(sides, options.turns, threads=options.threads, warm=False)
    reading = vectors.nbytes / limits["bandwidth"]
    multiplying = 2 * batch * candidates.size / limits[f"peak_{dtype}"]
    return {
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        **{f"{name}_ms": 1e3 * statistics.median(taken) / batch for name, taken in seconds.items()},
        "limit_ms": 1e3 * max(reading, multiplying) / batch,
        "ratio": times(seconds, "faiss", "protalign"),
        "of_numpy": times(seconds, "numpy", "protalign"),
        "first_queries_seconds": preparing,
        "same": float((ours == theirs).mean()),
    }


def with_numpy(queries: Float32, candidates: Float32, k: int) -> tuple[Int64, Float32]:
    """Search as a user writes it: a product per block, the best of each, the best of these."""
    rows, values = [], []
    for start in range(0, len(candidates), NUMPY_BLOCK):
        similarity = queries @ candidates[start : start + NUMPY_BLOCK].T
        top = np.argpartition(similarity, -k, axis=1)[:, -k:]
        rows.append(top + start)
        values.append(np.take_along_axis(similarity, top, axis=1))
    row, value = np.hstack(rows), np.hstack(values)
    order = np.argsort(-value, axis=1)[:, :k]
    return np.take_along_axis(row, order, axis=1), np.take_along_axis(value, order, axis=1)


def product_alone(queries: torch.Tensor, candidates: torch.Tensor) -> None:
    """Compute all similarities in blocks of 1 MB (bfloat16: 2 MB), and keep none."""
    across = queries.T.contiguous()
    size = max(1, (1 << (18 if queries.dtype == torch.float32 else 20)) // len(queries))
    block = torch.empty((size, len(queries)), dtype=queries.dtype)
    for start in range(0, len(candidates), size):
        rows = candidates[start : start + size]
        torch.mm(rows, across, out=block[: len(rows)])


def summary(row: dict[str, Any], options: argparse.Namespace) -> Summary:
    batch = int(row["batch"])
    return {
        "part": f"search of {options.vectors:,} vectors, {batch} queries at once",
        "peer": "faiss-cpu flat, tuned",
        "ratio": row["ratio"],
        "target": TARGET if batch == TARGET_BATCH else None,
        "figure": f"{row['protalign_ms']:.2f} ms a query",
        "limit": f"the product alone in {row['dtype']} {row['product_ms']:.2f} ms; the larger of "
        f"one reading and the multiplications at their peak {row['limit_ms']:.2f} ms",
        "equal": f"{row['same']:.2%} of rows the same, cosines within 2e-6",
    }


if __name__ == "__main__":
    main()
