"""ProteinMPNN's encoder as a network: weight-compatible with upstream, arranged for speed.

Source: Dauparas et al., Science 378, 49 (2022); layers and names as in the authors' code (MIT),
written anew. The same numbers in fewer operations:

- The first linear layer of a message acts on [residue, edge, neighbour]. Its three parts are
  separate layers here: the residue's and the neighbour's are computed once for each residue, and
  what is gathered over the edges is their 128-wide result.
- The last linear layer of a message to a residue is moved past the sum over the neighbours.
- Residues enter as zeros, so the first layer's messages come from the edges alone.
- The edges after the last layer are read by nothing, and not computed.
- The update of the edges by one layer and the messages of the next run together over blocks of
  residues small enough for the cache; only one (edges, 128) tensor is kept between them.
- A block is few calls, on memory and views made beforehand: where several threads encode, a call
  may have to wait for Python's lock, and fresh memory comes zeroed from the operating system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.encoders.proteinmpnn.graph import (
    ATOM_PAIRS,
    OTHER_CHAIN,
    RBF_CENTRES,
    DistanceFeatures,
    Graph,
    relative_positions,
)

DIM = 128
LAYERS = 3
POSITION_DIM = 16
#: Upstream divides the sum over 48 neighbours by this.
MESSAGE_SCALE = 30.0
#: Residues whose perceptrons run at once.
_RESIDUES_AT_ONCE = 1024
#: Rows of the positional table.
POSITIONS = OTHER_CHAIN + 1
#: Numbers that describe an edge.
FEATURES = POSITION_DIM + len(ATOM_PAIRS) * RBF_CENTRES

#: In place, where the caller owns the tensor.
_gelu_ = torch.ops.aten.gelu_


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that each block of E edges writes over.

    Attributes
    ----------
    features : (416, E) float32.
    first, hidden : (E, 128) in the compute dtype, of the two linear layers of a message.
    first_of, hidden_of : the same memory, (B, K, 128), by the residue that the edges start from.
    """

    features: Tensor
    first: Tensor
    hidden: Tensor
    first_of: Tensor
    hidden_of: Tensor


def scratch_of_blocks(
    residues: int, block: int, k: int, dtype: torch.dtype, device: torch.device
) -> list[Scratch]:
    """Return one for each block of residues; all use the same memory."""
    most = min(residues, block) * k
    features = torch.empty(FEATURES * most, device=device)
    first, hidden = (torch.empty((most, DIM), dtype=dtype, device=device) for _ in range(2))

    def of(count: int) -> Scratch:
        edges = count * k
        rows = first[:edges], hidden[:edges]
        return Scratch(
            features[: FEATURES * edges].view(FEATURES, edges),
            *rows,
            *(part.view(count, k, DIM) for part in rows),
        )

    counts = [min(block, residues - start) for start in range(0, residues, block)]
    made = {count: of(count) for count in set(counts)}
    return [made[count] for count in counts]


class EdgeFeatures(nn.Module):
    """Distances and relative position of each edge, as a (edges, 128) vector."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Embedding(POSITIONS, POSITION_DIM)
        self.distances = DistanceFeatures()
        self.embedding = nn.Linear(FEATURES, DIM, bias=False)
        self.norm = nn.LayerNorm(DIM)
        self.out = nn.Linear(DIM, DIM)

    def forward(self, places: Tensor, here: Tensor, near: Tensor, features: Tensor) -> Tensor:
        """Return the edges of a block of B residues; (B * K, 128) float32.

        Parameters
        ----------
        places : (B * K,) int64, of ``relative_positions``.
        here, near : (B, 15) and (B * K, 15) float32, atoms of the residues and of the neighbours.
        features : (416, B * K) float32, overwritten. The sum over them keeps upstream's order: its
            rounding is most of what two float32 implementations differ by.
        """
        torch.index_select(self.position.weight.T, 1, places, out=features[:POSITION_DIM])
        self.distances(here, near, features[POSITION_DIM:])
        edges: Tensor = self.out(self.norm(self.embedding(features.T)))
        return edges


class MessageLayers(NamedTuple):
    """The two layers of a message as they act on edges: weights (inputs, outputs), and biases."""

    edge: Tensor
    bias: Tensor
    hidden: Tensor
    hidden_bias: Tensor

    def of_edges(self, edges: Tensor, scratch: Scratch) -> Tensor:
        """Return the first layer's messages, from edges alone; (B, K, 128), in ``scratch``."""
        torch.addmm(self.bias, edges, self.edge, out=scratch.first)
        return self._second(scratch)

    def of_residues(
        self, here: Tensor, edges: Tensor, near: Tensor, neighbours: Tensor, scratch: Scratch
    ) -> Tensor:
        """Return messages over the edges of a block of B residues; (B, K, 128), in ``scratch``.

        Parameters
        ----------
        here : (B, 1, 128), ``Message.residue(...)`` of the block's residues.
        edges : (B * K, 128).
        near : (R, 128), ``Message.neighbour(...)`` of all residues.
        neighbours : (B * K,) int64, rows of ``near``.
        """
        torch.index_select(near, 0, neighbours, out=scratch.first)
        scratch.first_of.add_(here)
        scratch.first.addmm_(edges, self.edge)
        return self._second(scratch)

    def _second(self, scratch: Scratch) -> Tensor:
        _gelu_(scratch.first)
        torch.addmm(self.hidden_bias, scratch.first, self.hidden, out=scratch.hidden)
        _gelu_(scratch.hidden)
        return scratch.hidden_of


