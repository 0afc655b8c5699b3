"""Names, organisms and accessions in the headers of mmCIF, BinaryCIF and PDB files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import gemmi

from protalign.core.annotation import MOST_LETTERS, Annotation

#: Categories with an organism and its taxon for each entity: natural, expressed, synthetic.
_SOURCES = {
    "_entity_src_nat.": ("pdbx_organism_scientific", "pdbx_ncbi_taxonomy_id"),
    "_entity_src_gen.": ("pdbx_gene_src_scientific_name", "pdbx_gene_src_ncbi_taxonomy_id"),
    "_pdbx_entity_src_syn.": ("organism_scientific", "ncbi_taxonomy_id"),
}
#: Categories of predicted models: database, accession, organism and taxon of an entity.
_TARGETS = ("_ma_target_ref_db_details.", "_af_target_ref_db_details.")
_TARGET_COLUMNS = (
    *("target_entity_id", "?db_name", "db_accession"),
    *("?organism_scientific", "?ncbi_taxonomy_id"),
)
#: The columns that are read of each category: of BinaryCIF no others are decoded.
CIF_COLUMNS: dict[str, tuple[str, ...]] = {
    "struct": ("title",),
    "entity": ("id", "type", "pdbx_description"),
    "struct_ref": ("entity_id", "db_name", "pdbx_db_accession"),
    **{
        name.strip("._"): ("entity_id", organism, taxid)
        for name, (organism, taxid) in _SOURCES.items()
    },
    **{name.strip("._"): tuple(c.strip("?") for c in _TARGET_COLUMNS) for name in _TARGETS},
}
#: PDB's records, without those of each atom; and most of them that are looked at.
_PDB_RECORDS = re.compile(r"^(?:TITLE |COMPND|SOURCE|DBREF)[^\n]*", re.MULTILINE)
_MOST_RECORDS = 10_000
#: The entry's name and the record's number at a line's end, before 1996.
_OLD_LINE_END = re.compile(r"\d[0-9A-Z]{3} *\d+ *")
_UNIPROT = "UNP"
#: Most texts of one kind for one molecule.
_MOST_TEXTS = 100


@dataclass
class MoleculeFacts:
    """What a header says about one molecule: texts of each kind."""

    names: list[str] = field(default_factory=list)
    organisms: list[str] = field(default_factory=list)
    taxids: list[str] = field(default_factory=list)
    accessions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class HeaderFacts:
    """What a structure file's header says.

    Attributes
    ----------
    title : str
        The title of the entry; "" if it has none.
    molecules : mapping of str to MoleculeFacts
        By entity's id (mmCIF), or by the chain's letter (PDB).
    """

    title: str
    molecules: Mapping[str, MoleculeFacts]

    def annotation(self, molecules: Iterable[str]) -> Annotation:
        """Return the annotation of an entry with these molecules.

        The description is the molecules' names and the title; a name that is part of the title is
        not repeated.

        Examples
        --------
        >>> facts = HeaderFacts("Pig insulin", {"1": MoleculeFacts(["INSULIN"], ["Sus scrofa"])})
        >>> facts.annotation(["1", "1"])
        Annotation(description='Pig insulin', organism='Sus scrofa', taxid=None, accession=None)
        """
        present = (self.molecules.get(key) for key in dict.fromkeys(molecules))
        facts = list(islice((each for each in present if each is not None), _MOST_TEXTS))
        title = " ".join(self.title[: 2 * MOST_LETTERS].split())
        names = [" ".join(name.split()) for each in facts for name in each.names[:_MOST_TEXTS]]
        names = [name for name in names if name.casefold() not in title.casefold()]
        return Annotation.of(
            [*names, title],
            [text for each in facts for text in each.organisms[:_MOST_TEXTS]],
            [text for each in facts for text in each.taxids[:_MOST_TEXTS]],
            [text for each in facts for text in each.accessions[:_MOST_TEXTS]],
        )


def cif_facts(block: gemmi.cif.Block) -> HeaderFacts:
    """Return what an mmCIF block says about its entry and its entities."""
    molecules = {
        row.str(0): MoleculeFacts([_text(row, 1)])
        for row in block.find("_entity.", ["id", "?pdbx_description"])
    }
    for category, (organism, taxid) in _SOURCES.items():
        for row in block.find(category, ["entity_id", f"?{organism}", f"?{taxid}"]):
            of_entity = molecules.setdefault(row.str(0), MoleculeFacts())
            of_entity.organisms.append(_text(row, 1))
            of_entity.taxids.append(_text(row, 2))
    for row in block.find("_struct_ref.", ["entity_id", "db_name", "pdbx_db_accession"]):
        if row.str(1) == _UNIPROT:
            molecules.setdefault(row.str(0), MoleculeFacts()).accessions.append(_text(row, 2))
    for category in _TARGETS:
        for row in block.find(category, list(_TARGET_COLUMNS)):
            of_entity = molecules.setdefault(row.str(0), MoleculeFacts())
            if _text(row, 1) in (_UNIPROT, ""):
                of_entity.accessions.append(_text(row, 2))
            of_entity.organisms.append(_text(row, 3))
            of_entity.taxids.append(_text(row, 4))
    title = block.find_value("_struct.title")
    return HeaderFacts("" if title is None else gemmi.cif.as_string(title), molecules)


def _text(row: gemmi.cif.Table.Row, column: int) -> str:
    """Return a value without quotes; "" if it is missing, or its column is."""
    return row.str(column) if row.has(column) else ""


def pdb_facts(header: str) -> HeaderFacts:
    """Return what the lines before a PDB file's first atom say about its entry and its chains."""
    texts: dict[str, list[str]] = {"TITLE": [], "COMPND": [], "SOURCE": []}
    accessions: dict[str, list[str]] = {}
    for match in islice(_PDB_RECORDS.finditer(header), _MOST_RECORDS):
        line = match[0].ljust(80)
        record = line[:6].strip()
        if record in texts:
            end = 72 if _OLD_LINE_END.fullmatch(line[72:80]) else 80
            texts[record].append(line[10:end].strip())
        elif line[26:32].strip() == _UNIPROT and line[5] in " 1":
            accessions.setdefault(line[12].strip(), []).append(line[33:41].strip())
        elif line[5] == "2":  # the accession of the DBREF1 before it, if that is of UniProt
            known = accessions.get(line[12].strip(), [""])
            known[-1] = known[-1] or line[18:40].strip()
    compounds = _by_molecule(texts["COMPND"])
    sources = _by_molecule(texts["SOURCE"])
    molecules: dict[str, MoleculeFacts] = {}
    for number, compound in compounds.items():
        source = sources.get(number, {})
        for letter in _letters(compound.get("CHAIN", "")):
            molecules[letter] = MoleculeFacts(
                [compound.get("MOLECULE", "")],
                source.get("ORGANISM_SCIENTIFIC", "").split(", "),
                source.get("ORGANISM_TAXID", "").split(", "),
            )
    for letter, of_chain in accessions.items():
        molecules.setdefault(letter, MoleculeFacts()).accessions.extend(of_chain)
    # Before 1996 COMPND was the name alone, and there was no TITLE.
    title = texts["TITLE"] or ([] if compounds else texts["COMPND"])
    return HeaderFacts(" ".join(title), molecules)


def _by_molecule(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the values of COMPND or SOURCE by MOL_ID, then by their names."""
    current: dict[str, str] = {}
    molecules = {"": current}
    for part in " ".join(lines).split(";"):
        name, colon, value = part.partition(":")
        name, value = name.strip(), value.strip()
        if name == "MOL_ID":
            current = molecules.setdefault(value, {})
        elif colon:
            current.setdefault(name, value)
    return {number: values for number, values in molecules.items() if values}


def _letters(chains: str) -> Iterator[str]:
    for letter in chains.split(","):
        letter = letter.strip()
        yield "" if letter == "NULL" else letter  # a chain without a letter
