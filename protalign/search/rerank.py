"""The second stage of a search: hits in the order of their residues' scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_between
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.core.ragged import Ragged, blocks
from protalign.core.steps import step
from protalign.core.words import AlignMode
from protalign.heads.inputs import choose_encoder
from protalign.heads.model import Model
from protalign.residues import ResidueStage
from protalign.residues.backing import backing
from protalign.residues.chains import ProteinTargets
from protalign.residues.proteins import PackedRows, ProteinRows
from protalign.residues.scan import best_targets
from protalign.residues.targets import (
    PAIRS_AT_ONCE,
    RESIDUES_AT_ONCE,
    TargetScores,
    less_length_term,
    local_in_blocks,
    score_in_blocks,
)
from protalign.search.residue_rows import check_finite_rows
from protalign.stores import EmbeddingStore

#: Queries that are compared with all entries together, while the store is read once.
_QUERIES_AT_ONCE = 64
#: Entries whose ids and lengths are looked up at once.
_ENTRIES_AT_ONCE = 1 << 14
#: Residues of a query's candidates whose rows are kept for what hits say for each other: 52 MB. Of
#: more, those of the best candidates are read again.
_KEPT = 1 << 18

#: The columns that a second stage adds to a hit.
RESIDUE_COLUMNS = ("local_score", "evalue", "backing", "probability", "global_score")


@dataclass(frozen=True, slots=True, eq=False)
class SearchedEntries:
    """Entries of a modality that are searched, by their places.

    Attributes
    ----------
    rows : (n,) int64
        Where they are in the vectors, or in the store's log.
    ids_at : callable
        Given (m,) int64 of such rows, returns an object array of their ids.

    Examples
    --------
    >>> ids = np.array(["1a30", "3ebp", "1bcu"], dtype=object)
    >>> SearchedEntries(np.array([0, 2]), ids.take).ids(np.array([1]))
    ['1bcu']
    """

    rows: Int64
    ids_at: Callable[[Int64], npt.NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, places: Int64) -> list[str]:
        """Return the ids at (m,) int64 places."""
        return [str(entry_id) for entry_id in self.ids_at(self.rows[places])]


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

        Raise InputError if the store has no embeddings of the model's encoder, or if those of an
        entry are not finite.
        """
        present = np.flatnonzero(self.lengths(modality, ids)).tolist()
        rows: list[ProteinRows | None] = [None] * len(ids)
        if present:
            packed = self.packed(modality, [ids[place] for place in present], words=True)
            for place, each in zip(present, packed, strict=True):
                rows[place] = each
        return rows

    def lengths(self, modality: Modality, ids: Sequence[str]) -> Int64:
        """Return (n,) int64, the rows of each entry: 0 if it lacks the modality.

        Raise InputError if the store has no embeddings of the model's encoder.
        """
        encoder = self._encoder(modality)
        known = [place for place, entry_id in enumerate(ids) if entry_id in self._store]
        lengths = np.zeros(len(ids), dtype=np.int64)
        if known:
            lengths[known] = self._store[[ids[place] for place in known]].rows(encoder)[1]
        return lengths

    def packed(self, modality: Modality, ids: Sequence[str], *, words: bool = False) -> PackedRows:
        """Return the rows of entries that have the modality, with those for ``words`` if wanted.

        Raise InputError if the embeddings of one are not finite.
        """
        entries = self._store[list(ids)]
        embeddings = entries.embeddings(self._encoder(modality))
        with np.errstate(invalid="ignore", over="ignore"):  # such numbers are named below
            chains = entries.chain_rows(modality)
            packed = self.stage.packed_rows(modality, embeddings, chains, words=words)
        packed = packed.placed(entries.row_positions(modality))
        finite = np.isfinite(packed.local.values) & np.isfinite(packed.diagonal.values)
        if packed.plain is not None:
            finite &= np.isfinite(packed.plain.values)
        check_finite_rows(finite, packed.local.offsets, ids, modality)
        return packed

    def local(self, modality: Modality, ids: Sequence[str]) -> Ragged:
        """Return the rows for the local mode alone of entries that have the modality.

        Raise InputError if the embeddings of one are not finite.
        """
        entries = self._store[list(ids)]
        embeddings = entries.embeddings(self._encoder(modality))
        with np.errstate(invalid="ignore", over="ignore"):  # such numbers are named below
            chains = entries.chain_rows(modality)
            rows = self.stage.rows_of_mode(modality, embeddings, chains, "local")
        check_finite_rows(np.isfinite(rows.values), rows.offsets, ids, modality)
        return rows

    def blocks(
        self, modality: Modality, entries: SearchedEntries, mode: AlignMode
    ) -> Iterator[tuple[Int64, PackedRows]]:
        """Yield the rows of the entries that have the modality, some at a time, and their places.

        Those of mode "local" are for that mode alone, each protein as one chain.

        Raise InputError if the embeddings of one are not finite.
        """
        for first in range(0, len(entries), _ENTRIES_AT_ONCE):
            places = np.arange(first, min(first + _ENTRIES_AT_ONCE, len(entries)))
            ids = entries.ids(places)
            lengths = self.lengths(modality, ids)
            known = np.flatnonzero(lengths)
            for part in blocks(lengths[known], RESIDUES_AT_ONCE):
                some = known[part]
                names = [ids[place] for place in some]
                if mode == "local":
                    rows = self.local(modality, names)
                    yield places[some], PackedRows(rows, rows, rows.lengths)
                else:
                    yield places[some], self.packed(modality, names)

    def _encoder(self, modality: Modality) -> str:
        encoder = choose_encoder(self._store, modality, None, self._model.encoders.get(modality))
        if encoder is None:
            raise InputError(
                f"{self._store.path}: it has no {modality} embeddings", "name another --store"
            )
        return encoder.name


