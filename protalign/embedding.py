"""Embed files of proteins into a store: read, plan, encode, commit.

Data flows one way. ``reading`` turns files into Proteins. The store's writer keeps their sequences
and coordinates, and fixes the batch plan. The plan's tasks run the encoders and write whole chunks.
A run can be interrupted anywhere; the same call continues from there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.errors import Failure, InputError, ProtAlignError, StoreError, WeightsError
from protalign.core.machine import usable_memory
from protalign.core.notes import NoteCount, NoteCounter
from protalign.core.paths import may_exist, path_text
from protalign.core.protein import MODALITIES, Modality, Structure
from protalign.core.spread import check_scheduler
from protalign.core.threads import torch_pool
from protalign.core.words import StorageDtype, counted
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.choice import (
    check_modality_of,
    default_model,
    local_devices,
    model_of_weights,
)
from protalign.encoders.esm2.encoder import ESM2Encoder
from protalign.encoders.esm2.shipped import EmbeddedEncoder
from protalign.reading import Given, ReadOptions, SourceFile, find_given, read_sources
from protalign.stores import BatchPlan, EmbeddingStore, EncoderInfo, EncoderRecord, StoreWriter
from protalign.stores.filling.encode import Progress, encode_pending
from protalign.stores.format.layout import ENCODER_CHUNK_ROWS, checked_encoder_name
from protalign.stores.objects.client import exists, is_object_url, shown
from protalign.stores.objects.spool import spooled
from protalign.stores.union.paths import check_is_one
from protalign.stores.writer import check_folder

#: Proteins whose sequences and coordinates may wait in memory before they are committed.
PROTEINS_PER_COMMIT = 2000
#: Memory of Python, torch and zarr once imported, measured on Linux x86-64.
BASELINE_BYTES = 450 * 2**20
#: Memory of the writer's index for each entry, measured at 100,000 FASTA records.
BYTES_PER_ENTRY = 700
#: Libraries whose versions are recorded, since they decide the numbers.
RECORDED_LIBRARIES = ("protalign", "torch", "fair-esm", "numpy", "zarr", "dask", "gemmi")


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """One encoder of a run, and the name of its embeddings in the store.

    Attributes
    ----------
    spec : EncoderSpec
        The model to load.
    name : str
        The name in the store; "" for the model's name.
    """

    spec: EncoderSpec
    name: str = ""

    @property
    def store_name(self) -> str:
        """The given name, else the model's."""
        return self.name or self.spec.model


class EmbedReporter(Protocol):
    """Receives the progress of a run. The command line draws it."""

    def say(self, line: str) -> None:
        """Show a line about the next step."""

    def scanned(self, done: int, total: int) -> None:
        """Show the number of files read so far."""

    def encoded(self, encoder: str, progress: Progress) -> None:
        """Show the residues embedded so far."""


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """The outcome of a run.

    Attributes
    ----------
    files, files_read : int
        Files found, and files read by this run. The others were already in the store.
    entries : int
        Entries in the store afterwards.
    encoded : dict
        For each encoder's name: items and residues embedded by this run, and seconds.
    failures : list of Failure
        The inputs that could not be read or embedded, in this run or an earlier one.
    notes : list of NoteCount
        One remark of each kind about the entries that this run read, and how many it made.
        ``store.notes(id)`` gives all remarks about an entry.
    """

    files: int
    files_read: int
    entries: int
    encoded: dict[str, dict[str, float]]
    failures: list[Failure]
    notes: list[NoteCount] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


#: The encoders of this process: planning and encoding share them.
_ENCODERS: dict[EncoderSpec, Encoder] = {}
#: The most of them that are kept.
_KEPT = 4


def _loaded(spec: EncoderSpec) -> Encoder:
    """Load an encoder once per process, also if "auto" and the device's name both ask for it."""
    if spec not in _ENCODERS:
        while len(_ENCODERS) >= 2 * _KEPT:
            del _ENCODERS[next(iter(_ENCODERS))]
        encoder = load_encoder(spec)
        _ENCODERS[spec] = _ENCODERS[spec.on(encoder.device)] = encoder
    return _ENCODERS[spec]


