"""Stores, models and exported vectors, made once in the working folder with the public API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.quality.downstream_parts.labels import Pool
from protalign import AlignedVectors, EmbeddingStore, ProtAlignEstimator, embed, read_vectors
from protalign.embedding import EncoderChoice
from protalign.encoders import EncoderSpec

SEQUENCE, STRUCTURE = "esm2_t6_8M_UR50D", "proteinmpnn_v_48_020"


@dataclass(frozen=True)
class Work:
    """The development data, and the folder for everything made from it."""

    shared: Path
    folder: Path

    def pool(self) -> Pool:
        """Embed all structures with both encoders and default options."""
        data = self.shared / "data"
        path = self.folder / "proteins.zarr"
        structure = EncoderChoice(EncoderSpec(STRUCTURE))
        embed([data / "pool", data / "casf2016"], path, [self._esm2(), structure])
        return Pool.of(EmbeddingStore.open(path), data / "manifest.csv")

    def mutants(self, sequences: Iterable[str]) -> EmbeddingStore:
        """Embed sequences, in float32 since differences between mutants are small."""
        fasta, path = self.folder / "sequences.fasta", self.folder / "mutants.zarr"
        text = "".join(f">{name_of(s)}\n{s}\n" for s in sorted(set(sequences)))
        if not fasta.is_file() or fasta.read_text() != text:
            fasta.write_text(text)
        embed([fasta], path, [self._esm2("float32")], storage_dtype="float32")
        return EmbeddingStore.open(path)

    def model(self, pool: Pool, seed: int) -> ProtAlignEstimator:
        """Fit the aligned heads, with default options, on the manifest's train part."""
        path = self.folder / "models" / f"seed{seed}"
        if not path.is_dir():
            part = pool.manifest.groupby("split")["entry"].agg(list)
            model = ProtAlignEstimator(random_state=seed, sequence_encoder=SEQUENCE, device="cpu")
            model.fit(pool.store[part["train"]], X_val=pool.store[part["val"]])
            path.parent.mkdir(exist_ok=True)
            model.save(path)
        return ProtAlignEstimator.load(path)

    def vectors(
        self, store: EmbeddingStore, model: ProtAlignEstimator, seed: int
    ) -> AlignedVectors:
        """Export a store's vectors, aligned and mean, and read them."""
        path = self.folder / f"{Path(store.path).stem}-seed{seed}.parquet"
        if not path.is_file() or not set(store.ids) <= set(read_vectors(path).ids):
            model.export(store, path, features=("aligned", "mean"))
        return read_vectors(path).select(store.ids)

    def _esm2(self, dtype: str = "auto") -> EncoderChoice:
        weights = self.shared / "weights" / "esm2_t6_8M_hemopi2ft.safetensors"
        return EncoderChoice(EncoderSpec(SEQUENCE, weights=str(weights), dtype=dtype))


def name_of(sequence: str) -> str:
    """Return an id for a sequence."""
    return hashlib.sha256(sequence.encode()).hexdigest()[:16]


def sequences_of(tables: Iterable[pd.DataFrame]) -> set[str]:
    """Return all wild types and mutants."""
    return {s for table in tables for s in np.concatenate([table["wild"], table["mutant"]])}
