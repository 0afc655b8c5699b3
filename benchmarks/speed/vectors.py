"""Nearest vectors among millions on the disk: exact, by an index, and by faiss's kinds of index.

    python benchmarks/speed/vectors.py --rows 100000 --threads 2
    python benchmarks/speed/vectors.py --rows 10000000 --threads 2 --peers ivf --json results.json
    python benchmarks/speed/vectors.py --rows 2000 --queries 20 --turns 1      # a quick check

Real vectors (of the sample's structures, by the model that ships, or ``--real``) are spread among
made-up ones. These are families, as real proteins are: centres of the real vectors' mean and
covariance, about 30 members each, with cosines to their centre from 0.6 to 0.98. Queries are
entries that were moved as members of a family differ; half of them are of real entries.

"write" exports the folder, Parquet files included; "build" is `protalign index`, and faiss's own
training and adding from the same mapped vectors. Every search is in a process of its own, which
opens the files, asks one query, then others singly, then 64 at once. All kinds but the exact one
find candidates by rounded vectors and rescore 64 of them for 10 hits, from the folder. Of faiss's
settings the quickest counts that has ProtAlign's Recall@10 (or the slowest, if none has).
"own" is memory that the process holds, "peak" has the mapped pages as well, which the system may
take back. The disk is that of the index alone; the folder is needed beside all of them.

Ten million vectors need 20 GB of disk in ``--folder``, and as much memory as faiss's index takes
while it is built. Needs `pip install 'protalign[faiss]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.measuring import ROOT, SAMPLE, Summary, arguments, write
from protalign import embed
from protalign.core.arrays import Float32, Int64
from protalign.estimator.export import export_vectors
from protalign.heads.model import Model
from protalign.heads.shipped import shipped_model
from protalign.search.vector_index import index_vectors
from protalign.stores import EmbeddingStore, VectorBatch, read_vectors, write_vectors

#: Hits of a query, candidates that are rescored for them, and queries that are searched together.
HITS, CANDIDATES, TOGETHER = 10, 64, 64
#: Members of a family, and rows that are made at once.
FAMILY, BLOCK = 30, 1 << 16
#: faiss's kinds: the index, and how far it looks, from quick to slow.
PEERS = {
    "hnsw": ("HNSW16,SQ8", "efSearch"),
    "ivf": ("IVF{cells},SQ8", "nprobe"),
    "pq": ("IVF{cells},PQ64x4fs", "nprobe"),
}
#: How far they look, from quick to slow.
SETTINGS = [part << power for power in range(2, 12) for part in (4, 5, 6, 7)]
#: Vectors that a cell is learned from.
TRAINING = 40
#: Searches in a process of its own, and prints the figures as JSON.
SEARCH = """
import json, sys, time
kind, folder, index, asked, found, turns, threads, option = sys.argv[1:]
turns, threads = int(turns), int(threads)
import numpy as np
begin = time.perf_counter()
from protalign.stores import read_vectors
vectors = read_vectors(folder)
if kind == "exact":
    from protalign.search.index import Index
    search = Index(vectors).search
elif kind == "protalign":
    from protalign.search.vector_index import VectorIndex
    search = VectorIndex(index, vectors).search
else:
    import faiss
    faiss.omp_set_num_threads(threads)
    opened = faiss.read_index(index, faiss.IO_FLAG_MMAP if kind != "hnsw" else 0)
    name, value = option.split("=")
    faiss.ParameterSpace().set_index_parameter(opened, name, int(value))
    values = vectors.structure
    def search(queries, k):
        rows = opened.search(queries, CANDIDATES)[1]
        cosines = np.einsum("qd,qkd->qk", queries, values[np.maximum(rows, 0)])
        cosines[rows < 0] = -np.inf
        order = np.argsort(-cosines, axis=1)[:, :k]
        return np.take_along_axis(rows, order, axis=1), None
queries = np.load(asked)
imports = time.perf_counter() - begin
def timed(some):
    begin = time.perf_counter()
    search(some, HITS)
    return time.perf_counter() - begin
