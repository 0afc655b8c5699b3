"""A first stage by residue words: indexes of 1,000 to 1,000,000 structures, one query and 64.

    python benchmarks/speed/words.py --threads 2
    python benchmarks/speed/words.py --threads 2 --json benchmarks/results/words.json
    python benchmarks/speed/words.py --sizes 20 50 --chains 12 --turns 1      # a quick check

Structures beyond real ones are made up, and no residue of them is embedded: their words are cut
out of the words of real structures, the sample's or those of ``--store``, in pieces of 40 residues
at random places. So words are as frequent as in real ones, and follow one another as there. Lengths
are log-normal around 300. The queries are sequences of 300 real residues, of other entries than the
pieces: else each query would be related to all structures, and large scores take longer. The words
and the scores are those of the residue stage of the model that ships, or of one fitted on the
proteins of ``--store``.

"build" writes such an index, inverted lists, checksums and manifest included; beside it stands a
plain write of as many bytes. Making words of embeddings is measured by itself: ``words/s`` is
residue embeddings of structures, repeated until they are enough, to words. A search is the 200 best
entries of each query, in a process of its own whose peak of memory is measured. "first" opens the
index for one query, with checksums, the first reading and the loading of compiled code, as a
command does (importing Python's packages is not in it); "first 64" opens it for all of them. "one"
and "64" are further searches of an open index, as a server's. The second stage, which residues.py
measures, is not in it. On one thread searches and ``words/s`` are measured in CPU time. One reading
of all words at memory bandwidth stands beside them. A million structures need 0.8 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from threadpoolctl import threadpool_limits

from benchmarks.shared.made_up import lengths
from benchmarks.shared.measuring import ROOT, SAMPLE, Summary, arguments, read_bandwidth, write
from protalign import EmbeddingStore, embed
from protalign.core.arrays import Float32, Int64, Words
from protalign.core.protein import Modality
from protalign.heads.inputs import Inputs, read_inputs
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs
from protalign.heads.shipped import shipped_model
from protalign.residues import PairSums, ResidueStage
from protalign.residues.words import SAMPLED, WORDS, ResidueWords
from protalign.search.word_files import new_index
from protalign.search.word_parts import PartWriter

#: Residues of a piece that a made-up structure is put together from.
PIECE = 40
#: Median residues of a structure, residues of a query, and entries that a search returns.
MEDIAN, QUERY, CANDIDATES = 300, 300, 200
#: Residues of which words are made in the time that is measured, at least.
TIMED = 500_000
#: Entries that are made up at once.
ENTRIES_AT_ONCE = 20_000
#: Seconds that one query may take, and how many times cheaper each of several is to be than one
#: alone if an index is opened for them.
SECONDS, TARGET = 1.0, 4.0
#: What the indexes say of a model and a store that there are not.
MADE_WITH = {"stage_sha256": "", "store": {}, "n_words": WORDS, "seed": 0}
#: Times searches of an index, and prints the figures as JSON.
SEARCH = """
import json, sys, time
import numpy as np
from protalign.search.word_index import WordIndex
queries = list(np.load(sys.argv[2]))
turns, count, threads, n_first = map(int, sys.argv[3:])
clock = time.process_time if threads == 1 else time.perf_counter
times = []
begin = clock()
index = WordIndex(sys.argv[1])
kept = np.ones(index.n_entries("structure"), dtype=bool)  # as for a store that has all entries
index.nearest("structure", queries[:n_first], count, kept)
first = clock() - begin
for turn in range(turns):
    begin = clock()
    index.nearest("structure", queries[(turn + 1) % len(queries):][:1], count, kept)
    times.append(clock() - begin)
