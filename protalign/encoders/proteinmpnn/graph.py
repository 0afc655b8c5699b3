"""The graph that ProteinMPNN makes of a complex: residues as nodes, 48 nearest neighbours.

Follows the graph of Dauparas et al., Science 378, 49 (2022), as the authors' code builds it
(``ProteinFeatures`` with ``augment_eps = 0``), without its tables over all pairs of residues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from protalign.core.protein import Chain, Structure

#: N, CA, C, O and the virtual CB.
ATOMS = 5
#: Offsets along a chain beyond this many residues count as this many.
MAX_OFFSET = 32
#: Row of the positional table for two residues of different chains.
OTHER_CHAIN = 2 * MAX_OFFSET + 1
RBF_CENTRES = 16
RBF_FIRST, RBF_LAST = 2.0, 22.0  # Å
RBF_WIDTH = (RBF_LAST - RBF_FIRST) / RBF_CENTRES
#: Widths from a centre beyond which distances count as this far: exp(-7**2) is 5e-22, negligible
#: in a sum. Further out exp() gives denormals, on which every operation takes tens of times longer.
_FURTHEST = 7.0
#: Pairs of atoms, of the residue and of its neighbour, in the reference code's order, which the
#: weights follow; N CA C O CB are 0 to 4.
ATOM_PAIRS = (
    *((1, 1), (0, 0), (2, 2), (3, 3), (4, 4)),
    *((1, 0), (1, 2), (1, 3), (1, 4)),
    *((0, 2), (0, 3), (0, 4), (4, 2), (4, 3), (3, 2)),
    *((0, 1), (2, 1), (3, 1), (4, 1)),
    *((2, 0), (3, 0), (4, 0), (2, 4), (3, 4), (2, 3)),
)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The residues of a complex that have a complete backbone, in the order of its chains.

    Attributes
    ----------
    atoms : (R, 3, 5) float32
        x y z of N, CA, C, O and the virtual CB, in Å.
    index : (R,) int64
        Position along the chain, counted as the reference code does.
    chain : (R,) int64
        Number of the chain.
    """

    atoms: Tensor
    index: Tensor
    chain: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Tensor) -> Nodes:
        """Return the residues at ``rows`` (int64), in that order."""
        return Nodes(self.atoms[rows], self.index[rows], self.chain[rows])


@dataclass(frozen=True, slots=True)
class Graph:
    """The input of the network: residues, ordered by the number of layers that need them.

    Attributes
    ----------
    nodes : Nodes
        R residues; first those that an embedding is wanted of.
    neighbours : (needed[0], K) int64
        Rows of ``nodes``: the nearest of each residue, itself first.
    needed : three int
        The number of residues, from the first, in the first, second and third layer; descending.
        The embeddings of the last number are wanted; the other residues feed them.
    """

    nodes: Nodes
    neighbours: Tensor
    needed: tuple[int, int, int]

    def to(self, device: torch.device) -> Graph:
        """Return the same graph on another device."""
        nodes = self.nodes
        moved = Nodes(*(tensor.to(device) for tensor in (nodes.atoms, nodes.index, nodes.chain)))
        return Graph(moved, self.neighbours.to(device), self.needed)


