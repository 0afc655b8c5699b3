"""Preferred amino acids of a residue in a structure, read from ProteinMPNN's encoder.

A linear discriminant analysis learns to tell a residue's amino acid from its structure embedding,
over residues of many proteins. Its log-probabilities at a mutated residue replace those of the
decoder, which the package does not ship: only a store and scikit-learn are needed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.quality.downstream_parts.labels import Pool
from benchmarks.quality.downstream_parts.mutations import LETTERS
from benchmarks.quality.downstream_parts.preparation import STRUCTURE
from protalign.core.arrays import Float32


def preferences(pool: Pool, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Float32]:
    """Return (row of the store, row of the structure) -> (20,) log-probabilities, as LETTERS.

    They are learned from one protein of each cluster at 95 % identity in the manifest's train part,
    without the clusters at 30 % identity of the wanted structures.
    """
    entry = dict(zip(pool.manifest["entry"], pool.manifest["c30"], strict=True))
    excluded = {entry[str(pool.store.ids[row])] for row, _ in wanted}
    train = pool.manifest[
        (pool.manifest["split"] == "train") & ~pool.manifest["c30"].isin(excluded)
    ].drop_duplicates("c95")
    view = pool.store[train["entry"].to_numpy()]
    values = view.embeddings(STRUCTURE).values.astype(np.float32)
    letters = np.concatenate([_letters(pool, str(name)) for name in view.ids])
    known = np.isin(letters, list(LETTERS))
    model = LinearDiscriminantAnalysis().fit(values[known], letters[known])
    assert "".join(model.classes_) == LETTERS
    places = sorted(wanted)
    rows = np.array(places)
    embeddings = pool.store[rows[:, 0]].embeddings_at(STRUCTURE, rows[:, 1]).astype(np.float32)
    return dict(zip(places, model.predict_log_proba(embeddings).astype(np.float32), strict=True))


def _letters(pool: Pool, name: str) -> npt.NDArray[np.str_]:
    """Return (rows,): the amino acid of each row of a structure."""
    sequence = np.array(list("".join(pool.store.sequence(name))))
    return sequence[pool.store.residue_map(name).sequence_index]
