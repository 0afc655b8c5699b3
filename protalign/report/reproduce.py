"""`protalign reproduce`: train what is missing, then write the report."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from protalign.core.errors import InputError, ProtAlignError
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.evaluate import evaluate
from protalign.evaluation.leakage import Leakage
from protalign.report.experiments import configuration_name
from protalign.report.page import Report, write_page
from protalign.report.pictures import Shown, draw
from protalign.report.plan import Options, Plan, Records
from protalign.report.results import tables
from protalign.report.runs import Run, RunFiles, missing, train_all, write_json
from protalign.splits.make import Split
from protalign.stores import EmbeddingStore, StoreView

RESULTS_FORMAT = 1
#: In the report's folder: the finished runs, and what is written anew from them.
_RUNS = "runs"
_WRITTEN = ("index.html", "results.json", "config.json", "figures")


class Reporter(Protocol):
    """Who is told how far it is."""

    def say(self, line: str) -> None:
        """One line."""

    def trained(self, done: int, total: int, under_way: Sequence[str]) -> None:
        """Runs that are complete, of how many, and what is being trained."""


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

    A run that fails is a row without figures; where all runs of the main configuration fail, there
    is nothing to show: ProtAlignError. Raises as ``Plan.of``, and InputError for a folder that
    cannot be written to or that holds something else, before anything is trained.
    """
    plan = Plan.of(store, split, options)
    runs, files = plan.runs(), RunFiles(_prepared(out))
    todo = missing(runs, files)
    reporter.say(f"{len(runs)} runs: {len(runs) - len(todo)} are there, {len(todo)} to train")
    errors = _train(todo, len(runs), files, plan, reporter)
    records = {run: record for run in runs if (record := files.read(run)) is not None}
    results = _results(plan, records, errors)
    shown = _show_main(plan, records, errors, files, results, reporter)
    page = _write(out, plan.config(), results, shown)
    failed = {run.label: error for run, error in errors.items()}
    return Summary(page, len(todo) - len(errors), len(runs) - len(todo), failed, results)


def _prepared(out: Path) -> Path:
    """The folder of the runs; InputError where no report can be written, before any training."""
    runs = out / _RUNS
    others = [name for name in _WRITTEN if (out / name).exists()]
    if others and not runs.is_dir():
        raise InputError(f"{out} has another {others[0]}, not a report's", "name another folder")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise InputError(
            f"{out}: no report can be written there ({error.strerror})", "name another folder"
        ) from None
    return runs


def _train(
    todo: Sequence[Run], total: int, files: RunFiles, plan: Plan, reporter: Reporter
) -> dict[Run, str]:
    """Train the runs; returns why some of them could not be."""
    errors: dict[Run, str] = {}
    done = total - len(todo)

    def under_way(runs: Sequence[Run]) -> None:
        reporter.trained(done, total, [run.label for run in runs])

    if not todo:
        return errors
    jobs = min(plan.options.jobs, len(todo))
    for outcome in train_all(todo, files, plan.parts, jobs, under_way):
        done += 1
        if outcome.error:
            errors[outcome.run] = outcome.error
        said = outcome.error or _told(outcome.record)
        reporter.say(f"[{done}/{total}] {outcome.run.label}: {said}")
    under_way([])
    return errors


def _told(record: Mapping[str, Any]) -> str:
    """A run in a line."""
    found = record["test"]["sequence_to_structure"]
    return (
        f"{record['epochs']} epochs, best {record['best_epoch']}, {record['seconds']:.0f} s; "
        f"test Recall@1 {found['recall_at_1']:.1%}, @5 {found['recall_at_5']:.1%}, "
        f"MRR {found['mrr']:.3f}"
    )


def _results(plan: Plan, records: Records, errors: Mapping[Run, str]) -> dict[str, Any]:
    """results.json (docs/report.md), but for what is of the main model."""
    configurations = plan.grid.configurations()
    of = {
        configuration_name(c): list(plan.of_configuration(records, c).values())
        for c in configurations
    }
    failed = {
        configuration_name(c): error
        for c in configurations
        for run, error in errors.items()
        if dict(run.parameters) == plan.whole(c)
    }
    return {
        "format": RESULTS_FORMAT,
        "tables": tables(plan.grid, of, failed),
        "runs": {record["key"]: record for record in records.values()},
    }


def _show_main(
    plan: Plan,
    records: Records,
    errors: Mapping[Run, str],
    files: RunFiles,
    results: dict[str, Any],
    reporter: Reporter,
) -> Shown:
    """Evaluate and draw the main model; adds its figures to ``results``."""
    run, record = _main(plan, records, errors)
    results["main"] = {
        "run": run.key,
        "seed": run.seed,
        "validation_mrr": max(record["validation_curve"], default=None),
        "model": f"{files.folder.name}/{run.key}",
    }
    estimator = ProtAlignEstimator.load(files.model(run))
    reporter.say(f"evaluating the main model (seed {run.seed})")
    results |= _evaluation(estimator, run, plan, files)
    reporter.say("drawing")
    losses = {
        name: list(plan.of_configuration(records, parameters).values())
        for name, parameters in (("CLIP", plan.grid.main), ("SigLIP", plan.grid.siglip))
    }
    shown = draw(estimator, plan.parts["test"], plan.encoders, plan.families, losses)
    results["cluster"] = shown.cluster
    return shown


def _main(plan: Plan, records: Records, errors: Mapping[Run, str]) -> tuple[Run, Mapping[str, Any]]:
    """The main configuration's seed of the best validation MRR: the test part has no say."""
    found = plan.of_configuration(records, plan.grid.main)
    if not found:
        main = plan.whole(plan.grid.main)
        why = next((error for run, error in errors.items() if dict(run.parameters) == main), "")
        raise ProtAlignError(f"the main model could not be trained: {why}")
    return max(found.items(), key=lambda item: max(item[1]["validation_curve"], default=0.0))


def _evaluation(
    estimator: ProtAlignEstimator, run: Run, plan: Plan, files: RunFiles
) -> dict[str, Any]:
    """``evaluate`` of the main model and an audit of the validation part, kept beside its run."""
    text = json.dumps([run.key, plan.families.of], sort_keys=True)
    path = files.folder / f"evaluation-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        kept = {
            "evaluation": evaluate(
                estimator,
                plan.parts["test"],
                train=plan.parts["train"],
                families=plan.families.of,
            ),
            "validation_leakage": _validation_leakage(plan.parts),
        }
        write_json(path, kept)
    return kept


def _validation_leakage(parts: Mapping[str, StoreView]) -> dict[str, Any] | None:
    """How many validation sequences are in training, or resemble one; None without any."""
    if not len(parts["validation"]):
        return None
    validation, train = (
        [view.store.sequence(i) for i in view.ids] for view in (parts["validation"], parts["train"])
    )
    return Leakage.of(validation, train).counts()


def _write(out: Path, config: Mapping[str, Any], results: Mapping[str, Any], shown: Shown) -> Path:
    for picture in shown.pictures:
        picture.save(out / "figures")
    write_json(out / "results.json", results)
    write_json(out / "config.json", config)
    return write_page(out / "index.html", Report(config, results, shown))
