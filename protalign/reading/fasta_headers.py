"""Names, organisms and accessions in the headers of FASTA records."""

from __future__ import annotations

import re

from protalign.core.annotation import Annotation

#: Most letters of a header that are looked at.
_MOST = 4000
#: UniProt's words behind the name, and UniRef's.
_UNIPROT = re.compile(r"\b(OS|OX|GN|PE|SV|UA|UI)=")
_UNIREF = re.compile(r"\b(n|Tax|TaxID|RepID)=")
_UNIREF_ID = re.compile(r"UniRef\d+_(\S+)")
#: ``1ABC_1|Chains A, B|name|Homo sapiens (9606)``, as the RCSB PDB writes it.
_RCSB = re.compile(r"((?:pdb_)?\w{4,})_\d+\|Chains? [^|]*\|(.*)\|([^|]*)")
_TAXON = re.compile(r"\s*\((\d+)\)")
#: ``101m_A mol:protein length:154  MYOGLOBIN``, as in the wwPDB's pdb_seqres.txt.
_SEQRES = re.compile(r"mol:\S+\s+length:\d+\s*(.*)")
#: NCBI's databases with the accession right behind them, as in ``ref|NP_000198.1|``.
_DATABASES = frozenset(("sp", "tr", "ref", "gb", "emb", "dbj", "tpg", "tpe", "tpd", "pdb"))
#: Those with an empty field between: ``pir||A25554``.
_WITH_A_GAP = frozenset(("pir", "prf"))
#: Accessions that stand alone: UniProt's, AlphaFold DB's, RefSeq's, GenBank's.
_ALONE = (
    re.compile(r"((?:[OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z\d]{2}\d){1,2})(?:-\d+)?)"),
    re.compile(r"(?:AFDB:)?AF-([A-Z\d]+)-F\d+\S*"),
    re.compile(r"([ANWXY]P_\d+(?:\.\d+)?)"),
    re.compile(r"([A-Z]{3}\d{5}(?:\d{2})?\.\d+)"),
)


def header_annotation(header: str) -> Annotation:
    """Return what a FASTA header says about its protein.

    Known are the headers of UniProt, UniRef, AlphaFold DB, NCBI and the PDB. In any other header
    all that follows the first word is the description.

    Parameters
    ----------
    header : str
        Without the ">".

    Examples
    --------
    >>> header_annotation("sp|P01308|INS_HUMAN Insulin OS=Homo sapiens OX=9606 GN=INS PE=1 SV=1")
    Annotation(description='Insulin', organism='Homo sapiens', taxid=9606, accession='P01308')
    >>> header_annotation("NP_000198.1 insulin preproprotein [Homo sapiens]").organism
    'Homo sapiens'
    """
    header = header[:_MOST].partition("\x01")[0].strip()  # NCBI's nr: the first of several
    if "|Chain" in header and (rcsb := _RCSB.fullmatch(header)):
        organisms = [part.strip(" ,") for part in _TAXON.split(rcsb[3])]
        return Annotation.of(rcsb[2], organisms[::2], organisms[1::2], rcsb[1])
    word, text = (*header.split(maxsplit=1), "", "")[:2]
    if text.startswith("mol:") and (seqres := _SEQRES.fullmatch(text)):
        return Annotation.of(seqres[1], accession=word.partition("_")[0])
    if word.startswith("UniRef") and (uniref := _UNIREF_ID.fullmatch(word)):
        name, values = _keyed(text, _UNIREF)
        return Annotation.of(name, values.get("Tax", ""), values.get("TaxID", ""), uniref[1])
    accession = _accession(word)
    name, values = _keyed(text, _UNIPROT)
    if "OS" in values or "OX" in values or "UA" in values:
        accession = values.get("UA", accession)
        return Annotation.of(name, values.get("OS", ""), values.get("OX", ""), accession)
    if accession:
        text, organism = _in_brackets(text)
        return Annotation.of(text, organism, accession=accession)
    return Annotation.of(text)


def _keyed(text: str, keys: re.Pattern[str]) -> tuple[str, dict[str, str]]:
    """Return the text before the first KEY=, and the value of each key."""
    first, *rest = keys.split(text)
    return first.strip(), dict(zip(rest[::2], (value.strip() for value in rest[1::2]), strict=True))


def _accession(word: str) -> str:
    """Return the accession in a header's first word, "" if it has none that is known."""
    parts = word.split("|")
    if parts[0] == "gi" and len(parts) > 3:
        parts = parts[2:]
    if len(parts) > 1 and parts[0] in _DATABASES:
        return parts[1]
    if len(parts) > 2 and parts[0] in _WITH_A_GAP:
        return parts[2]
    matches = (pattern.fullmatch(word) for pattern in _ALONE)
    return next((match[1] for match in matches if match), "")


def _in_brackets(text: str) -> tuple[str, str]:
    """Return NCBI's name and the organism, which stands behind it in brackets.

    Names of organisms may have brackets too. Other facts, as in [gene=INS], are passed over.
    """
    organism = ""
    while text.endswith("]"):
        depth = 0
        for begin in range(len(text) - 1, -1, -1):
            depth += (text[begin] == "]") - (text[begin] == "[")
            if depth == 0:
                break
        else:
            break
        inside = text[begin + 1 : -1].strip()
        key, equals, value = inside.partition("=")
        if equals and key.isidentifier():
            organism = value if key == "organism" else organism
        elif organism:
            break
        else:
            organism = inside
        text = text[:begin].strip()
    return text, organism
