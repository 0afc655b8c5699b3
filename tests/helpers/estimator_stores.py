"""A store of the real sample: sequences one-hot, structures by ProteinMPNN's encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.protein import AMINO_ACIDS, Backbone, Chain, Protein, Structure
from protalign.encoders import EncoderSpec, load_encoder
from protalign.reading import find_sources, read_sources
from protalign.stores import EncoderRecord, StoreWriter
from protalign.stores.filling.encode import encode_pending

Arrays = list[npt.NDArray[np.float32]]
PROTEINMPNN = "proteinmpnn_v_48_020"
ONE_HOT = EncoderRecord("one_hot", "sequence", 20, "0" * 64, {"layer": 1}, "float16")
_TABLE = np.zeros((128, 20), dtype=np.float32)
_TABLE[[ord(letter) for letter in AMINO_ACIDS], range(20)] = 1


def one_hot(batch: Sequence[tuple[str, ...]]) -> Arrays:
    """(L, 20): which amino acid a residue is."""
    return [_TABLE[np.frombuffer("".join(item).encode(), np.uint8)] for item in batch]


def load_one_hot(device: str) -> Callable[[list[Any]], Arrays]:
    """What ``encode_pending`` takes."""
    return one_hot


def load_proteinmpnn(device: str) -> Callable[[list[Any]], Arrays]:
    """What ``encode_pending`` takes."""
    return load_encoder(EncoderSpec(PROTEINMPNN, device=device)).encode


def read(folder: Path) -> list[Protein]:
    """The proteins of a folder."""
    sources, failures = find_sources([folder])
    assert failures == []
    results = list(read_sources(sources, processes=1))
    return [protein for result in results for protein in result.proteins]


def renamed(protein: Protein, name: str) -> Protein:
    """The same content under another id, as from another file."""
    return Protein(name, f"{name}.pdb", protein.chains, protein.structure)


def shaken(protein: Protein, name: str) -> Protein:
    """The same sequence in another structure: every atom about half an Å away."""
    (chain,) = protein.chains
    assert chain.backbone is not None
    noise = np.random.default_rng(0).normal(scale=0.3, size=chain.backbone.coordinates.shape)
    moved = replace(
        chain, backbone=Backbone((chain.backbone.coordinates + noise).astype(np.float32))
    )
    return Protein(name, f"{name}.pdb", (moved,), Structure((moved,), (0,)))


def sequence_only(name: str, sequence: str) -> Protein:
    """What a FASTA record gives."""
    return Protein(name, f"{name}.fasta", (Chain.from_sequence(sequence, name),))


def build(
    path: Path, proteins: Sequence[Protein], sequence_encoder: EncoderRecord = ONE_HOT
) -> Path:
    """A store with both encoders' embeddings."""
    encoder = load_encoder(EncoderSpec(PROTEINMPNN, device="cpu"))
    structure = EncoderRecord(
        encoder.name,
        "structure",
        encoder.dim,
        encoder.weights_sha256,
        dict(encoder.settings),
        "float16",
    )
    options = {"per": "protein", "sequence": "observed", "min_plddt": None}
    with StoreWriter(path, options) as writer:
        for protein in proteins:
            file = Path(protein.source)
            content = file.read_bytes() if file.is_file() else protein.source.encode()
            sha256 = hashlib.sha256(content).digest()
            assert writer.add(protein.source, sha256, [protein]) == []
        writer.commit()
        writer.plan("one_hot", sequence_encoder, 1024, 4096)
        writer.plan(PROTEINMPNN, structure, 1024, 4096)
        encode_pending(path, "one_hot", load_one_hot)
        encode_pending(path, PROTEINMPNN, load_proteinmpnn)
    return path
