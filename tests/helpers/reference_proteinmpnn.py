"""The reference implementation's h_V, and structures to compare on."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import protein_mpnn_utils as upstream
import torch

from protalign.core.protein import BACKBONE_ATOMS, Backbone, Chain, Structure
from protalign.reading import find_sources, read_source

WEIGHTS = Path(upstream.__file__).parent
VANILLA = WEIGHTS / "vanilla_model_weights"


def read_complex(path: Path) -> Structure:
    """All chains of a file, all kept."""
    sources, failures = find_sources([path])
    assert not failures
    result = read_source(sources[0])
    assert not result.failures
    structure = result.proteins[0].structure
    assert structure is not None
    return keep_all(structure.chains)


def keep_all(chains: Sequence[Chain]) -> Structure:
    return Structure(tuple(chains), tuple(range(len(chains))))


def with_coordinates(chain: Chain, coordinates: npt.NDArray[np.floating]) -> Chain:
    return replace(chain, backbone=Backbone(coordinates.astype(np.float32)))


def take(chain: Chain, rows: npt.NDArray[np.int64] | slice) -> Chain:
    """A chain of some of the residues, in that order."""
    assert chain.backbone is not None
    return Chain(
        id=chain.id,
        sequence="".join(np.array(list(chain.sequence))[rows]),
        residue_numbers=chain.residue_numbers[rows],
        insertion_codes=chain.insertion_codes[rows],
        observed=chain.observed[rows],
        backbone=Backbone(chain.backbone.coordinates[rows]),
    )


def moved(chain: Chain, shift: Sequence[float]) -> Chain:
    """A chain shifted by so many Å; shifts of whole 1/1000 Å survive a PDB file."""
    assert chain.backbone is not None
    return with_coordinates(chain, np.round(chain.backbone.coordinates + np.array(shift), 3))


class Reference:
    """Upstream's network, read from upstream's file, run as upstream runs it but without noise."""

    def __init__(self, weights: Path = VANILLA / "v_48_020.pt") -> None:
        content = torch.load(weights, weights_only=True)
        self.network = upstream.ProteinMPNN(
            num_letters=21,
            node_features=128,
            edge_features=128,
            hidden_dim=128,
            k_neighbors=content["num_edges"],
            augment_eps=0.0,
        )
        self.network.load_state_dict(content["model_state_dict"])
        self.network.eval()

    @torch.inference_mode()
    def __call__(self, structure: Structure, folder: Path) -> npt.NDArray[np.float32]:
        """h_V of the complete residues, in the order of the structure's chains and rows.

        The structure goes through a PDB file and upstream's own parser and featurizer.
        """
        path = folder / "complex.pdb"
        letters = write_pdb(structure, path)
        batch = upstream.parse_PDB(str(path), input_chain_list=letters)
        featurized = upstream.tied_featurize(batch, torch.device("cpu"), None)
        x, mask, chain_encoding, residue_idx = (featurized[i] for i in (0, 2, 5, 12))
        rows = self.encode(x, mask, residue_idx, chain_encoding)[0][mask[0].bool()].numpy()
        return rows[places_in_reference(structure)]

    def encode(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        residue_idx: torch.Tensor,
        chain_encoding: torch.Tensor,
    ) -> torch.Tensor:
        """The first part of upstream's forward pass, up to the sequence."""
        edges, indices = self.network.features(x, mask, residue_idx, chain_encoding)
        h_v = torch.zeros(*edges.shape[:2], 128)
        h_e = self.network.W_e(edges)
        attend = upstream.gather_nodes(mask.unsqueeze(-1), indices).squeeze(-1)
        attend = mask.unsqueeze(-1) * attend
        for layer in self.network.encoder_layers:
            h_v, h_e = layer(h_v, h_e, indices, mask, attend)
        return h_v


def write_pdb(structure: Structure, path: Path) -> list[str]:
    """Write the observed backbone atoms as ATOM records; return the chains' letters A, B, C."""
    lines = []
    letters = list(string.ascii_uppercase[: len(structure.chains)])
    for letter, chain in zip(letters, structure.chains, strict=True):
        assert chain.backbone is not None
        for row in np.flatnonzero(chain.observed):
            place = f"{letter}{chain.residue_numbers[row]:4d}{chr(chain.insertion_codes[row])}"
            for atom, (x, y, z) in zip(
                BACKBONE_ATOMS, chain.backbone.coordinates[row], strict=True
            ):
                if np.isfinite(x):
                    lines.append(
                        f"ATOM  {len(lines) % 100000:5d}  {atom:<3s} GLY {place}   "
                        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00\n"
                    )
    path.write_text("".join(lines))
    return letters


def places_in_reference(structure: Structure) -> npt.NDArray[np.int64]:
    """For each of our rows, where upstream's parser, which sorts by number and code, puts it."""
    keys = [
        (index, chain.residue_numbers[row], chain.insertion_codes[row])
        for index, chain in enumerate(structure.chains)
        for row in chain.structure_rows
    ]
    places = np.empty(len(keys), dtype=np.int64)
    places[np.lexsort(np.array(keys).T[::-1])] = np.arange(len(keys))
    return places
