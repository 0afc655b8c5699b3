"""The second stage of a search: hits in the order of their residues' scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protalign.core.checks import check_between
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.core.words import AlignMode
from protalign.heads.inputs import choose_encoder
from protalign.heads.model import Model
from protalign.residues import ResidueStage
from protalign.residues.proteins import PackedRows, ProteinRows
from protalign.residues.targets import TargetScores, score_targets
from protalign.stores import EmbeddingStore

#: The columns that a second stage adds to a hit.
RESIDUE_COLUMNS = ("local_score", "evalue", "probability", "global_score")


class StoredResidues:
    """Residue rows of a store's entries, read when they are wanted.

    Parameters
    ----------
    model : Model
        A model with a residue stage.
    store : EmbeddingStore
        The store that the vectors are of.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, ProtAlignEstimator, embed
    >>> from pathlib import Path
    >>> files = sorted(Path("examples/sample").glob("1b*"))
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> _ = embed(files, path, ["protalign_t6_2M", "proteinmpnn_v_48_020"])
    >>> store = EmbeddingStore.open(path)
    >>> model = ProtAlignEstimator(max_epochs=1, device="cpu").fit(store).model_
    >>> StoredResidues(model, store).rows("structure", ["1bpi_A"])[0].local.shape
    (58, 50)
    """

    def __init__(self, model: Model, store: EmbeddingStore) -> None:
        self.stage: ResidueStage = model.residue_scorer()
        self._model, self._store = model, store

    def rows(self, modality: Modality, ids: Sequence[str]) -> list[ProteinRows | None]:
        """Return the rows of each entry, None if it lacks the modality.

        Raise InputError if the store has no embeddings of the model's encoder.
        """
        encoder = choose_encoder(self._store, modality, None, self._model.encoders.get(modality))
        if encoder is None:
            raise InputError(
                f"{self._store.path}: it has no {modality} embeddings", "name another --store"
            )
        known = [entry_id for entry_id in ids if entry_id in self._store]
        entries = self._store[known] if known else self._store[:0]
        present = entries.rows(encoder.name)[1] > 0
        rows: dict[str, ProteinRows] = {}
        if present.any():
            entries = entries[present]
            packed = self.stage.packed_rows(
                modality, entries.embeddings(encoder.name), entries.chain_rows(modality)
            )
            rows = dict(zip(entries.ids.tolist(), packed, strict=True))
        return [rows.get(entry_id) for entry_id in ids]


def check_length_term(length_term: float, mode: AlignMode | None) -> None:
    """Raise InputError unless it is 0, or a positive number in a search by global scores.

    ``mode`` is None if there is no second stage.
    """
    check_between("length_term", length_term, 0, np.inf, closed=True)
    if length_term and mode != "global":
        raise InputError(
            f"length_term={length_term:g}: only global scores have a length term",
            'order the hits by them (rerank, and mode="global")',
        )


def rescored(
    query: ProteinRows,
    targets: Sequence[ProteinRows | None],
    mode: AlignMode,
    stage: ResidueStage,
    length_term: float = 0.0,
) -> tuple[list[int], list[int], TargetScores]:
    """Score a query's candidates by their residues, and order them.

    Parameters
    ----------
    query : ProteinRows
        The query's rows.
    targets : n of ProteinRows or None
        The candidates' rows.
    mode : "local" or "global"
        The score that orders them.
    stage : ResidueStage
        Made the rows.
    length_term : float
        Nats that a global score loses for each residue by which the two lengths differ.

    Returns
    -------
    scored : list of int
        The candidates that have rows; ``scores`` are theirs, in this order.
    order : list of int
        Positions in ``scored``, best first; of equal ones the earlier candidate first.
    scores : TargetScores
    """
    known = {i: rows for i, rows in enumerate(targets) if rows is not None and len(rows.local)}
    if not known:
        empty = np.empty(0, np.float32)
        return [], [], TargetScores(empty, empty, None)
    packed = PackedRows.of(list(known.values()))
    scores = score_targets(query, packed, stage.calibration, length_term=length_term)
    keys = scores.local_order if mode == "local" else scores.diagonal.astype(np.float64)
    return list(known), np.argsort(-keys, kind="stable").tolist(), scores