def check_length_term(length_term: float, mode: AlignMode | None) -> None:
    """Raise InputError unless it is 0, or a positive number in a search by global scores.

    ``mode`` is None if there is no second stage.
    """
    check_between("length_term", length_term, 0, np.inf, closed=True)
    if length_term and mode != "global":
        raise InputError(
            f"length_term={length_term:g}: only global scores have a length term",
            'order the hits by them: rerank, and mode="global" (--rerank 200 --mode global)',
        )


def best_of_all(
    queries: Sequence[ProteinRows],
    residues: StoredResidues,
    modality: Modality,
    entries: SearchedEntries,
    count: int,
    mode: AlignMode,
    length_term: float = 0.0,
    device: torch.device | None = None,
) -> list[Int64]:
    """Compare queries with every entry, and return the candidates that ``rescored`` is to order.

    Parameters
    ----------
    queries : sequence of ProteinRows
        Their rows.
    residues : StoredResidues
        The rows of the entries. They are read once for 64 queries, some at a time.
    modality : "sequence" or "structure"
        The entries' modality.
    entries : SearchedEntries
        The entries.
    count, mode, length_term, device
        As for ``best_targets``.

    Returns
    -------
    list of (c,) int64
        Places in ``entries``: for each query those that can be among the best ``count``.

    Raises
    ------
    InputError
        The embeddings of an entry or a query are not finite.
    """
    best = []
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        best += best_targets(
            PackedRows.of(queries[first : first + _QUERIES_AT_ONCE]),
            residues.blocks(modality, entries, mode),
            count,
            mode,
            residues.stage.calibration,
            length_term=length_term,
            device=device,
        )
    return best


