"""From files to a filled store: scan, plan, encode, commit.

Data flows one way: ``reading`` turns files into Proteins, the store's writer keeps their sequences
and coordinates and fixes the batch plan, Dask tasks run the encoders and write whole chunks. Each
step can be cut off anywhere; the same call goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.errors import Failure, InputError, ProtAlignError, WeightsError
from protalign.core.protein import Modality
from protalign.core.threads import torch_pool
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.choice import (
    check_modality_of,
    default_model,
    local_devices,
    model_of_weights,
)
from protalign.encoders.esm2.encoder import ESM2Encoder
from protalign.encoders.esm2.shipped import EmbeddedEncoder
from protalign.reading import ReadOptions, SourceFile, find_sources, read_sources
from protalign.stores import BatchPlan, EmbeddingStore, EncoderInfo, EncoderRecord, StoreWriter
from protalign.stores.filling.encode import Progress, encode_pending
from protalign.stores.filling.task import TASKS_AT_ONCE
from protalign.stores.format.layout import ENCODER_CHUNK_ROWS, checked_encoder_name

#: Proteins whose sequences and coordinates may wait in memory before they are committed.
PROTEINS_PER_COMMIT = 2000
#: What Python, torch, dask and zarr take once imported, measured on Linux x86-64.
BASELINE_BYTES = 450 * 2**20
#: What the writer's index takes for each entry, measured at 100,000 FASTA records.
BYTES_PER_ENTRY = 700
#: Libraries whose versions are recorded, since they decide the numbers.
RECORDED_LIBRARIES = ("protalign", "torch", "fair-esm", "numpy", "zarr", "dask", "gemmi")


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """One encoder of a run: what to load, and the name its embeddings have in the store."""

    spec: EncoderSpec
    name: str = ""

    @property
    def store_name(self) -> str:
        """The given name, else the model's."""
        return self.name or self.spec.model


