"""Options of turning a file into entries."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import get_args

from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.printing import one_line
from protalign.core.words import Per, SequenceSource

_ASSEMBLY = re.compile(r"[A-Za-z0-9_.+-]{1,20}")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of reading; raises InputError for values other than those below.

    Attributes
    ----------
    per : "protein" or "chain"
        "protein": a file's unique chains, in order, are one entry. "chain": each chain is one,
        with the id ``{file's id}_{chain}``.
    sequence : "observed" or "deposited"
        "observed": the residues that are in the coordinates. "deposited": the whole SEQRES or
        entity sequence; residues that were not observed have no coordinates.
    min_plddt : float or None
        Residues of predicted structures with a lower pLDDT (0 to 100) count as not observed; None
        keeps all. See ``protalign.reading.predicted``.
    assembly : str or None
        The name of a biological assembly, such as "1": it is built with the operators in the
        structure file, and takes the place of the file's own chains. None takes these. FASTA
        records are read as they are. See ``protalign.reading.assemblies``.

    Examples
    --------
    >>> ReadOptions(per="chain", min_plddt=70)
    ReadOptions(per='chain', sequence='observed', min_plddt=70, assembly=None)
    """

    per: Per = "protein"
    sequence: SequenceSource = "observed"
    min_plddt: float | None = None
    assembly: str | None = None

    def __post_init__(self) -> None:
        check_choice("per", self.per, get_args(Per))
        check_choice("sequence", self.sequence, get_args(SequenceSource))
        limit = self.min_plddt
        if limit is not None and not (math.isfinite(limit) and 0 <= limit <= 100):
            raise InputError(f"min_plddt={limit!r}: not a pLDDT", "give a number from 0 to 100")
        name: object = self.assembly
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
            object.__setattr__(self, "assembly", name)
        if name is not None and not (isinstance(name, str) and _ASSEMBLY.fullmatch(name)):
            raise InputError(
                f"assembly={one_line(name, 40)!r}: not the name of an assembly",
                'give one as in the files, such as "1"',
            )
