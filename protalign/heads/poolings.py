"""The table of pooling kinds. A new kind is one file with a ``PoolingHead`` and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protalign.heads.head import PoolingHead

#: Kind -> module and class of its head. Named, not imported: the command line lists the kinds
#: without torch.
POOLINGS = {
    "attention": "protalign.heads.attention:AttentionHead",
    "codebook": "protalign.heads.codebook:CodebookHead",
    "mean-linear": "protalign.heads.mean:MeanLinearHead",
    "mean-mlp": "protalign.heads.mean:MeanMLPHead",
}


def pooling_head(kind: str) -> type[PoolingHead]:
    """Return the class of a kind of pooling; raise KeyError for an unknown one.

    Examples
    --------
    >>> pooling_head("attention").attends
    True
    """
    module, _, name = POOLINGS[kind].partition(":")
    head: type[PoolingHead] = getattr(import_module(module), name)
    return head
