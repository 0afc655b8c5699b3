"""Write docs/scale.md: what many structures cost, from the result files in benchmarks/results/.

    python benchmarks/scale.py

Every cost is a rate that a benchmark measured, times a count. No figure is typed by hand but those
of ``ASSUMED``, which the page names.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository's folder

from protalign.core.protein import MODALITIES
from protalign.embedding import BYTES_PER_ENTRY

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "scale.md"
SIZES = (1_000_000, 20_000_000, 200_000_000)
#: Residues of a structure; widths of both encoders' rows; bytes of a number; operations a residue
#: of the large language model, and of the GPU a second (its maker's figure for bfloat16).
ASSUMED = {"residues": 350, "bytes": 2, "operations": 1.3e9, "gpu": 989e12}
#: Bytes of a residue's embeddings in the stores of two benchmarks: 2 x 8 and 2 x 32 values of 2.
BYTES_OF_MADE_UP = {"many_entries": 32, "scaling": 128}
#: Objects in a bucket (docs/store-format.md): residues of a chunk, PUTs for each chunk, and PUTs of
#: each commit and the entries that it has.
CHUNK, PUTS, PUTS_OF_COMMIT, COMMIT = 8192, 2, 100, 2000
ENCODERS_OF_A_STORE = 2
#: Bytes of memory for each entry that trains, and of each vector that is put into an index, as
#: docs/cluster.md and ``protalign.search.cell_building`` count the arrays.
BYTES_TO_TRAIN, BYTES_TO_INDEX = 120, 4
WIDTHS = {"ESM2-8M and ProteinMPNN": 320 + 128, "ESM2-650M and ProteinMPNN": 1280 + 128}
ENCODERS = {
    "esm2_t6_8M_UR50D": "ESM2-8M",
    "esm2_t30_150M_UR50D": "ESM2-150M",
    "proteinmpnn": "ProteinMPNN's encoder",
}

HEAD = """# Scale

What 1, 20 and 200 million structures cost: a prediction, and how it was checked. Rates are those
that the benchmarks measured ([performance.md](performance.md)), on two cores; costs are rates
times counts. `benchmarks/scale.py` writes this page from `benchmarks/results/`.

