"""Indexes of residue words."""

from __future__ import annotations

from pathlib import Path

import protalign
from protalign import EmbeddingStore, Model
from protalign.core.protein import MODALITIES, Modality
from tests.helpers.estimator_stores import PROTEINMPNN

#: The encoders of the store that is indexed, and the words of each modality.
ENCODERS: dict[Modality, str] = {"sequence": "one_hot", "structure": PROTEINMPNN}
WORDS = 40
#: What a hand-made index says of a model and a store that there are not.
MADE_WITH = {"stage_sha256": "", "store": {}, "n_words": WORDS, "seed": 0}


def everything(path: Path, model: Model, store: EmbeddingStore) -> None:
    """Read all of an index as searches do."""
    for query_by in MODALITIES:
        protalign.search("1a2p_A", index=path, model=model, store=store, query_by=query_by)
