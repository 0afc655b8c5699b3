"""Costs that go by the entry, at 2, 5 and 10 million made-up entries in as many stores.

    python benchmarks/speed/many_entries.py --folder /data
    python benchmarks/speed/many_entries.py --shard 300 --shards 3      # a quick check

Entries of six residues with 2 x 8 values, so that hours of made-up numbers are not in the way:
stores of a million entries, as many jobs would write them. Each step runs as a process of its own
over two of the stores, five, and all ten (or as many as --shards leaves), which are read as one:
opening and counting, `protalign info`, the first look-up of an id, `protalign verify`,
`protalign export` to a folder, `protalign index`, and an exact search of 64 vectors in the folder.
The line through the first two sizes predicts the third, and stands beside what was measured. Memory
is the peak of what the process held itself (RssAnon), without what is mapped from files.

A size of a single store is read as several are too: it is opened by a pattern, since a store that
is named is opened in another way.

Every run begins cold. Before it, what waits is written to the disk, and the system is asked to
drop the contents of all files of the stores, the vectors and the index from its cache
(POSIX_FADV_DONTNEED). Their names and sizes may stay in the system's memory, the disk may have a
cache of its own, and Python, its libraries and the model are not evicted. A file system in memory
has nothing to drop.

A step of less than a minute is run three times, and the median counts. Ten million entries need
40 GB of disk and two hours, most of it to make the stores. --folder keeps them, and the next run
takes them up; so it does the figures of --steps that are not measured again, if --json has them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.made_up import kept_store
from benchmarks.shared.measuring import ROOT, Summary, arguments, evict, write
from protalign import EmbeddingStore, ProtAlignEstimator

MEDIAN, DIMS, QUERIES = 6, (8, 8), 64
#: Seconds below which a step is run three times.
SHORT = 60.0
PROGRAM = "from protalign.cli import main; main()"
OPEN = "from protalign import EmbeddingStore as S; import sys; len(S.open(sys.argv[1:]))"
LOOK_UP = "from protalign import EmbeddingStore as S; import sys; S.open(sys.argv[2:])[sys.argv[1]]"
SEARCH = """
import sys
from protalign import read_vectors
from protalign.search import Index
vectors = read_vectors(sys.argv[1])
Index(vectors).search(vectors.sequence[: int(sys.argv[2])], k=10)
"""


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        kept = options.folder or Path(scratch)
        shards = stores(options, kept)
        model = Path(scratch) / "model"
        fitted = ProtAlignEstimator(max_epochs=1, early_stopping=False, random_state=0)
        fitted.fit(EmbeddingStore.open(shards[0])[: min(20_000, options.shard // 10)]).save(model)
        rows = [
            measure(shards[:count], model, Path(scratch), options)
            for count in sizes(options.shards)
        ]
    if options.json is not None and options.json.is_file():
        rows = merged(json.loads(options.json.read_text())["rows"], rows)
    lines = compare(rows)
    print(f"{'step':10}{'entries':>12}{'s':>9}{'predicted s':>13}{'GB':>8}{'predicted GB':>14}")
    for line in lines:
        print(
            f"{line['step']:10}{line['entries']:>12,}{line['seconds']:>9.1f}"
            f"{line['predicted_seconds']:>13.1f}{line['gb']:>8.2f}{line['predicted_gb']:>14.2f}"
        )
    write(options, "many_entries", [*rows, *lines], summary(lines))


def merged(before: Sequence[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the steps that another run has measured of the same stores."""
    what = ("entries", "stores", "cold")
    old = {tuple(row.get(w) for w in what): row for row in before}
    return [{**old.get(tuple(row[w] for w in what), {}), **row} for row in now]


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--shard", type=int, default=1_000_000, help="entries of a store")
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="folder for the stores, which stay there")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    options = parser.parse_args()
    if options.shards < 3:
        parser.error("--shards: two smaller sizes predict the largest; give 3 or more")
    return options


