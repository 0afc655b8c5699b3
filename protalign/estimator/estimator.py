"""The estimator: two pooling heads behind scikit-learn's interface."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from protalign.core.arrays import Float32
from protalign.core.checks import check_choice
from protalign.core.devices import resolve_device
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.estimator.checks import OUTPUTS, check_parameters, check_unchanged
from protalign.estimator.export import export_vectors
from protalign.estimator.inputs import dims_of, fitted_inputs, fitting_inputs, validation_inputs
from protalign.heads.inputs import Inputs, PairInputs, Pairs, check_fits
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Heads, residue_weights, retrieval_set, vectors_of
from protalign.heads.model_files import (
    damaged_config,
    describe,
    model_card,
    read_model,
    restore,
    weights_sha256,
    write_model,
)
from protalign.heads.pairs import hold_out
from protalign.heads.ranks import RetrievalSet, recall_at_k
from protalign.heads.training import History, TrainingOptions, train
from protalign.stores import EncoderInfo, Entries


class ProtAlignEstimator(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Aligns sequence and structure embeddings: a pooling head each, trained with CLIP or SigLIP.

    X is, in every method,

    - an ``EmbeddingStore`` or a view of one: ``store[ids]``, ``store[mask]``, slices; or
    - a list of (sequence embeddings (L, D_P), structure embeddings (L', D_S)) pairs, float arrays;
      None stands for a modality that an entry lacks; or
    - a 2-D array (n, d): the first ceil(d / 2) columns are a sequence's pooled embedding, the
      others a structure's, each taken as a protein of one residue.

    Training uses each unique (sequence, structure) pair once, so that entries with the same
    embeddings are not each other's negatives; entries that lack a modality are left out (a store
    tells equal items by content; entries of lists and arrays are all different items). A sequence
    with two structures is two pairs, each a negative of the other where they meet in a batch.

    Parameters
    ----------
    embed_dim, n_heads : width of the vectors and attention heads of each pooling head.
    pooling : how residues become one vector: "attention" (paper, Eq. 1); "mean-linear" or
        "mean-mlp", their mean through one or two layers, where ``n_heads`` counts for nothing.
    loss : "clip" (paper, Eq. 2) or "siglip" (Eq. 3, see ``protalign.heads.losses.siglip_loss``).
    temperature : similarities are divided by it.
    bias : SigLIP's learned bias at the start.
    learnable_temperature : learn the temperature too, starting from ``temperature``.
    batch_size, learning_rate : of Adam; a last batch of one pair is left out.
    max_epochs : passes over the pairs, at most.
    early_stopping : keep a random part of the pairs back, whole sequences with all their
        structures, stop when retrieval among them no longer improves, and end with the best
        epoch's parameters. Left out where that part would be smaller than 10 pairs.
    validation_fraction : size of that part, at most.
    n_iter_no_change, tol : epochs without a gain of ``tol`` in the validation's mean reciprocal
        rank after which training stops.
    output : what ``transform`` gives: "sequence", "structure" or "both", side by side.
    sequence_encoder, structure_encoder : names, where a store has several of a modality.
    random_state : int, RandomState or None. The same int gives the same model on one machine with
        the same number of threads.
    device : "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
    warm_start : go on from the last fit's heads, loss temperature and bias; refused where
        ``embed_dim``, ``n_heads``, ``pooling`` or ``loss`` have changed since.
    verbose : print a line an epoch to standard error.

    Attributes
    ----------
    heads_ : the trained ``torch.nn.Module``, on the CPU.
    loss_curve_, validation_curve_ : per epoch, mean training loss, and mean reciprocal rank of the
        validation pairs (empty without any).
    n_iter_, best_epoch_ : epochs run, and the (1-based) one whose parameters were kept.
    best_loss_, best_validation_score_ : lowest loss; highest validation score, None without one.
    n_pairs_, n_validation_pairs_, n_skipped_ : pairs trained on, pairs validated on, entries left
        out for lack of a modality.
    validation_ : what chose the best epoch, in words.
    temperature_, bias_ : of the loss, after training; bias_ is None for CLIP.
    sequence_dim_, structure_dim_ : D_P and D_S.
    encoders_ : modality -> EncoderInfo, empty unless X was a store.
    source_ : path of the store, "" for arrays.
    n_features_in_, feature_names_in_ : only where X was a 2-D array (with column names).
    """

    heads_: Heads
    encoders_: dict[Modality, EncoderInfo]
    loss_curve_: list[float]
    validation_curve_: list[float]

    def __init__(
        self,
        *,
        embed_dim: int = 128,
        n_heads: int = 4,
        pooling: str = "attention",
        loss: str = "clip",
        temperature: float = 0.07,
        bias: float = -10.0,
        learnable_temperature: bool = False,
        batch_size: int = 1024,
        learning_rate: float = 0.001,
        max_epochs: int = 200,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        tol: float = 1e-4,
        output: str = "sequence",
        sequence_encoder: str | None = None,
        structure_encoder: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.embed_dim = embed_dim
        self.n_heads = n_heads
        self.pooling = pooling
        self.loss = loss
        self.temperature = temperature
        self.bias = bias
        self.learnable_temperature = learnable_temperature
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.output = output
        self.sequence_encoder = sequence_encoder
        self.structure_encoder = structure_encoder
        self.random_state = random_state
        self.device = device
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(
        self, X: Any, y: object = None, *, X_val: Any = None, validation: str = "given"
    ) -> ProtAlignEstimator:
        """Train on the entries of X that have both modalities.

        ``y`` is not used. ``X_val``, of any kind that X may be, is stopped early on in place of a
        random part of X; ``validation`` says in words what it is, for the model's card. Raises
        InputError where fewer than two pairs are left, ModelError where ``X_val`` was embedded
        otherwise.
        """
        check_parameters(self)
        device = resolve_device(self.device)
        inputs = fitting_inputs(self, X)
        pairs = Pairs.of(inputs)
        if len(pairs) < 2:
            raise InputError("X holds 1 pair of sequence and structure", "training needs more")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = np.random.default_rng(seed)
        heads = self._heads_to_train(inputs, seed).to(device)
        training, held_out = self._parts(pairs, X_val, inputs, generator)
        n_validation = 0 if held_out is None else len(held_out)
        self._report(
            f"{len(training):,} pairs to train on, {n_validation:,} to validate on; "
            f"{pairs.n_skipped:,} entries left out for lack of a modality"
        )
        options = TrainingOptions(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
        )
        history = train(heads, training, held_out, options, generator, self._report)
        self._add_history(history)
        self.heads_ = heads.cpu()
        self.n_pairs_, self.n_validation_pairs_ = len(training), n_validation
        self.n_skipped_ = pairs.n_skipped
        self.sequence_dim_, self.structure_dim_ = (inputs.dims[m] for m in MODALITIES)
        self.encoders_ = inputs.encoders
        self.source_ = X.store.path if isinstance(X, Entries) else ""
        random = f"a random {100 * n_validation / len(pairs):.0f} % of the pairs, whole sequences"
        self.validation_ = "none" if not n_validation else random if X_val is None else validation
        return self

    def transform(self, X: Any) -> Float32:
        """Unit-length vectors of every entry: (n, embed_dim) float32, or (n, 2 embed_dim).

        Raises InputError, naming the entries, where one lacks a modality that ``output`` asks for,
        and ModelError where X was embedded by other encoders.
        """
        check_is_fitted(self)
        check_choice("output", self.output, OUTPUTS)
        modalities = self._output_modalities()
        inputs = fitted_inputs(self, X, modalities)
        for modality in modalities:
            missing = np.flatnonzero(inputs.items(modality) < 0)
            if len(missing):
                raise InputError(
                    f"no {modality} embedding of {inputs.named(missing)}",
                    f"leave them out (store[store.has_{modality}]), or set another output",
                )
        everything = np.arange(len(inputs))
        heads = self._heads_on_device()
        return np.hstack([vectors_of(heads, inputs, m, everything) for m in modalities])

    def pool(self, modality: Modality, rows: Sequence[npt.ArrayLike]) -> Float32:
        """Vectors of residue embeddings of one modality: n arrays (L, D) -> (n, embed_dim).

        For proteins that are in no store. Raises ModelError where D is not what was fitted on.
        """
        check_is_fitted(self)
        inputs = PairInputs([(r, None) if modality == "sequence" else (None, r) for r in rows])
        check_fits(inputs, (modality,), dims_of(self), self.encoders_)
        return vectors_of(self._heads_on_device(), inputs, modality, np.arange(len(inputs)))

    def attention(self, X: Any) -> dict[Modality, list[Float32 | None]]:
        """Which residues the heads look at: a weight for each residue and attention head.

        Returns a list for each modality, an entry each in X's order: (L, n_heads) float32, where
        each head's weights sum to 1 over the L rows; None where an entry lacks the modality. Rows
        are those of the embeddings: of "sequence" the entry's residues, all chains one after
        another; of "structure" the residues with a complete backbone, which
        ``store.residue_map(id)`` names. Raises InputError where ``pooling`` is not "attention".
        """
        check_is_fitted(self)
        inputs, heads = fitted_inputs(self, X), self._heads_on_device()
        return {m: residue_weights(heads, inputs, m) for m in MODALITIES}

    def retrieval_set(self, X: Any) -> RetrievalSet:
        """Vectors of X's unique sequences and structures, and which of them belong together.

        Only entries that have both count; raises InputError if there is none.
        """
        check_is_fitted(self)
        return retrieval_set(self._heads_on_device(), Pairs.of(fitted_inputs(self, X)))

    def score(self, X: Any, y: object = None) -> float:
        """Recall@1, sequence -> structure, among the unique structures of X.

        Entries that share one structure are one candidate; ties count as misses (see
        ``protalign.heads.ranks.retrieval_report``, which gives the other figures too).
        """
        return recall_at_k(self.retrieval_set(X).ranks(), 1)

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Names of transform's columns: "sequence0", … and "structure0", …, as ``output`` says."""
        check_is_fitted(self)
        names = [f"{m}{i}" for m in self._output_modalities() for i in range(self.heads_.embed_dim)]
        return np.array(names, dtype=object)

    def export(
        self, X: Entries, path: str | Path, *, features: Sequence[str] = ("aligned",)
    ) -> int:
        """Write the vectors of a store's entries to a file; returns the number of entries.

        ``.parquet``, ``.csv`` or ``.h5ad``, as ``path`` ends (``protalign.stores.write_vectors``):
        id, length, sequence_vector, structure_vector; with ``features=("aligned", "mean")`` also
        the means of the residues' embeddings, sequence_mean and structure_mean; null where an
        entry lacks a modality. A block of entries is in memory at a time. The provenance names the
        model (hash of its weights) and the store (path, encoders and their weights' hashes).
        Raises InputError for anything but a store or a view, or for one that holds an id twice.
        """
        check_is_fitted(self)
        if not isinstance(X, Entries):
            raise InputError("only a store's entries have ids to export", "use transform")
        check_unchanged(self)
        inputs = fitted_inputs(self, X)
        described = describe(self)
        model = {name: described[name] for name in ("protalign_version", "parameters", "encoders")}
        model["weights_sha256"] = weights_sha256(self.heads_.state_dict())
        return export_vectors(
            self._heads_on_device(),
            X,
            inputs,
            path,
            mean_dims=dims_of(self),
            features=features,
            model=model,
        )

    def save(self, path: str | Path) -> None:
        """Write a folder: model.safetensors, config.json, README.md (a model card).

        It appears whole or not at all, and replaces a model that is there. Raises ModelError where
        something else is there, or where the parameters no longer describe the fitted heads.
        """
        check_is_fitted(self)
        check_unchanged(self)
        config = describe(self)
        write_model(path, config, self.heads_.state_dict(), model_card(config))

    @classmethod
    def load(cls, path: str | Path) -> ProtAlignEstimator:
        """Read a folder that ``save`` wrote; no store is needed.

        Raises ModelError, in one line, if it is missing, damaged or of a newer format.
        """
        config, tensors = read_model(path)
        try:
            estimator = cls(**config["parameters"])
            check_parameters(estimator)
            restore(estimator, config)
            estimator.heads_ = estimator._new_heads(dims_of(estimator))
            estimator.heads_.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise damaged_config(path, error) from None
        return estimator

    @property
    def best_loss_(self) -> float:
        """Lowest training loss of an epoch."""
        return min(self.loss_curve_)

    @property
    def best_validation_score_(self) -> float | None:
        """Highest mean reciprocal rank of an epoch on the validation pairs."""
        return max(self.validation_curve_, default=None)

    @property
    def temperature_(self) -> float:
        """The loss's temperature after training."""
        return self.heads_.loss.temperature

    @property
    def bias_(self) -> float | None:
        """SigLIP's bias after training; None for CLIP."""
        bias = self.heads_.loss.bias
        return None if bias is None else bias.item()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # and float32 for float64
        return tags

    def _heads_to_train(self, inputs: Inputs, seed: int) -> Heads:
        """New heads, seeded; or, with warm_start, a copy of those of the last fit."""
        if self.warm_start and hasattr(self, "heads_"):
            check_fits(inputs, MODALITIES, dims_of(self), self.encoders_)
            check_unchanged(self)
            heads = copy.deepcopy(self.heads_)
            heads.loss.log_scale.requires_grad_(self.learnable_temperature)
            return heads
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._new_heads(inputs.dims)

    def _new_heads(self, dims: dict[Modality, int]) -> Heads:
        loss = ContrastiveLoss(self.loss, self.temperature, self.bias, self.learnable_temperature)
        return Heads(
            dims, loss, pooling=self.pooling, embed_dim=self.embed_dim, n_heads=self.n_heads
        )

    def _parts(
        self, pairs: Pairs, X_val: Any, inputs: Inputs, generator: np.random.Generator
    ) -> tuple[Pairs, Pairs | None]:
        """(training, validation) pairs."""
        if X_val is not None:
            return pairs, Pairs.of(validation_inputs(self, X_val, inputs))
        if not self.early_stopping:
            return pairs, None
        return hold_out(pairs, self.validation_fraction, generator)

    def _report(self, line: str) -> None:
        if self.verbose:
            print(line, file=sys.stderr, flush=True)

    def _add_history(self, history: History) -> None:
        """Set the curves; with warm_start they go on from the last fit's."""
        going_on = self.warm_start and hasattr(self, "heads_")
        loss, validation = (self.loss_curve_, self.validation_curve_) if going_on else ([], [])
        self.best_epoch_ = len(loss) + history.best_epoch
        self.loss_curve_ = [*loss, *history.loss]
        self.validation_curve_ = [*validation, *history.validation]
        self.n_iter_ = len(self.loss_curve_)

    def _output_modalities(self) -> tuple[Modality, ...]:
        return tuple(m for m in MODALITIES if self.output in (m, "both"))

    def _heads_on_device(self) -> Heads:
        device = resolve_device(self.device)
        return self.heads_ if device.type == "cpu" else copy.deepcopy(self.heads_).to(device)
