"""Facts that a file states about a protein beside its sequence: name, organism, accession."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from protalign.core.printing import one_line

#: Most letters of a text; the rest is cut off.
MOST_LETTERS = 500
#: Largest number of a taxon: it is kept in 32 bits.
MOST_TAXID = 2**31 - 1
#: Stands between several values of one kind.
BETWEEN = "; "
#: Values that files write for "unknown".
_MISSING = frozenset(("", "?", ".", "-"))


@dataclass(frozen=True, slots=True)
class Annotation:
    """Facts about a protein, as its file has them; None if unknown.

    They decide no embedding, and are part of no id and no content hash.

    Attributes
    ----------
    description : str or None
        The protein's name, or the title of its entry.
    organism : str or None
        The organism's scientific name.
    taxid : int or None
        Its number in NCBI's taxonomy.
    accession : str or None
        The accession in the database that the file names, such as UniProt.

    Examples
    --------
    >>> Annotation("Insulin", "Homo sapiens", 9606, "P01308").taxid
    9606
    >>> bool(Annotation())
    False
    """

    description: str | None = None
    organism: str | None = None
    taxid: int | None = None
    accession: str | None = None

    def __bool__(self) -> bool:
        return self != _UNKNOWN

    @classmethod
    def of(
        cls,
        description: str | Iterable[str] = "",
        organism: str | Iterable[str] = "",
        taxid: str | Iterable[str] = "",
        accession: str | Iterable[str] = "",
    ) -> Annotation:
        r"""Return the annotation in a file's texts, which may hold anything.

        Texts become one line of at most 500 printable letters. Several different ones are joined
        by "; ". A protein of several taxa has no taxid.

        Parameters
        ----------
        description, organism, taxid, accession : str or iterable of str
            One text or several; "", "?", "." and "-" are unknown.

        Examples
        --------
        >>> Annotation.of("Insulin\n  A chain", ["Homo sapiens", "?"], "9606").organism
        'Homo sapiens'
        >>> Annotation.of("Complex", taxid=["9606", "10090"]).taxid is None
        True
        """
        taxids = {int(text) for text in _clean(taxid) if text.isascii() and text.isdigit()}
        taxids = {number for number in taxids if 0 < number <= MOST_TAXID}
        return cls(
            _joined(description),
            _joined(organism),
            taxids.pop() if len(taxids) == 1 else None,
            _joined(accession),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)


_UNKNOWN = Annotation()


def _clean(texts: str | Iterable[str]) -> list[str]:
    """Return the different texts that say something, each on one line."""
    if isinstance(texts, str):  # as in most headers, of which there are many
        line = one_line(texts, MOST_LETTERS) if texts else ""
        return [] if line in _MISSING else [line]
    lines = dict.fromkeys(one_line(text, MOST_LETTERS) for text in texts)
    return [line for line in lines if line not in _MISSING]


def _joined(texts: str | Iterable[str]) -> str | None:
    return BETWEEN.join(_clean(texts))[:MOST_LETTERS] or None
