"""Runs to tables: mean and standard deviation over the seeds, the paper's figures beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protalign.core.protein import DIRECTIONS
from protalign.report.experiments import Grid, Row, configuration_name

#: A direction's figures in the tables; keys as in ``protalign.evaluation.summary``.
FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank")

_HEADER = ["", "paper @1 %", "@5 %", "Recall@1 %", "@5 %", "MRR", "validation MRR", "best epoch"]


def tables(
    grid: Grid, records_of: Mapping[str, Sequence[Mapping[str, Any]]], errors: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Fill the grid's tables with figures.

    Parameters
    ----------
    grid : Grid
        The tables.
    records_of : mapping
        ``configuration_name`` -> the records of its complete runs.
    errors : mapping
        ``configuration_name`` -> the reason why a run failed.

    Returns
    -------
    list of dict
        "tables" of results.json (docs/report.md).
    """
    return [
        {
            "key": table.key,
            "title": table.title,
            "note": table.note,
            "rows": [_row(row, records_of, errors) for row in table.rows],
        }
        for table in grid.tables
    ]


def _row(
    row: Row, records_of: Mapping[str, Sequence[Mapping[str, Any]]], errors: Mapping[str, str]
) -> dict[str, Any]:
    name = configuration_name(row.parameters)
    records = records_of.get(name, [])
    validated = [record for record in records if record["validation"]]
    return {
        "label": row.label,
        "parameters": dict(row.parameters),
        "paper": dict(row.paper),
        "runs": [record["key"] for record in records],
        "error": errors.get(name, ""),
        "test": {direction: _figures(records, "test", direction) for direction in DIRECTIONS},
        "validation": _figures(validated, "validation", DIRECTIONS[0]),
        "epochs": summary([record["epochs"] for record in records]),
        "best_epoch": summary([record["best_epoch"] for record in records]),
        "stopped_by_limit": sum(
            record["epochs"] >= record["parameters"]["max_epochs"] for record in records
        ),
        "seconds": summary([record["seconds"] for record in records]),
        "temperature": summary([record["temperature"] for record in records]),
        "bias": summary([r["bias"] for r in records if r["bias"] is not None]),
    }


def _figures(records: Sequence[Mapping[str, Any]], part: str, direction: str) -> dict[str, Any]:
    return {key: summary([record[part][direction][key] for record in records]) for key in FIGURES}


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Return the mean, the standard deviation (n - 1) and the values; None without values.

    The deviation of a single value is None.

    Examples
    --------
    >>> summary([1.0, 2.0, 3.0])
    {'mean': 2.0, 'sd': 1.0, 'values': [1.0, 2.0, 3.0]}
    """
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)) if len(array) > 1 else None,
        "values": [float(value) for value in array],
    }


def table_lines(table: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Return one of results.json's tables as text for a terminal: (title, header, rows)."""
    rows = []
    for row in table["rows"]:
        test = row["test"]["sequence_to_structure"]
        paper = (row["paper"].get(f"recall_at_{k}") for k in (1, 5))
        rows.append(
            [
                row["label"],
                *("" if value is None else f"{round(100 * value, 2)}" for value in paper),
                _spread(test["recall_at_1"], 100, 1),
                _spread(test["recall_at_5"], 100, 1),
                _spread(test["mrr"], 1, 3),
                _spread(row["validation"]["mrr"], 1, 3),
                _spread(row["best_epoch"], 1, 0),
            ]
        )
    return table["title"], _HEADER, rows


def _spread(figure: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if figure is None:
        return "-"
    text = f"{scale * figure['mean']:.{digits}f}"
    return text if figure["sd"] is None else f"{text} ± {scale * figure['sd']:.{digits}f}"
