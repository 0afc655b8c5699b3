"""`protalign serve` under load, beside one call after another and a handler written naively.

    python benchmarks/speed/serve.py                        # 1,000,000 vectors; 1, 8 and 64 clients
    python benchmarks/speed/serve.py --threads 2 --json benchmarks/results/serve.json
    python benchmarks/speed/serve.py --threads 2 --alone --clients 64 --requests 60 \
        --different 420 --json benchmarks/results/serve_long.json  # 10,000 requests, memory
    # To see that it runs:
    python benchmarks/speed/serve.py --vectors 2000 --requests 20 --different 30 --long 0

Clients on the same machine send one sequence of 50 to 1,000 residues after another, each when the
last answer is there. The sides: the server; a FastAPI handler that embeds the sequence of each
request by itself and searches (``serve_parts/naive.py``); and ``Searcher.search`` in this process,
one sequence after another, without HTTP. All three use the model that ships, the same vectors
(those of ``--proteins``, and made-up ones up to the number asked for) and the same threads. Every
answer under load is compared with the one in this process. Then the server answers ``--long`` more
requests, and its memory is read before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the repository's folder

from benchmarks.shared.measuring import SAMPLE, Summary, arguments, write
from protalign.core.arrays import Float32
from protalign.embedding import EncoderChoice, embed
from protalign.encoders.recorded import spec_of
from protalign.estimator.export import export_vectors
from protalign.heads.model import Model
from protalign.heads.shipped import shipped_model
from protalign.stores import EmbeddingStore, VectorBatch, read_vectors
from protalign.stores.vectors.files import write_vectors

K = 5
#: Cosines that differ by less are the same: rows of a batch differ in their last bits.
TIE = 1e-4
#: The throughput to reach: times the naive handler's, with the most clients.
TARGET = 5.0
ROWS_AT_ONCE = 1 << 16
#: Residues of the longest sequence.
LONGEST = 1000

Answer = list[tuple[str, float]]


@dataclass(frozen=True)
class Load:
    """What one side did under one number of clients."""

    side: str
    clients: int
    seconds: float
    latencies: list[float]
    wrong: int
    lost: int

    def row(self) -> dict[str, Any]:
        """Return the figures."""
        answered = len(self.latencies)
        p50, p99 = (1e3 * float(np.quantile(self.latencies, q)) for q in (0.5, 0.99))
        return {
            "side": self.side,
            "clients": self.clients,
            "requests": answered + self.lost,
            "per_second": answered / self.seconds,
            "p50_ms": p50,
            "p99_ms": p99,
            "wrong": self.wrong,
            "lost": self.lost,
        }


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # the servers'
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        store, vectors = prepare(Path(name), options.proteins, options.vectors)
        sequences = sequences_of(store, options.different)
        expected, alone = in_process(vectors, sequences)
        rows: list[dict[str, Any]] = [alone]
        naive = [sys.executable, ROOT / "benchmarks/speed/serve_parts/naive.py", vectors]
        sides = [("naive handler", naive), ("protalign serve", served(store, vectors))]
        for side, command in sides[options.alone :]:
            with server(command) as (url, process):
                load = Loader(url, sequences, expected)
                load.run(side, 1, len(sequences) // 10 or 1)  # a warm-up
                for clients in options.clients:
                    rows.append(load.run(side, clients, max(options.requests, 4 * clients)).row())
                    print_row(rows[-1])
                if side == "protalign serve" and options.long:
                    rows.append(memory(process, load, options))
        write(options, "serve", rows, summary(rows, options), ["fastapi", "uvicorn"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument(
        "--proteins", type=Path, nargs="+", default=[SAMPLE], help="structure files"
    )
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=400, help="for each number of clients")
    parser.add_argument("--different", type=int, default=2000, help="different sequences")
    parser.add_argument(
        "--long", type=int, default=10_000, help="requests to read the memory after"
    )
    parser.add_argument("--alone", action="store_true", help="leave the naive handler out")
    parser.add_argument("--folder", type=Path, help="a folder for the files. Default: /tmp")
    return parser.parse_args()


def prepare(folder: Path, proteins: Sequence[Path], count: int) -> tuple[Path, Path]:
    """Return a store of proteins, and a file of their vectors and made-up ones."""
    model = Model.load(shipped_model())
    store = folder / "store.zarr"
    embed(list(proteins), store, [EncoderChoice(spec_of(each)) for each in model.encoders.values()])
    opened = EmbeddingStore.open(store)
    export_vectors(model, opened, folder / "real.parquet")
    real = read_vectors(folder / "real.parquet")
    rng = np.random.default_rng(0)

    def batches() -> Iterator[VectorBatch]:
        yield VectorBatch(real.ids, real.sequence, real.structure, real.lengths)
        for first in range(0, count - len(real), ROWS_AT_ONCE):
            number = min(ROWS_AT_ONCE, count - len(real) - first)
            made = rng.standard_normal((number, model.embed_dim), dtype=np.float32)
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            names = [f"made_{row}" for row in range(first, first + number)]
            yield VectorBatch(names, made, made, np.full(number, 300))

    path = folder / "vectors.parquet"
    write_vectors(path, batches(), dim=model.embed_dim, metadata=real.metadata)
    return store, path


def sequences_of(store: Path, count: int) -> list[str]:
    """Return sequences of 50 to 1,000 residues, cut out of real ones one after another."""
    opened = EmbeddingStore.open(store)
    letters = "".join(chain for i in opened.ids.tolist() for chain in opened.sequence(i))
    letters *= -(-LONGEST * 2 // len(letters))  # a toy's proteins are too short for one cut
    rng = np.random.default_rng(1)
    starts, lengths = (
        rng.integers(0, len(letters) - LONGEST, count),
        rng.integers(50, LONGEST + 1, count),
    )
    return [letters[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]


def in_process(vectors: Path, sequences: Sequence[str]) -> tuple[list[Answer], dict[str, Any]]:
    """Return the hits of each sequence, and the figures of one call after another."""
    from protalign.search.search_options import SearchOptions
    from protalign.search.searcher import Searcher

    searcher = Searcher(vectors, model=shipped_model())
    searcher.search(sequences[:2], SearchOptions(k=K))
    answers, taken = [], []
    for sequence in sequences:
        begun = time.perf_counter()
        hits = searcher.search([sequence], SearchOptions(k=K))
        taken.append(time.perf_counter() - begun)
        answers.append([(hit.id, hit.cosine) for hit in hits])
    row = Load("in process", 1, sum(taken), taken, 0, 0).row()
    print_row(row)
    return answers, row


def served(store: Path, vectors: Path) -> list[Any]:
    """Return the server's command."""
    words = ["serve", store, "--model", shipped_model(), "--vectors", vectors, "--port", "0"]
    return [sys.executable, "-c", "from protalign.cli import main; main()", *words]