def rescored(
    query: ProteinRows,
    residues: StoredResidues,
    modality: Modality,
    ids: Sequence[str],
    mode: AlignMode,
    length_term: float = 0.0,
    n_targets: int | None = None,
) -> tuple[list[int], list[int], TargetScores, Float32]:
    """Score a query's candidates by their residues, and order them.

    Rows are read and scored in blocks: memory does not grow with the candidates. In mode "local"
    the first hits back others, if the calibration has a background.

    Parameters
    ----------
    query : ProteinRows
        The query's rows.
    residues : StoredResidues
        The rows of the candidates.
    modality : "sequence" or "structure"
        The candidates' modality.
    ids : n of str
        The candidates.
    mode : "local" or "global"
        The score that orders them.
    length_term : float
        Nats that a global score loses for each residue by which the two lengths differ.
    n_targets : int, optional
        The entries that were searched. Default: the candidates.

    Returns
    -------
    scored : list of int
        The candidates that have rows; ``scores`` and ``of_mode`` are theirs, in this order.
    order : list of int
        Positions in ``scored``, best first; of equal ones the earlier candidate first.
    scores : TargetScores
        Without the length term; of mode "local" without the global scores.
    of_mode : (n,) float32
        The scores of the mode, in nats: global ones less the length term.

    Raises
    ------
    InputError
        The embeddings of a candidate are not finite.
    """
    lengths = residues.lengths(modality, ids)
    known = np.flatnonzero(lengths)
    if not len(known):
        empty = np.empty(0, np.float32)
        return [], [], TargetScores(empty, empty, None), empty
    names = [ids[place] for place in known.tolist()]
    calibration = residues.stage.calibration
    if mode == "local":
        candidates = _Candidates(residues, modality, names, lengths[known])
        scores = local_in_blocks(query.local, lengths[known], candidates.read, calibration)
        background = None if calibration is None else calibration.background
        if scores.excess is not None and background is not None and len(names) > 1:
            of_all = len(ids) if n_targets is None else n_targets
            of_known = lengths[known]
            rows = candidates.again
            said = backing(query.local, scores.excess, of_known, rows, background, of_all)
            scores = replace(scores, backing=said)
        of_mode = scores.local
    else:
        scores = score_in_blocks(
            query,
            lengths[known],
            lambda places: residues.packed(modality, [names[place] for place in places.tolist()]),
            calibration,
        )
        assert scores.diagonal is not None
        of_mode = scores.diagonal
        if length_term:
            n_query = len(query.local)
            of_mode = less_length_term(of_mode, length_term, n_query, lengths[known])
    keys = scores.local_order if mode == "local" else of_mode.astype(np.float64)
    return known.tolist(), np.argsort(-keys, kind="stable").tolist(), scores, of_mode


def global_scores(
    query: ProteinRows, residues: StoredResidues, modality: Modality, ids: Sequence[str]
) -> Float32:
    """Return (n,) float32: the global scores of a query with entries that have the modality.

    Raise InputError if the embeddings of one are not finite.
    """
    found = np.empty(len(ids), np.float32)
    at_once = min(RESIDUES_AT_ONCE, PAIRS_AT_ONCE // max(1, len(query.diagonal)))
    for part in blocks(residues.lengths(modality, ids), at_once):
        step()
        targets = ProteinTargets(residues.packed(modality, list(ids[part])))
        [found[part]] = targets.global_scores(PackedRows.of([query]))
    return found


class _Candidates:
    """Rows of a query's candidates of some lengths for the local mode, kept if they are few."""

    def __init__(
        self, residues: StoredResidues, modality: Modality, ids: Sequence[str], lengths: Int64
    ) -> None:
        self._residues, self._modality, self._ids = residues, modality, ids
        self._keeps = int(lengths.sum()) <= _KEPT
        self._kept: dict[int, Float32] = {}

    def read(self, places: Int64) -> Ragged:
        """Return the rows of some, at least one."""
        rows = self._residues.local(self._modality, [self._ids[place] for place in places.tolist()])
        if self._keeps:
            self._kept.update(zip(places.tolist(), rows, strict=True))
        return rows

    def again(self, places: Int64) -> Ragged:
        """Return the rows of some that were read before, at least one."""
        if self._keeps:
            return Ragged.pack([self._kept[place] for place in places.tolist()])
        return self.read(places)
