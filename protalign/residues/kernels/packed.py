"""Residue rows of many proteins, laid out so that one instruction works on several of them.

``LANES`` proteins of nearly equal length form a *group*. The rows of a group are its *columns*:
position 0 of every lane, then position 1 of every lane, and so on. A lane whose protein has ended
goes on with rows of zeros: they change neither a diagonal's sum nor a local alignment's score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.machine import threads_here
from protalign.core.ragged import Ragged
from protalign.core.threads import run_single_threaded

#: Proteins of a group: as many float32 numbers are one vector of AVX2. Who changes it saves
#: loops.py too: numba looks at that file alone to see whether what it compiled is out of date.
LANES = 8
#: Numbers for a thread, at least: fewer are not worth a second thread.
THREAD_NUMBERS = 1 << 19


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Proteins of nearly equal length, side by side.

    Attributes
    ----------
    members : (g,) int64
        Indices of the targets, longest first; g is ``LANES`` or, in the last group, fewer.
    lengths : (g,) int64
        Their rows.
    rows : (longest * LANES, K) float32
        The columns: row ``position * LANES + lane``.
    """

    members: Int64
    lengths: Int64
    rows: Float32


@dataclass(frozen=True, slots=True, eq=False)
class PackedTargets:
    """n proteins' residue rows, ready to be scored; ``pack`` makes it.

    Attributes
    ----------
    groups : tuple of Group
        Every target that has a row is in one group.
    lengths : (n,) int64
        Rows of each target.
    dim : int
        K, the numbers of a row.
    """

    groups: tuple[Group, ...]
    lengths: Int64
    dim: int

    def __len__(self) -> int:
        return len(self.lengths)


def pack(targets: Ragged | PackedTargets) -> PackedTargets:
    """Lay out the rows of targets for ``diagonal_scores`` and ``local_scores``.

    Parameters
    ----------
    targets : Ragged or PackedTargets
        Rows (R, K) of n proteins, of any dtype that float32 holds. They may be memory-mapped, and
        n may be 0. What is packed already is returned as it is.

    Returns
    -------
    PackedTargets
        A float32 copy of the rows.

    Raises
    ------
    InputError
        A row has a number that is not finite.

    Examples
    --------
    >>> packed = pack(Ragged.pack([np.zeros((3, 50)), np.ones((2, 50))]))
    >>> len(packed), packed.lengths.tolist(), packed.groups[0].rows.shape
    (2, [3, 2], (24, 50))
    """
    if isinstance(targets, PackedTargets):
        return targets
    order = np.argsort(-targets.lengths, kind="stable")
    order = order[: np.count_nonzero(targets.lengths)]
    empty = (0, -len(order) % LANES)
    lengths = np.pad(targets.lengths[order], empty).reshape(-1, LANES)
    starts = np.pad(targets.offsets[:-1][order], empty).reshape(-1, LANES)
    longest = lengths[:, 0]
    ends = np.cumsum(longest)
    group = np.repeat(np.arange(len(longest)), longest)
    position = np.arange(len(group)) - np.repeat(ends - longest, longest)
    inside = position[:, None] < lengths[group]
    source = np.where(inside, starts[group] + position[:, None], 0)
    rows = _columns(targets.values, source.reshape(-1), inside.reshape(-1))
    of_groups = np.split(rows, LANES * ends[:-1])
    groups = tuple(
        Group(order[LANES * i : LANES * (i + 1)], lengths[i][lengths[i] > 0], of_groups[i])
        for i in range(len(longest))
    )
    return PackedTargets(groups, targets.lengths, targets.dim)


def _columns(values: npt.NDArray[np.generic], source: Int64, inside: Bool) -> Float32:
    """Return the rows of a matrix that are ``inside``, and zeros for the others, by threads."""
    columns = np.empty((len(source), values.shape[1]), dtype=np.float32)
    n_threads = max(1, min(threads_here(), columns.size // THREAD_NUMBERS))
    bounds = np.linspace(0, len(source), n_threads + 1).astype(int).tolist()

    def work(thread: int) -> None:
        part = slice(bounds[thread], bounds[thread + 1])
        rows = in_float32(values, source[part])
        check_finite("targets", rows)
        rows[~inside[part]] = 0
        columns[part] = rows

    share(n_threads, work)
    return columns


def share(n_threads: int, work: Callable[[int], None]) -> None:
    """Call ``work`` for each thread's number, each on one core; one works in this thread."""
    if n_threads == 1:
        work(0)
    else:
        run_single_threaded(n_threads, work)


def in_float32(values: npt.NDArray[np.generic], rows: Int64) -> Float32:
    """Return some rows of a matrix, which may be memory-mapped, as a new float32 matrix."""
    # take() is three times quicker than an index, but copies a matrix that is not contiguous.
    some = np.asarray(values.take(rows, axis=0) if values.flags.c_contiguous else values[rows])
    if some.dtype == np.float16:
        converted: Float32 = torch.from_numpy(some).float().numpy()  # numpy takes five times longer
        return converted
    return some.astype(np.float32, copy=False)


def check_finite(name: str, rows: Float32) -> None:
    """Raise InputError if a number is not finite."""
    if not np.isfinite(rows).all():
        raise not_finite(name)


def not_finite(name: str) -> InputError:
    """Return the error of rows with numbers that are not finite."""
    return InputError(
        f"{name}: a residue's row has numbers that are not finite",
        "leave out entries with a missing modality, or embed them again",
    )