def chain_index(chain: Chain) -> npt.NDArray[np.int64]:
    """Return the position of each residue along its chain, as the reference code's parser counts.

    A gap in the numbering takes as many positions as it has numbers. Residues of one number with
    different insertion codes take one position each, in the codes' order. Residues of one number
    and code, which the reference code reads as one residue, share a position.

    Returns
    -------
    (L,) int64
        Meaningless for residues that were not observed.
    """
    index = np.zeros(len(chain), dtype=np.int64)
    observed = chain.observed
    if not observed.any():
        return index
    numbers = chain.residue_numbers[observed].astype(np.int64)
    labels, label_of = np.unique(
        numbers * 256 + chain.insertion_codes[observed], return_inverse=True
    )
    present, rank = np.unique(labels // 256, return_inverse=True)
    # Inserted residues before each label: positions beyond one for each number.
    inserted = np.arange(len(labels)) - rank
    index[observed] = (labels // 256 - present[0] + inserted)[label_of]
    return index


def nodes_of(structure: Structure, device: torch.device) -> tuple[Nodes, Tensor]:
    """Return the complete residues of all chains, and (R,) bool: True for those of kept chains."""
    coordinates, index = [np.empty((0, 4, 3), np.float32)], [np.empty(0, np.int64)]
    lengths, kept = [], []
    for number, chain in enumerate(structure.chains):
        rows = chain.structure_rows
        if chain.backbone is not None:
            coordinates.append(chain.backbone.coordinates[rows])
            index.append(chain_index(chain)[rows])
        lengths.append(len(rows))
        kept.append(number in structure.kept)
    chains = np.repeat(np.arange(len(lengths)), lengths)
    nodes = Nodes(
        _with_virtual_cb(torch.from_numpy(np.concatenate(coordinates)).to(device)),
        torch.from_numpy(np.concatenate(index)).to(device),
        torch.from_numpy(chains).to(device),
    )
    wanted = np.repeat(np.array(kept, dtype=np.bool_), lengths)
    return nodes, torch.from_numpy(wanted).to(device)


def _with_virtual_cb(backbone: Tensor) -> Tensor:
    """Return (R, 3, 5): N, CA, C, O of (R, 4, 3), and an ideal CB by the reference's constants."""
    n, ca, c, _ = backbone.unbind(1)
    b, c = ca - n, c - ca
    cb = -0.58273431 * torch.linalg.cross(b, c) + 0.56802827 * b - 0.54067466 * c + ca
    return torch.cat([backbone, cb[:, None]], dim=1).transpose(1, 2).contiguous()


def build_graph(nodes: Nodes, wanted: Tensor, k: int, block: int) -> Graph:
    """Return the graph that the embeddings of the ``wanted`` residues depend on.

    A layer lets a residue see its neighbours. So the last layer is needed for the wanted residues
    only, the one before for these and their neighbours, the first for the neighbours of those.

    Parameters
    ----------
    nodes : Nodes
        R residues.
    wanted : (R,) bool
    k : int
        Neighbours of each residue, itself among them; all residues if there are fewer.
    block : int
        Residues at a time, which bounds memory to ``block`` rows of distances.
    """
    k = min(k, len(nodes))
    layer = torch.where(wanted, 0, 3)  # 0: in all layers, 1: in the first two, 2: in the first
    neighbours = torch.empty((len(nodes), k), dtype=torch.int64, device=wanted.device)
    for reach in range(3):
        rows = torch.nonzero(layer == reach).flatten()
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            neighbours[part] = nearest(nodes.atoms[:, :, 1], part, k)
        reached = neighbours[rows].flatten()
        layer[reached] = layer[reached].clamp(max=reach + 1)
    order = torch.argsort(layer, stable=True)
    new_row = torch.empty_like(order)
    new_row[order] = torch.arange(len(order), device=order.device)
    needed = [int((layer <= reach).sum()) for reach in (2, 1, 0)]
    return Graph(
        nodes.take(order),
        new_row[neighbours[order[: needed[0]]]],
        (needed[0], needed[1], needed[2]),
    )


def nearest(ca: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the k residues nearest to each of ``rows`` by CA distance; (len(rows), k) int64.

    Of residues equally far the earlier comes first, on every device. Distances are rounded as in
    the reference code, so that the same residues are chosen.
    """
    squared = torch.zeros((), device=ca.device)
    for axis in ca.T:
        squared = squared + (axis[rows, None] - axis).square_()
    distance = squared.add_(1e-6).sqrt_()
    # A positive float orders as its bits do: distance above, row below, in one integer.
    key = distance.view(torch.int32).to(torch.int64) << 32
    key += torch.arange(len(ca), device=ca.device)
    return key.topk(k, largest=False).values & 0xFFFFFFFF


def relative_positions(graph: Graph) -> Tensor:
    """Return each edge's row of the positional table; (needed[0] * K,) int64."""
    nodes, count = graph.nodes, graph.needed[0]
    offset = nodes.index[:count, None] - nodes.index[graph.neighbours]
    offset.add_(MAX_OFFSET).clamp_(0, 2 * MAX_OFFSET)
    other = nodes.chain[:count, None] != nodes.chain[graph.neighbours]
    return offset.masked_fill_(other, OTHER_CHAIN).flatten()


class DistanceFeatures(nn.Module):
    """Distances of all atom pairs over edges, as Gaussians."""

    pairs: Tensor
    centres: Tensor
    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        constants = {
            "pairs": torch.tensor([a * ATOMS + b for a, b in ATOM_PAIRS]),
            "centres": torch.linspace(RBF_FIRST, RBF_LAST, RBF_CENTRES)[:, None],
            "zero": torch.zeros(()),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, here: Tensor, near: Tensor, out: Tensor) -> None:
        """Write the features of the edges of B residues.

        Parameters
        ----------
        here : (B, 15) float32, ``Nodes.atoms`` of the residues.
        near : (B * K, 15) float32, of their neighbours.
        out : (400, B * K) float32, overwritten: 25 pairs in the reference code's order, 16 centres
            each. The edges run fastest: operations on 16 values at a time take several times as
            long.
        """
        ones = here.T.repeat_interleave(len(near) // len(here), dim=1).view(3, ATOMS, 1, -1)
        gaps = ones - near.T.contiguous().view(3, 1, ATOMS, -1)
        distances = gaps.square_().sum(0).add_(1e-6).sqrt_().view(len(ATOM_PAIRS), -1)
        ordered = distances.index_select(0, self.pairs)
        widths = out.view(len(ATOM_PAIRS), RBF_CENTRES, -1)
        torch.sub(ordered[:, None], self.centres, out=widths)
        torch.addcmul(self.zero, widths, widths, value=-1 / RBF_WIDTH**2, out=widths)
        widths.clamp_(min=-(_FURTHEST**2)).exp_()
