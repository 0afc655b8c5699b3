"""One hit: an entry that was found for a query, and its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from protalign.core.protein import Modality


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that was found for a query.

    Attributes
    ----------
    query : str
        The query's id.
    rank : int
        1 for the nearest entry.
    id : str
        The entry's id.
    cosine : float
        Cosine of the two vectors, -1 to 1.
    length : int or None
        The entry's residues; None if unknown.
    against : "sequence" or "structure"
        The entry's vector that was compared.
    tm_score : float or None
        TM-score of the entry superposed on the query, normalised by the query's length; None if it
        was not asked for, or if coordinates are missing.
    local_score : float or None
        Score of the best local alignment of the residues, in nats; with ``rerank`` only.
    evalue : float or None
        Hits of this local score that chance gives in a search of this size; None if the model's
        residue stage is not calibrated.
    backing : float or None
        What the first hits add for this one, since they are like it, in nats: 0 to 10. It counts
        for the order and for ``probability``, not for ``evalue``. None with mode "global", for one
        entry alone, and if the model keeps no background.
    probability : float or None
        Probability that the two share a fold, by the local score and the backing; None as for
        ``evalue``.
    global_score : float or None
        Sum of the residues' log-likelihood ratios on the best diagonal, or on those of several
        chains in order, in nats: high for the query's own partner, and for near-identical
        proteins. What ``align --mode global`` reports as the score of the whole, without a length
        term. With ``rerank`` only.
    bits : float or None
        How rare the local score is by chance: the E-value is the entries searched times 2^-bits.
        None as for ``evalue``.
    score : float or None
        The score of the search's mode, in nats: ``local_score``, or in mode "global"
        ``global_score`` less the length term, which then orders the hits. With ``rerank`` only.
    description, organism, accession : str or None
        The entry's name, its organism and its accession, as its file had them; None if unknown.
    taxid : int or None
        The organism's number in NCBI's taxonomy; None if unknown.

    Examples
    --------
    >>> hit = Hit("1a30", 1, "3ebp", cosine=0.81, length=842, against="structure")
    >>> hit.as_dict()["id"]
    '3ebp'
    """

    query: str
    rank: int
    id: str
    cosine: float
    length: int | None
    against: Modality
    tm_score: float | None = None
    local_score: float | None = None
    evalue: float | None = None
    backing: float | None = None
    probability: float | None = None
    global_score: float | None = None
    bits: float | None = None
    score: float | None = None
    description: str | None = None
    organism: str | None = None
    taxid: int | None = None
    accession: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)
