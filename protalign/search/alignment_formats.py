"""Alignments as text: BLAST's columns (m8), A3M, FASTA, blocks to read, and JSON values.

Positions in m8, A3M and FASTA count the rows of a protein from 1. A structure's rows are its
residues with a complete backbone. The residues' own numbers are in the blocks and in JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from protalign.core.printing import printable, share, table_cell
from protalign.core.words import counted
from protalign.residues import Alignment
from protalign.search.alignments import NamedAlignment
from protalign.search.residue_rows import ResidueRows

#: The columns of ``m8``.
M8_COLUMNS = (
    *("query", "target", "fident", "alnlen", "mismatch", "gapopen"),
    *("qstart", "qend", "tstart", "tend", "evalue", "bits"),
)
#: Columns of an alignment in one block of ``blocks``.
BLOCK = 60
#: How well a pair fits in ``blocks``: a pair of at least so many nats has this mark.
MARKS = ((3.0, "|"), (1.0, ":"), (0.0, "."), (-float("inf"), " "))
_GLOBAL = "the best diagonal, without gaps; not comparable with the local score"
LEGEND = "between the lines: | at least 3 nats, : 1 to 3, . 0 to 1, nothing below 0"


def m8(alignment: NamedAlignment) -> str:
    r"""Return the columns of BLAST's tabular form, joined by tabs; "" if nothing is aligned.

    The columns are ``M8_COLUMNS``. fident is the share of columns with equal letters, and evalue is
    empty if it is unknown. bits say how rare the score is by chance if evalue is known, which is
    then 2 to the power of -bits; else they are the score in bits.

    Examples
    --------
    >>> import numpy as np
    >>> from protalign.core.protein import Chain
    >>> from protalign.residues import align
    >>> rows = 10 * np.eye(4, dtype=np.float32)
    >>> query = ResidueRows.of("q", "sequence", [Chain.from_sequence("KIL")], rows[1:])
    >>> target = ResidueRows.of("t", "sequence", [Chain.from_sequence("MKVL")], rows)
    >>> m8(NamedAlignment(query, target, align(rows[1:], rows))).split("\t")[:10]
    ['q', 't', '0.667', '3', '1', '0', '1', '3', '2', '4']
    """
    if not len(alignment):
        return ""
    cells = m8_values(alignment)
    evalue = cells["evalue"]
    texts = {
        "query": table_cell(alignment.query.name),
        "target": table_cell(alignment.target.name),
        "fident": f"{cells['fident']:.3f}",
        "evalue": "" if evalue is None else f"{evalue:.3g}",
        "bits": f"{cells['bits']:.1f}",
    }
    return "\t".join(str(texts.get(name, cells[name])) for name in M8_COLUMNS)


def m8_values(alignment: NamedAlignment) -> dict[str, Any]:
    """Return the values of ``M8_COLUMNS``, of an alignment that has pairs."""
    found = alignment.alignment
    length = len(alignment.columns)
    return {
        "query": alignment.query.name,
        "target": alignment.target.name,
        "fident": alignment.identical / length,
        "alnlen": length,
        "mismatch": len(alignment) - alignment.identical,
        "gapopen": found.gap_openings,
        "qstart": int(found.query_rows[0]) + 1,
        "qend": int(found.query_rows[-1]) + 1,
        "tstart": int(found.target_rows[0]) + 1,
        "tend": int(found.target_rows[-1]) + 1,
        "evalue": found.evalue,
        "bits": alignment.bits,
    }


def a3m(alignment: NamedAlignment) -> str:
    """Return two A3M records: the whole query, and the target on it; "" if nothing is aligned.

    The target's residues between two columns of the query are small letters. The numbers after the
    slash of a name are the first and the last row.
    """
    if not len(alignment):
        return ""
    found = alignment.alignment
    first, last = int(found.query_rows[0]), int(found.query_rows[-1])
    letters = [(q, _letter(alignment.target, t)) for q, t in alignment.columns]
    middle = [letter.lower() if q is None else letter for q, letter in letters]
    line = "-" * first + "".join(middle) + "-" * (len(alignment.query) - 1 - last)
    every = f">{_name(alignment.query, 0, len(alignment.query) - 1)}\n{alignment.query.letters}\n"
    return f"{every}>{_ranged(alignment.target, found.target_rows)}\n{line}\n"


def fasta(alignment: NamedAlignment) -> str:
    """Return two FASTA records of one length, with "-" for gaps; "" if nothing is aligned.

    They go from the first aligned pair to the last.
    """
    if not len(alignment):
        return ""
    found = alignment.alignment
    query, target = aligned_letters(alignment)
    return (
        f">{_ranged(alignment.query, found.query_rows)}\n{query}\n"
        f">{_ranged(alignment.target, found.target_rows)}\n{target}\n"
    )


def aligned_letters(alignment: NamedAlignment) -> tuple[str, str]:
    """Return the letters of both from the first aligned pair to the last, with "-" for gaps."""
    columns = alignment.columns
    return (
        "".join(_letter(alignment.query, q) for q, _ in columns),
        "".join(_letter(alignment.target, t) for _, t in columns),
    )


def blocks(alignment: NamedAlignment) -> str:
    """Return a heading and blocks of three lines to read: query, marks, target.

    A line begins and ends with its first and its last residue, as the file names them. The marks
    say how well each pair fits (``MARKS``). A block has ``BLOCK`` columns, or fewer where a chain
    ends.
    """
    found = alignment.alignment
    bits = f" ({alignment.bits:.1f} bits)"
    of_score, of_chance = (bits, "") if found.bits is None else ("", bits)
    diagonal = other_score(found)
    also = [] if diagonal is None else [f"global score {diagonal:.1f} nats: {_GLOBAL}"]
    lines = [f"{_described(alignment.query)} on {_described(alignment.target)}"]
    if not len(alignment):
        nothing = f"{found.mode} alignment: no part of the two fits"
        return "\n".join([*lines, nothing, *also, ""])
    facts = [
        f"score {found.score:.1f} nats{of_score}",
        *([] if found.evalue is None else [f"E-value {found.evalue:.2g}{of_chance}"]),
        *([] if found.probability is None else [f"same fold {share(found.probability)}"]),
        f"{counted(len(alignment), 'pair')}, "
        f"{share(alignment.identical / len(alignment))} identical",
        f"{share(found.query_coverage)} of the query, {share(found.target_coverage)} of the target",
    ]
    lines += [f"{found.mode} alignment: {', '.join(facts)}", *also, LEGEND, ""]
    ratios = dict(zip(found.query_rows.tolist(), found.residue_scores.tolist(), strict=True))
    cut = list(_cut(alignment))
    ends = [
        [
            tuple(_end([pair[side] for pair in part], rows, place) for place in (0, -1))
            for side, rows in enumerate((alignment.query, alignment.target))
        ]
        for part in cut
    ]
    names = [printable(alignment.query.name), printable(alignment.target.name)]
    name_width = max(map(len, names))
    first_width = max(len(first) for part in ends for first, _ in part)
    for part, labels in zip(cut, ends, strict=True):
        marks = "".join(" " if q is None or t is None else mark(ratios[q]) for q, t in part)
        for side, rows in enumerate((alignment.query, alignment.target)):
            letters = "".join(_letter(rows, pair[side]) for pair in part)
            first, last = labels[side]
            head = f"{names[side]:<{name_width}}  {first:>{first_width}}"
            lines.append(f"{head}  {letters}  {last}".rstrip())
            if side == 0:
                lines.append(f"{'':{len(head)}}  {marks}".rstrip())
        lines.append("")
    return "\n".join(lines)


def other_score(alignment: Alignment) -> float | None:
    """Return the global score that is shown beside a local one; None in global mode."""
    return None if alignment.mode == "global" else alignment.global_score


def mark(ratio: float) -> str:
    """Return the mark of a pair's log-likelihood ratio in nats.

    Examples
    --------
    >>> [mark(ratio) for ratio in (3.2, 1.5, 0.1, -4.0)]
    ['|', ':', '.', ' ']
    """
    return next(text for least, text in MARKS if ratio >= least)


def as_dict(alignment: NamedAlignment) -> dict[str, Any]:
    """Return an alignment as JSON values; docs/alignments.md has the schema."""
    found = alignment.alignment
    return {
        "query": _protein(alignment.query),
        "target": _protein(alignment.target),
        "mode": found.mode,
        "score": found.score,
        "bits": alignment.bits,
        "global_score": found.global_score,
        "evalue": found.evalue,
        "probability": found.probability,
        "query_coverage": found.query_coverage,
        "target_coverage": found.target_coverage,
        "pairs": len(alignment),
        "identical": alignment.identical,
        "gap_openings": found.gap_openings,
        "query_residues": _residues(alignment.query, found.query_rows.tolist()),
        "target_residues": _residues(alignment.target, found.target_rows.tolist()),
        "ratios": [round(ratio, 4) for ratio in found.residue_scores.tolist()],
    }


Side = Literal["query", "target"]


def _protein(rows: ResidueRows) -> dict[str, Any]:
    return {
        "id": rows.id,
        "chain": None if rows.part is None else rows.chains[0],
        "name": rows.name,
        "modality": rows.modality,
        "length": len(rows),
        "source": rows.source,
    }


def _residues(rows: ResidueRows, kept: list[int]) -> dict[str, Any]:
    residues = [rows.residues[row] for row in kept]
    return {
        "rows": kept,
        "letters": "".join(rows.letters[row] for row in kept),
        "chains": [chain for chain, _, _ in residues],
        "numbers": [number for _, number, _ in residues],
        "insertion_codes": [code for _, _, code in residues],
    }


def _letter(rows: ResidueRows, row: int | None) -> str:
    return "-" if row is None else rows.letters[row]


def _name(rows: ResidueRows, first: int, last: int) -> str:
    """Return a record's name; it ends at the first white space for most readers."""
    return f"{'_'.join(printable(rows.name).split())}/{first + 1}-{last + 1}"


