"""`protalign reproduce`: train the missing runs, then write the report."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from protalign.core.errors import InputError, ProtAlignError
from protalign.core.files import write_json
from protalign.core.words import counted
from protalign.evaluation.evaluate import evaluate
from protalign.evaluation.leakage import Leakage
from protalign.heads.model import Model
from protalign.report.experiments import configuration_name
from protalign.report.page import write_page
from protalign.report.pictures import Drawings, draw
from protalign.report.plan import Records, ReportPlan, ReproduceOptions
from protalign.report.results import tables
from protalign.report.runs import Run, RunFiles, keep, missing, read_kept, train_all
from protalign.splits import Split
from protalign.stores import EmbeddingStore, StoreView

RESULTS_FORMAT = 1
#: In the report's folder: the complete runs, and the files that are made from them.
_RUNS = "runs"
_WRITTEN = ("index.html", "results.json", "config.json", "figures")


class ReproduceReporter(Protocol):
    """Receives progress."""

    def say(self, line: str) -> None:
        """Take one line."""

    def trained(self, done: int, total: int, under_way: Sequence[str]) -> None:
        """Take the number of complete runs, of all runs, and the labels of those under way."""


@dataclass(frozen=True, slots=True)
class ReproduceSummary:
    """The result of ``reproduce``.

    Attributes
    ----------
    page : path
        The report's page.
    trained, kept : int
        Runs trained now, and runs that were complete before.
    failed : dict
        Label -> reason, of each run that failed.
    results : dict
        The content of results.json.
    """

    page: Path
    trained: int
    kept: int
    failed: dict[str, str]
    results: dict[str, Any]


def reproduce(
    store: EmbeddingStore,
    split: Split,
    out: Path,
    options: ReproduceOptions,
    reporter: ReproduceReporter,
) -> ReproduceSummary:
    """Train the runs that ``out`` does not have yet, evaluate, draw, and write the page.

    Parameters
    ----------
    store : EmbeddingStore
        Embeddings of both modalities.
    split : Split
        Training, validation and test part.
    out : path
        The report's folder.
    options : ReproduceOptions
        Seeds, jobs and the like.
    reporter : ReproduceReporter
        Receives progress.

    Returns
    -------
    ReproduceSummary
        The page's path, and numbers of runs. A run that fails is a row without figures.

    Raises
    ------
    InputError
        As by ``ReportPlan.of``, or the folder cannot be written to or holds something else. All
        this is checked before anything is trained.
    ProtAlignError
        All runs of the main configuration fail.
    """
    plan = ReportPlan.of(store, split, options)
    runs, files = plan.runs(), RunFiles(_prepared(out))
    todo = missing(runs, files)
    kept = len(runs) - len(todo)
    reporter.say(f"{counted(len(runs), 'run')}: {kept} complete, {len(todo)} to train")
    errors = _train(todo, len(runs), files, plan, reporter)
    records = {run: record for run in runs if (record := files.read(run)) is not None}
    results = _results(plan, records, errors)
    drawings = _draw_main(plan, records, errors, files, results, reporter)
    page = _write(out, plan.config(), results, drawings)
    failed = {run.label: error for run, error in errors.items()}
    return ReproduceSummary(page, len(todo) - len(errors), kept, failed, results)


def _prepared(out: Path) -> Path:
    """Return the folder of the runs; raise InputError if no report can be written."""
    runs = out / _RUNS
    others = [name for name in _WRITTEN if (out / name).exists()]
    if others and not runs.is_dir():
        raise InputError(f"{out}: its {others[0]} is not a report's", "name another folder")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise InputError(
            f"{out}: a report cannot be written there ({error.strerror})", "name another folder"
        ) from None
    return runs


def _train(
    todo: Sequence[Run], total: int, files: RunFiles, plan: ReportPlan, reporter: ReproduceReporter
) -> dict[Run, str]:
    """Train the runs; return the reasons of those that failed."""
    errors: dict[Run, str] = {}
    done = total - len(todo)

    def under_way(runs: Sequence[Run]) -> None:
        reporter.trained(done, total, [run.label for run in runs])

    if not todo:
        return errors
    jobs = min(plan.options.jobs, len(todo))
    for result in train_all(todo, files, plan.parts, jobs, under_way):
        done += 1
        if result.error:
            errors[result.run] = result.error
        line = result.error or _run_line(result.record)
        reporter.say(f"[{done}/{total}] {result.run.label}: {line}")
    under_way([])
    return errors


def _run_line(record: Mapping[str, Any]) -> str:
    """Return a run's figures in a line."""
    test = record["test"]["sequence_to_structure"]
    return (
        f"{counted(record['epochs'], 'epoch')}, best {record['best_epoch']}, "
        f"{record['seconds']:.0f} s; test Recall@1 {test['recall_at_1']:.1%}, "
        f"@5 {test['recall_at_5']:.1%}, MRR {test['mrr']:.3f}"
    )


