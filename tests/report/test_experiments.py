"""The tables of configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign.report.experiments import BASE, Grid, configuration_name, full_grid, quick_grid


def test_tables_2_and_3_are_the_papers() -> None:
    """Losses, temperatures, bias and recalls as printed in the paper."""
    tables = {table.key: table for table in full_grid().tables}
    losses = {row.parameters["loss"]: row for row in tables["table2"].rows}
    assert losses["siglip"].parameters["bias"] == -10
    assert losses["siglip"].paper == {"recall_at_1": 0.400, "recall_at_5": 0.976}
    assert losses["clip"].parameters == dict(BASE)
    temperatures = {row.parameters["temperature"]: row.paper for row in tables["table3"].rows}
    assert temperatures == {
        0.07: {"recall_at_1": 0.427, "recall_at_5": 0.991},
        0.035: {"recall_at_1": 0.423, "recall_at_5": 0.986},
        0.02: {"recall_at_1": 0.427, "recall_at_5": 0.986},
        0.001: {"recall_at_1": 0.4093, "recall_at_5": 0.958},
    }


@pytest.mark.parametrize("grid", [full_grid(), quick_grid()], ids=["full", "quick"])
def test_a_configuration_of_several_tables_is_trained_once(grid: Grid) -> None:
    """All rows' configurations are trained, none twice; every table but the bias has the base."""
    names = [configuration_name(parameters) for parameters in grid.configurations()]
    rows = [row for table in grid.tables for row in table.rows]
    assert len(names) == len(set(names)) < len(rows)
    assert set(names) == {configuration_name(row.parameters) for row in rows}
    for table in grid.tables:
        assert (dict(grid.main) in [dict(row.parameters) for row in table.rows]) == (
            table.key != "bias"
        )


def test_the_document_counts_the_configurations() -> None:
    """docs/report.md says how many configurations and runs there are, and when they stop."""
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    grid = full_grid()
    count = len(grid.configurations())
    assert f"{count} configurations, {3 * count} runs" in text.replace("\n", " ")
    for parameters in (grid.main, grid.siglip):
        for name in ("max_epochs", "n_iter_no_change"):
            assert str(parameters[name]) in text
