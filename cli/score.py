"""``protalign score``: a model's retrieval within a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from protalign.cli.console import print_json, print_table, quick_imports, refuse_unused
from protalign.cli.options import (
    AsJson,
    Device,
    IdsPath,
    ModelPath,
    OptionalSplitPath,
    PartOfSplit,
    StoreList,
)
from protalign.core.errors import InputError

if TYPE_CHECKING:
    from protalign.stores import Entries


def score(
    context: typer.Context,
    store: StoreList,
    model: ModelPath,
    ids: IdsPath = None,
    split: OptionalSplitPath = None,
    part: PartOfSplit = "test",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure how well sequences find their structures, and back.

    Prints Recall@1, 5 and 10, MRR and the median rank of each protein's own partner, within the
    store, the ids, or a part of a split. Below each recall is that of a random order. Proteins that
    the model was trained on score higher than new ones.

    \b
    Examples:
      protalign score store.zarr --model model/ --split split.csv
      protalign score store.zarr --model model/ --ids new.txt
    """
    if split is None:
        refuse_unused(context, ["part"], "--split")
    elif ids is not None:
        raise InputError("--split: cannot be combined with --ids", "give one or the other")
    with quick_imports():
        from protalign.evaluation.summary import retrieval_report
        from protalign.heads.model import Model
        from protalign.splits import read_split
        from protalign.splits.ids import read_ids
        from protalign.stores import EmbeddingStore

    entries: Entries = EmbeddingStore.open(store)
    if split is not None:
        entries = read_split(split).of(entries)[part]
    elif ids is not None:
        entries = entries[read_ids(ids)]
    report = retrieval_report(Model.load(model, device), entries)
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    header = ["", "Recall@1", "Recall@5", "Recall@10", "MRR", "median rank"]
    rows = []
    for direction in ("sequence_to_structure", "structure_to_sequence"):
        figures = report[direction]
        rows.append(
            [
                direction.replace("_", " "),
                *(f"{100 * figures[f'recall_at_{k}']:.1f} %" for k in (1, 5, 10)),
                f"{figures['mrr']:.3f}",
                f"{figures['median_rank']:g}",
            ]
        )
        chance = [f"{100 * figures[f'chance_recall_at_{k}']:.1f} %" for k in (1, 5, 10)]
        rows.append(["  by chance", *chance, "", ""])
    print(f"{report['n_queries']:,} queries among {report['n_candidates']:,} candidates")
    print_table(header, rows)