Assumed: {residues} residues a structure, one chain each, all different; embeddings of two bytes a
number. Nobody ran 200 million structures through ProtAlign yet. What was run is in the last
table.
"""


def main() -> None:
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(ROOT)} is written")


def page() -> str:
    """Return the page."""
    entries, growth = newest("many_entries"), newest("scaling")
    text = HEAD.format(**ASSUMED)
    text += "\n## Disk\n\n" + table(["", *counts()], disk(entries["rows"], growth["rows"][-1]))
    text += DISK
    text += "\n## Time\n\n" + table(
        ["", "rate", *counts()],
        [*hours(), *steps(entries["rows"], growth["rows"][-1]), *fits(), *vectors()],
    )
    text += TIME.format(gpu=f"{ASSUMED['gpu'] / 1e12:.0f}")
    text += "\n## Requests in object storage\n\n" + table(["", *counts()], requests()) + REQUESTS
    text += "\n## Memory of a process\n\n" + table(["", *counts()], memory(entries["rows"]))
    text += "\n" + textwrap.fill(MEMORY.format(**of_fit()), 100, break_on_hyphens=False) + "\n"
    told = textwrap.fill(HELD.format(**held(entries)), 100, break_on_hyphens=False)
    return text + f"\n## Held to a measurement\n\n{told}\n\n" + check(entries)


DISK = """
Embeddings are nearly all of it. What a search reads is small: vectors for the first stage, words
or a store for the second. So a lab that has no room for all embeddings embeds shard by shard,
exports the vectors and makes the index of each, and keeps the stores of what it looks into again.
"""
TIME = """
Two cores embed a proteome, not a database. A job of an array does its part of the hours: 1,000
jobs take a thousandth each ([cluster.md](cluster.md)). No GPU was measured. Its line is the
card's speed by its maker ({gpu} TFLOP/s in bfloat16, an H200), of which half is counted: what
good kernels reach, not what was seen here. `benchmarks/speed/gpu.py` measures it. Vectors that
memory does not hold are read from the disk by each exact search, and that takes the disk's time.
An index of vectors was measured at one size. Beyond it a vector is compared with more cells, so
building it grows with the power 1.5 of their number, and searching it less than their number.
"""
REQUESTS = """
Chunks of embeddings are most of them. [store-format.md](store-format.md) counts the others, which
a bucket of forty entries shows best. An epoch asks for a chunk again if two windows share items.
"""
MEMORY = """That is what a process holds itself. Embeddings, vectors and words are mapped from
files, and the system keeps as many of their pages as there is room for. Lines that are counted add
up the arrays that an entry takes; that of `embed` was measured with 100,000 entries. Shards of a
database have a part of the entries each, and so need a part of the memory. What `fit` holds of the
embeddings does not grow with them: over {gb:.0f} GB, with {allowed:g} GB of memory allowed, it
took {peak:.1f} GB."""
HELD = """{entries:,} made-up entries of {residues:.1f} residues with 2 x 8 values, in {stores}
stores, on {machine} (`python benchmarks/speed/many_entries.py`, {date}). The line through
{few} and {more} predicts seconds and memory of all. {cache} {verdict} The tables above take the
costs of {entries:,} entries.
"""
#: By whether every run began without the stores' files in the system's cache.
CACHE = {
    True: "Before each run the system was asked to drop the stores' files, the vectors and the "
    "index from its cache, so all is read from the disk.",
    False: "Files were in the system's cache or not, as the runs before had left them.",
}
#: The share by which a prediction may be off.
WITHIN = 0.3


def newest(name: str) -> dict[str, Any]:
    """Return a benchmark's newest results; of one day those whose file comes first by name."""
    reports = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    measured = [report for report in reports if report.get("benchmark") == name]
    return max(measured, key=lambda report: str(report["date"]))


def counts() -> list[str]:
    return [f"{size // 1_000_000} million" for size in SIZES]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def disk(rows: Sequence[dict[str, Any]], growth: dict[str, Any]) -> list[list[str]]:
    """Return lines of GB; bytes an entry and a residue come from two stores without embeddings."""
    one = rows[1]
    n, m = one["entries"], one["residues"]
    few = 1e9 * one["store_gb"] - m * BYTES_OF_MADE_UP["many_entries"]
    p, q = growth["proteins"], growth["residues"]
    many = 1e9 * growth["gb"] - q * BYTES_OF_MADE_UP["scaling"]
    an_entry = (few * q - many * m) / (n * q - p * m)
    a_residue = (few - n * an_entry) / m
    residues = ASSUMED["residues"]
    each = {"sequences, coordinates and ids": an_entry + residues * a_residue}
    for name, width in WIDTHS.items():
        each[f"embeddings of {name}"] = residues * width * ASSUMED["bytes"]
    each["vectors of both modalities, Parquet and flat"] = 1e9 * one["vectors_gb"] / n
    words = newest("words")["rows"][-1]
    each["index of residue words"] = 2e9 * words["gb"] / words["residues"] * residues
    count, ours, _ = of_vectors()
    each["index of one modality's vectors"] = 1e9 * ours["disk_gb"] / count
    return [[name, *(size_of(size * a) for size in SIZES)] for name, a in each.items()]


def hours() -> list[list[str]]:
    """Return lines of hours of reading and encoding, for each machine that was measured."""
    residues = ASSUMED["residues"]
    lines = []
    for file in sorted(RESULTS.rglob("*.json")):
        report = json.loads(file.read_text())
        name = report.get("benchmark")
        what = ENCODERS.get(report["settings"].get("model") if name == "esm2" else name)
        if what is None:
            continue
        sides = [row for row in report["rows"] if row["side"].startswith("protalign")]
        best = max(sides, key=lambda row: row["residues_per_second"])
        rate = best["residues_per_second"]
        dtype = best["side"].removeprefix("protalign ")
        label = f"{what}, {dtype}, {machine(report)}"
        lines.append(
            [label, f"{rate:,.0f} residues/s", *(duration(n * residues / rate) for n in SIZES)]
        )
    rate = ASSUMED["gpu"] / 2 / ASSUMED["operations"]
    lines.append(
        [
            "ESM2-650M, bfloat16, a GPU (not measured)",
            f"{rate:,.0f} residues/s",
            *(duration(n * residues / rate) for n in SIZES),
        ]
    )
    return lines