def _load(choice: EncoderChoice) -> Encoder:
    """Load an encoder; if its weights are missing, name an encoder that ships with the package."""
    try:
        return _loaded(choice.spec)
    except WeightsError as error:
        shipped = EmbeddedEncoder.models()
        if choice.spec.weights or not shipped or choice.spec.model not in ESM2Encoder.models():
            raise
        raise WeightsError(
            f"{error}; or use the small model that ships with ProtAlign: "
            f"--sequence-encoder {shipped[0]}"
        ) from error


def _encode_on(
    device: str, *, spec: EncoderSpec, record: EncoderRecord
) -> Callable[[list[Any]], list[npt.NDArray[np.float32]]]:
    """Return the encode function on a device; every worker calls this once.

    Raise StoreError if the encoder that this machine loads is not the recorded one.
    """
    encoder = _loaded(spec.on(device))
    differences = record.differences(_record(spec, encoder, record.dtype))
    if differences:
        raise StoreError(
            f"worker on {platform.node()}: its encoder {spec.model} is not the one of this run "
            f"({'; '.join(differences)}); give every worker the same weights file and device"
        )
    return partial(_encode_what_fits, encoder)


def _encode_what_fits(encoder: Encoder, batch: list[Any]) -> list[npt.NDArray[np.float32]]:
    """Encode a batch; raise InputError if memory is too small for it.

    Linux promises memory that it does not have, and kills the process that takes it. So an item
    that is too large for a CPU's memory is refused before.
    """
    longest, residues = _sizes(batch)
    if encoder.device == "cpu" and residues > encoder.batch_rows:
        needed = BASELINE_BYTES + encoder.memory_bytes(longest, residues)
        if needed > usable_memory():
            raise InputError(
                f"it does not fit in memory: its {counted(residues, 'residue')} take up to "
                f"{needed / 1e9:.1f} GB, and this process may use {usable_memory() / 1e9:.1f} GB",
                "use a machine with more memory or a smaller model, or leave it out",
            )
    return encoder.encode(batch)


def _sizes(batch: Sequence[Any]) -> tuple[int, int]:
    """Return the residues of the longest single chain or complex, and of the whole batch."""
    if isinstance(batch[0], Structure):
        complexes = [structure.context_length for structure in batch]
        return max(complexes), sum(complexes)
    lengths = [len(chain) for chains in batch for chain in chains]
    return max(lengths), sum(lengths)


