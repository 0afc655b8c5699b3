"""What the two worked examples begin with: a file of vectors of the sample, by three commands."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
#: The command that belongs to the Python this runs under.
PROTALIGN = Path(sysconfig.get_path("scripts")) / "protalign"
#: The small sequence encoder that ships: no network needed. For real work an ESM2.
ENCODER = "protalign_t6_2M"


def make_store(out: Path, *more: Path) -> Path:
    """Embed the sample, and further files, into a store; what is there already is kept."""
    store = out / "store.zarr"
    run("embed", HERE / "sample", *more, "--out", store, "--sequence-encoder", ENCODER)
    return store


def make_vectors(out: Path) -> Path:
    """Fit the heads, unless they are there already, and export the vectors, aligned and mean."""
    store, model, vectors = out / "store.zarr", out / "model", out / "vectors.parquet"
    if not model.exists():  # mutants have no structure: they would change nothing
        run("fit", store, "--out", model, "--quiet")
    run("export", store, "--model", model, "--out", vectors, "--features", "aligned,mean")
    return vectors


def run(*words: str | Path) -> None:
    """Print a protalign command and run it; stop if it fails."""
    arguments = [str(word) for word in words]
    print(f"$ protalign {shlex.join(arguments)}", flush=True)
    if code := subprocess.run([PROTALIGN, *arguments]).returncode:
        sys.exit(code)
