"""Recognition of predicted structures, and the limit on their pLDDT.

B-factors are pLDDT only if a structure was predicted. Most files declare it (mmCIF:
``_ma_qa_metric``, ``_exptl``; PDB: EXPDTA, the predictor's name). If a file declares nothing, as
predictors' own bare PDB files do, numbers that look like pLDDT (0 to 100, the same for all
atoms of a residue, not the same everywhere) are taken for it. An experimental structure is kept
whole, with a note. A structure that is neither is refused.
"""

from __future__ import annotations

import re
from typing import Literal

import gemmi
import numpy as np

from protalign.core.arrays import Bool
from protalign.core.errors import InputError
from protalign.reading.residues import Residues

Origin = Literal["predicted", "experimental", "unknown"]

_PREDICTORS = re.compile(r"alphafold|esmfold|colabfold|openfold|rosettafold|plddt", re.IGNORECASE)
_MODEL_METHODS = ("THEORETICAL", "COMPUTATIONAL", "IN SILICO", "PREDICTED")
KEPT_WHOLE = "experimental structure: min_plddt not applied"


def pdb_origin(header: str) -> Origin:
    """Return the origin by the lines before a PDB file's first atom."""
    methods = [line[10:] for line in header.splitlines() if line.startswith("EXPDTA")]
    if methods:
        return _origin_of(methods)
    return "predicted" if _PREDICTORS.search(header) else "unknown"


def mmcif_origin(block: gemmi.cif.Block) -> Origin:
    """Return the origin by an mmCIF block."""
    if any("plddt" in metric.lower() for metric in block.find_values("_ma_qa_metric.name")):
        return "predicted"
    methods = [gemmi.cif.as_string(value) for value in block.find_values("_exptl.method")]
    methods = [method for method in methods if method]
    return _origin_of(methods) if methods else "unknown"


def _origin_of(methods: list[str]) -> Origin:
    text = " ".join(methods).upper()
    return "predicted" if any(word in text for word in _MODEL_METHODS) else "experimental"


def observed_mask(residues: Residues, origin: Origin, min_plddt: float) -> Bool | None:
    """Return (n,) bool, residues at or above ``min_plddt``; None for an experimental structure.

    A residue without a CA has no pLDDT and counts as below. pLDDT given as 0 to 1 is read as
    0 to 100. Raises InputError if the B-factors may not be pLDDT, or if none is above the limit.
    """
    if origin == "experimental":
        return None
    if origin == "unknown" and not _looks_like_plddt(residues):
        raise InputError(
            "min_plddt is set, but the file does not declare a predicted structure",
            "read it without min_plddt",
        )
    plddt = residues.b_factors
    highest = np.nanmax(plddt, initial=0)
    if not 0 < highest <= 100 or np.nanmin(plddt, initial=0) < 0:
        raise InputError(
            "min_plddt is set, but the B-factors are not pLDDT (0 to 100)",
            "read it without min_plddt",
        )
    scale = 100 if highest <= 1 else 1
    with np.errstate(invalid="ignore"):
        mask: Bool = plddt * scale >= min_plddt
    if not mask.any():
        raise InputError(
            f"no residue has a pLDDT of {min_plddt:g} or more", "lower min_plddt, or leave it out"
        )
    return mask


def _looks_like_plddt(residues: Residues) -> bool:
    b_factors = residues.b_factors
    differ = np.nanmin(b_factors, initial=np.inf) < np.nanmax(b_factors, initial=-np.inf)
    return bool(differ and residues.same_b_factor.all())