@contextmanager
def server(command: Sequence[Any]) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server that prints its address."""
    with tempfile.TemporaryFile("w+") as log:  # a pipe would fill, and stop the server
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
        )
        try:
            yield address(process, log), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def address(process: subprocess.Popen[str], log: IO[str]) -> str:
    """Return a server's address once it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            url = found[0]
            break
    else:
        log.seek(0)
        raise SystemExit(log.read())
    for _ in range(600):
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready").status_code == 200:
                return url
        time.sleep(0.1)
    raise SystemExit(f"{url}: it does not become ready")


class Loader:
    """Clients that ask a server, and compare its answers."""

    def __init__(self, url: str, sequences: Sequence[str], expected: Sequence[Answer]) -> None:
        self._url, self._sequences, self._expected = url, sequences, expected
        self._asked = 0

    def run(self, side: str, clients: int, requests: int) -> Load:
        """Ask so many times in all."""
        return asyncio.run(self._run(side, clients, requests))

    async def _run(self, side: str, clients: int, requests: int) -> Load:
        # Goes on where the last run ended: a server may keep what it was asked a moment ago.
        left = iter(range(self._asked, self._asked + requests))
        self._asked += requests
        latencies: list[float] = []
        wrong = lost = 0

        async def client(session: httpx.AsyncClient) -> None:
            nonlocal wrong, lost
            for number in left:
                place = number % len(self._sequences)
                begun = time.perf_counter()
                try:
                    answer = await self._ask(session, self._sequences[place])
                except (httpx.HTTPError, KeyError, ValueError):
                    lost += 1
                    continue
                latencies.append(time.perf_counter() - begun)
                wrong += not same(answer, self._expected[place])

        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=self._url, timeout=300, limits=limits) as session:
            begun = time.perf_counter()
            await asyncio.gather(*(client(session) for _ in range(clients)))
            seconds = time.perf_counter() - begun
        return Load(side, clients, seconds, latencies, wrong, lost)

    async def _ask(self, session: httpx.AsyncClient, sequence: str) -> Answer:
        answer = await session.post("/v1/search", json={"fasta": f">query\n{sequence}\n", "k": K})
        answer.raise_for_status()
        return [(hit["target"], hit["cosine"]) for hit in answer.json()["hits"]]


