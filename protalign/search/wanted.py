"""What is asked of a search, and what it cannot give: refused by name, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protalign.core.errors import InputError
from protalign.search.comparison import Comparison, HitFilters
from protalign.search.hit_columns import COLUMNS, OF_RESIDUES, Need
from protalign.search.queries import Queries
from protalign.search.residue_rows import has_coordinates
from protalign.stores import EmbeddingStore

_OF_FILTERS: Mapping[str, Need] = {
    "max_evalue": "calibration",
    "min_prob": "calibration",
    "min_score": "residues",
    "min_cov": "alignment",
    "min_tm": "coordinates",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a search beside its hits.

    Attributes
    ----------
    columns : tuple of str
        Columns that are to be written.
    filters : HitFilters
        What the hits must have.
    superpose : bool
        Whether the hits are to be superposed on their queries.
    tm_score : bool
        Whether their TM-scores are to be printed.
    """

    columns: tuple[str, ...] = ()
    filters: HitFilters = field(default_factory=HitFilters)
    superpose: bool = False
    tm_score: bool = False

    def that_need(self, *needs: Need) -> list[str]:
        """Return the columns and the filters that have one of these needs.

        Examples
        --------
        >>> Wanted(("query", "u"), HitFilters(min_tm=0.5)).that_need("coordinates")
        ['u', 'min_tm']
        """
        names = [name for name in self.columns if COLUMNS[name].need in needs]
        names += [name for name in self.filters.names if _OF_FILTERS[name] in needs]
        if "coordinates" in needs:
            names += [name for name in ("superpose", "tm_score") if getattr(self, name)]
        return names

    def refuse(self, needs: Sequence[Need], reason: str, advice: str) -> None:
        """Raise InputError, with the names of what cannot be given, if anything needs these."""
        names = self.that_need(*needs)
        if names:
            raise InputError(f"{', '.join(names)}: {reason}", advice)


def check_given(columns: Sequence[str], comparison: Comparison) -> None:
    """Raise InputError if a search that has ended cannot give one of the columns."""
    wanted = Wanted(tuple(columns))
    if not comparison.has_residues:
        refuse_without_residues(wanted)
    elif not comparison.calibrated:
        refuse_uncalibrated(wanted)
    if comparison.store is None:
        wanted.refuse(
            ["coordinates"],
            "the search did not open the store",
            "give these columns to the search, which then opens it",
        )


def refuse_without_residues(wanted: Wanted) -> None:
    """Raise InputError if anything needs the residues' second stage, which is not asked for."""
    wanted.refuse(
        OF_RESIDUES,
        "only a search that compares residues gives this",
        "compare them (--rerank 200), or leave it out",
    )


def refuse_uncalibrated(wanted: Wanted) -> None:
    """Raise InputError if anything needs a calibration, which the model does not have."""
    wanted.refuse(
        ["calibration"],
        "the model's residue stage is not calibrated",
        "fit it on more proteins of different families, or leave it out",
    )


def refuse_without_coordinates(wanted: Wanted) -> None:
    """Raise InputError if anything needs coordinates, which no query has."""
    wanted.refuse(
        ["coordinates"],
        "the queries have no coordinates",
        "search with structure files or ids, or leave it out",
    )


def refuse_unknown(wanted: Wanted, queries: Queries, store: EmbeddingStore | None) -> None:
    """Raise InputError if something is wanted that no query, or no entry, can have."""
    if not len(queries):
        return
    if wanted.that_need("alignment") and all(each is None for each in queries.proteins):
        wanted.refuse(
            ["alignment"],
            "the queries' letters are unknown",
            "search with files, sequences or ids, or leave it out",
        )
    if not wanted.that_need("coordinates"):
        return
    if not any(map(has_coordinates, queries.proteins)):
        refuse_without_coordinates(wanted)
    if store is not None and not store.has_structure.any():
        wanted.refuse(["coordinates"], f"{store.path}: it has no structures", "leave it out")
