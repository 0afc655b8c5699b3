"""ProteinMPNN's encoder: one row per residue with a complete backbone, the complex as context."""

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
from protalign.encoders.proteinmpnn.graph import build_graph, residues_of
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
from protalign.encoders.weights import file_sha256

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
    spec : model, weights' file ("": the one in the package), device and dtype.
    weights : the file.
    report : called with a line each time that memory runs out and a batch is halved.
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
        self.weights_sha256 = file_sha256(weights)
        self.settings: Mapping[str, str | int] = {
            "dtype": devices.dtype_name(dtype),
            "neighbours": upstream.neighbours,
        }
        self.device = str(device)
        self._neighbours = upstream.neighbours
        self._report = report
        self._block = _BLOCK.get(device.type, _BLOCK_GPU)
        # Sorting 64-bit keys is not for MPS: the graph is made on the CPU there.
        self._graph_device = torch.device("cpu") if device.type == "mps" else device
        self._network = ProteinMPNNNetwork()
        self._network.load_state_dict(from_upstream(upstream.tensors))
        self._network.requires_grad_(False).eval().place(device, dtype)

    @classmethod
    def models(cls) -> Sequence[str]:
        """Upstream's models with 48 neighbours, the one in the package first."""
        return list(MODELS)

    @classmethod
    def load(cls, spec: EncoderSpec) -> Self:
        """Load a model: the one in the package, or any other from the file that is named."""
        if spec.model not in MODELS:
            raise unknown_model(spec.model, cls.models())
        if spec.layer is not None:
            raise ProtAlignError(f"{spec.model} has no choice of layer; leave the layer out")
        if spec.weights:
            return cls(spec, Path(spec.weights))
        if spec.model != SHIPPED_MODEL:
            raise WeightsError(
                f"only {SHIPPED_MODEL} ships with ProtAlign; for {spec.model} fetch "
                f"{url(spec.model)} and name it with --structure-weights"
            )
        return cls(spec, shipped_weights())

    @classmethod
    def known_weights(cls) -> list[WeightsInfo]:
        """The model in the package, and where upstream publishes the others."""
        return [_describe(model) for model in MODELS]

    def encode(self, batch: Sequence[Structure]) -> list[npt.NDArray[np.float32]]:
        """Embed complexes, each its own graph: per item its kept rows, (L, 128) float32.

        Out of memory halves the batch and goes on. Raises TypeError for other items than
        Structure, InputError for a structure without a complete residue in its kept chains, one
        that does not fit in memory alone, or values that overflow the compute dtype.
        """
        if len(batch) == 0:
            return []
        return devices.halving_on_oom(self._encode, structure_items(batch), self._report)

    def _encode(self, batch: Sequence[Structure]) -> list[npt.NDArray[np.float32]]:
        return [self._embed(structure) for structure in batch]

    @torch.inference_mode()
    def _embed(self, structure: Structure) -> npt.NDArray[np.float32]:
        residues, wanted = residues_of(structure, self._graph_device)
        if not wanted.any():
            raise InputError(
                "no residue has all of N, CA, C and O",
                "a structure encoder needs the backbone; leave the entry out or use a full model",
            )
        graph = build_graph(residues, wanted, self._neighbours, self._block)
        rows: Tensor = self._network(graph.to(torch.device(self.device)), self._block)
        values: npt.NDArray[np.float32] = rows.cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.name} gave values that are not finite in {self.settings['dtype']}",
                "use dtype float32; if they stay, coordinates or weights are damaged",
            )
        return values

    @property
    def batches_at_once(self) -> int:
        """One for each of torch's threads on a CPU."""
        return devices.batches_at_once(self.device)

    def memory_bytes(self, longest: int, batch_rows: int) -> int:
        """Predicted peak memory in bytes, weights included; linear in the number of residues.

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


def _describe(model: str) -> WeightsInfo:
    path = shipped_weights()
    shipped = model == SHIPPED_MODEL and path.is_file()
    return WeightsInfo(
        model=model,
        modality="structure",
        dim=DIM,
        layers=LAYERS,
        parameters=sum(math.prod(shape) for shape in encoder_shapes().values()),
        source="package" if model == SHIPPED_MODEL else "download",
        path=str(path) if shipped else "",
        size=path.stat().st_size if shipped else 0,
        sha256=file_sha256(path) if shipped else "",
        url=url(model),
        licence="MIT",
    )