def _ranged(rows: ResidueRows, aligned: Any) -> str:
    return _name(rows, int(aligned[0]), int(aligned[-1]))


def _described(rows: ResidueRows) -> str:
    chains = f", {len(rows.chains)} chains" if len(rows.chains) > 1 else ""
    return f"{printable(rows.name)} ({rows.modality}, {counted(len(rows), 'residue')}{chains})"


def _cut(alignment: NamedAlignment) -> Iterator[list[tuple[int | None, int | None]]]:
    """Yield the columns of each block."""
    block: list[tuple[int | None, int | None]] = []
    place: list[int | None] = [None, None]
    for column in alignment.columns:
        chains = [
            None if row is None else int(rows.chain_index[row])
            for row, rows in zip(column, (alignment.query, alignment.target), strict=True)
        ]
        other = any(c is not None and p is not None and c != p
                    for c, p in zip(chains, place, strict=True))  # fmt: skip
        if len(block) == BLOCK or (block and other):
            yield block
            block, place = [], [None, None]
        block.append(column)
        place = [p if c is None else c for c, p in zip(chains, place, strict=True)]
    if block:
        yield block


def _end(side: list[int | None], rows: ResidueRows, place: int) -> str:
    kept = [row for row in side if row is not None]
    return printable(rows.label(kept[place])) if kept else "-"
