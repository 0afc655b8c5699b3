"""The estimator: scikit-learn's interface over ``protalign.heads.model.Model``."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from protalign.core.arrays import Float32
from protalign.core.checks import check_choice
from protalign.core.devices import resolve_device
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import Output
from protalign.estimator.checks import (
    check_not_structures,
    check_parameters,
    check_unchanged,
    checked_columns,
)
from protalign.estimator.export import export_vectors
from protalign.estimator.fitted import FittedAttributes
from protalign.heads import model_files
from protalign.heads.distributed import Ranks, current
from protalign.heads.inputs import (
    ArrayInputs,
    Inputs,
    MeanInputs,
    StoreInputs,
    check_fits,
    is_pairs,
    read_inputs,
)
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.heads.pairs import Pairs, split_validation
from protalign.heads.poolings import pooling_head
from protalign.heads.ranks import RetrievalSet, recall_at_k
from protalign.heads.residue_fit import fit_residues
from protalign.heads.seeded import seeded
from protalign.heads.training import History, TrainingOptions, train
from protalign.heads.training_record import TrainingRecord
from protalign.stores import Entries


class ProtAlignEstimator(FittedAttributes, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Align sequence and structure embeddings: a pooling head each, trained with CLIP or SigLIP.

    X is, in every method,

    - an ``EmbeddingStore`` or a view of one: ``store[ids]``, ``store[mask]``, slices; or
    - a list of (sequence embeddings (L, D_P), structure embeddings (L', D_S)) pairs, float arrays;
      None stands for a missing modality; or
    - a 2-D array (n, d): the first ``sequence_columns`` are a sequence's pooled embedding, the
      others a structure's, each taken as a protein of one residue.

    Training uses each unique (sequence, structure) pair once, so that entries with the same
    embeddings are not each other's negatives. Entries with a missing modality are left out. A store
    tells equal items by content; entries of lists and arrays are all different items. A sequence
    with two structures is two pairs, each a negative of the other if they meet in a batch.

    Parameters
    ----------
    embed_dim, n_heads : int
        Length of the vectors, and attention heads of each pooling head.
    pooling : str
        How residues become one vector: "attention" (paper, Eq. 1); "codebook", the frequencies of
        residue words that both modalities share, which needs residues that have both; "mean-linear"
        or "mean-mlp", their mean through one or two layers. Only attention uses ``n_heads``.
    loss : str
        "clip" (paper, Eq. 2) or "siglip" (Eq. 3, see ``protalign.heads.losses.siglip_loss``).
    temperature : float
        Similarities are divided by it.
    bias : float
        SigLIP's learned bias at the start.
    learnable_temperature : bool
        Learn the temperature too, starting from ``temperature``.
    batch_size, learning_rate : int, float
        Pairs in a batch, and Adam's learning rate. A last batch of one pair is left out.
    max_epochs : int
        Passes over the pairs, at most.
    early_stopping : bool
        Keep a random part of the pairs for validation (whole sequences with all their structures),
        stop when retrieval among them no longer improves, and end with the best epoch's parameters.
        Not done if that part would be smaller than 10 pairs.
    validation_fraction : float
        Size of that part, at most; it has 10,000 pairs at most.
    n_iter_no_change, tol : int, float
        Training stops after this many epochs without a gain of ``tol`` in the validation's mean
        reciprocal rank.
    residue_context : bool
        Train the residue stage's context too, in one to three minutes: a network that reads a
        sequence residue's neighbours, so that the local mode finds more relatives. It needs 200,000
        paired residues; with fewer there is none, nor if it is no better than a linear map on
        held-out sequences, or if Ctrl-C ended its training or that before.
    residue_head : bool
        Train the residue stage's head on hard negatives as well, in minutes: it makes the rows of
        the global mode, which tells near-identical proteins apart. Left out if Ctrl-C ended the
        training before.
    output : str
        The vectors that ``transform`` gives: "sequence", "structure", or "both" side by side.
    sequence_encoder, structure_encoder : str, optional
        Names of the encoders, if a store has several of a modality.
    sequence_columns : int, optional
        Columns of the sequence, if X is a 2-D array. Default: ceil(d / 2), with a warning.
    random_state : int, RandomState or None
        The same int gives the same model on one machine with the same number of threads, and, if
        the rows do not fit into memory, with the same memory.
    device : str
        "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
    warm_start : bool
        Continue from the last fit's heads, loss temperature and bias. Refused if ``embed_dim``,
        ``n_heads``, ``pooling`` or ``loss`` have changed since.
    verbose : bool
        Print a line per epoch to standard error.

    Attributes
    ----------
    model_ : Model
        The trained model, on the CPU.
    loss_curve_, validation_curve_ : list of float
        Per epoch, mean training loss, and mean reciprocal rank of the validation pairs (empty
        without any).
    n_iter_, best_epoch_ : int
        Epochs run, and the (1-based) one whose parameters were kept.
    best_loss_, best_validation_score_ : float, float or None
        Lowest loss; highest validation score, None without one.
    n_pairs_, n_validation_pairs_, n_skipped_ : int
        Pairs trained on, pairs validated on, entries left out because a modality is missing.
    validation_ : str
        The pairs that chose the best epoch, in words.
    temperature_, bias_ : float, float or None
        The loss's, after training; bias_ is None for CLIP.
    sequence_dim_, structure_dim_ : int
        D_P and D_S.
    encoders_ : dict
        Modality -> EncoderRecord; empty unless X was a store.
    source_ : str
        Path of the store, "" for arrays.
    n_features_in_, feature_names_in_
        Only if X was a 2-D array (with column names).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sequences = [rng.normal(size=(30, 20)) for _ in range(12)]   # (L, D_P) each
    >>> structures = [rows[:, :8] + 1 for rows in sequences]         # (L, D_S) each
    >>> pairs = list(zip(sequences, structures))
    >>> est = ProtAlignEstimator(embed_dim=16, max_epochs=5, random_state=0).fit(pairs)
    >>> est.transform(pairs).shape
    (12, 16)
    >>> 0 <= est.score(pairs) <= 1
    True
    """

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
        residue_context: bool = True,
        residue_head: bool = False,
        output: str = "sequence",
        sequence_encoder: str | None = None,
        structure_encoder: str | None = None,
        sequence_columns: int | None = None,
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
        self.residue_context = residue_context
        self.residue_head = residue_head
        self.output = output
        self.sequence_encoder = sequence_encoder
        self.structure_encoder = structure_encoder
        self.sequence_columns = sequence_columns
        self.random_state = random_state
        self.device = device
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(
        self, X: Any, y: object = None, *, X_val: Any = None, validation: str = "given"
    ) -> Self:
        """Train on the entries of X that have both modalities.

        Parameters
        ----------
        X : see the class
            The entries.
        y : object
            Not used. An array with several columns is refused: it may be meant as structures.
        X_val : as X, optional
            Entries to validate on, in place of a random part of X.
        validation : str
            What ``X_val`` is, in words, for the model's card.

        Raises
        ------
        InputError
            Fewer than two pairs are left; y is an array with several columns.
        ModelError
            ``X_val`` was embedded by other encoders.
        """
        check_parameters(self.get_params(deep=False))
        check_not_structures(y)
        ranks = current()
        device = ranks.device(resolve_device(self.device))
        inputs = self._fitting_inputs(X)
        pairs = Pairs.of(self._averaged(inputs))
        if len(pairs) < 2:
            raise InputError("X: it holds 1 pair of sequence and structure", "training needs more")
        drawn = int(check_random_state(self.random_state).randint(2**31 - 1))
        seed = int(ranks.text_of_first(lambda: str(drawn)))
        generator = np.random.default_rng(seed)
        before = self.model_.training_record if self._continues() else None
        model = self._model_to_train(inputs, seed).to(device)
        training, validating = self._parts(pairs, X_val, inputs, generator)
        self._check_same(ranks, training, validating)
        n_validation = 0 if validating is None else len(validating)
        self._report(
            f"{len(training):,} pairs to train on, {n_validation:,} to validate on; "
            f"{pairs.n_skipped:,} entries left out because a modality is missing"
        )
        options = TrainingOptions(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
        )
        history = train(model, training, validating, options, generator, self._report)
        random = f"a random {100 * n_validation / len(pairs):.0f} % of the pairs, whole sequences"
        model.residue_stage = fit_residues(
            training.of_residues(),
            None if validating is None else validating.of_residues(),
            seed,
            self._report,
            with_context=self.residue_context and not history.interrupted,
            with_head=self.residue_head and not history.interrupted,
        )
        model.encoders = dict(inputs.encoders)
        model.training_record = _record(
            before,
            history,
            n_pairs=len(training),
            n_validation_pairs=n_validation,
            n_skipped=pairs.n_skipped,
            source=path_text(X.store.path) if isinstance(X, Entries) else "",
            validation="none" if not n_validation else random if X_val is None else validation,
        )
        names = getattr(self, "feature_names_in_", None)
        model.array_columns = (
            getattr(self, "n_features_in_", None),
            None if names is None else tuple(names),
        )
        model.settings = self._settings()
        self.model_ = model.cpu()
        return self

    def transform(self, X: Any) -> Float32:
        """Return unit-length vectors of every entry: (n, embed_dim) float32, or (n, 2 embed_dim).

        Raises
        ------
        InputError
            An entry has no embedding of a modality that ``output`` asks for; the error names it.
        ModelError
            X was embedded by other encoders than the model was fitted on.
        """
        check_is_fitted(self)
        check_choice("output", self.output, get_args(Output))
        modalities = self._output_modalities()
        inputs = self._fitted_inputs(X, modalities)
        for modality in modalities:
            missing = np.flatnonzero(inputs.items(modality) < 0)
            if len(missing):
                raise InputError(
                    f"{inputs.names(missing)}: the {modality} embedding is missing",
                    f"leave them out (store[store.has_{modality}]), or set another output",
                )
        model = self._model_on_device()
        return np.hstack([model.vectors(inputs, modality) for modality in modalities])

    def pool(self, modality: Modality, rows: Sequence[npt.ArrayLike]) -> Float32:
        """Pool residue embeddings of one modality: n arrays (L, D) -> (n, embed_dim).

        For proteins that are in no store. Raise ModelError if D is not the width fitted on.
        """
        check_is_fitted(self)
        return self._model_on_device().pool(modality, rows)

    def attention(self, X: Any) -> dict[Modality, list[Float32 | None]]:
        """Return the residues' attention weights, for each attention head.

        Returns
        -------
        dict
            Modality -> a list with an item for each entry, in X's order: (L, n_heads) float32,
            where each head's weights sum to 1 over the L rows; None if the modality is missing.
            Rows are those of the embeddings: of "sequence" the entry's residues, all chains one
            after another; of "structure" the residues with a complete backbone, which
            ``store.residue_map(id)`` names.

        Raises
        ------
        InputError
            ``pooling`` is not "attention".
        """
        check_is_fitted(self)
        inputs, model = self._fitted_inputs(X), self._model_on_device()
        return {m: model.residue_weights(inputs, m) for m in MODALITIES}

    def retrieval_set(self, X: Any) -> RetrievalSet:
        """Return the vectors of X's unique sequences and structures, and which belong together.

        Only entries that have both count; raise InputError if there is none.
        """
        check_is_fitted(self)
        return self._model_on_device().retrieval_set(self._fitted_inputs(X))

    def score(self, X: Any, y: object = None) -> float:
        """Return Recall@1, sequence -> structure, among the unique structures of X.

        Entries that share one structure are one candidate; ties count as misses. See
        ``protalign.evaluation.retrieval_report`` for other figures.
        """
        return recall_at_k(self.retrieval_set(X).ranks(), 1)

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Return the names of transform's columns: "sequence0", … and "structure0", …."""
        check_is_fitted(self)
        dims = range(self.model_.embed_dim)
        names = [f"{m}{i}" for m in self._output_modalities() for i in dims]
        return np.array(names, dtype=object)

    def export(
        self,
        X: Entries,
        path: str | os.PathLike[str],
        *,
        features: Sequence[str] = ("aligned",),
        rows_per_file: int | None = None,
        scheduler: str | None = None,
    ) -> int:
        """Write the vectors of a store's entries to a file or folder; return their number.

        Parameters
        ----------
        X : EmbeddingStore or StoreView
            The entries.
        path : str or path
            ``.parquet``, ``.csv`` or ``.h5ad``, or a folder, whose name has no ending; see
            ``protalign.stores.write_vectors``.
        features : sequence of str
            "aligned", and "mean" for the means of the residues' embeddings beside them
            (columns sequence_mean, structure_mean).
        rows_per_file : int, optional
            Rows of a folder's Parquet file, at most.
        scheduler : str, optional
            Address of a Dask scheduler whose workers pool; see ``export_vectors``.

        Raises
        ------
        InputError
            X is not a store or a view of one, or it holds an id twice.

        Notes
        -----
        The columns are id, length, sequence_vector, structure_vector, null if a modality is
        missing. A block of entries is in memory at a time. The provenance names the model (hash of
        its weights) and the store (path, encoders and their weights' hashes).
        """
        check_is_fitted(self)
        check_unchanged(self.get_params(deep=False), self.model_)
        return export_vectors(
            self._with_settings(self._model_on_device()),
            X,
            path,
            features=features,
            names=self._encoder_names(),
            rows_per_file=rows_per_file,
            scheduler=scheduler,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder: model.safetensors, config.json, README.md (a model card).

        It appears whole or not at all, and replaces a model at ``path``. Raise ModelError if
        something else is there, or if the parameters no longer describe the fitted model.
        """
        check_is_fitted(self)
        check_unchanged(self.get_params(deep=False), self.model_)
        self._with_settings(self.model_).save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a folder that ``save`` wrote; no store is needed.

        Raise ModelError, in one line, if it is missing, damaged or of a newer format.
        """
        model = Model.load(path)
        try:
            estimator = cls(**model.settings)
            check_parameters(estimator.get_params(deep=False))
        except (KeyError, TypeError, ValueError) as error:
            raise model_files.damaged_config(path, error) from None
        estimator.model_ = model
        columns, names = model.array_columns
        if columns is not None:
            estimator.n_features_in_ = columns
        if names is not None:
            estimator.feature_names_in_ = np.array(names, dtype=object)
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # and float32 for float64
        return tags

    def _with_settings(self, model: Model) -> Model:
        """Return the model with today's parameters, which may have been set since the fit."""
        described = copy.copy(model)
        described.settings = self._settings()
        return described

    def _settings(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""
        settings = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in self.get_params(deep=False).items()
        }
        if not isinstance(settings["random_state"], int):
            settings["random_state"] = None  # a RandomState has no form in JSON
        return settings

    def _encoder_names(self) -> dict[Modality, str | None]:
        return {"sequence": self.sequence_encoder, "structure": self.structure_encoder}

    def _fitting_inputs(self, X: Any) -> Inputs:
        """Return X to fit on; raise InputError if a modality is missing from all entries."""
        inputs = self._read(X, MODALITIES, None)
        missing = [m for m in MODALITIES if m not in inputs.dims]
        if missing:
            advice = "training needs both"
            if isinstance(inputs, StoreInputs):
                advice += ": run `protalign embed` to the end, with an encoder of each modality"
            raise InputError(f"X: the {missing[0]} embeddings are missing", advice)
        if not isinstance(inputs, ArrayInputs):
            for name in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
                self.__dict__.pop(name, None)
        return inputs

    def _fitted_inputs(self, X: Any, modalities: Sequence[Modality] = MODALITIES) -> Inputs:
        """Return X for the fitted model; raise ModelError for embeddings of another kind."""
        columns = self.model_.dims["sequence"]
        inputs = self._read(X, modalities, self.model_.encoders, columns)
        return self.model_.inputs(inputs, modalities)

    def _read(
        self,
        X: Any,
        modalities: Sequence[Modality],
        encoders: dict[Modality, EncoderRecord] | None,
        sequence_columns: int | None = None,
    ) -> Inputs:
        """Return X in its common form; arrays are checked as scikit-learn does it.

        ``encoders`` and ``sequence_columns`` are those of the fitted model, None while it is being
        fitted.
        """
        if isinstance(X, (Entries, Inputs, str, os.PathLike)) or is_pairs(X):
            return read_inputs(X, modalities, names=self._encoder_names(), encoders=encoders)
        least = 2 if encoders is None else 1
        values = validate_data(
            self,
            X,
            reset=encoders is None,
            dtype=np.float32,
            ensure_min_samples=least,
            ensure_min_features=least,
        )
        if encoders is None:
            sequence_columns = checked_columns(self.sequence_columns, values.shape[1])
        return ArrayInputs(values, sequence_columns)

    def _averaged(self, inputs: Inputs) -> Inputs:
        """Return the means of the rows if the pooling reads no more of them."""
        return MeanInputs(inputs) if pooling_head(self.pooling).wants_means else inputs

    def _continues(self) -> bool:
        return self.warm_start and hasattr(self, "model_")

    def _model_to_train(self, inputs: Inputs, seed: int) -> Model:
        """Return a new model, seeded; with warm_start, a copy of the last fit's."""
        if self._continues():
            check_fits(inputs, MODALITIES, self.model_.dims, self.model_.encoders)
            check_unchanged(self.get_params(deep=False), self.model_)
            model = copy.deepcopy(self.model_)
            model.loss.log_scale.requires_grad_(self.learnable_temperature)
            return model
        with seeded(seed):
            loss = ContrastiveLoss(
                self.loss, self.temperature, self.bias, self.learnable_temperature
            )
            return Model(
                inputs.dims,
                loss,
                pooling=self.pooling,
                embed_dim=self.embed_dim,
                n_heads=self.n_heads,
            )

    def _parts(
        self, pairs: Pairs, X_val: Any, inputs: Inputs, generator: np.random.Generator
    ) -> tuple[Pairs, Pairs | None]:
        """Return (training, validation) pairs."""
        if X_val is not None:
            columns = inputs.dims["sequence"]
            validating = self._read(X_val, MODALITIES, inputs.encoders, columns)
            check_fits(validating, MODALITIES, inputs.dims, inputs.encoders)
            return pairs, Pairs.of(self._averaged(validating))
        if not self.early_stopping:
            return pairs, None
        return split_validation(pairs, self.validation_fraction, generator)

    def _check_same(self, ranks: Ranks, *parts: Pairs | None) -> None:
        """Raise InputError unless all processes that train together have one task."""
        if ranks.alone:
            return
        settings = {k: v for k, v in self._settings().items() if k != "verbose"}
        arrays = [
            array
            for pairs in parts
            if pairs is not None
            for array in (pairs.positions, pairs.items, *map(pairs.inputs.lengths, MODALITIES))
        ]
        ranks.check_same("X or a parameter", json.dumps(settings).encode(), *arrays)

    def _report(self, line: str) -> None:
        if self.verbose and current().first:
            print(line, file=sys.stderr, flush=True)

    def _output_modalities(self) -> tuple[Modality, ...]:
        return tuple(m for m in MODALITIES if self.output in (m, "both"))

    def _model_on_device(self) -> Model:
        device = resolve_device(self.device)
        return self.model_ if device.type == "cpu" else copy.deepcopy(self.model_).to(device)


def _record(before: TrainingRecord | None, history: History, **facts: Any) -> TrainingRecord:
    """Return the record of a fit; with warm_start the curves continue those of the last one."""
    loss, validation = (before.loss_curve, before.validation_curve) if before else ([], [])
    return TrainingRecord(
        loss_curve=[*loss, *history.loss],
        validation_curve=[*validation, *history.validation],
        best_epoch=len(loss) + history.best_epoch,
        **facts,
    )
