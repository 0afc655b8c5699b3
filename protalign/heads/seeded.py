"""Parameters from a seed, without the generator that all threads share; or of no values at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

#: What fills a tensor from torch's own generator unless it is given another.
_FILLING: frozenset[Callable[..., Any]] = frozenset(
    [
        *(Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_),
        *(Tensor.log_normal_, Tensor.cauchy_, Tensor.geometric_),
        # These see the mode themselves, and draw without it.
        *(init.normal_, init.uniform_, init.trunc_normal_, init.orthogonal_, init.sparse_),
        *(init.xavier_normal_, init.xavier_uniform_, init.kaiming_normal_, init.kaiming_uniform_),
    ]
)
#: What draws from it.
_DRAWING: frozenset[Callable[..., Any]] = _FILLING | {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli),
    *(torch.multinomial, torch.poisson, Tensor.multinomial),
}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the random numbers of this block, in this thread only, from a seed.

    They are those that ``torch.manual_seed(seed)`` would give on the CPU. Torch's own generator is
    neither read nor changed: other threads may use it, or be in such a block, at the same time.

    Examples
    --------
    >>> with seeded(1):
    ...     first = torch.nn.Linear(3, 2).weight
    >>> with seeded(1):
    ...     second = torch.nn.Linear(3, 2).weight
    >>> torch.equal(first, second)
    True
    """
    with _WithGenerator(torch.Generator().manual_seed(seed)):
        yield


@contextmanager
def sizes_only() -> Iterator[None]:
    """Make the parameters of this block without values, which take neither memory nor time.

    On the device "meta" alone, torch imports its compiler to draw numbers that nobody reads: 3 s.

    Examples
    --------
    >>> with sizes_only():
    ...     weight = torch.nn.init.normal_(torch.empty(1000, 1000))
    >>> weight.is_meta, weight.shape
    (True, torch.Size([1000, 1000]))
    """
    with torch.device("meta"), _WithoutDraws():
        yield


class _WithoutDraws(TorchFunctionMode):
    """A mode in which what fills a tensor with random numbers leaves it as it is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class _WithGenerator(TorchFunctionMode):
    """A mode, which torch keeps for each thread, that gives every draw a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DRAWING and kwargs.get("generator") is None:
            kwargs["generator"] = self._generator
        return func(*args, **kwargs)
