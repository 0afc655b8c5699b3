"""Vectors of families, as proteins have them, and their index."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protalign.search import index_vectors
from protalign.stores import VectorBatch, write_vectors

ROWS, DIM = 4000, 32


def make_index(place: Path) -> Path:
    """Write vectors as a file and as a folder, and the folder's index."""
    for name in ("vectors.parquet", "vectors"):
        write_vectors(place / name, [_families()], dim=DIM, metadata={})
    cells = index_vectors(place / "vectors", place / "index").modalities
    counts = {modality: each.count for modality, each in cells.items()}
    assert counts == {"sequence": ROWS, "structure": ROWS - -(-ROWS // 7)}
    assert all(each.recall >= 0.99 for each in cells.values())
    assert 1 < cells["structure"].nprobe[0] < cells["structure"].cells == 85
    return place


def _families() -> VectorBatch:
    """Entries about 80 centres, as families are; every seventh has no structure."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(80, DIM))
    values = (centres[np.arange(ROWS) % 80] + 0.5 * generator.normal(size=(ROWS, DIM))).astype("f4")
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    structure = np.where((np.arange(ROWS) % 7 > 0)[:, None], values, np.float32(np.nan))
    return VectorBatch([f"p{row}" for row in range(ROWS)], values, structure)
