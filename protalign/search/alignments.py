"""A sequence on a structure, aligned by their residues' log-likelihood ratios, with names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from protalign.core.arrays import Float64
from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.words import AlignMode
from protalign.heads.model import Model
from protalign.residues import Alignment
from protalign.residues.alignment import GAP_EXTEND, GAP_OPEN, check_gap_costs, check_memory
from protalign.residues.chains import ascending, joined
from protalign.search.residue_rows import ResidueRows, not_finite


@dataclass(frozen=True, eq=False)
class NamedAlignment:
    """An alignment of two proteins, or of one chain of each, that knows its residues.

    Attributes
    ----------
    query, target : ResidueRows
        Rows of one modality and of the other.
    alignment : Alignment
        Their alignment; its rows are those of ``query`` and ``target``.

    Examples
    --------
    >>> from protalign.core.protein import Chain
    >>> rows = np.eye(4, dtype=np.float32)
    >>> query = ResidueRows.of("q", "sequence", [Chain.from_sequence("KVL")], rows[1:])
    >>> target = ResidueRows.of("t", "sequence", [Chain.from_sequence("MKIL")], rows)
    >>> pairs = np.array([0, 2]), np.array([1, 3])
    >>> named = NamedAlignment(
    ...     query, target, Alignment("local", 2.0, *pairs, np.ones(2, np.float32), 3, 4)
    ... )
    >>> named.columns
    [(0, 1), (1, None), (None, 2), (2, 3)]
    >>> named.identical, round(named.bits, 2)
    (2, 2.89)
    """

    query: ResidueRows
    target: ResidueRows
    alignment: Alignment

    def __len__(self) -> int:
        """Return the number of aligned pairs."""
        return len(self.alignment)

    @property
    def bits(self) -> float:
        """How rare the score is by chance, if it is calibrated; else the score in bits."""
        known = self.alignment.bits
        return self.alignment.score / math.log(2) if known is None else known

    @property
    def identical(self) -> int:
        """Aligned pairs of the same letter; X, the unknown, is not the same as anything."""
        pairs = zip(
            self.alignment.query_rows.tolist(), self.alignment.target_rows.tolist(), strict=True
        )
        query, target = self.query.letters, self.target.letters
        return sum(query[q] == target[t] != "X" for q, t in pairs)

    @property
    def columns(self) -> list[tuple[int | None, int | None]]:
        """The columns from the first pair to the last: rows of the query and of the target.

        None stands for a gap. Between two pairs the query's rows that are left over come first.
        """
        columns: list[tuple[int | None, int | None]] = []
        next_query = next_target = None
        for q, t in zip(
            self.alignment.query_rows.tolist(), self.alignment.target_rows.tolist(), strict=True
        ):
            if next_query is not None and next_target is not None:
                columns += [(row, None) for row in range(next_query, q)]
                columns += [(None, row) for row in range(next_target, t)]
            columns.append((q, t))
            next_query, next_target = q + 1, t + 1
        return columns


@dataclass(frozen=True, eq=False)
class ProteinAlignment:
    """Two proteins aligned: as wholes, and each chain of one with each chain of the other.

    Attributes
    ----------
    whole : NamedAlignment
        All chains of each, one after another in their order. In "global" mode several chains have
        no diagonal of the whole: it has the best diagonals of chains on chains, both in their
        order, none twice, with the highest sum of scores (``protalign.residues.chains``).
    chains : tuple of NamedAlignment
        Query chain by query chain, each with every target chain; empty if both have one chain,
        since that is the whole.
    matched : tuple of NamedAlignment
        The alignments that put each chain on another one, none twice, with the highest sum of
        scores: those among ``chains``, or the whole if both have one chain. Of several chains only
        those with scores above 0. If there are none, it is in "global" mode the best of them, as
        in ``whole``, and in "local" mode nothing is aligned.
    """

    whole: NamedAlignment
    chains: tuple[NamedAlignment, ...]
    matched: tuple[NamedAlignment, ...]

    @property
    def all(self) -> tuple[NamedAlignment, ...]:
        """The whole, then those of chains."""
        return (self.whole, *self.chains)

    @property
    def query(self) -> ResidueRows:
        """The query's rows."""
        return self.whole.query

    @property
    def target(self) -> ResidueRows:
        """The target's rows."""
        return self.whole.target


