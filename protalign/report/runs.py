"""Training runs: a file per configuration and seed, written once, by processes side by side."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joblib.externals import loky

from protalign.core.errors import ProtAlignError
from protalign.core.version import __version__
from protalign.reading.processes import interrupts_held
from protalign.report.experiments import Parameters
from protalign.stores import StoreView

#: Of the run files; part of their names' hash.
RUN_FORMAT = 1
#: Seconds after which the caller is told again what is under way.
_HEARTBEAT = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """One configuration with one seed, on one store and split.

    Attributes
    ----------
    parameters : of the estimator, whole.
    seed : the estimator's ``random_state``.
    key : 16 hex digits: hash of parameters, seed, data and the program's version.
    """

    parameters: Parameters = field(hash=False)
    seed: int
    key: str

    @classmethod
    def of(cls, parameters: Parameters, seed: int, data: Mapping[str, Any]) -> Run:
        """The run of a configuration on ``data``, which names embeddings and split by hash."""
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
        """A few words for a progress line."""
        own = self.parameters
        words = [own["loss"], f"tau {own['temperature']:g}"]
        if own["loss"] == "siglip":
            words.append(f"b {own['bias']:g}")
        if own["learnable_temperature"]:
            words.append("learned")
        if own["pooling"] != "attention":
            words.append(own["pooling"])
        words += [
            f"{short} {own[name]}"
            for short, name, usual in (
                ("dim", "embed_dim", 128),
                ("heads", "n_heads", 4),
                ("batch", "batch_size", 1024),
            )
            if own[name] != usual
        ]
        return f"{', '.join(words)}, seed {self.seed}"


#: What a run's file holds (docs/report.md).
_RECORDED = {
    *("key", "label", "parameters", "seed", "test", "validation", "loss_curve", "validation_curve"),
    *("epochs", "best_epoch", "training_pairs", "validation_pairs", "temperature", "bias"),
    "seconds",
}


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where the runs are kept: ``{key}.json``, and the model in the folder ``{key}``."""

    folder: Path

    def record(self, run: Run) -> Path:
        """The run's JSON file; it is there when the run is complete."""
        return self.folder / f"{run.key}.json"

    def model(self, run: Run) -> Path:
        """The folder of the run's saved model."""
        return self.folder / run.key

    def read(self, run: Run) -> dict[str, Any] | None:
        """The run's record; None where it is not complete, or its file is not whole."""
        try:
            found = json.loads(self.record(run).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        whole = isinstance(found, dict) and found.keys() >= _RECORDED and found["key"] == run.key
        return found if whole and self.model(run).is_dir() else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``error`` is empty where it was recorded."""

    run: Run
    record: Mapping[str, Any]
    error: str = ""


def missing(runs: Sequence[Run], files: RunFiles) -> list[Run]:
    """The runs that are not complete yet."""
    return [run for run in runs if files.read(run) is None]


def train_all(
    runs: Sequence[Run],
    files: RunFiles,
    parts: Mapping[str, StoreView],
    jobs: int,
    under_way: Callable[[Sequence[Run]], None],
) -> Iterator[Outcome]:
    """Train the runs in ``jobs`` processes of one thread each; yields each as it ends.

    ``under_way`` is told every second what is being trained. Ctrl-C here ends the processes; what
    they have recorded is kept. Raises ProtAlignError where a process is killed.
    """
    executor = loky.ProcessPoolExecutor(max_workers=jobs, initializer=_in_worker)
    waiting = list(reversed(runs))
    running: dict[Future[Outcome], Run] = {}
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
            "a training process was killed (out of memory?): the same command goes on from here, "
            "`--jobs 1` needs half the memory"
        ) from None
    finally:
        executor.shutdown(kill_workers=True)


def _in_worker() -> None:
    """One thread, Ctrl-C left to the parent, and no life without it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    """End this process when its parent is no more: a killed parent cannot say so."""
    while os.getppid() == parent:
        time.sleep(_HEARTBEAT)
    os._exit(1)


def _train_one(run: Run, files: RunFiles, parts: Mapping[str, StoreView]) -> Outcome:
    from protalign.estimator.estimator import ProtAlignEstimator
    from protalign.heads.ranks import retrieval_report

    began = time.monotonic()
    try:
        estimator = ProtAlignEstimator(**run.parameters, random_state=run.seed)
        validation = parts["validation"] if len(parts["validation"]) else None
        estimator.fit(parts["train"], X_val=validation)
        seconds = time.monotonic() - began
        record = {
            "key": run.key,
            "parameters": dict(run.parameters),
            "label": run.label,
            "seed": run.seed,
            "test": retrieval_report(estimator, parts["test"]),
            "validation": None if validation is None else retrieval_report(estimator, validation),
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
    except ProtAlignError as error:
        return Outcome(run, {}, str(error))
    write_json(files.record(run), record)
    return Outcome(run, record)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file; it appears whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")
