"""The ProteinMPNN encoder: a row per residue with a complete backbone, the complex as context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protalign.core import devices
from protalign.core.errors import InputError, ProtAlignError, WeightsError
from protalign.core.protein import Modality, Structure
from protalign.encoders.base import (
    Encoder,
    EncoderSpec,
    WeightsInfo,
    structure_items,
    unknown_model,
)
from protalign.encoders.proteinmpnn.graph import build_graph, nodes_of
from protalign.encoders.proteinmpnn.network import (
    DIM,
    FEATURES,
    LAYERS,
    ProteinMPNNNetwork,
    from_upstream,
)
from protalign.encoders.proteinmpnn.weights import (
    MODELS,
    SHIPPED_MODEL,
    encoder_shapes,
    read_proteinmpnn,
    shipped_weights,
    url,
)
from protalign.encoders.weights import weights_digest, with_file

#: Residues at a time, each with 48 edges of 416 features. On a CPU fewer leave threads waiting for
#: Python's lock (32: a tenth slower on two cores), more leave the cache; on a GPU they fill it.
_BLOCK = {"cpu": 64}
_BLOCK_GPU = 2048


class ProteinMPNNEncoder(Encoder):
    """The encoder part of ProteinMPNN (Dauparas et al., Science 378, 49, 2022).

    Equal to the reference code's ``h_V``, before the sequence comes in, with ``augment_eps = 0``,
    within 1e-5 in float32. Every structure is its own graph of all its chains; the rows of the
    kept chains' residues with a complete backbone are returned.

    Parameters
    ----------
    spec : EncoderSpec
        Model, device and dtype.
    weights : Path
        The weights file.
    report : callable
        Is called with one line each time that memory runs out and a batch is halved.
    """

    modality: ClassVar[Modality] = "structure"

    def __init__(
        self,
        spec: EncoderSpec,
        weights: Path,
        report: Callable[[str], None] = devices.warn,
    ) -> None:
        device = devices.resolve_device(spec.device)
        dtype = devices.resolve_dtype(spec.dtype, device)
        upstream = read_proteinmpnn(weights, spec.model)
        self.name = spec.model
        self.dim = DIM
        self.weights_sha256 = weights_digest(weights)
        self.settings: Mapping[str, str | int] = {
            "dtype": devices.dtype_name(dtype),
            "neighbours": upstream.neighbours,
        }
        self.device = str(device)
        self._neighbours = upstream.neighbours
        self._report = report
        self._block = _BLOCK.get(device.type, _BLOCK_GPU)
        # MPS cannot sort 64-bit keys: there the graph is made on the CPU.
        self._graph_device = torch.device("cpu") if device.type == "mps" else device
        self._network = ProteinMPNNNetwork()
        self._network.load_state_dict(from_upstream(upstream.tensors))
        self._network.requires_grad_(False).eval().place(device, dtype)

    @classmethod
    def models(cls) -> Sequence[str]:
        """Return upstream's models with 48 neighbours, the one in the package first."""
        return list(MODELS)

    @classmethod
    def load(cls, spec: EncoderSpec) -> Self:
        """Load a model: the one in the package, or another from the file that the spec names."""
        if spec.model not in MODELS:
            raise unknown_model(spec.model, cls.models())
        if spec.layer is not None:
            raise ProtAlignError(f"{spec.model}: it has no choice of layer; leave the layer out")
        if spec.weights:
            return cls(spec, Path(spec.weights))
        if spec.model != SHIPPED_MODEL:
            raise WeightsError(
                f"{spec.model}: its weights do not ship with ProtAlign; fetch {url(spec.model)} "
                f"and name the file with --structure-weights, or use {SHIPPED_MODEL}, which ships"
            )
        return cls(spec, shipped_weights())

    @classmethod
    def known_weights(cls) -> list[WeightsInfo]:
        """Return the model in the package, and the addresses of the others."""
        parameters = sum(math.prod(shape) for shape in encoder_shapes().values())
        published = [
            WeightsInfo(
                model=model,
                modality="structure",
                dim=DIM,
                layers=LAYERS,
                parameters=parameters,
                source="package" if model == SHIPPED_MODEL else "download",
                url=url(model),
                licence="MIT",
            )
            for model in MODELS
        ]
        return [
            with_file(info, shipped_weights()) if info.model == SHIPPED_MODEL else info
            for info in published
        ]

    def encode(self, batch: Sequence[Structure]) -> list[npt.NDArray[np.float32]]:
        """Return (L, 128) float32 for each complex: its kept rows. Each complex is its own graph.

        If memory runs out, the batch is halved.

        Raises
        ------
        TypeError
            If an item is not a Structure.
        InputError
            If the kept chains have no complete residue, a structure does not fit in memory alone,
            or values overflow the compute dtype.
        """
        if len(batch) == 0:
            return []
        return devices.halving_on_oom(self._encode, structure_items(batch), self._report)

    def _encode(self, batch: Sequence[Structure]) -> list[npt.NDArray[np.float32]]:
        return [self._embed(structure) for structure in batch]

    @torch.inference_mode()
    def _embed(self, structure: Structure) -> npt.NDArray[np.float32]:
        nodes, wanted = nodes_of(structure, self._graph_device)
        if not wanted.any():
            raise InputError(
                "no residue has all of N, CA, C and O",
                "leave the entry out, or give a model with a full backbone",
            )
        graph = build_graph(nodes, wanted, self._neighbours, self._block)
        rows: Tensor = self._network(graph.to(torch.device(self.device)), self._block)
        values: npt.NDArray[np.float32] = rows.cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.name} gave values that are not finite in {self.settings['dtype']}",
                "use dtype float32; if that does not help, coordinates or weights are damaged",
            )
        return values

    @property
    def batches_at_once(self) -> int:
        """The number of torch's threads on a CPU, at most 8; else 1."""
        return devices.batches_at_once(self.device)

    def memory_bytes(self, longest: int, batch_rows: int) -> int:
        """Predict the peak memory in bytes, weights included; linear in the number of residues.

        Structures of a batch are encoded one after another; those of several batches, at once.
        """
        edge, k = self._network.dtype.itemsize, self._neighbours
        weights = sum(p.numel() * p.element_size() for p in self._network.parameters())
        # The edges; neighbours in both orders, and their places along the chain; residues of two
        # layers and their four projections.
        kept = max(longest, batch_rows) * (k * (DIM * edge + 3 * 8) + 2 * DIM * 8 + 5 * DIM * edge)
        # Distances and keys of all residues; features and hidden layers of the block's edges.
        blocks = self.batches_at_once * self._block
        block = blocks * (longest * 32 + k * (FEATURES * 4 + 75 * 8 + 8 * DIM * 4))
        return devices.WORKSPACE_BYTES + weights + kept + block + 4 * DIM * max(longest, batch_rows)
