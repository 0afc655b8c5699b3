"""What is to be done: data, grid and runs, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.report.experiments import Grid, Parameters, full_grid, quick_grid
from protalign.report.families import Families, compute_families, read_families
from protalign.report.provenance import data_fingerprint, described_encoders, machine, versions
from protalign.report.runs import Run
from protalign.report.space import distinct
from protalign.splits.make import Split
from protalign.stores import EmbeddingStore, EncoderInfo, StoreView

CONFIG_FORMAT = 1
#: Fewer different test proteins than this make no figure.
_LEAST_TEST = 4

Records = Mapping[Run, Mapping[str, Any]]


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
class Plan:
    """A store and a split, and the runs to be made on them.

    Attributes
    ----------
    parts : views by part of the split.
    encoders : by modality, whose embeddings are read.
    families : of the test part.
    data : hashes of split and embeddings (``data_fingerprint``).
    """

    store: EmbeddingStore
    split: Split
    options: Options
    grid: Grid
    parts: Mapping[str, StoreView]
    encoders: Mapping[Modality, EncoderInfo]
    families: Families
    data: Mapping[str, str]

    @classmethod
    def of(cls, store: EmbeddingStore, split: Split, options: Options) -> Plan:
        """Read what there is to read.

        Raises InputError for a split that leaves nothing to train or to test on, and where a table
        of families cannot be used.
        """
        parts = split.of(store)
        encoders = {m: store.encoder_for(m, getattr(options, f"{m}_encoder")) for m in MODALITIES}
        _check(parts, encoders)
        families = (
            compute_families(parts["test"])
            if options.families is None
            else read_families(options.families, parts["test"])
        )
        grid = quick_grid() if options.quick else full_grid()
        data = data_fingerprint(parts, encoders)
        return cls(store, split, options, grid, parts, encoders, families, data)

    def runs(self) -> list[Run]:
        """Every configuration with every seed."""
        return [
            Run.of(self.whole(parameters), seed, self.data)
            for parameters in self.grid.configurations()
            for seed in range(self.options.seeds)
        ]

    def whole(self, parameters: Parameters) -> dict[str, Any]:
        """A configuration of the grid, with the encoders that it is to read."""
        return {**parameters, **{f"{m}_encoder": info.name for m, info in self.encoders.items()}}

    def of_configuration(
        self, records: Records, parameters: Parameters
    ) -> dict[Run, Mapping[str, Any]]:
        """The records of one configuration's runs."""
        wanted = self.whole(parameters)
        return {run: record for run, record in records.items() if dict(run.parameters) == wanted}

    def config(self) -> dict[str, Any]:
        """config.json (docs/report.md)."""
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
                "path": self.store.path,
                "entries": len(self.store),
                "options": dict(self.store.options),
                "encoders": described_encoders(self.encoders),
            },
            "split": {
                "how": self.split.how,
                **{part: len(view) for part, view in self.parts.items()},
            },
            "fingerprints": dict(self.data),
            "families": self.families.how,
            "main": dict(self.grid.main),
            "estimator": ProtAlignEstimator(**self.whole(self.grid.main)).get_params(),
            "configurations": [dict(c) for c in self.grid.configurations()],
        }


def _check(parts: Mapping[str, StoreView], encoders: Mapping[Modality, EncoderInfo]) -> None:
    needed = {"train": 2, "test": _LEAST_TEST}
    for part, least in needed.items():
        found = len(distinct(parts[part], encoders))
        if found < least:
            raise InputError(
                f"the split's {part} part has {found:,} different proteins with both embeddings",
                f"it needs {least} or more",
            )
