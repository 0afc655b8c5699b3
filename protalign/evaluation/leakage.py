"""Leakage audit: which test proteins, or proteins like them, are among those trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.splits.clusters import best_identity, method_in_words

#: Identities at which a test protein counts as seen in training.
IDENTITIES = (0.95, 0.3)

Chains = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Leakage:
    """What of n test sequences is in training.

    Attributes
    ----------
    exact : (n,) bool, the same chains in the same order.
    identity : (n,) float32, highest sequence identity of any of its chains to any chain trained
        on, 0 where nothing is similar; see ``protalign.splits.clusters``.
    n_training : unique sequences trained on.
    how : what compared them, in words; the k-mer fallback sees no identity below about 50 %.
    """

    exact: npt.NDArray[np.bool_]
    identity: npt.NDArray[np.float32]
    n_training: int
    how: str

    @classmethod
    def of(cls, test: Sequence[Chains], train: Sequence[Chains]) -> Leakage:
        """Compare the chains' sequences of test and training proteins."""
        trained = set(train)
        exact = np.array([protein in trained for protein in test], dtype=np.bool_)
        chains = [chain for protein in test for chain in protein]
        identity = best_identity(chains, sorted({chain for p in trained for chain in p}))
        owner = np.repeat(np.arange(len(test)), [len(protein) for protein in test])
        highest = np.zeros(len(test), dtype=np.float32)
        np.maximum.at(highest, owner, identity)
        return cls(exact, highest, len(trained), method_in_words())

    def clean(self, identity: float) -> npt.NDArray[np.bool_]:
        """(n,) bool: not in training at this identity."""
        return self.identity < np.float32(identity)

    def counts(self) -> dict[str, Any]:
        """how, n_sequences, n_training_sequences, exact; at_{percent} by ``IDENTITIES``."""
        return {
            "how": self.how,
            "n_sequences": len(self.exact),
            "n_training_sequences": self.n_training,
            "exact": int(self.exact.sum()),
            **{f"at_{100 * x:.0f}": int((~self.clean(x)).sum()) for x in IDENTITIES},
        }
