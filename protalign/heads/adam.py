"""Adam as ``torch.optim.Adam`` has it, without the compiler that its class imports."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """The optimiser of the heads (Kingma & Ba, 2015), with torch's own function for a step.

    A step has the bits of ``torch.optim.Adam``. That class imports ``torch._dynamo`` when it is
    made, which takes longer than a small fit.

    Parameters
    ----------
    parameters : iterable of Tensor
        The parameters to train, changed in place.
    learning_rate : float
        The size of a step.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimiser = Adam([weight], 0.1)
    >>> weight.sum().backward()
    >>> optimiser.step()
    >>> weight.detach()
    tensor([0.9000, 0.9000])
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._means: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter that has a gradient."""
        moved = [parameter for parameter in self._parameters if parameter.grad is not None]
        for parameter in moved:
            if parameter not in self._means:
                self._means[parameter] = (
                    torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    torch.tensor(0.0, dtype=torch.float32),
                )
        kept = [self._means[parameter] for parameter in moved]
        adam(
            moved,
            [parameter.grad for parameter in moved if parameter.grad is not None],
            [mean for mean, _, _ in kept],
            [square for _, square, _ in kept],
            [],
            [steps for _, _, steps in kept],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