begin = clock()
index.nearest("structure", queries, count, kept)
together = clock() - begin
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"first": first, "one": times, "together": together, "kb": int(peak)}))
"""


def main() -> None:
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with threadpool_limits(options.threads, user_api="blas"):
            real = RealWords.of(options, folder)
            bandwidth = read_bandwidth(options.threads)
        print(
            f"{len(real.words):,} real words, {real.per_second:,.0f} words/s made of embeddings; "
            f"{options.threads} threads\n"
            f"{'structures':>11}{'GB':>8}{'build s':>9}{'GB/s':>7}{'plain GB/s':>11}"
            f"{'first s':>9}{'one s':>8}{f'first {options.queries}, s each':>18}"
            f"{f'{options.queries}, s each':>12}{'peak GB':>9}"
        )
        rows = []
        for size in options.sizes:
            rows.append(measure(size, real, folder, bandwidth, options))
            row = rows[-1]
            print(
                f"{size:>11,}{row['gb']:>8.3f}{row['build']:>9.2f}{row['gb_per_s']:>7.2f}"
                f"{row['plain_gb_per_s']:>11.2f}{row['first']:>9.3f}{row['one']:>8.3f}"
                f"{row['first_each']:>18.3f}{row['each']:>12.3f}{row['peak_gb']:>9.2f}",
                flush=True,
            )
    write(options, "words", rows, summary(rows, options), ["numba", "scikit-learn"])


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=64, help="that are searched together")
    parser.add_argument("--store", type=Path, help="of the real proteins; default: the sample")
    parser.add_argument("--chains", type=int, default=40, help="of the sample")
    parser.add_argument("--folder", type=Path, help="folder for the indexes")
    return parser.parse_args()


class RealWords:
    """Real structures' words, one after another, and real queries.

    Attributes
    ----------
    vocabulary : the words' centroids.
    words : (R,) uint16 words of structures.
    queries : (m, QUERY, k + 2) float32 rows of sequences.
    per_second : residues of which embeddings were made words in a second.
    """

    def __init__(
        self, vocabulary: ResidueWords, words: Words, queries: Float32, per_second: float
    ) -> None:
        self.vocabulary, self.words = vocabulary, words
        self.queries, self.per_second = queries, per_second

    @classmethod
    def of(cls, options: argparse.Namespace, folder: Path) -> RealWords:
        path = options.store
        if path is None:
            path = folder / "sample.zarr"
            files = sorted(file for file in SAMPLE.iterdir() if file.suffix != ".md")
            files = files[: options.chains]
            embed(files, path, ["protalign_t6_2M", "proteinmpnn_v_48_020"])
        shipped = Model.load(shipped_model(), "cpu") if options.store is None else None
        inputs = read_inputs(EmbeddingStore.open(path))
        pairs = Pairs.of(inputs)
        stage = fitted(inputs, pairs) if shipped is None else shipped.residue_scorer()
        rows = stage.plain_rows(
            "structure", some_rows(inputs, "structure", pairs.positions, SAMPLED)
        )
        vocabulary = ResidueWords.fit({"structure": rows})
        asked, found = pairs.positions[::2], pairs.positions[1::2]
        embeddings = some_rows(inputs, "structure", found, 4 * SAMPLED)
        embeddings = np.tile(embeddings, (-(-TIMED // len(embeddings)), 1))  # the sample has few
        clock = time.process_time if options.threads == 1 else time.perf_counter
        start = clock()
        words = vocabulary.of("structure", stage.plain_rows("structure", embeddings))
        per_second = len(words) / (clock() - start)
        return cls(vocabulary, words, queries_of(stage, inputs, asked, options.queries), per_second)


def fitted(inputs: Inputs, pairs: Pairs) -> ResidueStage:
    """Return a residue stage of these proteins alone."""
    sums = PairSums(inputs.dims["sequence"], inputs.dims["structure"])
    for block in inputs.paired_residues(pairs.positions):
        sums.add_parts(block)
    return sums.stage()


def made_up(residues: int, real: Words, rng: np.random.Generator) -> Words:
    """Return (residues,) words, pieces of real ones."""
    pieces = -(-residues // PIECE)
    starts = rng.integers(0, len(real) - PIECE, pieces)
    return real[(starts[:, None] + np.arange(PIECE)).reshape(-1)[:residues]]


def some_rows(inputs: Inputs, modality: Modality, positions: Int64, most: int) -> Any:
    """Return up to ``most`` residue embeddings of the first entries."""
    parts, count = [], 0
    for block in inputs.blocks(modality, positions, 1 << 21):
        parts.append(block.values)
        count += len(block.values)
        if count >= most:
            break
    return np.concatenate(parts)[:most]


def queries_of(stage: ResidueStage, inputs: Inputs, positions: Int64, count: int) -> Float32:
    """Return the rows of ``count`` queries: sequences one after another, from different places."""
    values = some_rows(inputs, "sequence", positions, 4 * SAMPLED)
    rows = stage.plain_rows("sequence", values)
    rows = np.concatenate([rows] * -(-2 * QUERY // len(rows)))
    starts = np.linspace(0, len(rows) - QUERY, count).astype(int)
    return np.stack([rows[start : start + QUERY] for start in starts])


def blocks(size: int, real: Words, median: int = MEDIAN) -> Iterator[tuple[Int64, Int64, Words]]:
    """Yield (numbers, lengths, words) of structures made of real words, of so many residues."""
    rng = np.random.default_rng(2)
    every = lengths(size, median)
    for first in range(0, size, ENTRIES_AT_ONCE):
        part = every[first : first + ENTRIES_AT_ONCE]
        yield np.arange(first, first + len(part)), part, made_up(int(part.sum()), real, rng)


def measure(
    size: int, real: RealWords, folder: Path, bandwidth: float, options: argparse.Namespace
) -> dict[str, Any]:
    path, queries = folder / f"index-{size}", folder / "queries.npy"
    np.save(queries, real.queries)
    making, _ = timed(lambda: sum(len(words) for _, _, words in blocks(size, real.words)))
    building, n_words = timed(lambda: build(path, size, real))
    building = max(building - making, 1e-9)
    n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    plain, _ = timed(lambda: write_plainly(folder / "plain", n_bytes))
    alone, together = (searched(path, queries, n, options) for n in (1, options.queries))
    one, each = statistics.median(alone["one"]), together["together"] / options.queries
    return {
        "structures": size,
        "residues": n_words,
        "gb": 1e-9 * n_bytes,
        "build": building,
        "gb_per_s": 1e-9 * n_bytes / building,
        "plain_gb_per_s": 1e-9 * n_bytes / plain,
        "words_per_s": real.per_second,
        "first": alone["first"],
        "one": one,
        "first_each": together["first"] / options.queries,
        "each": each,
        "limit": 2 * n_words / bandwidth,
        "peak_gb": 1e-6 * max(alone["kb"], together["kb"]),
    }


def searched(path: Path, queries: Path, n_first: int, options: argparse.Namespace) -> Any:
    """Return the figures of a process that opens an index for its first queries."""
    numbers = options.turns, CANDIDATES, options.threads, n_first
    ran = subprocess.run(
        [sys.executable, "-c", SEARCH, path, queries, *map(str, numbers)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return json.loads(ran.stdout)


def build(path: Path, size: int, real: RealWords) -> int:
    """Write an index of made-up structures; return its residues."""
    with (
        new_index(path, MADE_WITH, real.vocabulary) as (segment, parts),
        PartWriter(segment, "structure", real.vocabulary) as writer,
    ):
        for numbers, each, words in blocks(size, real.words):
            writer.add(numbers, each, words)
        parts["structure"] = writer.finish([f"p{number:07}" for number in range(size)], [])
    return parts["structure"].residues


def write_plainly(path: Path, count: int) -> None:
    """Write as many bytes to the disk, and wait for them."""
    block = np.random.default_rng(0).bytes(1 << 22)
    with path.open("wb") as file:
        for first in range(0, count, len(block)):
            file.write(block[: count - first])
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall-clock seconds and the result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def summary(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[Summary]:
    last = rows[-1]
    size = f"{last['structures']:,} structures by words"
    slope = ""
    if len(rows) > 1:
        before = rows[-2]
        growth = math.log(last["one"] / before["one"])
        slope = f"; slope {growth / math.log(last['structures'] / before['structures']):.2f}"
    return [
        {
            "part": f"search of {size}, a query of {QUERY} residues",
            "peer": f"the {SECONDS:g} s that it may take",
            "ratio": SECONDS / last["one"],
            "target": 1.0,
            "figure": f"{last['one']:.2f} s, {last['first']:.2f} s if the index is opened for it, "
            f"{last['peak_gb']:.2f} GB of memory",
            "limit": f"one reading of the words {last['limit']:.2f} s{slope}",
            "equal": "tests: the scores of plain loops",
        },
        {
            "part": f"search of {size}, {options.queries} queries for which the index is opened",
            "peer": "a query alone for which it is opened",
            "ratio": last["first"] / last["first_each"],
            "target": TARGET,
            "figure": f"{last['first_each']:.3f} s a query",
            "limit": "",
            "equal": "the same",
        },
        {
            "part": f"search of {size}, {options.queries} queries together in an open index",
            "peer": "a query alone in it",
            "ratio": last["one"] / last["each"],
            "target": None,
            "figure": f"{last['each']:.3f} s a query",
            "limit": "",
            "equal": "the same",
        },
        {
            "part": f"index of {size}",
            "peer": "a plain write of as many bytes",
            "ratio": last["gb_per_s"] / last["plain_gb_per_s"],
            "target": None,
            "figure": f"{last['build']:.1f} s for {last['gb']:.2f} GB; "
            f"{last['words_per_s']:,.0f} words/s made of embeddings",
            "limit": "",
            "equal": "",
        },
    ]


if __name__ == "__main__":
    main()