def sizes(shards: int) -> tuple[int, int, int]:
    """Return how many stores are read together: two smaller numbers, and all."""
    second = max(2, shards // 2)
    return max(1, 2 * second // 5), second, shards


def stores(options: argparse.Namespace, folder: Path) -> list[Path]:
    """Return the stores; make those that are missing."""
    return [
        kept_store(
            folder / f"{number}.zarr",
            options.shard,
            median=MEDIAN,
            dims=DIMS,
            first=number * options.shard,
        )
        for number in range(1, options.shards + 1)
    ]


def measure(
    paths: Sequence[Path], model: Path, scratch: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Return seconds and GB of memory of each step, and the sizes of what it wrote."""
    names = [str(path.with_suffix(".zar[r]")) for path in paths]  # patterns, of one store as well
    store = EmbeddingStore.open(names)
    row: dict[str, Any] = {
        "entries": len(store),
        "residues": int(store.lengths.sum()),
        "stores": len(paths),
        "cold": True,
        "store_gb": store.info()["bytes"] / 1e9,
    }
    vectors, index = scratch / "vectors", scratch / "index"
    files, outputs = [*paths, vectors, index], {"export": vectors, "index": index}
    commands = {
        "open": ["-c", OPEN, *names],
        "info": ["-c", PROGRAM, "info", *names, "--json"],
        "look up": ["-c", LOOK_UP, str(store.ids[-1]), *names],
        "verify": ["-c", PROGRAM, "verify", *names],
        "export": [
            *("-c", PROGRAM, "export", *names),
            *("--model", str(model), "--out", str(vectors), "--quiet"),
        ],
        "index": [
            *("-c", PROGRAM, "index", *names),
            *("--model", str(model), "--out", str(index), "--quiet"),
        ],
        "search": ["-c", SEARCH, str(vectors), str(QUERIES)],
    }
    del store
    for step in options.steps:
        runs: list[dict[str, float]] = []
        while not runs or (runs[0]["seconds"] < SHORT and len(runs) < 3):
            if step in outputs:
                shutil.rmtree(outputs[step], ignore_errors=True)
            evict(files)
            runs.append(run([sys.executable, *commands[step]], options.threads))
        row[step] = {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        print(f"{row['entries']:>12,} {step:10} {row[step]['seconds']:8.1f} s", flush=True)
    for path in (vectors, index):
        if path.exists():
            row[f"{path.stem}_gb"] = size_of(path) / 1e9
            shutil.rmtree(path)
    return row


STEPS = ("open", "info", "look up", "verify", "export", "index", "search")


def run(command: Sequence[str], threads: int) -> dict[str, float]:
    """Run a command; return its wall-clock seconds and the peak of its own memory in GB."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process, peak), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - begin
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])}: exit code {process.returncode}\n{output}")
    return {"seconds": seconds, "gb": peak[0] / 1e9}


def watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Keep the largest RssAnon of a process, which files that are mapped are not part of."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        if "RssAnon:" in status:
            peak[0] = max(peak[0], 1024 * int(status.partition("RssAnon:")[2].split()[0]))
        time.sleep(0.01)


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def compare(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each step, what the line through two sizes predicts of the third."""
    few, more, many = rows
    between = more["entries"] - few["entries"]
    part = (many["entries"] - few["entries"]) / between
    lines = []
    for step in STEPS:
        if step not in many:
            continue
        line = {"step": step, "entries": many["entries"], "stores": [row["stores"] for row in rows]}
        for figure in ("seconds", "gb"):
            first, second = few[step][figure], more[step][figure]
            line[figure] = many[step][figure]
            line[f"predicted_{figure}"] = first + part * (second - first)
            line[f"{figure}_an_entry"] = (second - first) / between
        lines.append(line)
    return lines


def summary(lines: Sequence[dict[str, Any]]) -> list[Summary]:
    return [
        {
            "part": f"{line['step']} at {line['entries']:,} entries, cold",
            "peer": "",
            "ratio": None,
            "target": None,
            "figure": f"{line['seconds']:.1f} s, {line['gb']:.2f} GB of memory",
            "limit": f"{line['stores'][0]} and {line['stores'][1]} of {line['stores'][2]} stores "
            f"predict {line['predicted_seconds']:.1f} s, {line['predicted_gb']:.2f} GB",
            "equal": "",
        }
        for line in lines
    ]


if __name__ == "__main__":
    main()
