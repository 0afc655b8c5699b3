"""Hits aligned with their queries and superposed on them, when that is wanted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from protalign.core.checks import check_between
from protalign.core.errors import InputError
from protalign.core.protein import Protein
from protalign.core.steps import step
from protalign.core.words import AlignMode
from protalign.residues.alignment import check_memory
from protalign.residues.chains import align_rows
from protalign.search.alignments import NamedAlignment
from protalign.search.hit import Hit
from protalign.search.queries import Queries
from protalign.search.rerank import StoredResidues
from protalign.search.residue_rows import ResidueRows, StoredProtein, positions
from protalign.search.superposition import Superposition, backbone_of, superimpose
from protalign.stores import EmbeddingStore

#: Alignments, superpositions and queries that are kept, at most: some 10 kB each.
KEPT = 10_000


@dataclass(frozen=True, slots=True)
class HitFilters:
    """The least that a hit must have to be given; None asks for nothing.

    Attributes
    ----------
    max_evalue : float or None
        The highest E-value.
    min_prob : float or None
        The lowest probability of a common fold, 0 to 1 (``Hit.probability``).
    min_score : float or None
        The lowest score of the search's mode (``Hit.score``), in nats.
    min_cov : float or None
        The least share, 0 to 1, of the query and of the entry between the first and the last
        aligned residue. Both must have it.
    min_tm : float or None
        The lowest TM-score, normalised by the query's length.

    Examples
    --------
    >>> HitFilters(max_evalue=0.001).names
    ('max_evalue',)
    """

    max_evalue: float | None = None
    min_prob: float | None = None
    min_score: float | None = None
    min_cov: float | None = None
    min_tm: float | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_evalue", 0, math.inf),
            ("min_prob", 0, 1),
            ("min_score", -math.inf, math.inf),
            ("min_cov", 0, 1),
            ("min_tm", 0, 1),
        ):
            if getattr(self, name) is not None:
                check_between(name, getattr(self, name), low, high, closed=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The filters that ask for something."""
        every = ("max_evalue", "min_prob", "min_score", "min_cov", "min_tm")
        return tuple(name for name in every if getattr(self, name) is not None)