def steps(rows: Sequence[dict[str, Any]], growth: dict[str, Any]) -> list[list[str]]:
    """Return lines of hours of all that needs no encoder, from the costs of most entries."""
    small, one = rows[0], rows[2]
    entries = one["entries"] - small["entries"]
    embed = growth["residues"] / growth["embed"]
    gb = 2 * ASSUMED["residues"] * WIDTHS["ESM2-8M and ProteinMPNN"] / 1e9
    verify = growth["gb"] / growth["verify"]
    # Of embeddings of the usual widths; those of ``rows`` are narrow.
    index = newest("words")["rows"][-1]["words_per_s"] / len(MODALITIES)
    export = entries / (one["export"]["seconds"] - small["export"]["seconds"])
    search = entries / (one["search"]["seconds"] - small["search"]["seconds"])
    lengths = ASSUMED["residues"]
    place = "read from the disk" if one.get("cold", False) else "all in memory"
    return [
        line("`embed` without the encoders", f"{embed:,.0f} residues/s", lengths / embed),
        line("`verify` of ESM2-8M's, from the system's cache", f"{verify:.1f} GB/s", gb / verify),
        line("`index`, beside reading the embeddings", f"{index:,.0f} residues/s", lengths / index),
        line("`export`, beside reading the embeddings", f"{export:,.0f} entries/s", 1 / export),
        line(f"an exact search of 64 vectors, {place}", f"{search:,.0f} entries/s", 1 / search),
    ]


def of_fit() -> dict[str, float]:
    """Return the size, the speed and the memory of a fit over more than the memory holds."""
    report = newest("larger_than_memory")
    whole = report["rows"][-1]
    return {
        "gb": whole["gb"],
        "allowed": report["settings"]["memory_gb"],
        "peak": whole["peak_gb"],
        "gb_per_s": whole["gb"] / whole["epoch_seconds"],
    }


def fits() -> list[list[str]]:
    """Return lines of hours of an epoch, by the bytes that it reads from the disk."""
    rate = of_fit()["gb_per_s"]
    bytes_of = {name: ASSUMED["residues"] * ASSUMED["bytes"] * w for name, w in WIDTHS.items()}
    return [
        line(f"an epoch of `fit`, {name}", f"{rate:.2f} GB/s", bytes_of[name] / 1e9 / rate)
        for name in WIDTHS
    ]


def of_vectors() -> tuple[int, dict[str, Any], str]:
    """Return how many vectors an index was measured with, its figures, and the count as text."""
    report = newest("vectors")
    count = report["settings"]["rows"]
    (ours,) = (row for row in report["rows"] if row["kind"] == "protalign")
    return count, ours, f"{count // 1_000_000} million"


def vectors() -> list[list[str]]:
    """Return lines of the time that an index of vectors takes, and a search by it, at most.

    A vector is compared with all cells, and their number grows as the root of the vectors' does.
    """
    count, ours, measured = of_vectors()
    built, together = ours["build_s"], 64 * ours["together_ms"] / 1e3
    building = [built * (n / count) ** (1.5 if n > count else 1) for n in SIZES]
    searching = [together * n / count for n in SIZES]
    return [
        ["`index`, of one modality's vectors, at most", f"{measured} in {built:.0f} s"]
        + [duration(seconds) for seconds in building],
        ["a search of 64 vectors by it, at most", f"{measured} in {together:.2f} s"]
        + [duration(seconds) for seconds in searching],
    ]


