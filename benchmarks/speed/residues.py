"""Residue scores of one query and its candidates: ProtAlign against numpy and biotite.

    python benchmarks/speed/residues.py --threads 2
    python benchmarks/speed/residues.py --threads 2 --json benchmarks/results/residues.json
    python benchmarks/speed/residues.py --candidates 5 --scanned 10 --turns 1     # a quick check

Both stages score a query of 300 residues against 200 candidates of about 200: the best diagonal,
and the best local alignment with affine gaps. The other side makes the same score matrices with
numpy, one product for a candidate, sums their diagonals with numpy, and aligns with biotite's
``align_optimal``, as a user would write it. Rows hold whole numbers, so that both sides have the
same scores to the last bit. Candidates are packed beforehand, or float16 rows as a store has them.
"two rows" are both modes, each with rows of its own, as of a model with a context or a head.
"backing" is what the five first hits, of as many residues as the query, say for the candidates.
The limit is the product alone, by the matrix library, at its speed for large square matrices.

Then many queries search a database by their best diagonals, together and one by one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from biotite.sequence import Alphabet, GeneralSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal
from threadpoolctl import threadpool_limits

from benchmarks.shared.measuring import (
    ROOT,
    Summary,
    arguments,
    matrix_peak,
    take_turns,
    times_faster,
    write,
)
from protalign.core.arrays import Float32, Int64
from protalign.core.ragged import Ragged, blocks
from protalign.residues.background import Background, CompactRows
from protalign.residues.backing import FIRST_HITS, backing
from protalign.residues.kernels.packed import pack
from protalign.residues.kernels.scores import both_scores, diagonal_scores, local_scores
from protalign.residues.proteins import PackedRows, ProteinRows
from protalign.residues.scan import best_targets
from protalign.residues.targets import RESIDUES_AT_ONCE

#: Numbers of a row, and the costs of gaps.
WIDTH, GAP_OPEN, GAP_EXTEND = 50, 16, 2
#: The ratio to reach.
TARGET = 10.0
#: Prints the processor's seconds of a new process's first scores.
FIRST_CALL = """
import time, numpy as np, torch
from protalign.core.ragged import Ragged
from protalign.residues.kernels.scores import both_scores
rows = np.zeros((30, 50), np.float32)
start = time.process_time()
both_scores(rows, Ragged.pack([rows]))
print(time.process_time() - start)
"""


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads, user_api="blas"):
        rows = [measure(options), scan(options)]
    stages, scanned = rows
    print(
        f"{options.residues} residues against {options.candidates} candidates, {options.threads} "
        f"threads, median of {options.turns} turns (ms)"
    )
    for name, value in stages.items():
        print(f"{name:>28} {value:12.3f}")
    for name, value in scanned.items():
        print(f"{name:>28} {value:12.3f}")
    write(
        options,
        "residues",
        rows,
        [summary(stages, options), scan_summary(scanned, options)],
        ["numba", "biotite"],
    )


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--residues", type=int, default=300, help="of the query")
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--length", type=int, default=200, help="median residues of a candidate")
    parser.add_argument("--scanned", type=int, default=2000, help="proteins of the database")
    parser.add_argument(
        "--first-call",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time the first call of new processes too",
    )
    parser.add_argument("--queries", type=int, default=64, help="that search it together")
    return parser.parse_args()


def whole_rows(rng: np.random.Generator, length: int, constant: int) -> Float32:
    """Make rows whose products are whole numbers, mostly negative, as log-likelihood ratios are."""
    rows = rng.integers(-1, 2, (length, WIDTH)).astype(np.float32)
    rows[:, -1] = constant
    return rows


def proteins(options: argparse.Namespace, count: int) -> tuple[Float32, Ragged]:
    """Make a query, and proteins in the dtype of a store."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(options.length), 0.3, count), 30, 1000).astype(int)
    targets = [whole_rows(rng, length, -3) for length in lengths]
    query = whole_rows(rng, options.residues, 1)
    return query, Ragged.pack([rows.astype(np.float16) for rows in targets])


def by_libraries(query: Float32, targets: Ragged) -> list[tuple[float, int, float]]:
    """Return the best diagonal's score and offset, and the best local alignment's score."""
    found = []
    for rows in targets:
        scores = query @ rows.astype(np.float32).T
        n_query, n_target = scores.shape
        # Row i moves i places to the right of where it was in a matrix that is one column narrower.
        turned = np.zeros((n_query, n_query + n_target), dtype=np.float32)
        turned[:, :n_target] = scores[::-1]
        sums = turned.reshape(-1)[: n_query * (n_query + n_target - 1)]
        sums = sums.reshape(n_query, -1).sum(axis=0)
        best = int(sums.argmax())
        found.append((float(sums[best]), best - n_query + 1, by_biotite(scores)))
    return found


