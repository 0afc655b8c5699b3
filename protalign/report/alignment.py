"""A few sequences one under the other: progressive multiple alignment, differences marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_multiple, align_optimal

GAP = "-"
#: Letters that BLOSUM62 has no scores for are aligned as what they stand in for.
_AS_KNOWN = str.maketrans("UO", "CK")


def align(sequences: Sequence[str]) -> list[str]:
    """The sequences with gaps, all of one length: progressive alignment (Feng & Doolittle, 1987).

    BLOSUM62, gaps of 10 and 1 for each further residue, end gaps free. The guide tree is UPGMA
    over 1 - identity of the optimal pairwise alignments.
    """
    if len(set(sequences)) == 1:
        return list(sequences)
    known = [ProteinSequence(sequence.translate(_AS_KNOWN)) for sequence in sequences]
    matrix = SubstitutionMatrix.std_protein_matrix()
    options = {"gap_penalty": (-10, -1), "terminal_penalty": False}
    distances = np.zeros((len(known), len(known)))
    for i, j in combinations(range(len(known)), 2):
        pair = align_optimal(known[i], known[j], matrix, max_number=1, **options)[0]
        rows = _with_gaps((sequences[i], sequences[j]), pair.trace)
        distances[i, j] = distances[j, i] = 1 - identity(*rows)
    alignment = align_multiple(known, matrix, distances=distances, **options)[0]
    return _with_gaps(sequences, alignment.trace)


def _with_gaps(sequences: Sequence[str], trace: npt.ArrayLike) -> list[str]:
    """The letters that a trace, (columns, sequences) positions or -1, puts in each column."""
    return [
        "".join(GAP if place < 0 else sequence[place] for place in column)
        for sequence, column in zip(sequences, np.asarray(trace).T, strict=True)
    ]


def differences(aligned: Sequence[str]) -> list[list[bool]]:
    """For each row and column, whether the letter is not the one that most rows have there.

    Where no letter has more rows than the others, the first row's counts as the common one.
    """
    marks = []
    common = [Counter(column).most_common(1)[0][0] for column in zip(*aligned, strict=True)]
    for row in aligned:
        marks.append([letter != usual for letter, usual in zip(row, common, strict=True)])
    return marks


def identity(first: str, second: str) -> float:
    """Part of the columns, of those where both aligned rows have a letter, that are the same."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if GAP not in (a, b)]
    return sum(a == b for a, b in both) / len(both) if both else 0.0