def align_proteins(
    model: Model,
    query: ResidueRows,
    target: ResidueRows,
    mode: AlignMode = "local",
    *,
    gap_open: float = GAP_OPEN,
    gap_extend: float = GAP_EXTEND,
) -> ProteinAlignment:
    """Align a protein's sequence with a protein's structure, or the other way round.

    Parameters
    ----------
    model : Model
        A model with a residue stage.
    query, target : ResidueRows
        Rows of one modality and of the other, of the encoders that the model was fitted on.
    mode : "local" or "global"
        The best part of both with affine gaps, or the best diagonal of each chain with each and,
        of the whole, those that give the global score.
    gap_open, gap_extend : float
        Costs in nats of a gap's first residue and of each further one; "local" only.

    Returns
    -------
    ProteinAlignment
        Its alignments know their ``global_score``, in either mode.

    Raises
    ------
    ModelError
        The model has no residue stage, or was fitted on embeddings of another width.
    InputError
        Both are of one modality, a number of their embeddings is not finite, or they are too long
        for the memory.
    """
    model.residue_scorer()  # raises if there is none
    check_choice("mode", mode, ("local", "global"))
    check_gap_costs(gap_open, gap_extend)
    for protein in (query, target):
        if not len(protein):
            raise InputError(
                f"{protein.id}: it has no residue with a complete backbone", "leave it out"
            )
        if not np.isfinite(protein.embeddings).all():
            raise not_finite(protein.id, protein.modality)
    if query.modality == target.modality:
        raise InputError(
            f"{query.id} and {target.id}: both are {query.modality}s",
            "compare a sequence with a structure",
        )
    check_memory(query.id, target.id, len(query), len(target), mode)

    def aligned(one: ResidueRows, other: ResidueRows, mode: AlignMode) -> NamedAlignment:
        found = model.align(
            one.embeddings,
            other.embeddings,
            mode,
            query_by=query.modality,
            query_positions=one.positions,
            target_positions=other.positions,
            query_chains=np.bincount(one.chain_index),
            target_chains=np.bincount(other.chain_index),
            gap_open=gap_open,
            gap_extend=gap_extend,
        )
        return NamedAlignment(one, other, found)

    whole, chains = diagonals = _whole_and_chains(query, target, "global", aligned)
    if mode == "local":
        whole, chains = _whole_and_chains(query, target, mode, aligned)
    whole = _with_global_score(whole, diagonals[0])
    if not chains:
        return ProteinAlignment(whole, (), (whole,))
    chains = {pair: _with_global_score(each, diagonals[1][pair]) for pair, each in chains.items()}
    matched = (chains[pair] for pair in _matched(_scores(chains)))
    return ProteinAlignment(
        whole, tuple(chains.values()), tuple(each for each in matched if len(each))
    )


#: Query chain and target chain -> their alignment, in order.
_Chains = dict[tuple[int, int], NamedAlignment]


def _whole_and_chains(
    query: ResidueRows,
    target: ResidueRows,
    mode: AlignMode,
    aligned: Callable[[ResidueRows, ResidueRows, AlignMode], NamedAlignment],
) -> tuple[NamedAlignment, _Chains]:
    """Return the wholes' alignment and that of each chain with each; none if both have one."""
    if len(query.chains) == len(target.chains) == 1:
        return aligned(query, target, mode), {}
    queries, targets = (
        [protein.chain(index) for index in range(len(protein.chains))]
        for protein in (query, target)
    )
    chains = {
        (i, j): aligned(one, other, mode)
        for i, one in enumerate(queries)
        for j, other in enumerate(targets)
    }
    if mode == "local":
        return aligned(query, target, mode), chains
    lengths = [np.bincount(protein.chain_index) for protein in (query, target)]
    parts = {pair: chains[pair].alignment for pair in ascending(_scores(chains))}
    return NamedAlignment(query, target, joined(parts, *lengths)), chains


def _matched(scores: Float64) -> list[tuple[int, int]]:
    """Return the pairs of chains, none twice, with the highest sum of scores.

    They have scores above 0; if no pair has, it is the best one, as ``ascending`` takes it.
    """
    best = zip(*linear_sum_assignment(np.maximum(scores, 0), maximize=True), strict=True)
    pairs = [(int(i), int(j)) for i, j in best if scores[i, j] > 0]
    return pairs or ascending(scores)


def _scores(chains: _Chains) -> Float64:
    """Return (c, d) float64: the score of each chain with each."""
    last_query, last_target = max(chains)
    scores = [each.alignment.score for each in chains.values()]
    return np.array(scores).reshape(last_query + 1, last_target + 1)


def _with_global_score(found: NamedAlignment, diagonal: NamedAlignment) -> NamedAlignment:
    """Return an alignment that knows the score of the same two in global mode."""
    alignment = replace(found.alignment, global_score=diagonal.alignment.score)
    return replace(found, alignment=alignment)