def by_biotite(scores: Float32) -> float:
    """Return the best local alignment's score: each position is a symbol of its own."""
    alphabets = [Alphabet(range(length)) for length in scores.shape]
    sequences = [GeneralSequence(alphabet, range(len(alphabet))) for alphabet in alphabets]
    matrix = SubstitutionMatrix(*alphabets, np.rint(scores).astype(np.int32))
    gaps = (-GAP_OPEN, -GAP_EXTEND)
    found = align_optimal(*sequences, matrix, gaps, local=True, max_number=1)
    return float(found[0].score)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds of both stages on each side, and of each stage alone."""
    query, targets = proteins(options, options.candidates)
    packed = pack(targets)
    (best, offsets), (local, _, _) = both_scores(query, packed)
    expected = by_libraries(query, targets)
    ours = zip(best.tolist(), offsets.tolist(), local.tolist(), strict=True)
    same = [a[0] == b[0] and a[2] == b[2] for a, b in zip(ours, expected, strict=True)]
    columns = torch.from_numpy(np.concatenate([group.rows for group in packed.groups]))
    sides: dict[str, Callable[[], object]] = {
        "libraries": lambda: by_libraries(query, targets),
        "protalign": lambda: both_scores(query, targets),
        "packed": lambda: both_scores(query, packed),
        "two_rows": lambda: (diagonal_scores(query, targets), local_scores(query, targets)),
        "diagonals": lambda: diagonal_scores(query, packed),
        "local": lambda: local_scores(query, packed),
        "packing": lambda: pack(targets),
        "product": lambda: torch.from_numpy(query) @ columns.T,
        "backing": backing_of(query, targets),
    }
    seconds = take_turns(sides, options.turns, threads=options.threads)
    peak = matrix_peak(torch.float32, options.threads)
    return {
        **{f"{name}_ms": 1e3 * statistics.median(taken) for name, taken in seconds.items()},
        "ratio": times_faster(seconds, "libraries", "protalign"),
        "ratio_packed": times_faster(seconds, "libraries", "packed"),
        "limit_ms": 1e3 * 2 * len(query) * targets.values.size / peak,
        "same": statistics.fmean(same),
        **(first_calls() if options.first_call else {}),
    }


def backing_of(query: Float32, targets: Ragged) -> Callable[[], object]:
    """Return what the second stage does with its first hits, which fit the query as a whole."""
    hit = query.copy()
    hit[:, -1] = -3
    rows = [target.astype(np.float32) for target in targets]
    first = min(FIRST_HITS, len(rows))
    rows[:first] = [hit] * first
    candidates = Ragged.pack(rows)
    background = Background({"structure": CompactRows.of("structure", candidates)})
    background.similarity("structure")  # a process knows it after its first query
    excess = np.linspace(10, -2, len(rows))
    lengths, take = candidates.lengths, candidates.take
    return lambda: backing(query, excess, lengths, take, background, len(rows))


def first_calls() -> dict[str, float]:
    """Return the seconds of a first call in a new process that compiles, and in the next one."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        compiling, later = (
            subprocess.run(
                [sys.executable, "-c", FIRST_CALL],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
                cwd=ROOT,
            ).stdout
            for _ in range(2)
        )
    return {"compiling_seconds": float(compiling), "later_seconds": float(later)}


def scan(options: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds for each query of searches of a database, together and alone."""
    _, database = proteins(options, options.scanned)
    rng = np.random.default_rng(1)
    lengths = rng.choice(database.lengths, options.queries)
    queries = [of_one_chain(whole_rows(rng, int(length), 1)) for length in lengths]
    parts = [
        (
            np.arange(part.start, part.stop),
            PackedRows.of([of_one_chain(database[i]) for i in range(part.start, part.stop)]),
        )
        for part in blocks(database.lengths, RESIDUES_AT_ONCE)
    ]

    def best(queries: list[ProteinRows]) -> list[Int64]:
        return best_targets(PackedRows.of(queries), parts, 10, "global")

    together = best(queries)
    alone = [best([query])[0] for query in queries[:3]]
    same = np.mean([np.array_equal(a, b) for a, b in zip(alone, together, strict=False)])
    sides: dict[str, Callable[[], object]] = {
        "together": lambda: best(queries),
        "alone": lambda: best(queries[:1]),
    }
    seconds = take_turns(sides, min(3, options.turns), threads=options.threads)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "scanned_residues": len(database.values),
        "queries_together": len(queries),
        "scan_together_ms_a_query": 1e3 * median["together"] / len(queries),
        "scan_alone_ms": 1e3 * median["alone"],
        "scan_ratio": len(queries) * times_faster(seconds, "alone", "together"),
        "scan_same": float(same),
    }


def of_one_chain(rows: Float32) -> ProteinRows:
    """Return a protein's rows, in float32 as a residue stage makes them."""
    rows = rows.astype(np.float32)
    return ProteinRows(rows, rows, np.array([len(rows)]))


def summary(row: dict[str, Any], options: argparse.Namespace) -> Summary:
    return {
        "part": f"residue scores, {options.residues} residues against {options.candidates} "
        "candidates: best diagonals and local alignments",
        "peer": "numpy + biotite's align_optimal",
        "ratio": row["ratio"],
        "target": TARGET,
        "figure": f"{row['protalign_ms']:.0f} ms; of packed rows {row['packed_ms']:.0f} ms "
        f"(diagonals alone {row['diagonals_ms']:.0f}, local alone {row['local_ms']:.0f}); if a "
        f"context or a head gives the modes different rows, {row['two_rows_ms']:.0f} ms; "
        f"what the first hits say {row['backing_ms']:.0f} ms more",
        "limit": f"the product at the speed of large matrices {row['limit_ms']:.0f} ms; torch's "
        f"product alone {row['product_ms']:.0f} ms",
        "equal": f"{row['same']:.0%} of scores the same",
    }


def scan_summary(row: dict[str, Any], options: argparse.Namespace) -> Summary:
    return {
        "part": f"search of {options.scanned:,} proteins by best diagonals, {options.queries} "
        "queries together",
        "peer": "one by one",
        "ratio": row["scan_ratio"],
        "target": 4.0,
        "figure": f"{row['scan_together_ms_a_query']:.0f} ms a query",
        "limit": "",
        "equal": f"{row['scan_same']:.0%} of hits the same",
    }


if __name__ == "__main__":
    main()
