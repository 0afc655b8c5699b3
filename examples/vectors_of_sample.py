"""The start of both worked examples: a store of the sample, and a file of its vectors."""

from __future__ import annotations

from pathlib import Path

from protalign import EmbeddingStore, ProtAlignEstimator, embed

HERE = Path(__file__).parent
#: The small sequence encoder that ships with ProtAlign and needs no network. For real work take an
#: ESM2.
ENCODER = "protalign_t6_2M"


def make_store(out: Path, *more: Path) -> EmbeddingStore:
    """Embed the sample, and further files, into a store; only what is missing is embedded."""
    path = out / "store.zarr"
    report = embed([HERE / "sample", *more], path, [ENCODER, "proteinmpnn_v_48_020"])
    print(f"{path}: {report.entries} proteins")
    return EmbeddingStore.open(path)


def make_vectors(store: EmbeddingStore, out: Path) -> Path:
    """Fit the heads if there is no model yet, and export the aligned vectors and the means."""
    model, vectors = out / "model", out / "vectors.parquet"
    if not model.exists():
        ProtAlignEstimator(random_state=0).fit(store).save(model)
    estimator = ProtAlignEstimator.load(model)
    estimator.export(store, vectors, features=("aligned", "mean"))
    print(f"{vectors}: {len(store)} proteins")
    return vectors
