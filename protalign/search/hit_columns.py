"""The columns of hits in files: Foldseek's and MMseqs2's names, what each needs, and its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from protalign.core.checks import did_you_mean
from protalign.core.errors import Failure, InputError
from protalign.core.printing import printable
from protalign.search.alignment_formats import aligned_letters, m8_values
from protalign.search.alignments import NamedAlignment
from protalign.search.comparison import Comparison
from protalign.search.hit import Hit
from protalign.search.residue_rows import ResidueRows

#: The name and the version of the schema of the JSON document (docs/formats.md).
SCHEMA, SCHEMA_VERSION = "protalign hits", 1
#: What a column needs: nothing, a second stage by residues, its calibration, the alignment of the
#: residues, or coordinates of both proteins.
Need = Literal["", "residues", "calibration", "alignment", "coordinates"]
#: What is in a cell: a text, a whole number, a number, numbers, or texts.
Kind = Literal["text", "whole", "number", "numbers", "texts"]
#: The needs that only a search with a second stage meets.
OF_RESIDUES: tuple[Need, ...] = ("residues", "calibration", "alignment")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of hits.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        What is in its cells.
    need : str
        What it needs.
    form : str
        How its numbers are written as text.
    meaning : str
        Its meaning in a few words.
    """

    name: str
    kind: Kind
    need: Need
    form: str
    meaning: str


_ALL = (
    Column("query", "text", "", "", "id of the query"),
    Column("target", "text", "", "", "id of the entry that was found"),
    Column("fident", "number", "alignment", ".3f", "share of columns with equal letters, 0 to 1"),
    Column("alnlen", "whole", "alignment", "", "columns of the alignment, gaps included"),
    Column("mismatch", "whole", "alignment", "", "aligned pairs of different letters"),
    Column("gapopen", "whole", "alignment", "", "gaps in the query and in the entry"),
    Column("qstart", "whole", "alignment", "", "first aligned residue of the query, from 1"),
    Column("qend", "whole", "alignment", "", "last aligned residue of the query"),
    Column("tstart", "whole", "alignment", "", "first aligned residue of the entry, from 1"),
    Column("tend", "whole", "alignment", "", "last aligned residue of the entry"),
    Column("evalue", "number", "calibration", ".3g", "hits as good that chance gives the search"),
    Column("bits", "number", "calibration", ".1f", "-log2 of the E-value for each entry searched"),
    Column("rank", "whole", "", "", "1 for the query's best hit"),
    Column("qlen", "whole", "", "", "residues of the query"),
    Column("tlen", "whole", "", "", "residues of the entry"),
    Column("qcov", "number", "alignment", ".3f", "share of the query from qstart to qend, 0 to 1"),
    Column("tcov", "number", "alignment", ".3f", "share of the entry from tstart to tend, 0 to 1"),
    Column("cosine", "number", "", ".4f", "cosine of the two vectors, -1 to 1"),
    Column("against", "text", "", "", "the entry's vector compared: sequence or structure"),
    Column("score", "number", "residues", ".1f", "score of the mode, less a length term, in nats"),
    Column(
        "local_score", "number", "residues", ".1f", "score of the best local alignment, in nats"
    ),
    Column("global_score", "number", "residues", ".1f", "score of the best diagonal, in nats"),
    Column(
        "mode",
        "text",
        "residues",
        "",
        "what orders the hits and is aligned: local or global",
    ),
    Column(
        "backing",
        "number",
        "calibration",
        ".1f",
        "what first hits add for one like them, in nats",
    ),
    Column("prob", "number", "calibration", ".3f", "probability of a common fold, 0 to 1"),
    Column("alntmscore", "number", "coordinates", ".3f", "TM-score by the pairs superposed"),
    Column("qtmscore", "number", "coordinates", ".3f", "TM-score by the query's length"),
    Column("ttmscore", "number", "coordinates", ".3f", "TM-score by the entry's length"),
    Column("rmsd", "number", "coordinates", ".3f", "of the CA atoms superposed, in Å"),
    Column("u", "numbers", "coordinates", ".6f", "rotation that puts the entry on the query"),
    Column("t", "numbers", "coordinates", ".4f", "translation after it, in Å"),
    Column("qaln", "text", "alignment", "", "the query's letters in the alignment, - for gaps"),
    Column("taln", "text", "alignment", "", "the entry's letters in the alignment, - for gaps"),
    Column("qchains", "texts", "alignment", "", "chains of the query that are aligned"),
    Column("tchains", "texts", "alignment", "", "the entry's chain that each of them is on"),
    Column("tdesc", "text", "", "", "description of the entry"),
    Column("torganism", "text", "", "", "organism of the entry"),
    Column("taxid", "whole", "", "", "its number in NCBI's taxonomy"),
    Column("tacc", "text", "", "", "accession of the entry"),
)
#: Every column by its name, in the order of the documentation.
COLUMNS: Mapping[str, Column] = {column.name: column for column in _ALL}
#: The columns of a file if none are named, left out where the search cannot give them.
_USUAL: tuple[tuple[Need, tuple[str, ...]], ...] = (
    ("", ("query", "target", "rank")),
    ("calibration", ("evalue", "backing", "prob", "bits")),
    ("residues", ("score", "local_score", "global_score", "mode")),
    ("", ("cosine", "against")),
    ("alignment", ("fident", "alnlen", "mismatch", "gapopen", "qstart", "qend", "tstart", "tend")),
    ("", ("qlen", "tlen")),
    ("alignment", ("qcov", "tcov")),
    ("", ("tdesc", "torganism", "taxid", "tacc")),
)