class Comparison:
    """What compares the hits of a search with its queries, residue by residue.

    An alignment or a superposition is made when it is asked for. The last ``KEPT`` are kept.

    Parameters
    ----------
    queries : Queries
        The queries.
    store : EmbeddingStore or None
        The store of the entries; None if the search did not need it.
    residues : StoredResidues or None
        The entries' residue rows; None if there was no second stage.
    mode : "local" or "global"
        The alignments to make.
    length_term : float
        The length term of the order, in nats for each residue.
    """

    def __init__(
        self,
        queries: Queries,
        store: EmbeddingStore | None,
        residues: StoredResidues | None,
        mode: AlignMode,
        length_term: float = 0.0,
    ) -> None:
        self.queries, self.store = queries, store
        self.mode, self.length_term = mode, length_term
        self._residues = residues
        self._proteins: dict[int, Protein | None] = {}
        self._alignments: dict[tuple[int, str], NamedAlignment | None] = {}
        self._superpositions: dict[tuple[int, str], Superposition | None] = {}

    @property
    def has_residues(self) -> bool:
        """Whether the search had a second stage."""
        return self._residues is not None

    @property
    def calibrated(self) -> bool:
        """Whether it gave E-values."""
        return self._residues is not None and self._residues.stage.calibration is not None

    @property
    def _backs(self) -> bool:
        """Whether first hits back others."""
        calibration = None if self._residues is None else self._residues.stage.calibration
        return calibration is not None and calibration.background is not None

    @property
    def order(self) -> str:
        """What the hits are ordered by, in words."""
        if not self.has_residues:
            return "the cosine of the vectors"
        if self.mode == "local":
            words = "the best local alignment of the residues (mode local)"
            probable = f"the probability of a common fold: {words}"
            if not self.calibrated:
                return words
            return f"{probable} and the backing of first hits" if self._backs else probable
        less = f", less {self.length_term:g} nats for each residue by which the lengths differ"
        words = "the best diagonal of the residues (mode global)"
        return words + less if self.length_term else words

    def query(self, query: int) -> Protein | None:
        """Return a query's protein; None if it is unknown."""
        if query not in self._proteins:
            known = self.queries.proteins[query]
            protein = known.read() if isinstance(known, StoredProtein) else known
            _keep(self._proteins, query, protein)
        return self._proteins[query]

    def entry(self, entry_id: str) -> Protein | None:
        """Return an entry's protein; None if the store is not open, or does not have it."""
        return None if self.store is None else StoredProtein(self.store, entry_id).read()

    def digest(self, query: int) -> bytes:
        """Return the SHA-256 of the file whose atoms are a query's; empty if there is none."""
        known = self.queries.proteins[query]
        if isinstance(known, StoredProtein):
            return _digest(known.store, known.id)
        return b"" if known is None else self.queries.digests.get(known.source, b"")

    def entry_digest(self, entry_id: str) -> bytes:
        """Return the SHA-256 of the file whose atoms are an entry's; empty if there is none."""
        return b"" if self.store is None else _digest(self.store, entry_id)

    def alignment(self, query: int, hit: Hit) -> NamedAlignment | None:
        """Return a hit's alignment with its query, in positions of the two whole sequences.

        All chains of a protein count as one, in their order, but diagonals are those of chains
        (``protalign.residues.chains``). Residues that a structure has no row of are in the sequence
        and are not aligned.

        Returns
        -------
        NamedAlignment or None
            None if the residues of one of the two are unknown, if nothing is aligned, or if they
            are too long for the memory.
        """
        key = query, hit.id
        if key not in self._alignments:
            step()
            _keep(self._alignments, key, self._aligned(query, hit))
        return self._alignments[key]

    def _aligned(self, query: int, hit: Hit) -> NamedAlignment | None:
        rows = self.queries.residues[query]
        if self._residues is None or rows is None or hit.local_score is None:
            return None
        asking, target = self.query(query), self.entry(hit.id)
        (found,) = self._residues.rows(hit.against, [hit.id])
        if asking is None or target is None or found is None:
            return None
        try:
            check_memory(asking.id, target.id, len(rows.local), len(found.local), self.mode)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
            return None
        alignment = align_rows(rows, found, self.mode)
        if not len(alignment):
            return None
        sides = (
            (asking, self.queries.modality[query], alignment.query_rows),
            (target, hit.against, alignment.target_rows),
        )
        places = [positions(protein.chains, modality)[rows] for protein, modality, rows in sides]
        return NamedAlignment(
            whole_sequence(asking),
            whole_sequence(target),
            replace(
                alignment,
                query_rows=places[0],
                target_rows=places[1],
                query_length=len(asking),
                target_length=len(target),
            ),
        )

    def superposition(self, query: int, hit: Hit) -> Superposition | None:
        """Return a hit's superposition on its query; None if one of them has no coordinates."""
        key = query, hit.id
        if key not in self._superpositions:
            step()
            asking, target = self.query(query), self.entry(hit.id)
            found = None
            if asking is not None and target is not None:
                found = superimpose(backbone_of(asking.chains), backbone_of(target.chains))
            if found is not None and math.isnan(found.score):
                found = None
            _keep(self._superpositions, key, found)
        return self._superpositions[key]

    def tm_score(self, query: int, hit: Hit) -> float | None:
        """Return the TM-score by the query's length; None if one of them has no coordinates."""
        found = self.superposition(query, hit)
        return None if found is None else found.score

    def best(self, query: int, hits: Sequence[Hit], k: int, filters: HitFilters) -> list[Hit]:
        """Return the first k hits of a query that pass the filters, ranked again from 1.

        They are tried in their order, and the filters that cost most come last.
        """
        kept: list[Hit] = []
        for hit in hits:
            if len(kept) == k:
                break
            if self._passes(query, hit, filters):
                kept.append(replace(hit, rank=len(kept) + 1))
        return kept

    def _passes(self, query: int, hit: Hit, filters: HitFilters) -> bool:
        """Return whether a hit passes; a number that is unknown does not."""
        if filters.max_evalue is not None and not (
            hit.evalue is not None and hit.evalue <= filters.max_evalue
        ):
            return False
        if filters.min_prob is not None and not (
            hit.probability is not None and hit.probability >= filters.min_prob
        ):
            return False
        if filters.min_score is not None and not (
            hit.score is not None and hit.score >= filters.min_score
        ):
            return False
        if filters.min_cov is not None:
            alignment = self.alignment(query, hit)
            if alignment is None or filters.min_cov > min(
                alignment.alignment.query_coverage, alignment.alignment.target_coverage
            ):
                return False
        if filters.min_tm is not None:
            tm_score = self.tm_score(query, hit)
            if tm_score is None or tm_score < filters.min_tm:
                return False
        return True


def _digest(store: EmbeddingStore, entry_id: str) -> bytes:
    """Return the SHA-256 of an entry's file; empty if its atoms lie elsewhere in an assembly."""
    in_assembly = store.options.get("assembly") is not None
    return b"" if in_assembly else store.source_sha256(entry_id)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep a value, in place of the oldest one if there are many."""
    if len(kept) >= KEPT:
        del kept[next(iter(kept))]
    kept[key] = value


def whole_sequence(protein: Protein) -> ResidueRows:
    """Return the names of all residues of a protein's sequences, without embeddings."""
    nothing = np.empty((len(protein), 0), dtype=np.float32)
    return ResidueRows.of(protein.id, "sequence", protein.chains, nothing)
