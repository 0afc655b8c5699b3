"""The store of embeddings, and the files and folders of aligned vectors.

``protalign.stores.filling.encode`` runs encoders; it is imported where it is used.
"""

from __future__ import annotations

from protalign.core.encoder_record import EncoderRecord
from protalign.stores.checking.several import verify
from protalign.stores.checking.verify import Damage, VerifyReport
from protalign.stores.encoded import EncoderInfo
from protalign.stores.filling.plan import BatchPlan
from protalign.stores.items import ResidueMap
from protalign.stores.store import EmbeddingStore, Entries, StoreView
from protalign.stores.vectors.files import write_vectors
from protalign.stores.vectors.mapped import MappedVectors
from protalign.stores.vectors.reading import read_vectors, verify_vectors
from protalign.stores.vectors.table import VectorBatch
from protalign.stores.vectors.vectors import AlignedVectors
from protalign.stores.writer import StoreWriter

__all__ = [
    "AlignedVectors",
    "BatchPlan",
    "Damage",
    "EmbeddingStore",
    "EncoderInfo",
    "EncoderRecord",
    "Entries",
    "MappedVectors",
    "ResidueMap",
    "StoreView",
    "StoreWriter",
    "VectorBatch",
    "VerifyReport",
    "read_vectors",
    "verify",
    "verify_vectors",
    "write_vectors",
]