def embed(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    encoders: Sequence[str | EncoderChoice] | None = None,
    *,
    options: ReadOptions | None = None,
    storage_dtype: StorageDtype = "float16",
    scheduler: str | None = None,
    processes: int | None = None,
    shard: tuple[int, int] | None = None,
    lists: Iterable[str | os.PathLike[str]] = (),
    reporter: EmbedReporter | None = None,
) -> EmbedReport:
    """Embed files and folders of proteins into a store.

    Call it again to resume an interrupted run or to add new files: it does only what is missing.

    Parameters
    ----------
    paths : path, or iterable of paths
        Files, folders or tar archives of structures and sequences. Folders are searched
        recursively; archives in them are passed over. An address as text (``https://…``,
        ``s3://…``) is fetched through fsspec, and read as the file of its name.
    out : str or path
        The store: a folder, or a URL of object storage ("s3://bucket/store.zarr"). It is made if it
        does not exist, and added to if it does.
    encoders : sequence of str or EncoderChoice, optional
        Models by name, or with their weights, layer, device and name in the store. Each embeds the
        items of its own modality. Default: those of the store; for a new store an ESM2 that was
        downloaded before, else esm2_t33_650M_UR50D (2.6 GB to download), and proteinmpnn_v_48_020.
    options : ReadOptions, optional
        How files are read. A store takes only the options that it was made with.
    storage_dtype : "float16" or "float32"
        Number format of the stored embeddings.
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786". Default: this machine, with one
        process per GPU.
    processes : int, optional
        Processes that read files. Default: one per core.
    shard : (int, int), optional
        Embed one part of several: (17, 1000) is the 17th of 1,000. Files are dealt out by the hash
        of their path below the folder that is given, so that tasks need not know each other. Each
        task needs a store of its own.
    lists : iterable of paths
        Text files with a path or an address in each line; see ``protalign.reading.read_list``.
    reporter : EmbedReporter, optional
        Receives the progress.

    Returns
    -------
    EmbedReport
        The number of files, entries and items, and every failure.

    Raises
    ------
    WeightsError
        The weights of an encoder are missing; nothing has been written then.
    StoreError
        The store is in use, or was made with other weights or settings, or no scheduler answers;
        no file has been read then.
    InputError
        None of the paths exists, an address or a list cannot be read, or there is no such shard;
        no store has been made then.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> report = embed("examples/sample/1bpi_A.cif", path, ["protalign_t6_2M"])
    >>> report.files_read, report.entries, report.failures
    (1, 1, [])
    >>> EmbeddingStore.open(path)["1bpi_A"].embeddings("protalign_t6_2M").values.shape
    (58, 160)
    >>> embed("examples/sample/1bpi_A.cif", path, ["protalign_t6_2M"]).files_read
    0
    """
    check_is_one(out)
    if is_object_url(str(out)):
        if scheduler is not None:
            raise InputError(
                f"--scheduler: its workers cannot write to {shown(str(out))}",
                "embed shards, each in a store of its own (--shard), or into a shared folder",
            )
        with spooled(str(out)) as folder:
            return embed(
                paths,
                folder,
                encoders,
                options=options,
                storage_dtype=storage_dtype,
                processes=processes,
                shard=shard,
                lists=lists,
                reporter=reporter,
            )
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if encoders is None:
        encoders = [encoder_to_run(modality, EncoderSpec(""), "", out) for modality in MODALITIES]
    choices = [
        EncoderChoice(EncoderSpec(encoder)) if isinstance(encoder, str) else encoder
        for encoder in encoders
    ]
    options = options or ReadOptions()
    say = reporter.say if reporter is not None else _silent
    _check_names(choices)
    check_scheduler(scheduler)
    given = find_given(paths, lists)
    if shard is not None:
        given = given.part(*shard)
    sources = given.sources
    if not sources:
        _check_any_exists([*given.failures, *given.mistakes])
    with ExitStack() as stack:
        # Before anything is read: a missing weights file must not show up after an hour. After all
        # that can be wrong at once: weights may have to be downloaded.
        new = not (Path(out) / "zarr.json").exists()
        if new:
            check_folder(out)
        writer = None if new else stack.enter_context(StoreWriter(out, asdict(options)))
        models = [_load(choice) for choice in choices]
        records = [
            _record(choice.spec, model, storage_dtype)
            for choice, model in zip(choices, models, strict=True)
        ]
        for model in models:
            if model.remark:
                say(f"{model.name}: {model.remark}")
        if shard is not None and not sources:
            say(f"shard {shard[0]}/{shard[1]}: no file of what was given belongs to it")
        say(f"{counted(len(sources), 'file')} to read")
        writer = writer or stack.enter_context(StoreWriter(out, asdict(options)))
        if not writer.keeps_annotations:
            say(
                f"{path_text(out)}: its format keeps no names and organisms; after `protalign "
                "verify --upgrade` it keeps those of new files"
            )
        for choice, record in zip(choices, records, strict=True):
            writer.check_encoder(choice.store_name, record)
        missing = _keep_failures(writer, given)
        notes = NoteCounter()
        files_read = _scan(sources, options, writer, processes, reporter, notes)
        plans = {}
        for choice, model, record in zip(choices, models, records, strict=True):
            plans[choice.store_name] = writer.plan(choice.store_name, record, model.batch_rows)
        encoded = {}
        for choice, model, record in zip(choices, models, records, strict=True):
            name = choice.store_name
            plan = plans[name]
            pending = plan.pending_items > 0
            # Also if nothing is pending: an interrupted run may have left its last mark to write.
            at_once = _batches_at_once(model, plan) if pending else 1
            with _pool(model, at_once) if pending and scheduler is None else nullcontext() as pool:
                if pending:
                    memory = _most_memory(model, plan, at_once) + writer.n_entries * BYTES_PER_ENTRY
                    say(_prediction(name, model, plan, memory))
                report = encode_pending(
                    out,
                    name,
                    partial(_encode_on, spec=choice.spec, record=record),
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
            failures=[*given.mistakes, *missing, *given.about(writer.failures)],
            notes=notes.counts(),
        )


