"""Write docs/performance.md and docs/scaling.svg from the result files in benchmarks/results/.

    python benchmarks/report.py

Each line of the files' summaries becomes a row of a table. No figure is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository's folder

from benchmarks.shared.growth import draw_growth

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "scaling.svg"

HEAD = """# Performance

The column "times the peer" says how many times faster ProtAlign is than the peer beside it. Both
run in turns, in the same run, with the same threads, in one process (`protalign embed`: one program
each). On one thread CPU time is compared, which other programs disturb less. The limit is measured
in the same run too. The last column says how well the results agree.

The targets for bfloat16 were set on a processor with AMX, which multiplies matrices in bfloat16
four times as fast as in float32. AVX-512 alone does so twice as fast (the column "limit" has both),
so there they are missed.

`make bench` measures everything and writes this page (`benchmarks/report.py`, from the files in
`benchmarks/results/`). Each benchmark is a program in `benchmarks/speed/`; its `--help` lists its
options.
"""
TABLE = """
| part | peer | times the peer | target | figure | limit | agreement |
|---|---|---|---|---|---|---|
"""
GROWTH = """
## How cost grows

![seconds against proteins](scaling.svg)

Measured by `benchmarks/speed/scaling.py` (proteins of about 60 residues, embeddings of 32 values)
and `benchmarks/speed/words.py` (structures of about 300 residues). The slopes are those of the last
two sizes; 1 means that cost grows as the size does. Three things bend the lines. Starting takes
part of the time at the small end. `fit` holds rows in memory if they fit into a quarter of it;
otherwise an epoch reads windows of many blocks of neighbouring chunks, each chunk of the larger
modality once, and shuffles pairs within a window. And a search of 64 queries among few vectors is
mostly the cost of starting threads and of the smallest matrix blocks.

This is not a full shuffle: pairs of one block always share a window. If w of n pairs are in a
window, they meet in a batch n / w times as often; pairs of different blocks meet nearly as often as
in a full shuffle. Each epoch draws other windows. `benchmarks/speed/shuffling.py` measures the
slope, an epoch beside one reading of its bytes, and what both orders teach.
"""


def main() -> None:
    PAGE.write_text(page())
    draw(PLOT)
    for file in (PAGE, PLOT):
        print(f"{file.relative_to(ROOT)} is written")


def read_reports() -> list[dict[str, Any]]:
    """Return the results, in the order of the files' names."""
    reports = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    return [report for report in reports if "summary" in report]


def draw(path: Path) -> None:
    """Draw the growth of cost as the newest results of scaling.py have it.

    Those of a machine on which words.py was run too come first: the figure shows both.
    """
    reports = sorted(read_reports(), key=lambda report: str(report["date"]))
    words = {_machine(each): each["rows"] for each in reports if each["benchmark"] == "words"}
    scaling = [each for each in reports if each["benchmark"] == "scaling"]
    newest = sorted(scaling, key=lambda each: _machine(each) in words)[-1]
    threads = newest["settings"]["threads"]
    processor = newest["machine"]["processor"]
    draw_growth(newest["rows"], words.get(_machine(newest), []), processor, threads, path)


def page() -> str:
    """Return the page: a table for each machine, and the growth of cost."""
    reports = read_reports()
    text = HEAD
    for name in sorted({_machine(report) for report in reports}):
        measured = [report for report in reports if _machine(report) == name]
        lines = [_row(line) for report in measured for line in report["summary"]]
        text += f"\n## {name}\n{TABLE}" + "\n".join(lines) + "\n\n" + _runs(measured) + "\n"
    return text + GROWTH


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine"]
    features = [name for key, name in (("amx", "AMX"), ("avx512", "AVX-512")) if machine[key]]
    processor = machine["processor"].replace("(R)", "").replace("  ", " ")
    parts = [
        f"{machine['cores']} cores of {processor}" + (f" with {features[0]}" if features else "")
    ]
    parts += ["virtual machine"] * machine["virtual"]
    return ", ".join([*parts, f"{machine['memory_gb']} GB", machine["gpu"] or "no GPU"])


def _row(line: dict[str, Any]) -> str:
    ratio = "" if line["ratio"] is None else f"{line['ratio']:.{1 if line['ratio'] >= 1 else 2}f}"
    if line["target"] is None:
        target = ""
    elif line["ratio"] >= line["target"]:
        target = f"{line['target']:g}"
    else:  # two digits show how close it is
        ratio, target = f"{line['ratio']:.2f}", f"{line['target']:g}, missed"
    cells = [line["part"], line["peer"], ratio, target, line["figure"], line["limit"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, line["equal"]]) + " |"


def _runs(reports: list[dict[str, Any]]) -> str:
    """Return a line for each run: date, threads, load and versions."""
    lines = []
    for report in reports:
        versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
        threads = report["settings"].get("threads", 1)
        plural = "" if threads == 1 else "s"
        lines.append(
            f"- {report['benchmark']}: {report['date']}, {threads} thread{plural}, load before "
            f"{report['machine']['load_before']:.1f}, {versions}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
