"""Stores of made-up proteins, of any size, for benchmarks that need no real embeddings.

A residue's embedding is a random vector of its amino acid, so that a protein's sequence and its
structure share something that a model can learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS, Backbone, Chain, Protein, Structure
from protalign.stores import EncoderRecord, StoreWriter
from protalign.stores.filling.encode import encode_pending

SEQUENCE, STRUCTURE = "made_up_sequence", "made_up_structure"
BATCH_ROWS = 1024
CHUNK_ROWS = 8192
PROTEINS_PER_COMMIT = 20_000
_AMINO_ACIDS = np.frombuffer(AMINO_ACIDS.encode(), dtype=np.uint8)

Encode = Callable[[Sequence[Any]], list[Float32]]


def lengths(count: int, median: int, seed: int = 0) -> Int64:
    """Draw log-normal lengths, as of real proteins, from a fifth to four times the median."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), 0.5, count)
    return np.clip(drawn, median / 5, median * 4).astype(np.int64)


def made_up_store(
    path: Path, count: int, *, median: int, dims: tuple[int, int], first: int = 0
) -> Path:
    """Make a store of ``count`` proteins of one chain with both modalities embedded.

    Stores of different ``first`` have other proteins, numbered from it.
    """
    options = {"per": "protein", "sequence": "observed", "min_plddt": None}
    with StoreWriter(path, options) as writer:
        for number, protein in enumerate(proteins(count, median, first), start=1):
            writer.add(protein.source, (first + number).to_bytes(32, "little"), [protein])
            if number % PROTEINS_PER_COMMIT == 0:
                writer.commit()
        writer.commit()
        for name, dim in zip((SEQUENCE, STRUCTURE), dims, strict=True):
            modality = name.removeprefix("made_up_")
            record = EncoderRecord(name, modality, dim, "0" * 64, {"layer": 1}, "float16")
            writer.plan(name, record, BATCH_ROWS, CHUNK_ROWS)
            encode_pending(path, name, partial(_load, dim=dim, modality=modality))
    return path


def kept_store(
    path: Path, count: int, *, median: int, dims: tuple[int, int], first: int = 0
) -> Path:
    """Return the store of that path, and make it as ``made_up_store`` does if it is missing."""
    if not path.exists():
        unfinished = path.with_suffix(".part")
        made_up_store(unfinished, count, median=median, dims=dims, first=first)
        unfinished.rename(path)
    return path


def proteins(count: int, median: int, first: int = 0) -> Iterator[Protein]:
    """Yield proteins, each with a different sequence and backbone, numbered from ``first``."""
    rng = np.random.default_rng(1 + first)
    for number, length in enumerate(lengths(count, median, first).tolist(), start=first):
        mixture = rng.dirichlet(np.full(len(_AMINO_ACIDS), 0.5))
        sequence = rng.choice(_AMINO_ACIDS, length, p=mixture).tobytes().decode()
        chain = Chain(
            id="A",
            sequence=sequence,
            residue_numbers=np.arange(1, length + 1, dtype=np.int32),
            insertion_codes=np.full(length, ord(" "), dtype=np.uint8),
            observed=np.ones(length, dtype=np.bool_),
            backbone=Backbone(50 * rng.random((length, 4, 3), dtype=np.float32)),
        )
        name = f"p{number:07}"
        yield Protein(name, f"{name}.pdb", (chain,), Structure((chain,), (0,)))


def _load(device: str, *, dim: int, modality: str) -> Encode:
    """Return the function that encodes a batch; ``encode_pending`` calls this once a device."""
    rng = np.random.default_rng(0 if modality == "sequence" else 1)
    table = np.zeros((128, dim), dtype=np.float32)
    table[_AMINO_ACIDS] = rng.standard_normal((len(_AMINO_ACIDS), dim), dtype=np.float32)
    positions = rng.standard_normal((4096, dim), dtype=np.float32)

    def encode(batch: Sequence[Any]) -> list[Float32]:
        texts = [
            "".join(item) if modality == "sequence" else item.chains[0].sequence for item in batch
        ]
        codes = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
        return [table[code] + positions[np.arange(len(code)) % len(positions)] for code in codes]

    return encode