def _pool(model: Encoder, at_once: int) -> AbstractContextManager[ThreadPoolExecutor | None]:
    """Return threads that share the cores, one for each batch that is encoded at once; or none.

    Fewer threads leave cores idle: the number of cores for a batch may decide its last bits.
    """
    if model.batches_at_once == 1:
        return nullcontext()
    return torch_pool(at_once, max(1, torch.get_num_threads() // model.batches_at_once))


def _batches_at_once(model: Encoder, plan: BatchPlan) -> int:
    """Return the number of batches to encode at once: fewer if memory is too small for so many."""
    counts = range(model.batches_at_once, 1, -1)
    return next((n for n in counts if _most_memory(model, plan, n) <= usable_memory()), 1)


def _check_any_exists(failures: Sequence[Failure]) -> None:
    """Raise InputError if none of the paths exists."""
    if failures and not any(may_exist(failure.file) for failure in failures):
        first = failures[0]
        raise InputError(f"{first.file}: {first.reason}", first.advice)


def _keep_failures(writer: StoreWriter, given: Given) -> list[Failure]:
    """Keep the failures of files that exist in the store; return the others.

    A path that does not exist is a mistake of this call and not part of the store. A file that
    failed earlier and was deleted since is forgotten, and so is a folder that had no protein then.
    """
    empty = {failure.file for failure in given.failures}
    for failure in given.about(writer.failures):
        filled = os.path.isdir(failure.file) and failure.file not in empty  # noqa: PTH112 - no error
        if filled or not may_exist(failure.file):
            writer.forget_failure(failure)
    missing = []
    for failure in given.failures:
        if may_exist(failure.file):
            writer.add_failure(failure)
        else:
            missing.append(failure)
    return missing


def _scan(
    sources: Sequence[SourceFile],
    options: ReadOptions,
    writer: StoreWriter,
    processes: int | None,
    reporter: EmbedReporter | None,
    notes: NoteCounter,
) -> int:
    """Read the files that the store does not have, commit piece by piece; return files read.

    Remarks about the entries are added to ``notes``.
    """

    def stored(source: SourceFile, sha256: bytes) -> bool:
        return writer.source_is_current(path_text(source.path), sha256)

    done = read = waiting = 0
    for result in read_sources(sources, options, processes=processes, skip=stored):
        if not result.skipped:
            writer.add(
                path_text(result.source.path),
                result.sha256,
                result.records,
                last=result.last,
            )
            for protein in result.proteins:
                notes.add(protein.id, protein.notes)
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


def encoder_to_run(
    modality: Modality, spec: EncoderSpec, name: str, out: str | os.PathLike[str]
) -> EncoderChoice:
    """Return the encoder of a run, also if the caller left the model open (``spec.model == ""``).

    It is then the model that ``spec.weights`` belongs to; else the store's own, if it has exactly
    one of the modality; else the package's default: ProteinMPNN v_48_020 for structures, and for
    sequences an ESM2 that was downloaded before or can be downloaded (never the small model that
    ships with the package: that is only used if it is named).

    Parameters
    ----------
    modality : "sequence" or "structure"
        The items to embed.
    spec : EncoderSpec
        Everything that is known about the model.
    name : str
        The name in the store; "" for the store's own, or the model's.
    out : str or path
        The store, which may not exist yet.

    Raises
    ------
    InputError
        The model embeds the other modality, the weights do not say which model they belong to, or
        the store has several encoders of the modality.
    """
    if spec.model:
        check_modality_of(modality, spec.model)
        return EncoderChoice(spec, name)
    if spec.weights:
        return EncoderChoice(replace(spec, model=model_of_weights(modality, spec.weights)), name)
    stored = _stored_encoders(modality, out)
    if len(stored) > 1:
        raise InputError(
            f"{out}: it has {len(stored)} {modality} encoders: "
            f"{', '.join(info.name for info in stored)}",
            f"name one with --{modality}-encoder and --{modality}-name",
        )
    if not stored:
        return EncoderChoice(replace(spec, model=default_model(modality)), name)
    layer = stored[0].settings.get("layer") if spec.layer is None else spec.layer
    same = replace(spec, model=stored[0].model, layer=None if layer is None else int(layer))
    return EncoderChoice(same, name or stored[0].name)


def _stored_encoders(modality: Modality, out: str | os.PathLike[str]) -> list[EncoderInfo]:
    check_is_one(out)
    if is_object_url(str(out)):
        if not exists(str(out)):
            return []
    elif not (Path(out) / "zarr.json").exists():
        check_folder(out)
        return []
    encoders = EmbeddingStore.open(out).encoders.values()
    return [info for info in encoders if info.modality == modality]


def _check_names(encoders: Sequence[EncoderChoice]) -> None:
    names = [checked_encoder_name(choice.store_name) for choice in encoders]
    if len(set(names)) != len(names):
        raise ProtAlignError(
            f"two encoders of one run have the same name ({', '.join(names)}); rename one"
        )


def _record(spec: EncoderSpec, model: Encoder, storage_dtype: str) -> EncoderRecord:
    """Return the record that the store keeps, and compares before it adds to the embeddings."""
    return EncoderRecord(
        model=spec.model,
        modality=model.modality,
        dim=model.dim,
        weights_sha256=model.weights_sha256,
        settings=dict(model.settings),
        dtype=storage_dtype,
        versions={library: version(library) for library in RECORDED_LIBRARIES},
    )


def _prediction(name: str, model: Encoder, plan: BatchPlan, memory: int) -> str:
    """Return the line before a run: the work to do, and the memory that it takes at most."""
    return (
        f"{name} on {model.device}: {counted(plan.pending_items, 'item')}, "
        f"{counted(plan.pending_rows, 'residue')}, "
        f"in {counted(plan.pending_tasks, 'task')}; "
        f"up to {memory / 1e9:.1f} GB of memory per process"
    )


def _most_memory(model: Encoder, plan: BatchPlan, at_once: int) -> int:
    """Return the most bytes that a process takes which encodes so many batches at once."""
    # A chain with more residues than a chunk has rows is a task, and that runs alone. A complex may
    # have more: not all its residues need be kept.
    shared = ENCODER_CHUNK_ROWS if model.modality == "sequence" else plan.largest
    alone = _memory(model, plan.longest, plan.largest, 1)
    together = _memory(model, min(plan.longest, shared), min(plan.largest, shared), at_once)
    return BASELINE_BYTES + max(alone, together)


def _memory(model: Encoder, longest: int, largest: int, at_once: int) -> int:
    """Return the bytes of batches that are encoded at once, and of their tasks."""
    # A task is in memory as long as a thread works on it: its rows as the encoder gives them, as
    # they are stored, and in chunks.
    task = max(ENCODER_CHUNK_ROWS, largest) * model.dim * (4 + 2 + 2)
    return model.memory_bytes(longest, at_once * max(largest, model.batch_rows)) + at_once * task


def _silent(line: str) -> None:
    """Do nothing (default reporter)."""
