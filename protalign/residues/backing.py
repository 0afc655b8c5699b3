"""Backing: what a query's first hits say for other proteins that are like them.

A remote relative's own score is often no better than chance's, but it is like the structures of
other relatives, and one of these may be found. So some first hits are aligned with the other
candidates, within one modality, where relatives are much easier to see than across two; and what
speaks for a hit speaks in part for those that are like it. Searches by intermediate sequences (Park
et al., J Mol Biol 273, 349, 1997) and RankProp (Weston et al., PNAS 101, 6559, 2004) do so with
sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from protalign.core.arrays import Bool, Float32, Float64, Int64
from protalign.core.protein import Modality
from protalign.core.ragged import Ragged, blocks
from protalign.core.steps import step
from protalign.residues.background import Background, other_modality
from protalign.residues.kernels.scores import local_scores
from protalign.residues.similarity import Compared, Similarity
from protalign.residues.targets import PAIRS_AT_ONCE, RESIDUES_AT_ONCE

#: First hits that speak for others.
FIRST_HITS = 5
#: Candidates that they can speak for: the best so many. The others are far behind.
SPOKEN_FOR = 200
#: A hit speaks if its E-value is below this, by the logarithm of how far; in a search of fewer
#: entries, if its excess is above 0. So more entries, whose best false hits have a higher excess,
#: do not have more to say.
_HEARD = 500.0
#: A hit that has so much needs no backing: it gets none, so that the order of these is that of
#: their own scores, and says no more than so much. Without this rule members of families were first
#: less often.
_ENOUGH = 12.0
#: How rare a similarity of unrelated proteins must be, in -ln, before a hit speaks for a candidate,
#: and where it does so fully. Sequences' rows are more alike than structures', and their tail is
#: shorter.
_SIMILAR: dict[Modality, tuple[float, float]] = {"sequence": (7.0, 10.0), "structure": (9.0, 18.0)}
#: A hit of which fewer residues are aligned says nothing: short parts are like much.
_LEAST_PART = 30


def backing(
    query: Float32,
    excess: Float64,
    lengths: Int64,
    rows: Callable[[Int64], Ragged],
    background: Background,
    n_targets: int,
    silent: Bool | None = None,
) -> Float64:
    """Return what a query's first hits say for its candidates, in units of the excess.

    Only the best ``SPOKEN_FOR`` candidates take part, and the first ``FIRST_HITS`` of them speak
    for the others. A hit speaks with the part of it that the query's alignment covers, so that a
    domain beside it says nothing. Memory is bounded, however long the candidates are. If the
    thread's work is run in steps, other work may go first between two.

    Parameters
    ----------
    query : (L, k + 2) float32
        The query's rows for the local mode, which show its modality.
    excess : (n,) float64
        The candidates' excess.
    lengths : (n,) int64
        Their residues.
    rows : callable
        Given (m,) int64 places of candidates, returns their rows for the local mode. It is asked
        for the first hits, and for the best candidates, some at a time.
    background : Background
        The calibration's, which shows how similar unrelated proteins are.
    n_targets : int
        The entries that were searched.
    silent : (n,) bool, optional
        Candidates that are to say nothing, as the query's own partner where it is to be left out.

    Returns
    -------
    (n,) float64
        0 to 10.
    """
    said = np.zeros(len(excess))
    best = np.argsort(-excess, kind="stable")[:SPOKEN_FOR]
    evidence = np.minimum(excess[best] - max(0.0, math.log(max(n_targets, 1) / _HEARD)), _ENOUGH)
    speaks = evidence > 0
    if silent is not None:
        speaks &= ~silent[best]
    first = np.flatnonzero(speaks)[:FIRST_HITS]
    modality = other_modality(query)
    similarity = background.similarity(modality)
    if similarity is None or not len(first) or len(best) < 2:
        return said
    parts = [aligned_part(query, hit) for hit in rows(best[first])]
    weights = np.zeros((len(first), len(best)))
    none, full = _SIMILAR[modality]
    at_once = min(RESIDUES_AT_ONCE, PAIRS_AT_ONCE // max(1, *map(len, parts), len(query)))
    for some in blocks(lengths[best], at_once):
        candidates = Compared.of(rows(best[some]))
        for place, part in enumerate(parts):
            step()
            if len(part) >= _LEAST_PART:
                [found] = Similarity.between(Ragged.pack([part]), candidates)
                weights[place, some] = (similarity.rarity(found) - none) / (full - none)
    weights = weights.clip(0, 1)
    # A hit says nothing for itself. The others count for its voice too: else the sixth of several
    # look-alikes, for which five speak, would get more than the first, for which four do.
    weights[:, first] *= len(first) / max(1, len(first) - 1)
    weights[np.arange(len(first)), first] = 0
    # A mean, with nothing as one more voice; the more a candidate has by itself, the less of it.
    # For equal means excess and backing together still rise with the excess: none is above 10.
    need = 1 - evidence.clip(0) / _ENOUGH
    said[best] = need * (evidence[first] @ weights) / (1 + weights.sum(axis=0))
    return said


def aligned_part(query: Float32, target: Float32) -> Float32:
    """Return the target's rows from the first to the last that the best local alignment pairs."""
    _, [query_end], [target_end] = local_scores(query, Ragged.pack([target]))
    if target_end < 0:
        return target[:0]
    # The same alignment from its end: its last pair is the first one of the best alignment.
    before, of_target = query[query_end::-1], target[target_end::-1]
    _, _, [length] = local_scores(
        np.ascontiguousarray(before), Ragged.pack([np.ascontiguousarray(of_target)])
    )
    return target[target_end - length : target_end + 1]
