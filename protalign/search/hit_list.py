"""The hits of a search: a sequence of them, which writes its own files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from protalign.core.errors import Failure, InputError
from protalign.search.alignment_formats import M8_COLUMNS
from protalign.search.comparison import Comparison
from protalign.search.hit import Hit
from protalign.search.hit_columns import (
    HitTable,
    parse_columns,
    usual_columns,
    values,
)
from protalign.search.hit_files import form_of, write_table
from protalign.search.hit_view import hit_view
from protalign.search.placed_hits import PlacedHits, place_hits
from protalign.search.wanted import check_given

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Hits(Sequence[Hit]):
    """The hits of all queries: query by query, best first.

    Attributes
    ----------
    hits : tuple of Hit
        The hits. ``Hits`` itself is a sequence of them.
    failures : tuple of Failure
        Queries that could not be read.
    comparison : Comparison or None
        What aligns and superposes them; None for hits that no search gave.
    places : tuple of int
        The place of each hit's query among those of the search.
    columns : tuple of str
        The columns that were asked for; empty for those that are usual for a form.
    has_tm_scores : bool
        Whether the search was to give TM-scores.

    Examples
    --------
    >>> hits = Hits((Hit("1a30", 1, "3ebp", 0.81, 842, "structure"),))
    >>> len(hits), hits[0].cosine, hits.failures
    (1, 0.81, ())
    """

    hits: tuple[Hit, ...]
    failures: tuple[Failure, ...] = field(default=())
    comparison: Comparison | None = field(default=None, repr=False)
    places: tuple[int, ...] = field(default=(), repr=False)
    columns: tuple[str, ...] = ()
    has_tm_scores: bool = False

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def table(self, columns: str | Iterable[str] | None = None) -> HitTable:
        """Return the hits' values in some columns; docs/formats.md has them all.

        Residues are aligned and structures superposed now, if a column needs that.

        Parameters
        ----------
        columns : str or iterable of str, optional
            Names of columns, or text with commas; default: those of the search, else all that the
            search gave and that cost little.

        Raises
        ------
        InputError
            A name is unknown, or the search cannot give the column.
        """
        comparison = self._comparison("table")
        names = (
            parse_columns(columns)
            or self.columns
            or usual_columns(comparison, tm_score=self.has_tm_scores)
        )
        check_given(names, comparison)
        rows = tuple(
            values(hit, place, comparison, names)
            for hit, place in zip(self.hits, self.places, strict=True)
        )
        queries, counts = comparison.queries, Counter(self.places)
        return HitTable(
            names,
            rows,
            tuple(
                {
                    "id": queries.ids[place],
                    "length": queries.lengths[place],
                    "modality": queries.modality[place],
                    "hits": counts[place],
                }
                for place in range(len(queries))
            ),
            self.failures,
            comparison.order,
        )

    def view(self, index: int) -> dict[str, Any]:
        """Return all that a page shows of one hit: letters, pairs, superposition, backbones.

        Parameters
        ----------
        index : int
            The hit's place in this sequence.

        Returns
        -------
        dict
            The document "protalign hit" of docs/formats.md, as JSON values.

        Raises
        ------
        InputError
            These hits are of no search.
        """
        return hit_view(self._comparison("view"), self.places[index], self.hits[index])

    def to_pandas(self, columns: str | Iterable[str] | None = None) -> pd.DataFrame:
        """Return the hits as a DataFrame, a row each; ``columns`` as for ``table``."""
        import pandas as pd

        table = self.table(columns)
        return pd.DataFrame(list(table.rows), columns=list(table.columns))

    def _repr_html_(self) -> str | None:
        """Return the hits as a notebook shows them; None, for plain text, without pandas."""
        if self.comparison is None:
            return None
        try:
            shown: str = self.to_pandas()._repr_html_()
        except ImportError:
            return None
        return shown

    def write(
        self,
        path: str | os.PathLike[str],
        columns: str | Iterable[str] | None = None,
        *,
        header: bool = False,
    ) -> None:
        """Write the hits to a file, in the form that its suffix names.

        The file appears whole or not at all. The same hits give the same bytes.

        Parameters
        ----------
        path : str or path
            The file: .m8, .tsv, .csv, .json, .parquet or .html, or one of these and .gz.
        columns : str or iterable of str, optional
            As for ``table``; default for .m8: BLAST's twelve.
        header : bool
            Whether .m8 begins with the names of the columns; .tsv and .csv always do.

        Raises
        ------
        InputError
            No form has this suffix, a name is unknown, or the search cannot give the column.
        WriteError
            The file cannot be written.
        """
        usual = M8_COLUMNS if form_of(path) == "m8" else None
        table = self.table(columns or self.columns or usual)
        write_table(table, path, header=header, view=self.view)

    def superpose(self, folder: str | os.PathLike[str]) -> PlacedHits:
        """Write each hit's structure as it lies on its query, and scripts that open them.

        The folder appears whole or not at all; one that this wrote before is replaced. See
        docs/formats.md for the files.

        Parameters
        ----------
        folder : str or path
            The folder.

        Returns
        -------
        PlacedHits
            The files, and the hits that could not be placed.

        Raises
        ------
        InputError
            The search did not open the store, or no hit can be placed on its query.
        WriteError
            Something else is at the path, or it cannot be written.
        """
        comparison = self._comparison("superpose")
        if comparison.store is None:
            raise InputError(
                "superpose: the search did not open the store", "search with superpose=True"
            )
        return place_hits(list(zip(self.hits, self.places, strict=True)), comparison, folder)

    def _comparison(self, of: str) -> Comparison:
        if self.comparison is None:
            raise InputError(f"{of}: these hits are of no search", "take the hits of a search")
        return self.comparison
