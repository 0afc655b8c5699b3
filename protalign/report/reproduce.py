"""`protalign reproduce`: train what is missing, then write the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from protalign.errors import InputError
from protalign.estimator import ProtAlignEstimator
from protalign.evaluation import evaluate
from protalign.inputs import MODALITIES
from protalign.report.experiments import Grid, full_grid, quick_grid
from protalign.report.families import Families, compute_families, read_families
from protalign.report.page import Report, write_page
from protalign.report.pictures import draw
from protalign.report.provenance import (
    data_fingerprint,
    described_encoders,
    machine,
    versions,
)
from protalign.report.results import configuration_name, tables
from protalign.report.runs import Run, RunFiles, missing, train_all, write_json
from protalign.splits import Split
from protalign.stores import EmbeddingStore, EncoderInfo, StoreView

RESULTS_FORMAT = 1
#: Fewer test proteins than this make no figure.
_LEAST_TEST = 4


class Reporter(Protocol):
    """Who is told how far it is."""

    def say(self, line: str) -> None:
        """One line."""

    def trained(self, done: int, total: int, under_way: Sequence[str]) -> None:
        """Runs that are complete, of how many, and what is being trained."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `reproduce` was asked for.

    Attributes
    ----------
    seeds : runs of each configuration.
    jobs : processes that train side by side, one thread each.
    quick : the small grid.
    families : a CSV file id,family; None to have them computed.
    sequence_encoder, structure_encoder : names, where the store has several.
    command : the command line, to be shown.
    """

    seeds: int = 3
    jobs: int = 1
    quick: bool = False
    families: Path | None = None
    sequence_encoder: str | None = None
    structure_encoder: str | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done.

    Attributes
    ----------
    page : the report.
    trained, kept : runs trained now, and those that were there.
    failed : label of each run that could not be trained, and why.
    results : what results.json holds.
    """

    page: Path
    trained: int
    kept: int
    failed: dict[str, str]
    results: dict[str, Any]


def reproduce(
    store: EmbeddingStore, split: Split, out: Path, options: Options, reporter: Reporter
) -> Summary:
    """Train every configuration that has no run in ``out`` yet, evaluate, draw, write the page.

    Raises InputError for a split without train or test entries and for families that do not cover
    the test part, before anything is trained.
    """
    parts = _parts(split, store)
    encoders = {m: store.encoder_for(m, getattr(options, f"{m}_encoder")) for m in MODALITIES}
    families = (
        compute_families(parts["test"])
        if options.families is None
        else read_families(options.families, parts["test"])
    )
    data = data_fingerprint(parts, encoders)
    grid = quick_grid() if options.quick else full_grid()
    names = {f"{m}_encoder": info.name for m, info in encoders.items()}
    runs = [
        Run.of({**parameters, **names}, seed, data)
        for parameters in grid.configurations()
        for seed in range(options.seeds)
    ]
    files = RunFiles(out / "runs")
    todo = missing(runs, files)
    reporter.say(f"{len(runs)} runs: {len(runs) - len(todo)} are there, {len(todo)} to train")
    errors = _train(todo, len(runs), files, parts, options.jobs, reporter)
    records = {run: record for run in runs if (record := files.read(run)) is not None}
    results = _results(grid, records, errors, names)
    main_run, main_record = _main(grid, records, names, errors)
    estimator = ProtAlignEstimator.load(files.model(main_run))
    reporter.say(f"evaluating the main model (seed {main_run.seed})")
    results["main"] = {
        "run": main_run.key,
        "seed": main_run.seed,
        "validation_mrr": max(main_record["validation_curve"], default=None),
        "model": str(files.model(main_run).relative_to(out)),
    }
    results["evaluation"] = _evaluation(estimator, main_run, parts, families, files)
    reporter.say("drawing")
    shown = draw(estimator, parts["test"], families, _loss_records(grid, records, names))
    for picture in shown.pictures:
        picture.save(out / "figures")
    results["cluster"] = shown.cluster
    config = _config(store, split, parts, encoders, families, data, grid, options)
    write_json(out / "results.json", results)
    write_json(out / "config.json", config)
    page = write_page(out / "index.html", Report(config, results, shown))
    failed = {run.label: errors[run] for run in errors}
    return Summary(page, len(todo) - len(errors), len(runs) - len(todo), failed, results)