class Message(nn.Module):
    """The first two linear layers of a message: [residue, edge, neighbour] to 128, to 128."""

    def __init__(self) -> None:
        super().__init__()
        self.residue = nn.Linear(DIM, DIM)
        self.edge = nn.Linear(DIM, DIM, bias=False)
        self.neighbour = nn.Linear(DIM, DIM, bias=False)
        self.hidden = nn.Linear(DIM, DIM)

    def layers(self) -> MessageLayers:
        """Return the layers that act on edges; only ``of_edges`` uses the residue's bias."""
        edge, hidden = self.edge.weight.T, self.hidden.weight.T
        return MessageLayers(edge, self.residue.bias, hidden, self.hidden.bias)


class ResidueUpdate(nn.Module):
    """A residue takes in the messages of its neighbours, then a two-layer perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.message = Message()
        self.out = nn.Linear(DIM, DIM)
        self.norm = nn.LayerNorm(DIM)
        self.widen = nn.Linear(DIM, 4 * DIM)
        self.narrow = nn.Linear(4 * DIM, DIM)
        self.norm_out = nn.LayerNorm(DIM)

    def forward(self, residues: Tensor, totals: Tensor, neighbours: int) -> Tensor:
        """Return (R, 128) updated residues from (R, 128) residues and totals of their messages."""
        change = totals.to(residues.dtype) @ self.out.weight.T + neighbours * self.out.bias
        residues = self.norm(residues + change / MESSAGE_SCALE)
        change = self.narrow(functional.gelu(self.widen(residues)))
        updated: Tensor = self.norm_out(residues + change)
        return updated


class EdgeUpdate(nn.Module):
    """An edge takes in a message from its two residues."""

    def __init__(self) -> None:
        super().__init__()
        self.message = Message()
        self.out = nn.Linear(DIM, DIM)
        self.norm = nn.LayerNorm(DIM)

    def forward(self, edges: Tensor, messages: Tensor) -> None:
        """Update (edges, 128) ``edges`` in place by their (edges, 128) messages."""
        edges.addmm_(messages, self.out.weight.T).add_(self.out.bias)
        edges.copy_(self.norm(edges))


class ProteinMPNNNetwork(nn.Module):
    """From a graph of residues to (wanted residues, 128) float32: upstream's ``h_V``."""

    def __init__(self) -> None:
        super().__init__()
        self.features = EdgeFeatures()
        self.residue_updates = nn.ModuleList(ResidueUpdate() for _ in range(LAYERS))
        self.edge_updates = nn.ModuleList(EdgeUpdate() for _ in range(LAYERS - 1))
        self.residue_dtype = torch.float32

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype of edges and messages."""
        return self._edge_update(0).out.weight.dtype

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move to a device, and compute edges and messages in ``dtype``.

        The edges' features stay float32: they are a fifth of the work and, in bfloat16, the larger
        part of its error. The residues' perceptrons, 1 % of the work, magnify rounding ten
        times, so they run a precision higher: float32, or float64 (which MPS lacks) for float32.
        """
        self.to(device)
        self.edge_updates.to(dtype)
        wide = dtype == torch.float32 and device.type != "mps"
        self.residue_dtype = torch.float64 if wide else torch.float32
        for layer in range(LAYERS):
            self._residue_update(layer).to(self.residue_dtype).message.to(dtype)

    def _residue_update(self, layer: int) -> ResidueUpdate:
        return cast(ResidueUpdate, self.residue_updates[layer])

    def _edge_update(self, layer: int) -> EdgeUpdate:
        return cast(EdgeUpdate, self.edge_updates[layer])

    def forward(self, graph: Graph, block: int) -> Tensor:
        """Embed the wanted residues, ``block`` residues at a time."""
        residues, edges = self._first_layer(graph, block)
        for layer in range(1, LAYERS):
            residues = self._next_layer(layer, graph, residues, edges, block)
        return residues.float()

    def _first_layer(self, graph: Graph, block: int) -> tuple[Tensor, Tensor]:
        """Return residues (needed[0], 128), and the edges of the first needed[1] residues."""
        first, edges_of = graph.needed[0], graph.needed[1]
        k, device = graph.neighbours.shape[1], graph.neighbours.device
        atoms = graph.nodes.atoms.flatten(1)
        places = relative_positions(graph)
        residues = torch.zeros((first, DIM), dtype=self.residue_dtype, device=device)
        edges = torch.empty((edges_of * k, DIM), dtype=self.dtype, device=device)
        # One tensor: pieces to be joined later would keep the memory around them from being freed.
        totals = torch.empty((first, DIM), device=device)
        update = self._residue_update(0)
        layers = update.message.layers()
        for start, scratch, total, here, neighbours, place in zip(
            range(0, first, block),
            scratch_of_blocks(first, block, k, self.dtype, device),
            torch.split(totals, block),
            torch.split(atoms[:first], block),
            torch.split(graph.neighbours.flatten(), block * k),
            torch.split(places, block * k),
            strict=True,
        ):
            near = atoms.index_select(0, neighbours)
            part = self.features(place, here, near, scratch.features).to(self.dtype)
            kept = edges[start * k :][: len(part)]
            kept.copy_(part[: len(kept)])
            messages = layers.of_edges(part, scratch)
            torch.sum(messages, 1, dtype=torch.float32, out=total)
        return self._updated(update, residues, totals, k), edges

    def _next_layer(
        self, layer: int, graph: Graph, residues: Tensor, edges: Tensor, block: int
    ) -> Tensor:
        """Return residues (needed[layer], 128); update ``edges`` in place."""
        count, k = graph.needed[layer], graph.neighbours.shape[1]
        edge_update, update = self._edge_update(layer - 1), self._residue_update(layer)
        inputs = residues.to(self.dtype)
        for_edges, for_residues = edge_update.message, update.message
        near_edges, near = for_edges.neighbour(inputs), for_residues.neighbour(inputs)
        edge_layers, residue_layers = for_edges.layers(), for_residues.layers()
        totals = torch.empty((count, DIM), device=residues.device)
        for scratch, total, here_edges, here, part, neighbours in zip(
            scratch_of_blocks(count, block, k, self.dtype, residues.device),
            torch.split(totals, block),
            torch.split(for_edges.residue(inputs[:count])[:, None], block),
            torch.split(for_residues.residue(inputs[:count])[:, None], block),
            torch.split(edges[: count * k], block * k),
            torch.split(graph.neighbours[:count].flatten(), block * k),
            strict=True,
        ):
            edge_layers.of_residues(here_edges, part, near_edges, neighbours, scratch)
            edge_update(part, scratch.hidden)  # the messages, edge by edge
            messages = residue_layers.of_residues(here, part, near, neighbours, scratch)
            torch.sum(messages, 1, dtype=torch.float32, out=total)
        return self._updated(update, residues[:count], totals, k)

    def _updated(self, update: ResidueUpdate, residues: Tensor, totals: Tensor, k: int) -> Tensor:
        """Return the updated residues, in larger blocks, so that weights are read less often."""
        parts = (
            slice(first, first + _RESIDUES_AT_ONCE)
            for first in range(0, len(totals), _RESIDUES_AT_ONCE)
        )
        return torch.cat([update(residues[part], totals[part], k) for part in parts])