first = timed(queries[:1])
one = [timed(queries[turn % len(queries):][:1]) for turn in range(1, 20 * turns)]
together = [timed(queries[:TOGETHER]) for _ in range(turns)]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
memory = {name: int(status[name].split()[0]) / 1e6 for name in ("RssAnon", "VmHWM")}
np.save(found, search(queries, HITS)[0])
figures = {"open_s": imports + first, "one": one, "together": together}
print(json.dumps({**figures, "own_gb": memory["RssAnon"], "peak_gb": memory["VmHWM"]}))
"""


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    faiss.omp_set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        place = Path(name)
        real = real_vectors(options.real, place)
        family = Family(real)
        begin = time.perf_counter()
        write_vectors(
            place / "vectors", batches(real, family, options.rows), dim=real.shape[1], metadata={}
        )
        print(
            f"{options.rows:,} vectors, {len(real):,} of them real; written in "
            f"{time.perf_counter() - begin:.0f} s; {options.threads} threads\n"
            f"{'':>12}{'build s':>9}{'disk GB':>9}{'open s':>8}{'one ms':>9}{'64, ms each':>13}"
            f"{'own GB':>8}{'peak GB':>9}{'Recall@10':>11}"
        )
        np.save(place / "queries.npy", queries(place / "vectors", family, len(real), options))
        rows = [searched("exact", place, options)]
        show(rows[0])
        begin = time.perf_counter()
        index_vectors(place / "vectors", place / "index")
        built = {"build_s": time.perf_counter() - begin, "disk_gb": size_of(place / "index") / 1e9}
        rows.append({**searched("protalign", place, options), **built})
        show(rows[1])
        for kind in options.peers:
            rows.append(peer(kind, place, options, rows[1]["recall"]))
            show(rows[-1])
    write(options, "vectors", rows, summary(rows, options), ["faiss-cpu"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["hnsw", "ivf"])
    parser.add_argument("--real", type=Path, help="vectors, as exported; default: the sample's")
    parser.add_argument("--folder", type=Path, help="folder for all files")
    return parser.parse_args()


def real_vectors(path: Path | None, place: Path) -> Float32:
    """Return real vectors: structures', or those of sequences if there are no structures."""
    if path is None:
        report = embed(SAMPLE, place / "store.zarr", ["protalign_t6_2M", "proteinmpnn_v_48_020"])
        assert report.entries
        path = place / "sample.parquet"
        export_vectors(Model.load(shipped_model()), EmbeddingStore.open(place / "store.zarr"), path)
    vectors = read_vectors(path)
    modality = "structure" if vectors.has_structure.any() else "sequence"
    values, present = vectors.candidates(modality)
    return np.ascontiguousarray(values[present])


