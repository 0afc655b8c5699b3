"""Leakage audit: the overlap between test and training sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protalign.core.arrays import Bool, Float32
from protalign.core.words import ClusterMethod
from protalign.evaluation.test_set import Chains
from protalign.splits.clusters import best_identity, method_in_words

#: Identities at which a test protein counts as seen in training.
IDENTITIES = (0.95, 0.3)


@dataclass(frozen=True, slots=True, eq=False)
class Leakage:
    """The overlap of n test sequences with the training sequences.

    Attributes
    ----------
    exact : (n,) bool
        The same chains in the same order are in training.
    identity : (n,) float32
        Highest sequence identity, 0 to 1, of any of its chains to any training chain; 0 if nothing
        is similar. See ``protalign.splits.clusters``.
    n_training : int
        Unique training sequences.
    how : str
        The method of comparison in words. The k-mer fallback sees no identity below about 50 %.
    """

    exact: Bool
    identity: Float32
    n_training: int
    how: str

    @classmethod
    def of(
        cls, test: Sequence[Chains], train: Sequence[Chains], method: ClusterMethod = "auto"
    ) -> Leakage:
        """Compare test and training proteins chain by chain.

        Parameters
        ----------
        test, train : sequence of tuple of str
            The sequences of each protein's chains.
        method : "auto", "mmseqs" or "kmer"
            See ``protalign.splits.clusters.cluster``.

        Examples
        --------
        >>> chain, other = "MKVLAAGIVGLCHWERTYPDNQ" * 3, "GSHMASWPLEDNCYFTRQIKVA" * 3
        >>> leakage = Leakage.of([(chain,), (other,)], [(chain,)], method="kmer")
        >>> leakage.exact, leakage.identity
        (array([ True, False]), array([1., 0.], dtype=float32))
        """
        trained = set(train)
        exact = np.array([protein in trained for protein in test], dtype=np.bool_)
        chains = [chain for protein in test for chain in protein]
        trained_chains = sorted({chain for protein in trained for chain in protein})
        identity = best_identity(chains, trained_chains, method=method)
        protein_of_chain = np.repeat(np.arange(len(test)), [len(protein) for protein in test])
        highest = np.zeros(len(test), dtype=np.float32)
        np.maximum.at(highest, protein_of_chain, identity)
        return cls(exact, highest, len(trained), method_in_words(method))

    def clean(self, identity: float) -> Bool:
        """Return (n,) bool: not in training at this identity."""
        return self.identity < np.float32(identity)

    def counts(self) -> dict[str, Any]:
        """Return how, n_sequences, n_training_sequences, exact, and at_{percent} by identity."""
        return {
            "how": self.how,
            "n_sequences": len(self.exact),
            "n_training_sequences": self.n_training,
            "exact": int(self.exact.sum()),
            **{f"at_{100 * x:.0f}": int((~self.clean(x)).sum()) for x in IDENTITIES},
        }