def from_upstream(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return upstream's tensors, float32, as the state of a ``ProteinMPNNNetwork``.

    Decoder tensors are ignored. Raises KeyError if a tensor is missing.
    """
    state: dict[str, Tensor] = {}

    def linear(name: str, upstream: str) -> None:
        state[f"{name}.weight"] = tensors[f"{upstream}.weight"]
        state[f"{name}.bias"] = tensors[f"{upstream}.bias"]

    def message(name: str, first: str, hidden: str, out: str) -> None:
        residue, edge, neighbour = tensors[f"{first}.weight"].view(DIM, 3, DIM).unbind(1)
        state[f"{name}.message.residue.weight"] = residue
        state[f"{name}.message.residue.bias"] = tensors[f"{first}.bias"]
        state[f"{name}.message.edge.weight"] = edge
        state[f"{name}.message.neighbour.weight"] = neighbour
        linear(f"{name}.message.hidden", hidden)
        linear(f"{name}.out", out)

    # Upstream multiplies one-hot rows; the products are the matrix's columns.
    one_hot = tensors["features.embeddings.linear.weight"]
    state["features.position.weight"] = one_hot.T + tensors["features.embeddings.linear.bias"]
    state["features.embedding.weight"] = tensors["features.edge_embedding.weight"]
    linear("features.norm", "features.norm_edges")
    linear("features.out", "W_e")
    for layer in range(LAYERS):
        upstream, name = f"encoder_layers.{layer}", f"residue_updates.{layer}"
        message(name, f"{upstream}.W1", f"{upstream}.W2", f"{upstream}.W3")
        linear(f"{name}.norm", f"{upstream}.norm1")
        linear(f"{name}.widen", f"{upstream}.dense.W_in")
        linear(f"{name}.narrow", f"{upstream}.dense.W_out")
        linear(f"{name}.norm_out", f"{upstream}.norm2")
    for layer in range(LAYERS - 1):
        upstream, name = f"encoder_layers.{layer}", f"edge_updates.{layer}"
        message(name, f"{upstream}.W11", f"{upstream}.W12", f"{upstream}.W13")
        linear(f"{name}.norm", f"{upstream}.norm3")
    return state
