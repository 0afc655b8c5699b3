"""A multiple alignment of a few sequences, their differences, and its lines for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_multiple, align_optimal

GAP = "-"
#: BLOSUM62 has no scores for selenocysteine and pyrrolysine: they are aligned as Cys and Lys.
_SCORED_AS = str.maketrans("UO", "CK")
#: Alignment columns on a line of the page.
_LINE_LENGTH = 70


@dataclass(frozen=True, slots=True)
class AlignmentLine:
    """One protein's part of a block.

    Attributes
    ----------
    id : str
        The protein.
    pieces : list of (str, bool)
        Runs of letters, and whether they differ from the common letters.
    last : int
        Number of the last residue on the line, from 1.
    """

    id: str
    pieces: list[tuple[str, bool]]
    last: int


def align(sequences: Sequence[str]) -> list[str]:
    """Align sequences progressively (Feng & Doolittle, 1987).

    BLOSUM62; a gap costs 10 and each further residue in it 1; gaps at the ends are free. The guide
    tree is UPGMA over 1 - identity of the optimal pairwise alignments.

    Parameters
    ----------
    sequences : sequence of str
        One-letter codes.

    Returns
    -------
    list of str
        The sequences with gaps ("-"), all of one length.

    Examples
    --------
    >>> align(["MKTAYIAKQRQISFVKSHF", "MKTAYIARQISFVKSHF"])
    ['MKTAYIAKQRQISFVKSHF', 'MKTAYIA--RQISFVKSHF']
    """
    if len(set(sequences)) == 1:
        return list(sequences)
    scored = [ProteinSequence(sequence.translate(_SCORED_AS)) for sequence in sequences]
    matrix = SubstitutionMatrix.std_protein_matrix()
    options = {"gap_penalty": (-10, -1), "terminal_penalty": False}
    distances = np.zeros((len(scored), len(scored)))
    for i, j in combinations(range(len(scored)), 2):
        pair = align_optimal(scored[i], scored[j], matrix, max_number=1, **options)[0]
        rows = _with_gaps((sequences[i], sequences[j]), pair.trace)
        distances[i, j] = distances[j, i] = 1 - identity(*rows)
    alignment = align_multiple(scored, matrix, distances=distances, **options)[0]
    return _with_gaps(sequences, alignment.trace)


def _with_gaps(sequences: Sequence[str], trace: npt.ArrayLike) -> list[str]:
    """Write out a trace: (columns, sequences) positions, -1 for a gap."""
    return [
        "".join(GAP if position < 0 else sequence[position] for position in column)
        for sequence, column in zip(sequences, np.asarray(trace).T, strict=True)
    ]


def differences(aligned: Sequence[str]) -> list[list[bool]]:
    """Return, for each row and column, whether the letter differs from the column's commonest.

    If several letters are equally common, the first row that has one of them decides.

    Examples
    --------
    >>> differences(["MKV", "MKV", "MRV"])
    [[False, False, False], [False, False, False], [False, True, False]]
    """
    common = [Counter(column).most_common(1)[0][0] for column in zip(*aligned, strict=True)]
    return [[letter != usual for letter, usual in zip(row, common, strict=True)] for row in aligned]


def identity(first: str, second: str) -> float:
    """Return the fraction of equal letters among the columns in which both rows have one.

    0 if there is no such column.

    Examples
    --------
    >>> identity("MKV-", "MRVL")
    0.6666666666666666
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if GAP not in (a, b)]
    return sum(a == b for a, b in both) / len(both) if both else 0.0


def alignment_blocks(cluster: Mapping[str, Any] | None) -> list[list[AlignmentLine]]:
    """Cut a cluster's alignment into blocks that fit a page.

    Parameters
    ----------
    cluster : mapping or None
        "cluster" of results.json.

    Returns
    -------
    list of list of AlignmentLine
        Blocks of a line for each protein; empty without a cluster.
    """
    if cluster is None:
        return []
    members = cluster["members"]
    width = len(members[0]["aligned"])
    return [
        [_line(member, start, min(start + _LINE_LENGTH, width)) for member in members]
        for start in range(0, width, _LINE_LENGTH)
    ]


def _line(member: Mapping[str, Any], start: int, stop: int) -> AlignmentLine:
    different = set(member["different"])
    row = member["aligned"]
    pieces = [
        ("".join(row[column] for column in group), marked)
        for marked, group in groupby(range(start, stop), key=different.__contains__)
    ]
    return AlignmentLine(member["id"], pieces, sum(letter != GAP for letter in row[:stop]))