def same(answer: Answer, expected: Answer) -> bool:
    """Return whether two lists of hits agree; entries of equal cosine may be in either order."""
    ours, theirs = (np.array([cosine for _, cosine in each]) for each in (answer, expected))
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=TIE):
        return False
    tied: Float32 = theirs[-1] + TIE
    return {i for i, c in answer if c > tied} <= {i for i, _ in expected} and {
        i for i, c in expected if c > tied
    } <= {i for i, _ in answer}


def memory(process: psutil.Process, load: Loader, options: argparse.Namespace) -> dict[str, Any]:
    """Return the server's memory before and after many requests."""
    before = process.memory_info().rss
    ran = load.run("protalign serve", max(options.clients), options.long)
    after = process.memory_info().rss
    row = {
        **ran.row(),
        "side": "protalign serve, long",
        "mb_before": before / 1e6,
        "mb_after": after / 1e6,
    }
    print_row(row)
    print(f"memory: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    return row


def print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['side']:22}{row['clients']:>4} clients{row['per_second']:>9.1f} a second, "
        f"p50 {row['p50_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms, {row['wrong']} wrong, "
        f"{row['lost']} lost",
        flush=True,
    )


def summary(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[Summary]:
    """Return a line for each number of clients, and one for the memory."""
    by_side = {(row["side"], row["clients"]): row for row in rows}
    alone = rows[0]
    lines: list[Summary] = []
    for clients in options.clients:
        ours, naive = by_side["protalign serve", clients], by_side.get(("naive handler", clients))
        lines.append(
            {
                "part": f"serve, {options.vectors:,} vectors, {clients} clients",
                "peer": "a FastAPI handler, a model call a request" if naive else "",
                "ratio": ours["per_second"] / naive["per_second"] if naive else None,
                "target": TARGET if naive and clients == max(options.clients) else None,
                "figure": f"{ours['per_second']:.1f} a second; p50 {ours['p50_ms']:.0f} ms, "
                f"p99 {ours['p99_ms']:.0f} ms",
                "limit": f"in process, one by one: {alone['per_second']:.1f} a second",
                "equal": f"{ours['wrong']} wrong, {ours['lost']} lost of {ours['requests']:,}",
            }
        )
    for row in rows:
        if "mb_after" in row:
            lines.append(
                {
                    "part": f"serve, {row['requests']:,} requests",
                    "peer": "its memory before them",
                    "ratio": None,
                    "target": None,
                    "figure": f"{row['mb_after']:.0f} MB, before {row['mb_before']:.0f} MB",
                    "limit": "",
                    "equal": f"{row['wrong']} wrong, {row['lost']} lost of {row['requests']:,}",
                }
            )
    return lines


if __name__ == "__main__":
    main()
