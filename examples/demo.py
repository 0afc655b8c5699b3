"""The whole way on the sample: embed, inspect, fit, score, export, and search by sequence.

Prints each command and runs it. ``make demo`` starts this.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HERE = Path(__file__).parent
#: The command of the Python that runs this.
PROTALIGN = Path(sysconfig.get_path("scripts")) / "protalign"
#: T4 lysozyme L99A (Eriksson et al., 1992), a cavity mutant. It differs in two residues from each
#: of the sample's four mutants at position 44, and is searched among all 40 structures.
QUERY = HERE / "query.fasta"


def run(*words: str | Path) -> None:
    """Print a protalign command and run it; stop the demo if it fails."""
    arguments = [str(word) for word in words]
    print(f"\n$ protalign {shlex.join(arguments)}", flush=True)
    if code := subprocess.run([PROTALIGN, *arguments]).returncode:
        sys.exit(code)


def embedded_encoder() -> str:
    """Return the name of the sequence encoder that ships with the package."""
    from protalign.encoders.esm2.shipped import EmbeddedEncoder

    return EmbeddedEncoder.models()[0]


def main() -> None:
    """Run the demo into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for what it makes")
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)
    store, model, vectors = out / "store.zarr", out / "model", out / "vectors.parquet"
    query = out / "query.fasta"
    query.write_bytes(QUERY.read_bytes())
    encoder = embedded_encoder()
    start = time.perf_counter()

    print(
        f"The sample: 40 real chains, nine families of near-identical mutants ({HERE / 'sample'})."
    )
    print(f"Sequence encoder: {encoder}, which is small and ships with ProtAlign: no download.")
    print("For real work use an ESM2: --sequence-encoder esm2_t33_650M_UR50D")
    run("embed", HERE / "sample", "--out", store, "--sequence-encoder", encoder)
    run("info", store)
    run("fit", store, "--out", model, "--loss", "clip", "--overwrite", "--quiet")
    print("\nRetrieval on the proteins that the heads were trained on, so only a demonstration:")
    run("score", store, "--model", model)
    run("export", store, "--model", model, "--out", vectors)
    print("\nSearch with a sequence that is not in the store, among the store's structures:")
    run("search", query, "--vectors", vectors, "--model", model, "-k", "5")
    print(f"\nDone in {time.perf_counter() - start:.0f} s. All results are in {out}/.")


if __name__ == "__main__":
    sys.exit(main())