class Reporter(Protocol):
    """What a run tells while it goes on; the command line draws it, ``None`` keeps silent."""

    def say(self, line: str) -> None:
        """One line of what is about to happen."""

    def scanned(self, done: int, total: int) -> None:
        """Files read so far."""

    def encoded(self, encoder: str, progress: Progress) -> None:
        """Residues embedded so far."""


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What a run did.

    Attributes
    ----------
    files : files found; ``files_read`` of them were read now, the others were in the store already.
    entries : entries in the store afterwards.
    encoded : for each encoder's name, items and residues embedded by this run, and seconds.
    failures : what could not be read or embedded, of these inputs, this time or earlier.
    """

    files: int
    files_read: int
    entries: int
    encoded: dict[str, dict[str, float]]
    failures: list[Failure]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@lru_cache(maxsize=4)
def _loaded(spec: EncoderSpec) -> Encoder:
    """One copy of a model per process: planning and encoding share it."""
    return load_encoder(spec)


def _load(choice: EncoderChoice) -> Encoder:
    """Load an encoder; where its weights are not to be had, say what needs none fetched."""
    try:
        return _loaded(choice.spec)
    except WeightsError as error:
        shipped = EmbeddedEncoder.models()
        if choice.spec.weights or not shipped or choice.spec.model not in ESM2Encoder.models():
            raise
        raise WeightsError(
            f"{error}; for a first look without it: --sequence-encoder {shipped[0]}"
        ) from error


def _encode_on(
    device: str, *, spec: EncoderSpec
) -> Callable[[list[Any]], list[npt.NDArray[np.float32]]]:
    """What a worker calls once: the encode function of this encoder on its device."""
    return _loaded(spec.on(device)).encode


def embed(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    encoders: Sequence[EncoderChoice],
    *,
    options: ReadOptions | None = None,
    storage_dtype: str = "float16",
    scheduler: str | None = None,
    processes: int | None = None,
    reporter: Reporter | None = None,
) -> EmbedReport:
    """Embed files and folders of proteins into a store; run again, it does what is missing.

    Parameters
    ----------
    paths : files or folders of structures and sequences, searched recursively.
    out : the store, made if it is not there, else added to.
    encoders : which encoders to run; each embeds the items of its own modality.
    options : how files are read; must be those that the store was made with.
    storage_dtype : "float16" or "float32", of the stored embeddings.
    scheduler : address of a Dask scheduler, e.g. "tcp://10.0.0.1:8786"; default: this machine,
        one process per device.
    processes : how many processes read files; default: one per core.
    reporter : told what goes on.

    Raises
    ------
    WeightsError : an encoder's weights are not to be had; nothing has been written then.
    StoreError : the store is in use, or was made with other weights or settings; no file has been
        read then.
    InputError : none of the paths exists; no store has been made then.
    """
    options = options or ReadOptions()
    say = reporter.say if reporter is not None else _silent
    # Before anything is read: a missing weights file should not be found out after an hour.
    models = [_load(choice) for choice in encoders]
    _check_names(encoders)
    records = [
        _record(choice, model, storage_dtype)
        for choice, model in zip(encoders, models, strict=True)
    ]
    for model in models:
        if model.remark:
            say(f"{model.name}: {model.remark}")
    roots = [_only_name(path) for path in paths]
    sources, failures = find_sources(roots)
    if not sources:
        _check_any_exists(failures)
    say(f"{len(sources):,} files to read")

    with StoreWriter(out, asdict(options)) as writer:
        for choice, record in zip(encoders, records, strict=True):
            writer.check_encoder(choice.store_name, record)
        missing = _keep_failures(writer, roots, failures)
        files_read = _scan(sources, options, writer, processes, reporter)
        plans = {}
        for choice, model, record in zip(encoders, models, records, strict=True):
            plans[choice.store_name] = writer.plan(choice.store_name, record, model.batch_rows)
        encoded = {}
        for choice, model in zip(encoders, models, strict=True):
            name = choice.store_name
            plan = plans[name]
            pending = plan.pending_items > 0
            # Also with nothing to encode: a run cut off after its last task left that to record.
            with _pool(model) if pending and scheduler is None else nullcontext() as pool:
                if pending:
                    tasks = 1 if pool is None else TASKS_AT_ONCE
                    say(_prediction(name, model, plan, writer.n_entries, tasks))
                report = encode_pending(
                    out,
                    name,
                    partial(_encode_on, spec=choice.spec),
                    devices=local_devices(model.device),
                    scheduler=scheduler,
                    pool=pool,
                    on_progress=(
                        partial(reporter.encoded, name)
                        if pending and reporter is not None
                        else None
                    ),
                )
            if pending:
                encoded[name] = {
                    "items": report.items,
                    "residues": report.rows,
                    "seconds": round(report.seconds, 3),
                }
        writer.commit()
        return EmbedReport(
            files=len(sources),
            files_read=files_read,
            entries=writer.n_entries,
            encoded=encoded,
            failures=[*missing, *_failures_below(writer, roots)],
        )


def _pool(model: Encoder) -> AbstractContextManager[Executor | None]:
    """Return threads that share the cores, one for each batch that is encoded at once; or none."""
    count = model.batches_at_once
    if count == 1:
        return nullcontext()
    return torch_pool(count, max(1, torch.get_num_threads() // count))


def _only_name(path: str | os.PathLike[str]) -> Path:
    """The one absolute path of a file or folder, from wherever and through links it is named."""
    path = Path(path)
    if path.is_dir():
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def _check_any_exists(failures: Sequence[Failure]) -> None:
    """Raise InputError where all that failed to be found are paths that do not exist."""
    if failures and not any(Path(failure.file).exists() for failure in failures):
        first = failures[0]
        raise InputError(f"{first.file}: {first.reason}", first.advice)


def _keep_failures(
    writer: StoreWriter, roots: Sequence[Path], failures: Sequence[Failure]
) -> list[Failure]:
    """Keep in the store what failed about files that exist; return what is about the others.

    A path that is not there is this call's mistake, not the store's content; and a file that failed
    once and was deleted since needs no mending any more.
    """
    for failure in _failures_below(writer, roots):
        if not Path(failure.file).exists():
            writer.forget_failure(failure)
    missing = []
    for failure in failures:
        if Path(failure.file).exists():
            writer.add_failure(failure)
        else:
            missing.append(failure)
    return missing


def _failures_below(writer: StoreWriter, roots: Sequence[Path]) -> list[Failure]:
    """The store's failures that concern these files and folders."""
    return [
        failure
        for failure in writer.failures
        if any(Path(failure.file).is_relative_to(root) for root in roots)
    ]


