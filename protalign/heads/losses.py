"""The contrastive losses over a batch of N sequence and structure vectors of unit length.

Row i of one belongs to row i of the other; every other row of the batch is a negative. Both are
functions of the similarities s_ij = <P_i, S_j> / temperature.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.core.words import Loss

#: The names of the losses.
LOSSES: tuple[Loss, ...] = get_args(Loss)
#: Largest 1 / temperature that learning may reach, as in CLIP (Radford et al., 2021, 2.5).
MAX_LEARNED_SCALE = 100.0


def clip_loss(similarities: Tensor) -> Tensor:
    """Return the symmetric softmax cross entropy (paper, Eq. 2; as open_clip's ClipLoss).

    Parameters
    ----------
    similarities : (N, N) tensor
        s_ij = <P_i, S_j> / temperature.

    Returns
    -------
    0-d tensor
        The mean over both directions.

    Examples
    --------
    >>> clip_loss(torch.zeros(2, 2))  # log(2): each vector is as near to both
    tensor(0.6931)
    """
    # Not cross_entropy(similarities.T): its gradient's layout makes adding the two slow.
    by_sequence = similarities.log_softmax(dim=1).diagonal()
    by_structure = similarities.log_softmax(dim=0).diagonal()
    return -(by_sequence + by_structure).mean() / 2


def siglip_loss(similarities: Tensor, bias: Tensor) -> Tensor:
    """Return ``sum_ij softplus(-y_ij (s_ij + b)) / N``; y_ij is 1 if i = j, and -1 if not.

    The bias has the sign that SigLIP's code (big_vision) gives it: b = -10 says that almost every
    pair is a negative. The paper's Eq. 3, like the SigLIP paper's, prints the bias with the
    opposite sign. With that sign, b = -10 would call almost every pair a positive.

    Parameters
    ----------
    similarities : (N, N) tensor
        s_ij = <P_i, S_j> / temperature.
    bias : 0-d tensor
        b.

    Returns
    -------
    0-d tensor
        The loss.

    Examples
    --------
    >>> siglip_loss(torch.zeros(2, 2), torch.tensor(0.0))  # 2 log(2): two terms for each vector
    tensor(1.3863)
    """
    labels = 2 * torch.eye(len(similarities), device=similarities.device) - 1
    return functional.softplus(-labels * (similarities + bias)).sum() / len(similarities)


class ContrastiveLoss(nn.Module):
    """One of the two losses, with its temperature and bias.

    Parameters
    ----------
    kind : str
        "clip" or "siglip".
    temperature : float
        Similarities are divided by it.
    bias : float
        SigLIP's bias at the start. It is learned. CLIP has none.
    learnable_temperature : bool
        Learn the logarithm of 1 / temperature too, starting from ``temperature``. 1 / temperature
        stays at or below 100, or its start if that is larger.

    Examples
    --------
    >>> loss = ContrastiveLoss("clip", temperature=0.5)
    >>> loss(torch.eye(2), torch.eye(2))  # log(1 + exp(-2))
    tensor(0.1269)
    """

    def __init__(
        self,
        kind: str = "clip",
        temperature: float = 0.07,
        bias: float = -10.0,
        learnable_temperature: bool = False,
    ) -> None:
        super().__init__()
        start = math.log(1.0 / temperature)
        self.kind = kind
        self.log_scale = nn.Parameter(torch.tensor(start), requires_grad=learnable_temperature)
        self.bias = (
            nn.Parameter(torch.tensor(float(bias)), requires_grad=True)
            if kind == "siglip"
            else None
        )
        self._max_log_scale = max(math.log(MAX_LEARNED_SCALE), start)

    def forward(self, sequence: Tensor, structure: Tensor) -> Tensor:
        """Return the loss, 0-d, of (N, E) unit-length sequence and structure vectors."""
        scale = self.log_scale.clamp(max=self._max_log_scale).exp()
        similarities = scale * (sequence @ structure.T)
        if self.bias is None:
            return clip_loss(similarities)
        return siglip_loss(similarities, self.bias)

    @property
    def temperature(self) -> float:
        """The temperature as it is now."""
        return math.exp(-min(self.log_scale.item(), self._max_log_scale))
