"""Proteins whose sequences are relatives of others, by MMseqs2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protalign.core.arrays import Bool
from protalign.evaluation.rivals import mmseqs_hits
from protalign.evaluation.test_set import Chains

#: Bits of relatives, at least: an E-value of about 0.001 among a million residues.
LEAST_BITS = 37


def related_to(others: Sequence[Chains], proteins: Sequence[Chains]) -> Bool:
    """Return (n,) bool: which of n proteins MMseqs2 finds with one of the others."""
    hits = mmseqs_hits(others, proteins).tocoo()
    found = np.zeros(len(proteins), dtype=np.bool_)
    found[hits.coords[1][hits.data >= LEAST_BITS]] = True
    return found
