"""Runs to tables: mean and standard deviation over the seeds, the paper's figures beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protalign.report.experiments import Grid, Row, configuration_name

#: Figures of a direction that tables show; keys as in ``protalign.heads.ranks.retrieval_figures``.
FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank")
DIRECTIONS = ("sequence_to_structure", "structure_to_sequence")


def tables(
    grid: Grid, records_of: Mapping[str, Sequence[Mapping[str, Any]]], errors: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The grid's tables with figures.

    Parameters
    ----------
    records_of : by ``configuration_name``, the records of its finished runs.
    errors : by ``configuration_name``, why a run did not finish.
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
    return {
        "label": row.label,
        "parameters": dict(row.parameters),
        "paper": dict(row.paper),
        "runs": [record["key"] for record in records],
        "error": errors.get(name, ""),
        "test": {way: _directed(records, "test", way) for way in DIRECTIONS},
        "validation": _directed(
            [record for record in records if record["validation"]], "validation", DIRECTIONS[0]
        ),
        "epochs": summary([record["epochs"] for record in records]),
        "best_epoch": summary([record["best_epoch"] for record in records]),
        "stopped_by_limit": sum(
            record["epochs"] >= record["parameters"]["max_epochs"] for record in records
        ),
        "seconds": summary([record["seconds"] for record in records]),
        "temperature": summary([record["temperature"] for record in records]),
        "bias": summary([r["bias"] for r in records if r["bias"] is not None]),
    }


def _directed(records: Sequence[Mapping[str, Any]], part: str, way: str) -> dict[str, Any]:
    return {key: summary([record[part][way][key] for record in records]) for key in FIGURES}


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean, standard deviation (n - 1; None for a single value) and the values; None of none."""
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)) if len(array) > 1 else None,
        "values": [float(value) for value in array],
    }