def requests() -> list[list[str]]:
    """Return lines of requests, in millions."""
    chunks = ENCODERS_OF_A_STORE * ASSUMED["residues"] / CHUNK
    each = {
        "PUT of `embed`": PUTS * chunks + PUTS_OF_COMMIT / COMMIT,
        "GET of `export`, of `verify`, and of an epoch of `fit`": chunks,
    }
    return [
        [name, *(f"{n * count / 1e6:,.2f} million" for n in SIZES)] for name, count in each.items()
    ]


def line(name: str, rate: str, seconds: float) -> list[str]:
    return [name, rate, *(duration(size * seconds) for size in SIZES)]


def memory(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    small, one = rows[0], rows[2]
    lines = []
    for step in ("open", "info", "look up", "verify", "export", "index", "search"):
        an_entry = 1e9 * (one[step]["gb"] - small[step]["gb"]) / (one["entries"] - small["entries"])
        least = 1e9 * one[step]["gb"] - an_entry * one["entries"]
        lines.append([step, *(size_of(least + max(an_entry, 0) * size) for size in SIZES)])
    counted = {
        "embed, the store's index": BYTES_PER_ENTRY,
        "fit, beside its windows": BYTES_TO_TRAIN,
        "building an index of vectors": BYTES_TO_INDEX,
    }
    lines += [
        [f"{step} (counted)", *(size_of(each * size) for size in SIZES)]
        for step, each in counted.items()
    ]
    return lines


def held(report: dict[str, Any]) -> dict[str, Any]:
    few, more, many = report["rows"][:3]
    return {
        "entries": many["entries"],
        "residues": many["residues"] / many["entries"],
        "stores": many["stores"],
        "few": _compared(few),
        "more": _compared(more),
        "cache": CACHE[all(row.get("cold", False) for row in report["rows"][:3])],
        "verdict": verdict(report["rows"][3:]),
        "machine": machine(report),
        "date": report["date"],
    }


def _compared(row: dict[str, Any]) -> str:
    stores = "in one store" if row["stores"] == 1 else f"in {row['stores']} of the stores"
    return f"{row['entries']:,} entries {stores}"


def verdict(lines: Sequence[dict[str, Any]]) -> str:
    """Return for which steps the predictions of seconds, and of memory, hold."""
    parts = []
    for what, figure in (("Seconds", "seconds"), ("memory", "gb")):
        wrong = [f"`{line['step']}`" for line in lines if abs(off(line, figure)) > WITHIN]
        *others, last = wrong or [""]
        names = f"{', '.join(others)} and {last}" if others else last
        holds = f"hold{'s' if figure == 'gb' else ''} within {WITHIN:.0%}".replace("%", " %")
        parts.append(f"{what} {holds}{f' for all but {names}' if names else ''}")
    return f"**{'; '.join(parts)}.**"


def off(line: dict[str, Any], figure: str) -> float:
    """Return by which share of the prediction a measured figure is more than it."""
    return float(line[figure] / line[f"predicted_{figure}"] - 1)


def check(report: dict[str, Any]) -> str:
    lines = [
        [
            row["step"],
            f"{row['predicted_seconds']:.1f}",
            f"{row['seconds']:.1f}",
            f"{off(row, 'seconds'):+.0%}",
            f"{row['predicted_gb']:.2f}",
            f"{row['gb']:.2f}",
            f"{off(row, 'gb'):+.0%}",
        ]
        for row in report["rows"][3:]
    ]
    head = ["step", "predicted s", "measured s", "off by", "predicted GB", "measured GB", "off by"]
    return table(head, lines)


def machine(report: dict[str, Any]) -> str:
    facts = report["machine"]
    name = facts["processor"].replace("(R)", "").replace(" Processor", "")
    return f"{facts['cores']} cores of {name}" + (" with AMX" if facts["amx"] else "")


def size_of(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:,.{0 if count >= 100 * size else 1}f} {unit}"
    return f"{count / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.{0 if seconds >= 20 * size else 1}f} {unit}"
    return f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