def _parts(split: Split, store: EmbeddingStore) -> dict[str, StoreView]:
    parts = split.of(store)
    if len(parts["train"]) < 2 or len(parts["test"]) < _LEAST_TEST:
        counts = ", ".join(f"{len(view):,} {part}" for part, view in parts.items())
        raise InputError(f"the split has {counts}", "it needs entries to train and to test on")
    return parts


def _train(
    todo: Sequence[Run],
    total: int,
    files: RunFiles,
    parts: Mapping[str, StoreView],
    jobs: int,
    reporter: Reporter,
) -> dict[Run, str]:
    errors: dict[Run, str] = {}
    done = total - len(todo)

    def under_way(runs: Sequence[Run]) -> None:
        reporter.trained(done, total, [run.label for run in runs])

    if not todo:
        return errors
    for outcome in train_all(todo, files, parts, min(jobs, len(todo)), under_way):
        done += 1
        where = f"[{done}/{total}] {outcome.run.label}"
        if outcome.error:
            errors[outcome.run] = outcome.error
            reporter.say(f"{where}: {outcome.error}")
            continue
        found = outcome.record["test"]["sequence_to_structure"]
        reporter.say(
            f"{where}: {outcome.record['epochs']} epochs, best {outcome.record['best_epoch']}, "
            f"{outcome.record['seconds']:.0f} s; test Recall@1 {found['recall_at_1']:.1%}, "
            f"@5 {found['recall_at_5']:.1%}, MRR {found['mrr']:.3f}"
        )
    reporter.trained(done, total, [])
    return errors


Records = Mapping[Run, Mapping[str, Any]]


def _of(
    records: Records, parameters: Mapping[str, Any], names: Mapping[str, str]
) -> dict[Run, Any]:
    wanted = {**parameters, **names}
    return {run: record for run, record in records.items() if dict(run.parameters) == wanted}


def _results(
    grid: Grid, records: Records, errors: Mapping[Run, str], names: Mapping[str, str]
) -> dict[str, Any]:
    of = {
        configuration_name(parameters): list(_of(records, parameters, names).values())
        for parameters in grid.configurations()
    }
    failed = {
        configuration_name({k: v for k, v in run.parameters.items() if k not in names}): error
        for run, error in errors.items()
    }
    return {
        "format": RESULTS_FORMAT,
        "tables": tables(grid, of, failed),
        "runs": {record["key"]: record for record in records.values()},
    }


def _main(
    grid: Grid, records: Records, names: Mapping[str, str], errors: Mapping[Run, str]
) -> tuple[Run, Mapping[str, Any]]:
    """The main configuration's seed of the best validation MRR: the test part has no say."""
    found = _of(records, grid.main, names)
    if not found:
        raise InputError(f"the main model could not be trained: {next(iter(errors.values()), '')}")
    return max(found.items(), key=lambda item: max(item[1]["validation_curve"], default=0.0))


def _loss_records(
    grid: Grid, records: Records, names: Mapping[str, str]
) -> dict[str, list[Mapping[str, Any]]]:
    return {
        name: list(_of(records, parameters, names).values())
        for name, parameters in (("CLIP", grid.main), ("SigLIP", grid.siglip))
    }


def _evaluation(
    estimator: ProtAlignEstimator,
    run: Run,
    parts: Mapping[str, StoreView],
    families: Families,
    files: RunFiles,
) -> dict[str, Any]:
    """``evaluate`` of the main model, kept beside its run."""
    text = json.dumps([run.key, families.of], sort_keys=True)
    path = files.folder / f"evaluation-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        kept = evaluate(estimator, parts["test"], train=parts["train"], families=families.of)
        write_json(path, kept)
    return kept


def _config(
    store: EmbeddingStore,
    split: Split,
    parts: Mapping[str, StoreView],
    encoders: Mapping[str, EncoderInfo],
    families: Families,
    data: Mapping[str, str],
    grid: Grid,
    options: Options,
) -> dict[str, Any]:
    return {
        "format": RESULTS_FORMAT,
        "command": options.command,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "grid": grid.name,
        "seeds": list(range(options.seeds)),
        "jobs": options.jobs,
        "versions": versions(),
        "machine": machine(),
        "store": {
            "path": store.path,
            "entries": len(store),
            "options": dict(store.options),
            "encoders": described_encoders(encoders),
        },
        "split": {"how": split.how, **{part: len(view) for part, view in parts.items()}},
        "fingerprints": dict(data),
        "families": families.how,
        "main": dict(grid.main),
        "configurations": [dict(parameters) for parameters in grid.configurations()],
    }
