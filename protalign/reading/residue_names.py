"""Names of amino-acid residues: the archive's, and those of force fields and protonation states.

Programs for molecular dynamics rename a residue after its protonation (HIE, ASH), its bonds (CYX,
CYM at a metal) or its place at a chain's end (NMET, CALA). Such a residue is still its parent
amino acid, so its letter is the parent's.
"""

from __future__ import annotations

from functools import lru_cache

import gemmi

_STANDARD = {
    "ALA": "A",
    "ARG": "R",
    "ASN": "N",
    "ASP": "D",
    "CYS": "C",
    "GLN": "Q",
    "GLU": "E",
    "GLY": "G",
    "HIS": "H",
    "ILE": "I",
    "LEU": "L",
    "LYS": "K",
    "MET": "M",
    "PHE": "F",
    "PRO": "P",
    "SER": "S",
    "THR": "T",
    "TRP": "W",
    "TYR": "Y",
    "VAL": "V",
}
#: Parent -> its other names in AMBER and its GROMACS port, CHARMM, GROMOS, OPLS, Maestro, Tinker,
#: Rosetta, PDB2PQR, GLYCAM and CHARMM-GUI.
_FORMS = {
    "HIS": "HID HIE HIP HIH HIN HSD HSE HSP HSC HISA HISB HISC HISD HISE HISH HISP HISN HIS1 HIS2 "
    "HD1 HE1 H1D H1E H2D H2E",
    "CYS": "CYX CYM CYN CYD CYT CYZ CYSH CYSX CYSM CYSD CYSN CYSZ CYS1 CYS2 CYSP CYSF CYSG CYX1 "
    "CYX2 CYM1 CYM2 CY1 CM1",
    "ASP": "ASH AS4 ASPH ASPP ASPM ASPD ASP1 AP1",
    "GLU": "GLH GL4 GLUH GLUP GLUM GLUD GLU1 GU1",
    "LYS": "LYN LYP LYD LSN LYSH LYSP LYSN LYSM LYS1 LYSD",
    "ARG": "ARN AR0 ARGN ARGP",
    "TYR": "TYM TYO TYD TYRM TYRN TYRD TYRP Y1P Y2P",
    "SER": "SEM SRO SERD SERP S1P S2P SP1 SP2 OLS",
    "THR": "THO THRD THRP T1P T2P TP1 TP2 OLT",
    "ASN": "ASN1 NLN",
    "PRO": "OLP",
    "GLY": "GLYM",
}
#: Groups that close a chain's end: not residues, whatever their atoms are called.
CAPS = frozenset(["ACE", "FOR", "NAC", "NH2", "NHE", "NMA", "NME", "CT1", "CT2", "CT3"])


def _parents() -> dict[str, str]:
    """Return name -> parent's name for every form that is not the archive's own name."""
    parents = {name: parent for parent, names in _FORMS.items() for name in names.split()}
    short = [*_STANDARD, *(name for name in parents if len(name) == 3)]
    for name in short:
        for prefix in "NC":  # AMBER: the residue at either end of a chain
            parents.setdefault(prefix + name, parents.get(name, name))
    for name in [*_STANDARD, "HSD", "HSE", "HSP"]:  # CHARMM: D-amino acids
        parents.setdefault("D" + name, parents.get(name, name))
    return parents


_PARENTS = _parents()


@lru_cache(maxsize=100_000)
def residue_letter(name: bytes | str) -> str:
    """Return the letter of an amino acid's standard parent, "" for any other molecule.

    A name that also is another molecule's in the archive (CYT is cytosine, and cysteine's
    thiolate) gives ""; see ``backbone_letter``.

    Examples
    --------
    >>> [residue_letter(name) for name in ("GLY", "MSE", "HIE", "NMET", "HOH")]
    ['G', 'M', 'H', 'M', '']
    """
    text = _text(name)
    info = gemmi.find_tabulated_residue(text)
    if info.is_amino_acid():
        return info.one_letter_code.strip().upper() or _form_letter(text) or "X"
    return "" if info.found() else _form_letter(text)


@lru_cache(maxsize=100_000)
def backbone_letter(name: bytes | str) -> str:
    """Return the letter of a residue that has N and CA: X if nothing is known, "" for a cap.

    Examples
    --------
    >>> [backbone_letter(name) for name in ("CYT", "QQQ", "NMA")]
    ['C', 'X', '']
    """
    text = _text(name)
    if text.upper() in CAPS:
        return ""
    return residue_letter(text) or _form_letter(text) or "X"


@lru_cache(maxsize=100_000)
def parent_name(name: str) -> str:
    """Return the archive's name of a residue that has another program's, else the name itself.

    Examples
    --------
    >>> parent_name("HSD"), parent_name("CALA"), parent_name("MSE")
    ('HIS', 'ALA', 'MSE')
    """
    if gemmi.find_tabulated_residue(name).is_amino_acid():
        return name
    return _PARENTS.get(name.upper(), name)


def is_form(name: str) -> bool:
    """Return whether the name is one that a program gives to a standard amino acid."""
    return name in _PARENTS


def _form_letter(name: str) -> str:
    name = name.upper()
    return _STANDARD.get(_PARENTS.get(name, name), "")


def _text(name: bytes | str) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name
