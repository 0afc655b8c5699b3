"""What is asked of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from protalign.core.checks import check_choice, check_whole
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import Against, AlignMode, Rerank
from protalign.search.comparison import HitFilters
from protalign.search.rerank import check_length_term
from protalign.search.wanted import Wanted, refuse_without_residues


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What is asked of a search; the parameters of ``protalign.search``, with its defaults.

    Attributes
    ----------
    k, against, query_by, rerank, mode, length_term, tm_score, superpose
        As for ``protalign.search``.
    filters : HitFilters
        What hits must have.
    columns : tuple of str
        Columns that are to be written; empty for the usual ones.

    Examples
    --------
    >>> SearchOptions(k=3, rerank=200).mode
    'local'
    """

    k: int = 5
    against: Against = "other"
    query_by: Modality | None = None
    rerank: Rerank = 0
    mode: AlignMode = "local"
    length_term: float = 0.0
    tm_score: bool = False
    filters: HitFilters = field(default_factory=HitFilters)
    columns: tuple[str, ...] = ()
    superpose: bool = False

    def __post_init__(self) -> None:
        check_choice("against", self.against, ("other", *MODALITIES))
        if self.query_by is not None:
            check_choice("query_by", self.query_by, MODALITIES)
        check_whole("k", self.k, 1)
        if isinstance(self.rerank, str):
            check_choice("rerank", self.rerank, ("all",))
        else:
            check_whole("rerank", self.rerank, 0)
        check_choice("mode", self.mode, get_args(AlignMode))

    @property
    def wanted(self) -> Wanted:
        """The columns, filters and superpositions that a search may be unable to give."""
        return Wanted(self.columns, self.filters, self.superpose, self.tm_score)

    def check(self, *, by_words: bool) -> None:
        """Raise InputError if a search by vectors, or by words, could never give what is asked."""
        by_residues = bool(self.rerank) or by_words
        check_length_term(self.length_term, self.mode if by_residues else None)
        if not by_residues:
            if self.mode == "global":
                raise InputError(
                    "mode='global': without a second stage vectors are compared, not residues",
                    "compare these (--rerank 200), or leave mode (--mode) out",
                )
            refuse_without_residues(self.wanted)
