"""The contrastive losses over a batch of N sequence and structure vectors of unit length.

Row i of one belongs to row i of the other; every other row of the batch is a negative. Both are
functions of the similarities s_ij = <P_i, S_j> / temperature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

#: The losses by name.
LOSSES = ("clip", "siglip")
#: Largest 1 / temperature that learning may reach, as CLIP has it (Radford et al., 2021, 2.5).
MAX_LEARNED_SCALE = 100.0


def clip_loss(similarities: Tensor) -> Tensor:
    """Symmetric softmax cross entropy (paper, Eq. 2; the formula of open_clip's ClipLoss).

    ``similarities``: (N, N), s_ij as above. Returns the mean over both directions, 0-d.
    """
    # Not cross_entropy(similarities.T): its gradient's layout makes adding the two slow.
    by_sequence = similarities.log_softmax(dim=1).diagonal()
    by_structure = similarities.log_softmax(dim=0).diagonal()
    return -(by_sequence + by_structure).mean() / 2


def siglip_loss(similarities: Tensor, bias: Tensor) -> Tensor:
    """``sum_ij softplus(-y_ij (s_ij + b)) / N``, y_ij = 1 for i = j and -1 elsewhere.

    This is the sign that SigLIP's own code (big_vision) gives the bias: b = -10 says that almost
    every pair is a negative. The paper's Eq. 3, like the SigLIP paper's, prints the bias with the
    opposite sign, under which b = -10 would call almost every pair a positive.

    ``similarities``: (N, N); ``bias``: 0-d. Returns a 0-d tensor.
    """
    labels = 2 * torch.eye(len(similarities), device=similarities.device) - 1
    return functional.softplus(-labels * (similarities + bias)).sum() / len(similarities)


class ContrastiveLoss(nn.Module):
    """One of the two losses, with its temperature and bias.

    Parameters
    ----------
    kind : "clip" or "siglip".
    temperature : tau, that similarities are divided by.
    bias : SigLIP's bias at the start; it is learned. CLIP has none.
    learnable_temperature : learn log(1 / tau) too, starting from ``temperature``. 1 / tau stays
        below the larger of 100 and its start.
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
        """Loss of (N, E) unit-length sequence vectors and their (N, E) structure vectors."""
        scale = self.log_scale.clamp(max=self._max_log_scale).exp()
        similarities = scale * (sequence @ structure.T)
        if self.bias is None:
            return clip_loss(similarities)
        return siglip_loss(similarities, self.bias)

    @property
    def temperature(self) -> float:
        """The temperature as it is now."""
        return math.exp(-min(self.log_scale.item(), self._max_log_scale))
