"""A plan: data, grid and runs, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import counted
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.evaluation.labels import CATH_COLUMNS, SCOP_COLUMNS, check_labels, read_labels
from protalign.heads.inputs import read_inputs
from protalign.heads.pairs import Pairs
from protalign.report.experiments import Grid, Parameters, full_grid, quick_grid
from protalign.report.families import Families, compute_families, read_families
from protalign.report.provenance import data_fingerprint, machine, versions
from protalign.report.runs import Run
from protalign.splits import Split
from protalign.stores import EmbeddingStore, EncoderInfo, StoreView

CONFIG_FORMAT = 1
#: The unique proteins that a part needs: with fewer, nothing can be trained or drawn.
_LEAST = {"train": 2, "test": 4}

Records = Mapping[Run, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ReproduceOptions:
    """The options of ``reproduce``.

    Attributes
    ----------
    seeds : int
        Runs of each configuration.
    jobs : int
        Processes that train at the same time, one thread each.
    quick : bool
        Whether to train the small grid.
    families : path, optional
        A CSV file with the columns id and family; None computes families.
    scop, cath : path, optional
        A CSV file with the columns id and scop, or id and cath, as ``protalign evaluate`` takes it.
    sequence_encoder, structure_encoder : str, optional
        Names of the embeddings to read, if the store has several.
    command : str
        The command line, which the page shows.
    """

    seeds: int = 3
    jobs: int = 1
    quick: bool = False
    families: Path | None = None
    scop: Path | None = None
    cath: Path | None = None
    sequence_encoder: str | None = None
    structure_encoder: str | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """A store, a split and the runs on them.

    Attributes
    ----------
    store : EmbeddingStore
        The store.
    split : Split
        The split as the user gave it.
    options : ReproduceOptions
        The options.
    grid : Grid
        The configurations.
    parts : mapping
        "train", "validation", "test" -> entries.
    encoders : mapping
        Modality -> the encoder to read.
    families : Families
        Of the test part.
    classes : mapping
        "scop" or "cath", if given -> id -> code.
    data : mapping
        Digests of split and embeddings (``data_fingerprint``).
    """

    store: EmbeddingStore
    split: Split
    options: ReproduceOptions
    grid: Grid
    parts: Mapping[str, StoreView]
    encoders: Mapping[Modality, EncoderInfo]
    families: Families
    classes: Mapping[str, Mapping[str, str]]
    data: Mapping[str, str]

    @classmethod
    def of(cls, store: EmbeddingStore, split: Split, options: ReproduceOptions) -> ReportPlan:
        """Read the store, the split and the families.

        Raise InputError if too few proteins are left to train or to test on, or if a table of
        labels cannot be used.
        """
        parts = split.of(store)
        encoders = {m: store.encoder_for(m, getattr(options, f"{m}_encoder")) for m in MODALITIES}
        _check(parts, encoders)
        families = (
            compute_families(parts["test"])
            if options.families is None
            else read_families(options.families, parts["test"])
        )
        classes = {
            scheme: read_labels(path, None, usual)
            for scheme, path, usual in (
                ("scop", options.scop, SCOP_COLUMNS),
                ("cath", options.cath, CATH_COLUMNS),
            )
            if path is not None
        }
        check_labels(parts["test"], None, classes)
        grid = quick_grid() if options.quick else full_grid()
        data = data_fingerprint(parts, encoders)
        return cls(store, split, options, grid, parts, encoders, families, classes, data)

    def runs(self) -> list[Run]:
        """Return every configuration with every seed."""
        return [
            Run.of(self.run_parameters(parameters), seed, self.data)
            for parameters in self.grid.configurations()
            for seed in range(self.options.seeds)
        ]

    def run_parameters(self, parameters: Parameters) -> dict[str, Any]:
        """Return a configuration of the grid with the names of the encoders to read."""
        return {**parameters, **{f"{m}_encoder": info.name for m, info in self.encoders.items()}}

    def of_configuration(
        self, records: Records, parameters: Parameters
    ) -> dict[Run, Mapping[str, Any]]:
        """Return the records of one configuration's runs."""
        wanted = self.run_parameters(parameters)
        return {run: record for run, record in records.items() if dict(run.parameters) == wanted}

    def config(self) -> dict[str, Any]:
        """Return the content of config.json (docs/report.md)."""
        return {
            "format": CONFIG_FORMAT,
            "command": self.options.command,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "grid": self.grid.name,
            "seeds": list(range(self.options.seeds)),
            "jobs": self.options.jobs,
            "versions": versions(),
            "machine": machine(),
            "store": {
                "path": path_text(self.store.path),
                "entries": len(self.store),
                "options": dict(self.store.options),
                "encoders": {m: asdict(info) for m, info in self.encoders.items()},
            },
            "split": {
                "how": self.split.how,
                **{part: len(view) for part, view in self.parts.items()},
            },
            "fingerprints": dict(self.data),
            "families": self.families.how,
            "main": dict(self.grid.main),
            "estimator": ProtAlignEstimator(**self.run_parameters(self.grid.main)).get_params(),
            "configurations": [dict(c) for c in self.grid.configurations()],
        }


def _check(parts: Mapping[str, StoreView], encoders: Mapping[Modality, EncoderInfo]) -> None:
    """Raise InputError if a part has too few unique pairs of a sequence and a structure."""
    names = {modality: info.name for modality, info in encoders.items()}
    for part, least in _LEAST.items():
        inputs = read_inputs(parts[part], names=names)
        complete = [inputs.items(m) >= 0 for m in MODALITIES]
        n_pairs = len(Pairs.of(inputs)) if np.logical_and(*complete).any() else 0
        if n_pairs < least:
            raise InputError(
                f"the split's {part} part: {counted(n_pairs, 'unique protein')} with both "
                "embeddings",
                f"it needs {least} or more",
            )
