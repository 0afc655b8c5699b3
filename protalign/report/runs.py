"""Training runs: one file per configuration and seed, written by several processes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joblib.externals import loky

from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError, ProtAlignError, WriteError
from protalign.core.files import write_json
from protalign.core.untrusted import read_json
from protalign.core.version import __version__
from protalign.core.workers import start_worker
from protalign.reading.processes import interrupts_held, stop_workers
from protalign.report.experiments import Parameters
from protalign.stores import StoreView

#: Version of the run files; part of the hash in their names.
RUN_FORMAT = 1
#: Seconds between two reports of the runs under way.
_HEARTBEAT = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """One configuration with one seed, on one store and split.

    Attributes
    ----------
    parameters : mapping
        All parameters that the estimator is given, but for the seed.
    seed : int
        The estimator's ``random_state``.
    key : str
        16 hex digits: a hash of parameters, seed, data and the program's version.
    """

    parameters: Parameters = field(hash=False)
    seed: int
    key: str

    @classmethod
    def of(cls, parameters: Parameters, seed: int, data: Mapping[str, Any]) -> Run:
        """Return the run of a configuration on data that ``data_fingerprint`` describes."""
        described = {
            "format": RUN_FORMAT,
            "protalign": __version__,
            "parameters": dict(parameters),
            "seed": seed,
            "data": dict(data),
        }
        text = json.dumps(described, sort_keys=True)
        return cls(parameters, seed, hashlib.sha256(text.encode()).hexdigest()[:16])

    @property
    def label(self) -> str:
        """The configuration and the seed in a few words, for a progress line."""
        parameters = self.parameters
        words = [parameters["loss"], f"tau {parameters['temperature']:g}"]
        if parameters["loss"] == "siglip":
            words.append(f"b {parameters['bias']:g}")
        if parameters["learnable_temperature"]:
            words.append("learned tau")
        if parameters["pooling"] != "attention":
            words.append(parameters["pooling"])
        words += [
            f"{short} {parameters[name]}"
            for short, name, usual in (
                ("dim", "embed_dim", 128),
                ("heads", "n_heads", 4),
                ("batch", "batch_size", 1024),
            )
            if parameters[name] != usual
        ]
        return f"{', '.join(words)}, seed {self.seed}"


#: The keys of a run's file (docs/report.md).
_RECORDED = {
    *("key", "label", "parameters", "seed", "test", "validation", "loss_curve", "validation_curve"),
    *("epochs", "best_epoch", "training_pairs", "validation_pairs", "temperature", "bias"),
    "seconds",
}


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The folder of the runs: each has a file ``{key}.json`` and its model's folder ``{key}``."""

    folder: Path

    def record(self, run: Run) -> Path:
        """Return the path of the run's JSON file, which is written when the run is complete."""
        return self.folder / f"{run.key}.json"

    def model(self, run: Run) -> Path:
        """Return the folder of the run's saved model."""
        return self.folder / run.key

    def read(self, run: Run) -> dict[str, Any] | None:
        """Read the run's record; None if the run is not complete or its file was changed."""
        record = read_kept(self.record(run))
        whole = record is not None and record.keys() >= _RECORDED and record["key"] == run.key
        return record if whole and self.model(run).is_dir() else None


def read_kept(path: Path) -> dict[str, Any] | None:
    """Return what a file that ``keep`` wrote holds; None if it is missing, or was changed since."""
    try:
        return unsealed(read_json(path, ""))
    except InputError:
        return None


def keep(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file with its own digest, for a later run to read."""
    write_json(path, sealed(value))


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run.

    Attributes
    ----------
    run : Run
        The run.
    record : mapping
        The content of its file; empty if it failed.
    error : str
        The reason if it failed, else "".
    """

    run: Run
    record: Mapping[str, Any]
    error: str = ""


def missing(runs: Sequence[Run], files: RunFiles) -> list[Run]:
    """Return the runs that are not complete yet, or whose record or model is damaged."""
    from protalign.heads.model_check import verify_model

    return [run for run in runs if files.read(run) is None or verify_model(files.model(run))]


def train_all(
    runs: Sequence[Run],
    files: RunFiles,
    parts: Mapping[str, StoreView],
    jobs: int,
    under_way: Callable[[Sequence[Run]], None],
) -> Iterator[RunResult]:
    """Train the runs in processes of one thread each; yield each result when its run ends.

    Ctrl-C ends the processes; complete runs stay.

    Parameters
    ----------
    runs : sequence of Run
        The runs, in the order in which they start.
    files : RunFiles
        The place for records and models.
    parts : mapping
        "train", "validation", "test" -> entries.
    jobs : int
        Number of processes.
    under_way : callable
        It is called every second with the runs that are being trained.

    Raises
    ------
    ProtAlignError
        A process was killed.
    """
    executor = loky.ProcessPoolExecutor(
        max_workers=jobs, initializer=_in_worker, initargs=(os.getpid(),)
    )
    waiting = list(reversed(runs))
    running: dict[Future[RunResult], Run] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop()
                with interrupts_held():
                    running[executor.submit(_train_one, run, files, parts)] = run
            under_way(list(running.values()))
            done, _ = wait(running, timeout=_HEARTBEAT, return_when=FIRST_COMPLETED)
            for future in done:
                del running[future]
                yield future.result()
    except BrokenProcessPool:
        raise ProtAlignError(
            "training: a process was killed, perhaps because memory ran out; run the same command "
            "again to continue, with fewer --jobs"
        ) from None
    finally:
        stop_workers(executor)


def _in_worker(parent: int) -> None:
    """Set up a worker, with one thread for torch."""
    start_worker(parent)
    import torch

    torch.set_num_threads(1)


def _train_one(run: Run, files: RunFiles, parts: Mapping[str, StoreView]) -> RunResult:
    from protalign.estimator.estimator import ProtAlignEstimator
    from protalign.evaluation.summary import retrieval_report

    began = time.monotonic()
    validation = parts["validation"] if len(parts["validation"]) else None
    try:
        estimator = ProtAlignEstimator(**run.parameters, random_state=run.seed)
        model = estimator.fit(parts["train"], X_val=validation).model_
        seconds = time.monotonic() - began
        record = {
            "key": run.key,
            "parameters": dict(run.parameters),
            "label": run.label,
            "seed": run.seed,
            "test": retrieval_report(model, parts["test"]),
            "validation": None if validation is None else retrieval_report(model, validation),
            "loss_curve": estimator.loss_curve_,
            "validation_curve": estimator.validation_curve_,
            "epochs": estimator.n_iter_,
            "best_epoch": estimator.best_epoch_,
            "training_pairs": estimator.n_pairs_,
            "validation_pairs": estimator.n_validation_pairs_,
            "temperature": estimator.temperature_,
            "bias": estimator.bias_,
            "seconds": round(seconds, 2),
        }
        estimator.save(files.model(run))
    except WriteError:  # the next run could not be written either
        raise
    except ProtAlignError as error:
        return RunResult(run, {}, str(error))
    keep(files.record(run), record)
    return RunResult(run, record)
