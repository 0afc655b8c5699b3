"""The report's tables as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEADER = ["", "paper @1", "@5", "Recall@1", "Recall@5", "MRR", "validation MRR", "best epoch"]


def table_lines(table: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """(title, header, rows) of one of ``results["tables"]``."""
    rows = []
    for row in table["rows"]:
        test = row["test"]["sequence_to_structure"]
        rows.append(
            [
                row["label"],
                *(_paper(row["paper"].get(f"recall_at_{k}")) for k in (1, 5)),
                _spread(test["recall_at_1"], 100, 1),
                _spread(test["recall_at_5"], 100, 1),
                _spread(test["mrr"], 1, 3),
                _spread(row["validation"]["mrr"], 1, 3),
                _spread(row["best_epoch"], 1, 0),
            ]
        )
    return table["title"], _HEADER, rows


def _paper(value: float | None) -> str:
    return "" if value is None else f"{round(100 * value, 2)}"


def _spread(summary: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if summary is None:
        return "-"
    text = f"{scale * summary['mean']:.{digits}f}"
    return text if summary["sd"] is None else f"{text} ± {scale * summary['sd']:.{digits}f}"
