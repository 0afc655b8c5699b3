"""The store of embeddings, and the Parquet file of aligned vectors.

``protalign.stores.fill``, which runs encoders through Dask, is imported where it is used.
"""

from __future__ import annotations

from protalign.stores.encoded import EncoderInfo
from protalign.stores.items import ResidueMap
from protalign.stores.plan import Plan
from protalign.stores.state import EncoderRecord
from protalign.stores.store import EmbeddingStore, Entries, StoreView
from protalign.stores.writer import StoreWriter

__all__ = [
    "EmbeddingStore",
    "EncoderInfo",
    "EncoderRecord",
    "Entries",
    "Plan",
    "ResidueMap",
    "StoreView",
    "StoreWriter",
]
