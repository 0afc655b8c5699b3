"""Training of one model by several processes, each with its part of every batch's rows.

Each process ("rank") pools its part of a batch, and gathers the vectors of all: a contrastive loss
needs the whole batch. So each computes the same loss. Its gradient reaches the rank's own rows
alone, and the sum of the ranks' gradients is that of one process, up to rounding:

    dL/dw = sum over ranks of  sum over the rank's own vectors v of  dL/dv dv/dw

The loss's own temperature and bias have the whole gradient on every rank, so theirs is the mean.
What is computed once (words to start from, the residue stage) rank 0 computes, and sends.

Only tensors are sent: what torch can send besides, it pickles.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
import torch.distributed as dist
from torch import Tensor, nn

from protalign.core.arrays import Int64
from protalign.core.errors import InputError, LostProcessError
from protalign.core.launch import Launch, launch

#: How long a rank waits for the others to do as much as it did itself.
_TIMEOUT = timedelta(minutes=30)
#: How long the others wait for what rank 0 does alone: its pass over all residues may take hours.
_TIMEOUT_OF_FIRST = timedelta(hours=24)
_FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Ranks:
    """The processes that train one model, seen from one of them. Alone, it sends nothing.

    Attributes
    ----------
    place : Launch
        Which of them this one is.

    Examples
    --------
    >>> alone = Ranks()
    >>> alone.first, alone.own(3)
    (True, array([0, 1, 2]))
    >>> Ranks(Launch(rank=1, size=2)).own(3)
    array([1, 2])
    """

    place: Launch = field(default_factory=Launch)
    _store: Any = None
    _patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and writes for all."""
        return self.place.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.place.size == 1

    def device(self, device: torch.device) -> torch.device:
        """Return this rank's own device of a kind: CUDA's of its number on its machine.

        Raises
        ------
        InputError
            All ranks would share one device, or there are fewer GPUs than ranks.
        """
        if self.alone or device.type == "cpu":
            return device
        if str(device) != "cuda":
            raise InputError(
                f"device {str(device)!r}: several processes cannot train on it",
                "use cpu, or auto or cuda for a GPU each",
            )
        count = torch.cuda.device_count()
        if self.place.local_rank >= count:
            raise InputError(
                f"device 'cuda': {self.place.local_size} processes, and GPUs for {count}",
                "start one process for each GPU (--nproc-per-node), or use cpu",
            )
        own = torch.device("cuda", self.place.local_rank)
        torch.cuda.set_device(own)
        return own

    def own(self, count: int) -> Int64:
        """Return which of ``count`` things are this rank's, by position; at least one.

        Parts are equal up to one. With fewer things than ranks, some ranks get one that is also
        another's, so that all do the same steps; ``gathered`` takes each thing once.
        """
        first, last = self._span(self.place.rank, count)
        return np.arange(first, max(last, first + 1))

    def gathered(self, own: Tensor, count: int) -> Tensor:
        """Return the (count, …) values of all things; a rank gives those of ``own(count)``.

        Gradients reach the rank's own values alone.
        """
        if self.alone:
            return own
        spans = [self._span(rank, count) for rank in range(self.place.size)]
        sizes = [last - first for first, last in spans]
        own = own[: sizes[self.place.rank]]
        sent = own.new_zeros(max(sizes), *own.shape[1:])
        sent[: len(own)] = own.detach()
        parts = [torch.empty_like(sent) for _ in sizes]
        with _reaching_all():
            dist.all_gather(parts, sent)
        parts[self.place.rank] = own
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def add_gradients(self, heads: Sequence[Tensor], loss: Sequence[Tensor]) -> None:
        """Replace gradients by those of one process; afterwards all ranks have the same bits.

        Parameters
        ----------
        heads : sequence of Tensor
            Parameters whose gradients are of a rank's own rows: they are summed.
        loss : sequence of Tensor
            Parameters that have the whole gradient on each rank: the mean is taken.
        """
        if self.alone:
            return
        parts = [_gradient(parameter) for parameter in heads]
        parts += [_gradient(parameter) / self.place.size for parameter in loss]
        total = torch.cat([part.flatten() for part in parts])
        with _reaching_all():
            dist.all_reduce(total)
        for part, parameter in zip(
            total.split_with_sizes([part.numel() for part in parts]), (*heads, *loss), strict=True
        ):
            parameter.grad = part.view_as(parameter)

    def all_agree(self, yes: bool) -> bool:
        """Return whether all ranks say yes."""
        if self.alone:
            return yes
        said = torch.tensor([int(yes)])
        with _reaching_all():
            dist.all_reduce(said, dist.ReduceOp.MIN)
        return bool(said.item())

    def check_same(self, thing: str, *parts: bytes | npt.NDArray[Any]) -> None:
        """Raise InputError on every rank unless all have the same: else they would train apart."""
        if self.alone:
            return
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
            digest.update(b"\0")
        own = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
        parts_of_all = [torch.empty_like(own) for _ in range(self.place.size)]
        with _reaching_all():
            dist.all_gather(parts_of_all, own)
        if not all(torch.equal(other, own) for other in parts_of_all):
            raise InputError(
                f"{thing}: the {self.place.size} processes do not have the same",
                "give all of them the same store, options and version of ProtAlign",
            )

    def arrays_of_first(
        self, make: Callable[[], Mapping[str, npt.NDArray[Any]]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return on every rank the arrays that ``make`` returns on rank 0, where alone it runs."""
        if self.alone:
            return dict(make())
        arrays: dict[str, npt.NDArray[Any]] = {}
        sent = torch.empty(0, dtype=torch.uint8)
        if self.first:
            arrays = {name: np.asarray(value, order="C") for name, value in make().items()}
            sent = torch.frombuffer(bytearray(safetensors.numpy.save(arrays)), dtype=torch.uint8)
        size = torch.tensor([len(sent)])
        with _reaching_all():
            dist.broadcast(size, 0, group=self._patient)
            if not self.first:
                sent = torch.empty(int(size.item()), dtype=torch.uint8)
            dist.broadcast(sent, 0, group=self._patient)
        return arrays if self.first else safetensors.numpy.load(sent.numpy().tobytes())

    def number_of_first(self, make: Callable[[], float]) -> float:
        """Return on every rank the number that ``make`` returns on rank 0: all decide alike."""
        return float(self.arrays_of_first(lambda: {"": np.array([make()])})[""][0])

    def text_of_first(self, make: Callable[[], str]) -> str:
        """Return on every rank the text that ``make`` returns on rank 0."""
        arrays = self.arrays_of_first(lambda: {"": np.frombuffer(make().encode(), dtype=np.uint8)})
        return arrays[""].tobytes().decode()

    def generator_of_first(self, generator: np.random.Generator) -> None:
        """Bring a generator to the state of rank 0's, so that all draw the same."""
        if not self.alone:
            state = generator.bit_generator.state
            generator.bit_generator.state = json.loads(
                self.text_of_first(lambda: json.dumps(state))
            )

    def values_of_first(self, module: nn.Module) -> None:
        """Give a module the parameters and buffers of rank 0's, also buffers that only it has."""
        if self.alone:
            return
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        arrays = self.arrays_of_first(
            lambda: {name: value.detach().cpu().numpy() for name, value in own.items()}
        )
        device = next(module.parameters()).device
        for name, array in arrays.items():
            value = torch.from_numpy(array.copy()).to(device)
            if name in own:
                own[name].data.copy_(value)
            else:
                owner, _, last = name.rpartition(".")
                setattr(module.get_submodule(owner), last, value)

    def fails_first(self) -> bool:
        """Return whether no other rank has failed before: this one then says why all end."""
        if self.alone:
            return True
        own = str(self.place.rank).encode()
        with suppress(RuntimeError):
            return bool(self._store.compare_set(_FAILED, "", own.decode()) == own)
        return True  # whoever keeps the answer has ended

    def _span(self, rank: int, count: int) -> tuple[int, int]:
        size = self.place.size
        return rank * count // size, (rank + 1) * count // size


_ALONE = Ranks()
_current: ContextVar[Ranks] = ContextVar("ranks", default=_ALONE)


def current() -> Ranks:
    """Return the ranks that train together in this thread: itself alone outside ``together``."""
    return _current.get()


@contextmanager
def together() -> Iterator[Ranks]:
    """Train in this block with the other processes that torchrun started, as one.

    Every process runs the same block on the same entries with the same parameters. Without
    torchrun, or if it started one process, nothing changes.

    Yields
    ------
    Ranks
        Whose ``first`` is true in one process alone, which should write.

    Raises
    ------
    InputError
        The environment is not as torchrun makes it, or torch.distributed is already in use.
    LostProcessError
        Another process ended or cannot be reached.

    Examples
    --------
    >>> from protalign import ProtAlignEstimator
    >>> X = np.random.default_rng(0).normal(size=(6, 8))
    >>> with together() as ranks:
    ...     est = ProtAlignEstimator(sequence_columns=4, max_epochs=1, embed_dim=4).fit(X)
    >>> ranks.first  # one process prints and saves
    True
    """
    place = launch()
    if place.size == 1:
        yield _ALONE
        return
    if not dist.is_available():
        raise InputError(
            "this torch is built without torch.distributed", "train in one process, or install it"
        )
    if dist.is_initialized():
        raise InputError(
            "torch.distributed is in use in this process", "end its process group before"
        )
    store = _common_store()
    with _reaching_all():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=_TIMEOUT,
        )
    ranks, token = Ranks(place, store), None
    try:
        with _reaching_all():
            patient = dist.new_group(backend="gloo", timeout=_TIMEOUT_OF_FIRST)
        ranks = replace(ranks, _patient=patient)
        token = _current.set(ranks)
        yield ranks
        with _reaching_all():  # none ends while another may still fail
            dist.barrier(group=patient)
    except BaseException:
        ranks.fails_first()  # said before the others can find this one lost
        raise
    finally:
        if token is not None:
            _current.reset(token)
        with suppress(RuntimeError):  # of ranks that are lost
            dist.destroy_process_group()


def _common_store() -> Any:
    """Return the store of torch.distributed by which the processes find one another."""
    # Not at the top: a torch that is built without torch.distributed has neither.
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
    except RuntimeError as error:
        raise LostProcessError(
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: the processes cannot meet "
            "there; start all of them, and give them a host and a free port that all can reach"
        ) from error
    return PrefixStore(f"protalign/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)


@contextmanager
def _reaching_all() -> Iterator[None]:
    """Turn torch's error for a rank that is lost into one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError(
            "another process of the training ended or cannot be reached; its own error says why"
        ) from error


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
