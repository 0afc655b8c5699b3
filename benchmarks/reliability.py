"""Write the table of docs/reliability.md from the result files in benchmarks/results/reliability/.

    python benchmarks/reliability.py

Each test of `make reliability` writes what it counted to a file. No figure is typed by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: benchmarks/reliability.py -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Row:
    """A row of the table: what is tried, what is demanded, and the tests that do it."""

    title: str
    bar: str
    tests: tuple[str, ...]
    #: Figures that are the largest of the tests', not their sum.
    largest: tuple[str, ...] = ()
    #: The figure that ``make reliability`` is given as FUZZ; "" for rows of which SIZE decides.
    fuzz: str = ""


FOLDER = "tests/reliability"
ROWS = (
    Row(
        "kill -9 at random moments of embed, fit, export, split, index, reproduce; then again",
        "300 kills: old or new, never half, never gone; embed's bytes equal; no debris after the "
        "next run",
        (f"{FOLDER}/test_kills.py",),
    ),
    Row(
        "damage of stores, models and Parquet files, in every kind of file",
        "1,000 flips, 200 truncations, 100 deletions, 100 swaps: found by `verify`; no reader "
        "silently different",
        (f"{FOLDER}/test_store_damage.py", f"{FOLDER}/test_file_damage.py"),
    ),
    Row(
        "bad inputs, made from good ones",
        "400: each is read right or is one line; the others are all embedded",
        (f"{FOLDER}/test_bad_inputs.py",),
    ),
    Row(
        "a full disk, for every command that writes",
        "20 sizes: one line, exit code 2, nothing half; embed goes on",
        (f"{FOLDER}/test_full_disk.py",),
    ),
    Row(
        "50 embeds of one store, readers beside a writer, two fits or exports to one target",
        "one wins, the others say who; no torn read; the target is whole",
        (f"{FOLDER}/test_races.py",),
    ),
    Row(
        "worker processes killed at their start, in a batch, at the commit; a poison record",
        "50 kills each: all others are done, the poison is named",
        (f"{FOLDER}/test_workers.py",),
    ),
    Row(
        "memory: chains of 10,000 and 35,000 residues, a complex of 15,000, 200,000 short "
        "sequences",
        "no more than `embed` predicts",
        (f"{FOLDER}/test_memory.py",),
        ("MB at the peak", "MB predicted"),
    ),
    Row(
        "hostile stores, models, archives, tables",
        "40: nothing run, nothing written outside, bounded memory, one line",
        (f"{FOLDER}/test_hostile_stores.py", f"{FOLDER}/test_hostile_files.py"),
        ("most memory (MB)",),
    ),
    Row(
        "a server: encoders that raise in its threads, a full disk, malformed bodies, slow "
        "clients, uploads of 200 MB, open connections",
        "1,000 bodies, 500 slow clients, 40 uploads, 10,000 connections: up, the right answer "
        "afterwards, each refused in the one form of errors",
        (f"{FOLDER}/test_serve.py",),
    ),
    Row(
        "fuzzing of the four readers",
        "no exception but the project's own",
        ("tests/reading/test_fuzz.py",),
        fuzz="files",
    ),
)


def main() -> None:
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(results())}\n{END}{after}")
    print(f"{PAGE.relative_to(ROOT)} is written")


def results() -> list[dict[str, Any]]:
    """Return what the tests wrote."""
    files = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    return [result for file in files for result in file.values()]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table, and a line for each machine."""
    lines = ["| test | bar | seen | `make reliability` | machine |", "|---|---|---|---|---|"]
    machines: list[str] = []
    for row in ROWS:
        ours = [each for each in results if each["test"].partition("::")[0] in row.tests]
        for each in ours:
            if (name := _machine(each)) not in machines:
                machines.append(name)
        cells = [row.title, row.bar, _seen(row, ours), _commands(row, ours)]
        cells.append(", ".join(sorted({f"{machines.index(_machine(e)) + 1}" for e in ours})))
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{number}. {name}" for number, name in enumerate(machines, 1)]
    return "\n".join([*lines, "", "Machines:", "", *notes, ""])


def _seen(row: Row, results: Sequence[dict[str, Any]]) -> str:
    """Return the sums of a row's figures, and how many of its tests passed."""
    if not results:
        return "not run"
    figures: Counter[str] = Counter()
    for result in results:
        for name, value in result["figures"].items():
            figures[name] = (
                max(figures[name], value) if name in row.largest else figures[name] + value
            )
    failed = [each for each in results if not each["passed"]]
    parts = [f"{value:,} {name}" for name, value in figures.items()]
    parts.append(f"{len(results) - len(failed)} of {len(results)} tests passed")
    return "; ".join(parts)


def _commands(row: Row, results: Sequence[dict[str, Any]]) -> str:
    """Return the options of ``make reliability`` that ran a row's tests, and the dates."""
    runs = sorted(
        {
            (
                each["test"].partition("::")[0],
                f"FUZZ={each['figures'][row.fuzz]}" if row.fuzz else f"SIZE={each['size']}",
                each["date"],
            )
            for each in results
        }
    )
    return (
        ", ".join(f"`{size} ROWS={file}` ({date})" for file, size, date in runs)
        or f"`ROWS='{' '.join(row.tests)}'`"
    )


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    processor = machine["processor"].replace("(R)", "").replace("  ", " ")
    return (
        f"{machine['cores']} cores of {processor}, {machine['memory_gb']} GB, {machine['system']}"
    )


if __name__ == "__main__":
    main()
