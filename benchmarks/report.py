"""Writes docs/performance.md out of the result files in benchmarks/results/.

    python benchmarks/report.py

One table row for each line of the files' summaries; nothing in the page is typed by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"

HEAD = """# Performance

Each figure is a ratio against the peer named beside it, both run in turns in one process
(`protalign embed`: one program each), with the same threads, in the same run; on one thread CPU
time is compared, which other programs disturb less. The limit is measured in the same run too. The
results are equal within what the last column says. `make bench` measures all of it and writes this
page (`benchmarks/report.py`, out of the files in `benchmarks/results/`); each benchmark is one
command, whose options its `--help` lists.
"""
TABLE = """
| part | peer | times the peer | target | figure | limit | agreement |
|---|---|---|---|---|---|---|
"""
GROWTH = """
## How cost grows

![seconds against proteins](scaling.svg)

Drawn by `benchmarks/speed/scaling.py`; the slopes are of the last two sizes, 1 where cost grows as the
size does. What bends a line: starting (imports are done before, but a scheduler starts for each
store) counts at the small end. `fit` holds rows in memory up to a quarter of it, and beyond that
streams them from the store, a batch ahead of its use, at the speed of random reads. A search of 64
queries costs threads and matrix blocks of their least size where vectors are few.
"""


def main() -> None:
    reports = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    reports = [report for report in reports if "summary" in report]
    page = HEAD
    for where in sorted({_where(report) for report in reports}):
        here = [report for report in reports if _where(report) == where]
        lines = [_row(line) for report in here for line in report["summary"]]
        page += f"\n## {where}\n{TABLE}" + "\n".join(lines) + "\n\n" + _how(here) + "\n"
    if (PAGE.parent / "scaling.svg").is_file():
        page += GROWTH
    PAGE.write_text(page)
    print(f"{PAGE.relative_to(ROOT)}: {len(reports)} result files")


def _where(report: dict[str, Any]) -> str:
    machine = report["machine"]
    features = [name for key, name in (("amx", "AMX"), ("avx512", "AVX-512")) if machine[key]]
    processor = machine["processor"].replace("(R)", "").replace("  ", " ")
    parts = [f"{machine['cores']} cores of {processor}" + f" with {features[0]}" * bool(features)]
    parts += ["virtual machine"] * machine["virtual"]
    return ", ".join([*parts, f"{machine['memory_gb']} GB", machine["gpu"] or "no GPU"])


def _row(line: dict[str, Any]) -> str:
    ratio = "" if line["ratio"] is None else f"{line['ratio']:.{1 if line['ratio'] >= 1 else 2}f}"
    if line["target"] is None:
        target = ""
    elif line["ratio"] >= line["target"]:
        target = f"{line['target']:g}"
    else:  # by how little, where it is little
        ratio, target = f"{line['ratio']:.2f}", f"{line['target']:g}, missed"
    cells = [line["part"], line["peer"], ratio, target, line["figure"], line["limit"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, line["equal"]]) + " |"


def _how(reports: list[dict[str, Any]]) -> str:
    """Date, threads and versions of the runs, one line each."""
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