def _scan(
    sources: Sequence[SourceFile],
    options: ReadOptions,
    writer: StoreWriter,
    processes: int | None,
    reporter: Reporter | None,
) -> int:
    """Read what the store does not have yet, and commit it piece by piece; return files read."""

    def stored(source: SourceFile, sha256: bytes) -> bool:
        return writer.source_is_current(str(source.path), sha256)

    done = read = waiting = 0
    for result in read_sources(sources, options, processes=processes, skip=stored):
        if not result.skipped:
            writer.add(
                str(result.source.path),
                result.sha256,
                result.proteins,
                result.failures,
                last=result.last,
            )
            waiting += max(1, len(result.proteins))
        if waiting >= PROTEINS_PER_COMMIT:
            writer.commit()
            waiting = 0
        if result.last:
            done += 1
            read += not result.skipped
            if reporter is not None:
                reporter.scanned(done, len(sources))
    writer.commit()
    return read


def choose_encoder(
    modality: Modality, spec: EncoderSpec, name: str, out: str | os.PathLike[str]
) -> EncoderChoice:
    """Settle which encoder a run uses where the caller left it open (``spec.model == ""``).

    The model that ``spec.weights`` belongs to; else the store's own, if it has exactly one of the
    modality; else the package's default: ProteinMPNN v_48_020 for structures, for sequences an ESM2
    that is at hand or can be fetched (never the small embedded encoder: that is taken by name).
    """
    if spec.model:
        check_modality_of(modality, spec.model)
        return EncoderChoice(spec, name)
    if spec.weights:
        return EncoderChoice(replace(spec, model=model_of_weights(modality, spec.weights)), name)
    stored = _stored_encoders(modality, out)
    if len(stored) > 1:
        raise InputError(
            f"{out} has {len(stored)} {modality} encoders: {', '.join(i.name for i in stored)}",
            f"say which with --{modality}-encoder and --{modality}-name",
        )
    if not stored:
        return EncoderChoice(replace(spec, model=default_model(modality)), name)
    layer = stored[0].settings.get("layer") if spec.layer is None else spec.layer
    own = replace(spec, model=stored[0].model, layer=None if layer is None else int(layer))
    return EncoderChoice(own, name or stored[0].name)


def _stored_encoders(modality: Modality, out: str | os.PathLike[str]) -> list[EncoderInfo]:
    if not Path(out).exists():
        return []
    encoders = EmbeddingStore.open(Path(out)).encoders.values()
    return [info for info in encoders if info.modality == modality]


def _check_names(encoders: Sequence[EncoderChoice]) -> None:
    names = [checked_encoder_name(choice.store_name) for choice in encoders]
    if len(set(names)) != len(names):
        raise ProtAlignError(f"two encoders of one run have the same name: {', '.join(names)}")


def _record(choice: EncoderChoice, model: Encoder, storage_dtype: str) -> EncoderRecord:
    """What the store keeps about an encoder, and checks before more is added under its name."""
    return EncoderRecord(
        model=choice.spec.model,
        modality=model.modality,
        dim=model.dim,
        weights_sha256=model.weights_sha256,
        settings=dict(model.settings),
        dtype=storage_dtype,
        versions={library: version(library) for library in RECORDED_LIBRARIES},
    )


def _prediction(name: str, model: Encoder, plan: BatchPlan, entries: int, tasks: int) -> str:
    """The line printed before a run: what is to be done, and the memory it will take at most."""
    task_bytes = tasks * max(ENCODER_CHUNK_ROWS, plan.longest) * model.dim * (4 + 2)
    batch = max(plan.longest, model.batch_rows) if model.batches_at_once > 1 else model.batch_rows
    at_once = model.batches_at_once * batch
    memory = BASELINE_BYTES + model.memory_bytes(plan.longest, at_once) + task_bytes
    memory += entries * BYTES_PER_ENTRY
    return (
        f"{name} on {model.device}: {plan.pending_items:,} items, {plan.pending_rows:,} residues, "
        f"in {plan.pending_tasks:,} tasks; up to {memory / 1e9:.1f} GB of memory per process"
    )


def _silent(line: str) -> None:
    """Where nobody asked to be told."""