class Family:
    """Draws vectors that differ as real ones do."""

    def __init__(self, real: Float32) -> None:
        self.mean = real.mean(axis=0)
        covariance = np.cov(real.T) + 0.02 * np.trace(np.cov(real.T)) / len(real.T) * np.eye(
            real.shape[1]
        )
        self._root = np.linalg.cholesky(covariance).T.astype(np.float32)
        self._spread = float(np.sqrt(np.trace(covariance)))

    def noise(self, count: int, rng: np.random.Generator) -> Float32:
        """Return (n, dim) differences, of the real ones' directions and about unit length."""
        drawn = rng.standard_normal((count, len(self.mean)), dtype=np.float32)
        return (drawn @ self._root) / np.float32(self._spread)

    def moved(self, vectors: Float32, rng: np.random.Generator) -> Float32:
        """Return vectors as far from these as members of a family are from its centre."""
        scale = rng.uniform(0.2, 1.3, (len(vectors), 1)).astype(np.float32)
        return unit(vectors + scale * self.noise(len(vectors), rng))

    def made_up(self, count: int, rng: np.random.Generator) -> Float32:
        """Return (n, dim) unit vectors of families of about 30."""
        n_families = max(1, count // FAMILY)
        centres = unit(self.mean + self._spread * self.noise(n_families, rng))
        return self.moved(centres[rng.integers(0, n_families, count)], rng)


def unit(vectors: Float32) -> Float32:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def batches(real: Float32, family: Family, count: int) -> Iterator[VectorBatch]:
    """Yield the rows: made-up ones, in which the real ones are spread."""
    places = real_places(len(real), count)
    for start in range(0, count, BLOCK):
        n_rows = min(BLOCK, count - start)
        values = family.made_up(n_rows, np.random.default_rng(start))
        here = np.flatnonzero((start <= places) & (places < start + n_rows))
        values[places[here] - start] = real[here]
        ids = [f"v{row}" for row in range(start, start + n_rows)]
        yield VectorBatch(ids, structure=values)


def real_places(n_real: int, count: int) -> Int64:
    """Return the rows of the real vectors."""
    return np.linspace(0, count, min(n_real, count), endpoint=False).astype(np.int64)


def queries(path: Path, family: Family, n_real: int, options: argparse.Namespace) -> Float32:
    """Return moved entries, every second one of a real entry."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, options.rows, options.queries)
    rows[::2] = rng.choice(real_places(n_real, options.rows), len(rows[::2]))
    return family.moved(read_vectors(path).vectors_at("structure", rows), rng)


def searched(
    kind: str, place: Path, options: argparse.Namespace, index: Path | None = None, option: str = ""
) -> dict[str, Any]:
    """Search in a process of its own; return its figures."""
    constants = f"HITS, CANDIDATES, TOGETHER = {HITS}, {CANDIDATES}, {TOGETHER}\n"
    found = place / f"{kind}.npy"
    command = [sys.executable, "-c", constants + SEARCH, kind, place / "vectors"]
    command += [index or place / "index", place / "queries.npy", found]
    command += [options.turns, options.threads, option]
    ran = subprocess.run(
        list(map(str, command)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    figures = json.loads(ran.stdout)
    hits, exact = np.load(found), np.load(place / "exact.npy")
    recall = float((hits[:, :, None] == exact[:, None]).any(axis=1).mean())
    return {
        "kind": kind,
        "build_s": 0.0,
        "disk_gb": 0.0,
        "open_s": figures["open_s"],
        "one_ms": 1e3 * statistics.median(figures["one"]),
        "together_ms": 1e3 * statistics.median(figures["together"]) / TOGETHER,
        "own_gb": figures["own_gb"],
        "peak_gb": figures["peak_gb"],
        "recall": recall,
        "option": option,
    }


def peer(kind: str, place: Path, options: argparse.Namespace, recall: float) -> dict[str, Any]:
    """Build faiss's index, and search it with the quickest setting that has a recall."""
    form, name = PEERS[kind]
    cells = max(1, min(int(2 * options.rows**0.5), options.rows // TRAINING))
    values = read_vectors(place / "vectors").structure
    begin = time.perf_counter()
    index = faiss.index_factory(
        values.shape[1], form.format(cells=cells), faiss.METRIC_INNER_PRODUCT
    )
    if kind != "hnsw":
        faiss.extract_index_ivf(index).cp.min_points_per_centroid = 1
    rng = np.random.default_rng(0)
    learned = min(options.rows, max(TRAINING * cells, 10_000) if kind != "hnsw" else 100_000)
    index.train(values[np.sort(rng.choice(options.rows, learned, replace=False))])
    for start in range(0, options.rows, BLOCK):
        index.add(values[start : start + BLOCK])
    path = place / f"{kind}.faiss"
    faiss.write_index(index, str(path))
    built = {"build_s": time.perf_counter() - begin, "disk_gb": path.stat().st_size / 1e9}
    del index
    row: dict[str, Any] = {}
    least, most = 0, len(SETTINGS) - 1
    while least < most or not row:
        middle = (least + most) // 2
        tried = searched(kind, place, options, path, f"{name}={SETTINGS[middle]}")
        if tried["recall"] >= recall or middle == len(SETTINGS) - 1:
            row, most = {**tried, **built}, middle
        else:
            least = middle + 1
    path.unlink()
    return row


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['kind']:>12}{row['build_s']:>9.0f}{row['disk_gb']:>9.2f}{row['open_s']:>8.1f}"
        f"{row['one_ms']:>9.2f}{row['together_ms']:>13.2f}{row['own_gb']:>8.2f}"
        f"{row['peak_gb']:>9.2f}{row['recall']:>11.4f}  {row['option']}",
        flush=True,
    )


def summary(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[Summary]:
    """Return a line for each number of queries, beside the quickest peer that finds enough."""
    exact, ours, *others = rows
    able = [row for row in others if row["recall"] >= ours["recall"]] or others
    lines: list[Summary] = []
    for number, key in ((1, "one_ms"), (TOGETHER, "together_ms")):
        best = min(able, key=lambda row: row[key], default=exact)
        lines.append(
            {
                "part": f"index of {options.rows:,} vectors, {number} queries at once",
                "peer": f"faiss-cpu {best['kind']} {best['option']}, rescored"
                if best is not exact
                else "exact search",
                "ratio": best[key] / ours[key],
                "target": None,
                "figure": f"{ours[key]:.2f} ms a query, {ours['own_gb']:.2f} GB of memory beside "
                f"mapped files (peer {best['own_gb']:.2f}), built in {ours['build_s']:.0f} s "
                f"(peer {best['build_s']:.0f})",
                "limit": f"exact search {exact[key]:.2f} ms",
                "equal": f"Recall@10 {ours['recall']:.4f} (peer {best['recall']:.4f})",
            }
        )
    return lines


if __name__ == "__main__":
    main()