def _results(plan: ReportPlan, records: Records, errors: Mapping[Run, str]) -> dict[str, Any]:
    """Return the content of results.json (docs/report.md) but for the main model's part."""
    configurations = plan.grid.configurations()
    records_of = {
        configuration_name(c): list(plan.of_configuration(records, c).values())
        for c in configurations
    }
    failed = {
        configuration_name(c): error
        for c in configurations
        for run, error in errors.items()
        if dict(run.parameters) == plan.run_parameters(c)
    }
    return {
        "format": RESULTS_FORMAT,
        "tables": tables(plan.grid, records_of, failed),
        "runs": {record["key"]: record for record in records.values()},
    }


def _draw_main(
    plan: ReportPlan,
    records: Records,
    errors: Mapping[Run, str],
    files: RunFiles,
    results: dict[str, Any],
    reporter: ReproduceReporter,
) -> Drawings:
    """Evaluate and draw the main model; add its figures to ``results``."""
    run, record = _main(plan, records, errors)
    results["main"] = {
        "run": run.key,
        "seed": run.seed,
        "validation_mrr": max(record["validation_curve"], default=None),
        "model": f"{files.folder.name}/{run.key}",
    }
    model = Model.load(files.model(run))
    reporter.say(f"evaluating the main model (seed {run.seed})")
    results |= _evaluation(model, run, plan, files)
    reporter.say("drawing")
    losses = {
        name: list(plan.of_configuration(records, parameters).values())
        for name, parameters in (("CLIP", plan.grid.main), ("SigLIP", plan.grid.siglip))
    }
    drawings = draw(model, plan.parts["test"], plan.encoders, plan.families, losses)
    results["cluster"] = drawings.cluster
    return drawings


def _main(
    plan: ReportPlan, records: Records, errors: Mapping[Run, str]
) -> tuple[Run, Mapping[str, Any]]:
    """Return the main configuration's run with the best validation MRR; the test part is not read.

    Raise ProtAlignError if all its runs failed.
    """
    complete = plan.of_configuration(records, plan.grid.main)
    if not complete:
        main = plan.run_parameters(plan.grid.main)
        why = next((error for run, error in errors.items() if dict(run.parameters) == main), "")
        raise ProtAlignError(f"the main model: it could not be trained: {why}")
    return max(complete.items(), key=lambda item: max(item[1]["validation_curve"], default=0.0))


def _evaluation(model: Model, run: Run, plan: ReportPlan, files: RunFiles) -> dict[str, Any]:
    """Evaluate the main model and audit the validation part, or read the file that holds both."""
    text = json.dumps([run.key, plan.families.of, plan.classes], sort_keys=True)
    path = files.folder / f"evaluation-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    kept = read_kept(path)
    if kept is not None and kept.keys() == {"evaluation", "validation_leakage"}:
        return kept
    results = {
        "evaluation": evaluate(
            model,
            plan.parts["test"],
            train=plan.parts["train"],
            families=plan.families.of,
            scop=plan.classes.get("scop"),
            cath=plan.classes.get("cath"),
        ),
        "validation_leakage": _validation_leakage(plan.parts),
    }
    keep(path, results)
    return results


def _validation_leakage(parts: Mapping[str, StoreView]) -> dict[str, Any] | None:
    """Count the validation sequences that are like a training sequence; None without any."""
    if not len(parts["validation"]):
        return None
    validation, train = (
        [view.store.sequence(i) for i in view.ids] for view in (parts["validation"], parts["train"])
    )
    return Leakage.of(validation, train).counts()


def _write(
    out: Path, config: Mapping[str, Any], results: Mapping[str, Any], drawings: Drawings
) -> Path:
    for picture in drawings.pictures:
        picture.save(out / "figures")
    write_json(out / "results.json", results)
    write_json(out / "config.json", config)
    write_page(out / "index.html", config, results, drawings)
    return out / "index.html"
