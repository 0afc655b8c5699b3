"""Exported vectors as a scikit-learn transformer: ids in, vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from protalign.core.arrays import Float32
from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.stores import AlignedVectors, read_vectors
from protalign.stores.vectors.table import feature_names

OUTPUTS: dict[str, tuple[Modality, ...]] = {
    "sequence": ("sequence",),
    "structure": ("structure",),
    "both": ("sequence", "structure"),
}
#: ``features`` -> what a column's name ends in.
FEATURES: dict[str, tuple[str, ...]] = {
    "aligned": ("vector",),
    "mean": ("mean",),
    "both": ("vector", "mean"),
}


class VectorLookup(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Looks exported vectors up by id, so that a pipeline takes ids as X.

    ``make_pipeline(VectorLookup("vectors.parquet"), LogisticRegression()).fit(ids, labels)``

    X is a list, array or column of n ids. Nothing is learned from them: ``fit`` does nothing, and
    the file is read at the first ``transform``, and again if it changes.

    Parameters
    ----------
    path : Parquet file that ``ProtAlignEstimator.export`` or ``protalign export`` wrote.
    output : "sequence", "structure", or "both", side by side.
    features : "aligned"; "mean", the means of the residues' embeddings, where they were exported
        (``features=("aligned", "mean")``); or "both": first the aligned vectors, then the means.
    """

    def __init__(
        self, path: str | Path, output: str = "sequence", features: str = "aligned"
    ) -> None:
        self.path = path
        self.output = output
        self.features = features

    def fit(self, X: object = None, y: object = None) -> VectorLookup:
        """Return self: there is nothing to learn."""
        return self

    def transform(self, X: Any) -> Float32:
        """(n, width) float32, n ids' vectors: aligned ones of unit length, means as they are.

        Raises InputError, naming them, for ids that the file lacks or that lack the modality, and
        where the file has no means.
        """
        found = self._vectors().select(_ids(X))
        columns = self._columns(found)
        for modality in OUTPUTS[self.output]:
            _check_present(found, modality)
        return np.hstack(list(columns.values()))

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Names of the columns: "sequence0", …, "structure_mean0", …, as in an exported CSV."""
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
        state.pop("_cached", None)  # the file is read again where this is unpickled
        return state

    def _columns(self, vectors: AlignedVectors) -> dict[str, Float32]:
        """Return the columns asked for: name -> (n, width)."""
        check_choice("output", self.output, OUTPUTS)
        check_choice("features", self.features, FEATURES)
        columns = {}
        for ending in FEATURES[self.features]:
            for modality in OUTPUTS[self.output]:
                name = f"{modality}_{ending}"
                values = getattr(vectors, name.removesuffix("_vector"))
                if values is None:
                    raise InputError(
                        f"{self.path} has no column {name}",
                        'export it: features=("aligned", "mean"), or --features aligned,mean',
                    )
                columns[name] = values
        return columns

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
    """X as (n,) ids; a single column is as good as a list."""
    ids = np.asarray(X, dtype=object)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.ndim != 1 or not all(isinstance(entry_id, str) for entry_id in ids):
        raise InputError(
            f"X of shape {ids.shape} is no list of ids", "give the ids, as text, one per sample"
        )
    return ids


def _check_present(vectors: AlignedVectors, modality: Modality) -> None:
    there = vectors.has_sequence if modality == "sequence" else vectors.has_structure
    if there.all():
        return
    missing = vectors.ids[~there]
    more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
    raise InputError(
        f"no {modality} vector of {', '.join(missing[:3])}{more}",
        f"leave them out (has_{modality} of read_vectors), or set another output",
    )
