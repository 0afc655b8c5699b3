"""How a file is turned into entries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from protalign.core.errors import InputError

Per = Literal["protein", "chain"]
SequenceSource = Literal["observed", "deposited"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of reading; raises InputError for a value that is none of those below.

    Attributes
    ----------
    per : "protein": a file's unique chains, in order, are one entry. "chain": each chain is one,
        with the id ``{file's id}_{chain}``.
    sequence : "observed": the residues that are in the coordinates. "deposited": the whole
        SEQRES or entity sequence; residues that were not observed have no coordinates.
    min_plddt : residues of predicted structures with a lower pLDDT (0 to 100) count as not
        observed; None keeps all. See ``protalign.reading.predicted``.
    """

    per: Per = "protein"
    sequence: SequenceSource = "observed"
    min_plddt: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("per", get_args(Per)), ("sequence", get_args(SequenceSource))):
            value = getattr(self, name)
            if value not in allowed:
                choices = " or ".join(map(repr, allowed))
                raise InputError(f"{name}={value!r} is not known", f"use {choices}")
        limit = self.min_plddt
        if limit is not None and not (math.isfinite(limit) and 0 <= limit <= 100):
            raise InputError(f"min_plddt={limit!r} is no pLDDT", "use a number from 0 to 100")
