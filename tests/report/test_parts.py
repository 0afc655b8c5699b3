"""The report's parts: grid, alignment, families, summaries."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.report.alignment import align, alignment_blocks, differences, identity
from protalign.report.experiments import BASE, Grid, configuration_name, full_grid, quick_grid
from protalign.report.results import summary
from protalign.report.runs import Run, RunFiles

SEQUENCES = st.lists(
    st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=40), min_size=2, max_size=5
)


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


def test_an_alignment_finds_a_deletion_and_an_exchange() -> None:
    """A cut-out piece becomes a gap where it was; an exchanged letter is marked."""
    whole = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNL"
    cut = whole[:12] + whole[20:]
    changed = whole[:30] + "W" + whole[31:]
    aligned = align([whole, cut, changed])
    assert aligned == [whole, whole[:12] + "-" * 8 + whole[20:], changed]
    assert [sum(row) for row in differences(aligned)] == [0, 8, 1]
    assert identity(aligned[0], aligned[1]) == 1
    assert identity(aligned[0], aligned[2]) == pytest.approx(47 / 48)


@settings(max_examples=40)
@given(SEQUENCES)
def test_aligned_rows_are_the_sequences_with_gaps(sequences: list[str]) -> None:
    """Rows have one length, and without gaps they are the sequences; no column is all gaps."""
    aligned = align(sequences)
    assert [row.replace("-", "") for row in aligned] == sequences
    assert len({len(row) for row in aligned}) == 1
    assert all(set(column) != {"-"} for column in zip(*aligned, strict=True))


@settings(max_examples=40)
@given(SEQUENCES)
def test_blocks_put_together_are_the_alignment(sequences: list[str]) -> None:
    """Every letter is on the page once, marked where it differs, numbered to its end."""
    aligned = align([sequence * 4 for sequence in sequences])
    marks = differences(aligned)
    members = [
        {"id": str(i), "aligned": row, "different": [c for c, m in enumerate(row_marks) if m]}
        for i, (row, row_marks) in enumerate(zip(aligned, marks, strict=True))
    ]
    blocks = alignment_blocks({"members": members})
    for i, (row, row_marks) in enumerate(zip(aligned, marks, strict=True)):
        lines = [block[i] for block in blocks]
        pieces = [piece for line in lines for piece in line.pieces]
        assert "".join(letters for letters, _ in pieces) == row
        assert [marked for letters, marked in pieces for _ in letters] == row_marks
        assert lines[-1].last == len(sequences[i]) * 4


def test_a_summary_is_mean_and_sample_deviation() -> None:
    """The deviation divides by n - 1; a single value has none; no value has no summary."""
    found = summary([1.0, 2.0, 4.0])
    assert found is not None
    assert found["mean"] == pytest.approx(7 / 3)
    assert found["sd"] == pytest.approx(math.sqrt(7 / 3))
    assert summary([3.0]) == {"mean": 3.0, "sd": None, "values": [3.0]}
    assert summary([]) is None


@pytest.mark.parametrize("missing", ["test", "loss_curve", "key"])
def test_a_run_with_a_key_missing_from_its_file_is_not_complete(
    tmp_path: Path, missing: str
) -> None:
    """JSON that is well formed but not a whole record counts as no record."""
    names = {
        *("key", "label", "parameters", "seed", "test", "validation", "loss_curve"),
        *("validation_curve", "epochs", "best_epoch", "training_pairs", "validation_pairs"),
        *("temperature", "bias", "seconds"),
    }
    run, files = Run.of(BASE, 0, {}), RunFiles(tmp_path)
    files.model(run).mkdir()
    record = {**dict.fromkeys(names), "key": run.key}
    files.record(run).write_text(json.dumps(record), encoding="utf-8")
    assert files.read(run) == record
    del record[missing]
    files.record(run).write_text(json.dumps(record), encoding="utf-8")
    assert files.read(run) is None
