"""Check a store, or several stores that are read as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from protalign.core.errors import StoreError
from protalign.core.paths import path_text
from protalign.core.spread import Spread, spread_over
from protalign.core.words import counted
from protalign.stores.checking.verify import Damage, VerifyReport, verify_store
from protalign.stores.contents import StoreContents
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.open import open_several
from protalign.stores.objects.client import is_object_url
from protalign.stores.union.contents import misfits, unfinished
from protalign.stores.union.log import UnionLog
from protalign.stores.union.paths import StorePaths, listed, stores_of, the_one


def verify(
    path: StorePaths,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    upgrade: bool = False,
    scheduler: str | None = None,
) -> VerifyReport:
    """Check every file that a store must have against what was committed.

    Only one chunk and the index of entries are in memory at a time. Several stores are checked one
    after another, and then whether they fit one another: the same encoders and options, and no id
    in two of them.

    Parameters
    ----------
    path : str, path or iterable of them
        The store's folder, or its URL in object storage; or several, or patterns, as
        ``EmbeddingStore.open`` takes them.
    on_progress : callable, optional
        Called with the chunks of a store that are read so far, and all its chunks.
    upgrade : bool
        Whether to record the checksums of a store of format 1.0, and any that are missing, if it
        is whole otherwise. Nothing else changes.
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers read the chunks.
        They must see the stores under the same paths. Default: this process.

    Returns
    -------
    VerifyReport
        Every damage, with the ids that it affects. Of several stores each names its store.

    Raises
    ------
    StoreError
        The store is missing, or its root attributes are damaged, which say what it must hold. With
        ``upgrade``, another process writes to it. Or no scheduler answers.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import StoreWriter, verify
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("a", "b"):
    ...     with StoreWriter(f"{folder}/{name}.zarr", {}):
    ...         pass
    >>> verify(f"{folder}/a.zarr").ok
    True
    >>> for line in verify(f"{folder}/*.zarr").lines():
    ...     print(line.replace(folder, "…"))
    …/a.zarr: it is not finished (nothing of it is embedded); nor are …/b.zarr; run its
    `protalign embed` again, or leave it out
    """
    paths = listed(path)
    with spread_over(scheduler) as spread:
        if (one := the_one(paths)) is not None:
            return verify_store(one, on_progress, upgrade=upgrade, spread=spread)
        return _verify_several(paths, on_progress, upgrade, spread)


def _verify_several(
    paths: Sequence[str],
    on_progress: Callable[[int, int], None] | None,
    upgrade: bool,
    spread: Spread,
) -> VerifyReport:
    stores = stores_of(paths)
    if remote := [store for store in stores if "://" in store and not is_object_url(store)]:
        return verify_store(remote[0])  # which refuses it
    reports = []
    for store in stores:
        try:
            reports.append(verify_store(store, on_progress, upgrade=upgrade, spread=spread))
        except StoreError as error:
            reports.append(VerifyReport(store, 0, 0, [Damage("", "", str(error), ())]))
    merged = _merged(reports, " ".join(map(path_text, paths)))
    whole = open_several([report.path for report in reports if report.ok])
    if not whole:
        return merged
    apart = [Damage("", "", line, ()) for line in misfits(whole)]
    damaged = len(stores) - len(whole)
    left_out = f"not compared with the others: {counted(damaged, 'damaged store')}"
    return replace(
        merged,
        damages=[*merged.damages, *apart, *_repeated(whole)],
        remarks=[
            *merged.remarks,
            *unfinished(whole),
            *([left_out] if damaged else []),
        ],
    )


def _merged(reports: Sequence[VerifyReport], path: str) -> VerifyReport:
    """Return one report on several stores, in which each line names its store."""
    return VerifyReport(
        path,
        sum(report.chunks for report in reports),
        sum(report.bytes for report in reports),
        [
            replace(damage, array=f"{report.path}: {damage.array}" if damage.array else "")
            for report in reports
            for damage in report.damages
        ],
        {
            f"{report.path}: {encoder}": tasks
            for report in reports
            for encoder, tasks in report.unfinished.items()
        },
        [f"{report.path}: {remark}" for report in reports for remark in report.remarks],
        all(report.finished for report in reports),
    )


def _repeated(arrays: Sequence[Arrays]) -> list[Damage]:
    """Return a damage for each pair of stores with entries of the same ids."""
    log = UnionLog([StoreContents(each) for each in arrays])
    shared: dict[tuple[int, int], list[str]] = {}
    for entry_id, rows in log.repeated.items():
        first, *others = (log.member_of(row) for row in rows)
        for other in others:
            shared.setdefault((first, other), []).append(entry_id)
    return [
        Damage(
            f"{path_text(arrays[one].path)} and {path_text(arrays[two].path)}",
            "",
            "they have entries of the same id; leave one of the two out, or embed its files again "
            "under other names",
            tuple(ids),
        )
        for (one, two), ids in sorted(shared.items())
    ]
