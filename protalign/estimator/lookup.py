"""Exported vectors as a scikit-learn transformer: ids in, vectors out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from protalign.core.arrays import Float32
from protalign.core.checks import check_choice, first_few
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import Features, Output
from protalign.stores import AlignedVectors, Entries, read_vectors
from protalign.stores.vectors.table import feature_names

#: Feature -> the ending of its columns' names.
_ENDINGS = {"aligned": "vector", "mean": "mean"}


class VectorLookup(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Look exported vectors up by id, so that a pipeline takes ids as X.

    X is a list, array or column of n ids. Nothing is learned from them: ``fit`` does nothing. The
    file is read at the first ``transform``, and again if it changes.

    Parameters
    ----------
    path : str or path
        A Parquet file or a folder that ``ProtAlignEstimator.export`` or ``protalign export`` wrote.
    output : str
        "sequence", "structure", or "both" side by side.
    features : str
        "aligned"; "mean", the means of the residues' embeddings, if they were exported
        (``features=("aligned", "mean")``); or "both": first the aligned vectors, then the means.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import VectorBatch, write_vectors
    >>> path = Path(tempfile.mkdtemp()) / "vectors.parquet"
    >>> ids = np.array(["1a30", "3ebp", "1bcu"], dtype=object)
    >>> eye = np.eye(3, dtype=np.float32)
    >>> batch = VectorBatch(ids, sequence=eye, structure=eye)
    >>> _ = write_vectors(path, [batch], dim=3, metadata={})
    >>> VectorLookup(path).transform(["3ebp", "1a30"])
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)

    In a pipeline:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> pipeline = make_pipeline(VectorLookup(path), LogisticRegression())
    >>> pipeline.fit(["1a30", "3ebp"], ["lyase", "kinase"]).predict(["3ebp"]).tolist()
    ['kinase']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        output: str = "sequence",
        features: str = "aligned",
    ) -> None:
        self.path = path
        self.output = output
        self.features = features

    def fit(self, X: object = None, y: object = None) -> Self:
        """Do nothing; pipelines call it."""
        return self

    def transform(self, X: Any) -> Float32:
        """Return the vectors of n ids: (n, width) float32.

        Aligned vectors have unit length; means are as they are.

        Raises
        ------
        InputError
            An id is not in the file, or its vector is missing; the error names the ids. Or the
            file has no means.
        """
        subset = self._vectors().select(_ids(X))
        columns = self._columns(subset)
        for modality in self._modalities():
            _check_present(subset, modality)
        return np.hstack(list(columns.values()))

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Return the columns' names: "sequence0", …, "structure_mean0", …, as in a CSV export."""
        columns = self._columns(self._vectors()).items()
        names = [name for c, values in columns for name in feature_names(c, values.shape[1])]
        return np.array(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_cached", None)  # the copy reads the file again
        return state

    def _columns(self, vectors: AlignedVectors) -> dict[str, Float32]:
        """Return the columns asked for: name -> (n, width)."""
        check_choice("output", self.output, get_args(Output))
        check_choice("features", self.features, get_args(Features))
        columns = {}
        endings = [end for name, end in _ENDINGS.items() if self.features in (name, "both")]
        for ending in endings:
            for modality in self._modalities():
                name = f"{modality}_{ending}"
                values = getattr(vectors, name.removesuffix("_vector"))
                if values is None:
                    raise InputError(
                        f"{self.path}: the column {name} is missing",
                        'export it: features=("aligned", "mean"), or --features aligned,mean',
                    )
                columns[name] = values
        return columns

    def _modalities(self) -> tuple[Modality, ...]:
        return tuple(m for m in MODALITIES if self.output in (m, "both"))

    def _vectors(self) -> AlignedVectors:
        """Return the file's vectors, which are read again only if the file changes."""
        path = Path(self.path)
        status = path.stat() if path.exists() else None
        version = (str(path), status and (status.st_mtime_ns, status.st_size, status.st_ino))
        cached: tuple[Any, AlignedVectors] | None = getattr(self, "_cached", None)
        if cached is None or cached[0] != version:
            cached = self._cached = (version, read_vectors(path))
        return cached[1]


def _ids(X: Any) -> npt.NDArray[np.object_]:
    """Return X as (n,) ids; a single column counts as a list."""
    if isinstance(X, Entries):
        raise InputError(
            f"X: a {type(X).__name__}, but ids are looked up", "give its ids, as in store[mask].ids"
        )
    try:
        ids = np.asarray(X, dtype=object)
    except ValueError:  # numpy cannot make one array of it
        ids = np.empty((0, 0), dtype=object)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.ndim != 1 or not all(isinstance(entry_id, str) for entry_id in ids):
        raise InputError(
            f"X: an array of shape {ids.shape}, not a list of ids",
            "give the ids, as text, one for each sample",
        )
    return ids


def _check_present(vectors: AlignedVectors, modality: Modality) -> None:
    """Raise InputError, which names the ids, if the modality is missing for some."""
    _, present = vectors.candidates(modality)
    if not present.all():
        raise InputError(
            f"{first_few(vectors.ids[~present].tolist())}: the {modality} vector is missing",
            f"leave them out (has_{modality} of read_vectors), or set another output",
        )