def parse_columns(columns: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of columns given as a list or as text with commas; empty for None.

    Raises
    ------
    InputError
        A name is unknown or comes twice, or there is none.

    Examples
    --------
    >>> parse_columns("query, target,qcov")
    ('query', 'target', 'qcov')
    """
    if columns is None:
        return ()
    given = columns.split(",") if isinstance(columns, str) else columns
    names = tuple(str(name).strip() for name in given)
    for name in names:
        if name not in COLUMNS:
            advice = did_you_mean(name, COLUMNS) or f"choose from {','.join(COLUMNS)}"
            raise InputError(f"{printable(name)[:60]!r}: not a column of hits", advice)
        if names.count(name) > 1:
            raise InputError(f"{name}: the column is named twice", "name it once")
    if not names:
        raise InputError("columns: none is named", f"choose from {','.join(COLUMNS)}")
    return names


def usual_columns(comparison: Comparison, *, tm_score: bool = False) -> tuple[str, ...]:
    """Return the columns of a file if none are named: all that cost little more than the search.

    ``tm_score``: whether the search gave TM-scores.
    """
    unmet: set[str] = set()
    if not comparison.has_residues:
        unmet |= set(OF_RESIDUES)
    elif not comparison.calibrated:
        unmet.add("calibration")
    usual = tuple(name for need, names in _USUAL if need not in unmet for name in names)
    return (*usual, "qtmscore") if tm_score else usual


def values(hit: Hit, query: int, comparison: Comparison, columns: Sequence[str]) -> dict[str, Any]:
    """Return a hit's values by column, as JSON values; None for what is unknown.

    Parameters
    ----------
    hit : Hit
        The hit.
    query : int
        The place of its query among the search's queries.
    comparison : Comparison
        What aligns and superposes the two.
    columns : sequence of str
        The columns.
    """
    known: dict[str, Any] = {
        "query": hit.query,
        "target": hit.id,
        "rank": hit.rank,
        "cosine": hit.cosine,
        "against": hit.against,
        "qlen": comparison.queries.lengths[query],
        "tlen": hit.length,
        "score": hit.score,
        "local_score": hit.local_score,
        "global_score": hit.global_score,
        "mode": None if hit.score is None else comparison.mode,
        "evalue": hit.evalue,
        "backing": hit.backing,
        "bits": hit.bits,
        "prob": hit.probability,
        "tdesc": hit.description,
        "torganism": hit.organism,
        "taxid": hit.taxid,
        "tacc": hit.accession,
    }
    needs = {COLUMNS[name].need for name in columns}
    if "alignment" in needs:
        alignment = comparison.alignment(query, hit)
        if alignment is not None:
            # The E-value and the bits are the search's, not those of the pair alone.
            known = alignment_values(alignment) | known
            known["qlen"] = alignment.alignment.query_length
            known["tlen"] = alignment.alignment.target_length
    if "coordinates" in needs:
        found = comparison.superposition(query, hit)
        if found is not None:
            known |= {
                "alntmscore": found.aligned_score,
                "qtmscore": found.score,
                "ttmscore": found.hit_score,
                "rmsd": found.rmsd,
                "u": found.rotation.ravel().tolist(),
                "t": found.translation.tolist(),
            }
    return {name: known.get(name) for name in columns}


def alignment_values(alignment: NamedAlignment) -> dict[str, Any]:
    """Return the columns that an alignment gives, with the score of the pair alone in bits.

    Parameters
    ----------
    alignment : NamedAlignment
        In positions of the two sequences; at least one pair.
    """
    query, target = aligned_letters(alignment)
    pairs = zip(
        _chains(alignment.query, alignment.alignment.query_rows.tolist()),
        _chains(alignment.target, alignment.alignment.target_rows.tolist()),
        strict=True,
    )
    chains = list(dict.fromkeys(pairs))  # each pair of chains once, in order
    return m8_values(alignment) | {
        "qcov": alignment.alignment.query_coverage,
        "tcov": alignment.alignment.target_coverage,
        "qaln": query,
        "taln": target,
        "qchains": [chain for chain, _ in chains],
        "tchains": [chain for _, chain in chains],
    }


def _chains(protein: ResidueRows, rows: Sequence[int]) -> list[str]:
    """Return the chain of each residue; one without a name is its place, from 1."""
    names = [name or str(place) for place, name in enumerate(protein.chains, start=1)]
    return [names[chain] for chain in protein.chain_index[list(rows)].tolist()]


@dataclass(frozen=True, slots=True)
class HitTable:
    """Hits as rows, ready to be written.

    Attributes
    ----------
    columns : tuple of str
        The columns.
    rows : tuple of dict
        The hits' values by column.
    queries : tuple of dict
        Each query's id, length, modality and number of hits.
    failures : tuple of Failure
        Queries that could not be read.
    order : str
        What the hits are ordered by, in words; empty if unknown.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    queries: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...] = ()
    order: str = ""

    def select(self, columns: Sequence[str]) -> HitTable:
        """Return the table with some of its columns.

        Examples
        --------
        >>> table = HitTable(("query", "rank"), ({"query": "1a30", "rank": 1},), ())
        >>> table.select(["rank"]).rows
        ({'rank': 1},)
        """
        rows = tuple({name: row[name] for name in columns} for row in self.rows)
        return replace(self, columns=tuple(columns), rows=rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document; ``json_schema`` describes it."""
        return {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "columns": list(self.columns),
            "queries": list(self.queries),
            "hits": list(self.rows),
            "failures": [asdict(failure) for failure in self.failures],
        }


_TYPES: Mapping[Kind, dict[str, Any]] = {
    "text": {"type": ["string", "null"]},
    "whole": {"type": ["integer", "null"]},
    "number": {"type": ["number", "null"]},
    "numbers": {"type": ["array", "null"], "items": {"type": "number"}},
    "texts": {"type": ["array", "null"], "items": {"type": "string"}},
}
_NEVER_NULL = ("query", "target", "rank", "cosine", "against")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the document of hits, which docs/hits.schema.json holds.

    Examples
    --------
    >>> json_schema()["properties"]["version"]
    {'const': 1}
    """

    def record(**properties: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    text, known = {"type": "string"}, {}
    for column in COLUMNS.values():
        of_kind = dict(_TYPES[column.kind])
        if column.name in _NEVER_NULL:
            of_kind["type"] = of_kind["type"][0]
        known[column.name] = {"description": column.meaning, **of_kind}
    query = record(
        id=text,
        length={"type": ["integer", "null"]},
        modality={"enum": ["sequence", "structure"]},
        hits={"type": "integer"},
    )
    # The server's answers alone have it.
    query["properties"]["input"] = record(
        field={"enum": ["fasta", "ids", "structures"]}, index={"type": "integer"}
    )
    hit = {"type": "object", "properties": known, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **record(
            schema={"const": SCHEMA},
            version={"const": SCHEMA_VERSION},
            columns={"type": "array", "items": {"enum": list(COLUMNS)}},
            queries={"type": "array", "items": query},
            hits={"type": "array", "items": hit},
            failures={
                "type": "array",
                "items": record(id=text, file=text, reason=text, advice=text),
            },
        ),
    }
