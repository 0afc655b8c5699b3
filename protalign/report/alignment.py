"""A few sequences one under the other: progressive multiple alignment, differences marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_multiple

GAP = "-"
#: Letters that BLOSUM62 has no scores for are aligned as what they stand in for.
_AS_KNOWN = str.maketrans("UO", "CK")


def align(sequences: Sequence[str]) -> list[str]:
    """The sequences with gaps, all of one length: progressive alignment (Feng & Doolittle, 1987).

    BLOSUM62, affine gaps of 10 + 1 a residue, end gaps free.
    """
    if len(set(sequences)) == 1:
        return list(sequences)
    known = [ProteinSequence(sequence.translate(_AS_KNOWN)) for sequence in sequences]
    matrix = SubstitutionMatrix.std_protein_matrix()
    alignment, _, _, _ = align_multiple(
        known, matrix, gap_penalty=(-10, -1), terminal_penalty=False
    )
    return [
        "".join(GAP if row < 0 else sequence[row] for row in column)
        for sequence, column in zip(sequences, np.asarray(alignment.trace).T, strict=True)
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
