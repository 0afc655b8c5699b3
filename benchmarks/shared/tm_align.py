"""TM-align's scores of stored backbones, by tmtools (``pip install tmtools``).

Its licence is the GPL-3: beside this file only tests that compare with it call it.
TM-align: Zhang and Skolnick, Nucleic Acids Res 33, 2302 (2005).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from joblib import Parallel, delayed

from protalign.core.arrays import Float64
from protalign.search.queries import stored_backbone
from protalign.stores import EmbeddingStore

#: A TM-score of two proteins that share a fold, at least.
SAME_FOLD = 0.5


def trace_of(store: EmbeddingStore, entry_id: str) -> Float64:
    """Return (L, 3) float64 in Å: the CA atoms of an entry's residues with a complete backbone."""
    backbone = stored_backbone(store, entry_id)
    if backbone is None:
        raise ValueError(f"{entry_id}: the store has no coordinates of it")
    return np.ascontiguousarray(backbone[:, 1], dtype=np.float64)


def tm_score(query: Float64, target: Float64) -> float:
    """Return TM-align's score of two traces, normalised by the query's length."""
    from tmtools import tm_align

    found = tm_align(query, target, "A" * len(query), "A" * len(target))
    return float(found.tm_norm_chain1)


def tm_scores(queries: Sequence[Float64], targets: Sequence[Float64], jobs: int) -> Float64:
    """Return (n, m) float64: the score of each query with each target, by the query's length."""

    def row(query: Float64) -> list[float]:
        return [tm_score(query, target) for target in targets]

    rows = Parallel(n_jobs=jobs, verbose=5)(delayed(row)(query) for query in queries)
    return np.array(rows, dtype=np.float64).reshape(len(queries), len(targets))
