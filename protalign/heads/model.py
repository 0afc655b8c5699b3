"""The model: two pooling heads and a loss, what they were trained on, and how to save them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_choice, check_whole
from protalign.core.devices import resolve_device
from protalign.core.encoder_record import EncoderRecord, check_record, is_count, is_word
from protalign.core.errors import InputError, ModelError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.core.version import __version__
from protalign.core.words import AlignMode
from protalign.heads import model_files
from protalign.heads.head import PoolingHead
from protalign.heads.inputs import Inputs, PairInputs, check_fits, read_inputs
from protalign.heads.kernels.batch import ProteinBatch, batch_of
from protalign.heads.losses import LOSSES, ContrastiveLoss
from protalign.heads.pairs import Pairs
from protalign.heads.poolings import pooling_head
from protalign.heads.ranks import RetrievalSet
from protalign.heads.seeded import sizes_only
from protalign.heads.training_record import TrainingRecord
from protalign.residues import Alignment, ResidueStage
from protalign.residues.alignment import GAP_EXTEND, GAP_OPEN
from protalign.residues.context import ResidueContext
from protalign.residues.head import ResidueHead
from protalign.residues.pair import align_embeddings
from protalign.stores import EncoderInfo

#: What a config with wrong or missing entries raises, and parameters that do not fit it.
_MISFITS = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)


class Model(nn.Module):
    """Two pooling heads, one per modality, that put a protein's sequence near its structure.

    It is what ``ProtAlignEstimator.fit`` makes (``estimator.model_``) and what a saved model's
    folder holds.

    Parameters
    ----------
    dims : mapping
        Modality -> D, the width of its residue embeddings.
    loss : ContrastiveLoss
        The loss to train with.
    pooling : str
        A kind of pooling of ``protalign.heads.poolings``.
    embed_dim : int
        E, the length of the vectors.
    n_heads : int
        Attention heads of each pooling head, if it attends.

    Attributes
    ----------
    dims, loss, pooling, embed_dim
        As given.
    encoders : dict
        Modality -> EncoderRecord of the embeddings that it was fitted on; empty for arrays.
    training_record : TrainingRecord or None
        None before training.
    settings : dict
        The trainer's parameters, as JSON values; saved and loaded, otherwise not used.
    residue_stage : ResidueStage or None
        Scores of residue pairs across the modalities; None if the residues that it was trained on
        were unpaired or too few.
    array_columns : tuple
        Number and names of the columns if it was fitted on a 2-D array, else (None, None).

    Examples
    --------
    >>> import numpy as np
    >>> model = Model({"sequence": 20, "structure": 12}, ContrastiveLoss("clip"), embed_dim=8)
    >>> rows = np.ones((50, 20), np.float32)  # one protein of 50 residues
    >>> model.pool("sequence", [rows]).shape
    (1, 8)
    """

    def __init__(
        self,
        dims: Mapping[Modality, int],
        loss: ContrastiveLoss,
        *,
        pooling: str = "attention",
        embed_dim: int = 128,
        n_heads: int = 4,
    ) -> None:
        super().__init__()
        head = pooling_head(pooling)
        self.dims: dict[Modality, int] = dict(dims)
        self.pooling = pooling
        self.embed_dim = embed_dim
        self.sequence = head(dims["sequence"], embed_dim, n_heads)
        self.structure = head(dims["structure"], embed_dim, n_heads)
        self.loss = loss
        self.encoders: dict[Modality, EncoderRecord] = {}
        self.training_record: TrainingRecord | None = None
        self.residue_stage: ResidueStage | None = None
        self.settings: dict[str, Any] = {}
        self.array_columns: tuple[int | None, tuple[str, ...] | None] = None, None

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> Self:
        """Read a model's folder; no store is needed.

        Parameters
        ----------
        path : str or path
            A folder that ``save``, ``ProtAlignEstimator.save`` or ``protalign fit`` wrote.
        device : str
            "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".

        Raises
        ------
        ModelError
            The folder is missing, damaged, of a newer format, or has a part of an earlier one that
            this version does not read.
        """
        return model_files.read_steadily(path, cls._read).to(resolve_device(device))

    @classmethod
    def _read(cls, folder: Path) -> Self:
        config = model_files.read_config(folder)
        try:
            with sizes_only():  # the sizes are the file's
                model = cls._of_config(config)
            tensors = model_files.read_weights(folder, config, model.state_dict())
            for modality in MODALITIES:
                shapes = {
                    name.removeprefix(f"{modality}."): tuple(tensor.shape)
                    for name, tensor in tensors.items()
                    if name.startswith(f"{modality}.")
                }
                if model.head(modality).is_earlier(shapes):
                    raise model_files.earlier(folder, f"{model.pooling} head")
            model.load_state_dict(tensors, assign=True)
            model.float()
            if config.get("residues") is not None:
                model.residue_stage = model._read_residues(folder, config)
        except ModelError:
            raise
        except _MISFITS as error:
            raise model_files.damaged_config(folder, error) from None
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder: config.json, README.md (a model card), and the weights.

        model.safetensors has the heads' weights, residues.safetensors those of the residue stage,
        if there is one. The folder appears whole or not at all, and replaces a model at ``path``.
        Raise ModelError if something else is there, or if the model is not trained.
        """
        if self.training_record is None:
            raise ModelError("the model: it is not trained; train it before you save it")
        arrays = {} if self.residue_stage is None else self.residue_stage.tensors()
        model_files.write_model(
            path,
            self.description(),
            self.state_dict(),
            {name: torch.from_numpy(array) for name, array in arrays.items()},
        )

    @property
    def weights_sha256(self) -> str:
        """Hex digest of the parameters, which a saved model and exported vectors carry."""
        return model_files.weights_sha256(self.state_dict())

    @property
    def attends(self) -> bool:
        """Whether residues get weights, so that ``residue_weights`` answers."""
        return self.sequence.attends

    @property
    def n_heads(self) -> int | None:
        """Attention heads of each pooling head; None if the pooling has none."""
        return self.sequence.n_heads

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.loss.log_scale.device

    def head(self, modality: Modality) -> PoolingHead:
        """Return the pooling head of a modality."""
        return self.sequence if modality == "sequence" else self.structure

    def forward(self, sequence: ProteinBatch, structure: ProteinBatch) -> Tensor:
        """Return the batch's loss, 0-d."""
        loss: Tensor = self.loss(self.sequence(sequence), self.structure(structure))
        return loss

    def inputs(
        self,
        X: Any,
        modalities: Sequence[Modality] = MODALITIES,
        *,
        names: Mapping[Modality, str | None] | None = None,
    ) -> Inputs:
        """Bring X to the form that the other methods read, and check that it fits the model.

        Parameters
        ----------
        X : EmbeddingStore, StoreView, list of pairs, 2-D array, or Inputs
            The entries; see ``ProtAlignEstimator``.
        modalities : sequence of str
            The modalities to read.
        names : mapping, optional
            Modality -> name of the encoder to read, if a store has several that fit.

        Raises
        ------
        ModelError
            X was embedded by other encoders than the model was fitted on.
        """
        for modality in modalities:
            check_choice("modality", modality, MODALITIES)
        columns = self.dims["sequence"]
        inputs = read_inputs(
            X, modalities, names=names, encoders=self.encoders, sequence_columns=columns
        )
        check_fits(inputs, modalities, self.dims, self.encoders)
        return inputs

    def vectors(
        self, X: Any, modality: Modality, positions: npt.NDArray[np.int64] | None = None
    ) -> Float32:
        """Return unit-length vectors: (n, E) float32, rows of NaN if the modality is missing.

        Entries that share an embedding are pooled once.

        Parameters
        ----------
        X : as for ``inputs``
            The entries.
        modality : "sequence" or "structure"
            The modality to pool.
        positions : (n,) int64, optional
            The entries to pool; default: all.

        Raises
        ------
        InputError
            Embeddings hold NaN or infinity; the error names the entries.
        """
        inputs = self.inputs(X, (modality,))
        if positions is None:
            positions = np.arange(len(inputs))
        vectors = np.full((len(positions), self.embed_dim), np.nan, dtype=np.float32)
        if modality in inputs.dims:
            present, first, item = inputs.unique_items(modality, positions)
            vectors[present] = self._pooled(inputs, modality, first)[item]
        return vectors

    def pool(self, modality: Modality, rows: Sequence[npt.ArrayLike]) -> Float32:
        """Pool residue embeddings of proteins that are in no store.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the rows.
        rows : n arrays of (L, D)
            Residue embeddings.

        Returns
        -------
        (n, E) float32 of unit length.

        Raises
        ------
        ModelError
            D is not the width that the model was fitted on.
        """
        if len(rows) == 0:
            return np.empty((0, self.embed_dim), dtype=np.float32)
        return self.vectors(
            PairInputs([(r, None) if modality == "sequence" else (None, r) for r in rows]),
            modality,
        )

    def residue_weights(self, X: Any, modality: Modality) -> list[Float32 | None]:
        """Return the attention weights of every entry's residues.

        Returns
        -------
        list of (L, n_heads) float32
            Each head's weights sum to 1 over the L rows; None if the modality is missing.

        Raises
        ------
        InputError
            The model's pooling has no attention.
        """
        if not self.attends:
            raise InputError(
                f"pooling={self.pooling!r}: it weighs all residues alike, so it has no attention",
                'fit with pooling="attention"',
            )
        inputs = self.inputs(X, (modality,))
        weights: list[Float32 | None] = [None] * len(inputs)
        present = np.flatnonzero(inputs.items(modality) >= 0)
        done = 0
        for rows in inputs.blocks(modality, present) if len(present) else ():
            with torch.inference_mode():
                values = self.head(modality).residue_weights(batch_of(rows, self.device))
            for protein in Ragged(values.float().cpu().numpy(), rows.offsets):
                weights[present[done]] = protein
                done += 1
        return weights

    def residue_scorer(self) -> ResidueStage:
        """Return the residue stage; raise ModelError if the model has none."""
        if self.residue_stage is None:
            raise ModelError(
                "the model: it has no residue stage; fit it again on a store with sequences and "
                "structures of more proteins"
            )
        return self.residue_stage

    def align(
        self,
        query: npt.ArrayLike,
        target: npt.ArrayLike,
        mode: AlignMode = "local",
        *,
        query_by: Modality = "sequence",
        gap_open: float = GAP_OPEN,
        gap_extend: float = GAP_EXTEND,
        floor: float | None = None,
        n_targets: int = 1,
        query_positions: Int64 | None = None,
        target_positions: Int64 | None = None,
        query_chains: Int64 | None = None,
        target_chains: Int64 | None = None,
    ) -> Alignment:
        """Align the residues of a sequence with those of a structure.

        Parameters
        ----------
        query, target : (L, D) and (L', D') array
            Residue embeddings: the query's of the modality ``query_by``, the target's of the other.
        mode : "local" or "global"
            The best part with affine gaps, or the best diagonal of the whole, which is taken for
            one chain; ``protalign.search.alignments.align_proteins`` has several. "local" finds
            relatives; "global" tells which of several near-identical proteins it is, by the rows
            of the head trained on hard negatives, if the stage has one.
        query_by : "sequence" or "structure"
            The query's modality.
        gap_open, gap_extend : float
            Costs in nats of a gap's first residue and of each further one; "local" only.
        floor : float, optional
            The least that a pair counts, in nats, 0 or below; "global" only.
        n_targets : int
            The size of the search that the E-value is for.
        query_positions, target_positions : (L,) and (L',) int64, optional
            The residues' positions in the whole chains, ascending from 0 on; "global" only. A
            residue that is left out keeps its place on a diagonal and counts 0. Default: none is
            left out.
        query_chains, target_chains : (c,) and (d,) int64, optional
            Rows of each chain, all of them together; "local" only, where a residue's context ends
            with its chain. Default: one chain.

        Returns
        -------
        Alignment
            With an E-value, bits and a probability if the mode is "local" with the usual gap
            costs, and the residue stage is calibrated. All are of the two alone, without the
            backing that a hit of a search may have.

        Raises
        ------
        ModelError
            The model has no residue stage, or an embedding has another width.
        InputError
            The mode, a cost or the floor is none, a number is not finite, a side has no residue
            and so no diagonal ("global"), or positions are not whole, are below 0, do not ascend,
            are of another number, or the pairs of residues, also of those between the positions,
            take more memory than is free; the chains have not as many rows as the embeddings.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> hidden = [rng.normal(size=(80, 6)) for _ in range(30)]
        >>> to_sequence, to_structure = rng.normal(size=(6, 20)), rng.normal(size=(6, 12))
        >>> pairs = [(h @ to_sequence, h @ to_structure) for h in hidden]
        >>> from protalign import ProtAlignEstimator
        >>> est = ProtAlignEstimator(embed_dim=8, max_epochs=1, device="cpu").fit(pairs)
        >>> sequence, structure = pairs[0]
        >>> alignment = est.model_.align(sequence[10:30], structure)
        >>> int(alignment.target_rows[0]), len(alignment)
        (10, 20)
        """
        return align_embeddings(
            self.residue_scorer(),
            query,
            target,
            mode,
            query_by=query_by,
            gap_open=gap_open,
            gap_extend=gap_extend,
            floor=floor,
            n_targets=n_targets,
            query_positions=query_positions,
            target_positions=target_positions,
            query_chains=query_chains,
            target_chains=target_chains,
        )

    def retrieval_set(self, X: Any) -> RetrievalSet:
        """Return the vectors of X's unique sequences and structures, and their pairs.

        Only entries with both modalities count. X may also be ``Pairs``. Raise InputError if there
        are none.
        """
        pairs = X if isinstance(X, Pairs) else Pairs.of(self.inputs(X))
        sequence, structure = (
            self._pooled(pairs.inputs, modality, pairs.positions_of_items(column))
            for column, modality in enumerate(MODALITIES)
        )
        return RetrievalSet(sequence, structure, pairs.items)

    def finite_vectors(
        self, batch: ProteinBatch, inputs: Inputs, modality: Modality, positions: Int64
    ) -> Float32:
        """Return (n, E) vectors of a batch of these entries of the inputs.

        Raise InputError, naming the entries, if embeddings hold NaN or infinity.
        """
        with torch.inference_mode():
            vectors: Float32 = self.head(modality)(batch).float().cpu().numpy()
        broken = ~np.isfinite(vectors).all(axis=1)
        if broken.any():
            raise not_finite(inputs, modality, positions[broken])
        return vectors

    def description(self) -> dict[str, Any]:
        """Return everything but the weights as JSON values: a saved model's config."""
        columns, names = self.array_columns
        return {
            "protalign_version": __version__,
            "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
            "parameters": {**self._architecture(), **self.settings},
            "encoders": {
                modality: asdict(self.encoders[modality])
                if modality in self.encoders
                else {"dim": self.dims[modality]}
                for modality in MODALITIES
            },
            "training": self._training(),
            "residues": None if self.residue_stage is None else self.residue_stage.facts(),
            "array_input": {
                "n_features_in": columns,
                "feature_names_in": None if names is None else list(names),
            },
        }

    def _read_residues(self, folder: Path, config: Mapping[str, Any]) -> ResidueStage:
        facts = config["residues"]
        check_whole("components", facts["components"], 1)
        components, head = facts["components"], facts.get("head")  # models of before have none
        n_numbers = (1 + components) * (1 + sum(self.dims.values()))
        if head is not None:
            check_whole("hidden", head["hidden"], 1)
            n_numbers += ResidueHead.n_numbers(self.dims, components, head["hidden"])
        context = facts.get("context")
        if context is not None:
            for name in ("hidden", "read"):
                check_whole(name, context[name], 1)
            sizes = components, context["hidden"], context["read"]
            n_numbers += ResidueContext.n_numbers(self.dims, *sizes)
        tensors = model_files.read_residues(folder, config, n_numbers)
        if any(name.startswith("background.rows.") for name in tensors):  # now they are compact
            raise model_files.earlier(folder, "background of E-values")
        stage = ResidueStage.of_tensors({k: v.numpy() for k, v in tensors.items()}, facts)
        if any(len(stage.means[modality]) != self.dims[modality] for modality in MODALITIES):
            raise ValueError("the residue stage is of embeddings of other widths")
        return stage

    def _architecture(self) -> dict[str, Any]:
        """Return what is needed to build the model again."""
        return {
            "embed_dim": self.embed_dim,
            "n_heads": self.n_heads or 1,
            "pooling": self.pooling,
            "loss": self.loss.kind,
            "temperature": self.loss.temperature,
            "bias": 0.0 if self.loss.bias is None else self.loss.bias.item(),
            "learnable_temperature": self.loss.log_scale.requires_grad,
        }

    def _training(self) -> dict[str, Any]:
        if self.training_record is None:
            return {}
        return {
            **asdict(self.training_record),
            "n_iter": self.training_record.n_epochs,
            "temperature": self.loss.temperature,
            "bias": None if self.loss.bias is None else self.loss.bias.item(),
        }

    def _pooled(self, inputs: Inputs, modality: Modality, positions: Int64) -> Float32:
        """Return (k, E) vectors of entries that have the modality, pooled block by block."""
        blocks = list(self._blocks(inputs, modality, positions))
        return np.concatenate([np.empty((0, self.embed_dim), dtype=np.float32), *blocks])

    def _blocks(self, inputs: Inputs, modality: Modality, positions: Int64) -> Iterator[Float32]:
        done = 0
        for rows in inputs.blocks(modality, positions):
            batch = batch_of(rows, self.device)
            entries = positions[done : done + len(batch)]
            yield self.finite_vectors(batch, inputs, modality, entries)
            done += len(batch)

    @classmethod
    def _of_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the model that a config describes, with new weights."""
        parameters = {"pooling": "attention", **config["parameters"]}  # 1.0 had no other kind
        loss = ContrastiveLoss(
            parameters["loss"],
            parameters["temperature"],
            parameters["bias"],
            parameters["learnable_temperature"],
        )
        check_choice("loss", parameters["loss"], LOSSES)
        for name in ("embed_dim", "n_heads"):
            check_whole(name, parameters[name], 1)
        attends = pooling_head(parameters["pooling"]).attends
        if attends and parameters["embed_dim"] % parameters["n_heads"]:
            raise ValueError("n_heads does not divide embed_dim")
        for modality in MODALITIES:
            _check_encoder(config["encoders"][modality], modality)
        model = cls(
            {m: config["encoders"][m]["dim"] for m in MODALITIES},
            loss,
            pooling=parameters["pooling"],
            embed_dim=parameters["embed_dim"],
            n_heads=parameters["n_heads"],
        )
        model.settings = dict(config["parameters"])
        model.encoders = {
            m: EncoderInfo(**config["encoders"][m])
            for m in MODALITIES
            if "model" in config["encoders"][m]
        }
        model.training_record = TrainingRecord.from_json(config["training"])
        columns = config["array_input"]
        n_columns, names = columns["n_features_in"], columns["feature_names_in"]
        if n_columns is not None:
            check_whole("n_features_in", n_columns, 1)
        if names is not None and not all(isinstance(name, str) for name in names):
            raise ValueError("feature_names_in are not texts")
        model.array_columns = n_columns, None if names is None else tuple(names)
        return model


def _check_encoder(encoder: Any, modality: Modality) -> None:
    """Raise ValueError or InputError unless a config's encoder is one, or at least a width."""
    if "model" not in encoder:
        check_whole("dim", encoder["dim"], 1)
        return
    check_record(encoder)
    counts = encoder["n_items"], encoder["n_items_total"]
    if encoder["modality"] != modality or not is_word(encoder["name"]):
        raise ValueError(f"the {modality} encoder has another modality, or no name")
    if not all(map(is_count, counts)):
        raise ValueError(f"the {modality} encoder's items are not counts")


def as_model(value: Any) -> Model:
    """Return the Model of a Model, a fitted estimator or a saved model's folder.

    Raise InputError for anything else, and for an estimator that is not fitted.
    """
    if isinstance(value, Model):
        return value
    if isinstance(value, (str, os.PathLike)):
        return Model.load(value)
    fitted = getattr(value, "model_", None)
    if isinstance(fitted, Model):
        return fitted
    raise InputError(
        f"model: a {type(value).__name__} that is not fitted, or not a model",
        "give a Model, a fitted ProtAlignEstimator, or the folder of a saved model",
    )


def not_finite(inputs: Inputs, modality: Modality, positions: Int64) -> InputError:
    """Return the error for entries with embeddings that cannot be pooled."""
    return InputError(
        f"{modality} embeddings of {inputs.names(positions)} hold NaN, infinity or huge values",
        "embed them again, or leave them out",
    )
