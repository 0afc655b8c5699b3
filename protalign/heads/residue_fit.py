"""Fit of the residue stage: one pass over the paired residues, then a calibration."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.heads.distributed import current
from protalign.heads.inputs import FEW_ELEMENTS, Inputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_head import fit_residue_head
from protalign.residues import PairSums, ResidueStage
from protalign.residues.background import FEWEST, PROTEINS, Background, CompactRows
from protalign.residues.calibration import Calibration, Chance
from protalign.residues.kernels.packed import pack
from protalign.residues.kernels.scores import local_scores

#: Proteins of each modality that the calibration aligns, and structures for each sequence. Many
#: proteins count more than many pairs: a few that fit everything would decide the tail.
_CALIBRATED_WITH, _TARGETS_EACH = 200, 50
#: Residues of such a protein, at most: longer ones take long and teach the same.
_LONGEST = 600
#: Two proteins are alike if the score of one's sequence with the other's structure, less that with
#: the reversed structure, is above this part of the geometric mean of their own pairs' scores: so
#: are 0.7 % of the pairs of domains, one of each superfamily or fold, and 7 and 5 % of those of two
#: sets full of families (chains of the PDB, CASF-2016; ESM2-8M, fine-tuned on another task). With
#: 0.4 too much of the first set's families was left.
_ALIKE = 0.35
#: A protein that is like more than this part of the others is of a large family. What relatives
#: have is not chance: with them in it 22 and 35 of 100 own structures of these two sets had an
#: E-value above 1, without them none. Who is like fewer may be so by chance.
_LARGE = 0.05
#: Members of a family in the background, at most, as a part of it.
_MEMBERS = 0.02
#: Proteins that are looked at for each one of the background.
_TRIED = 4


def fit_residue_stage(pairs: Pairs, generator: np.random.Generator) -> ResidueStage | None:
    """Fit the residue stage on pairs of sequence and structure, in one pass.

    Parameters
    ----------
    pairs : Pairs
        The pairs to train on. Their residues must be paired (``Inputs.paired_residues``).
    generator : numpy.random.Generator
        Chooses the pairs of the calibration.

    Returns
    -------
    ResidueStage or None
        None if there are too few paired residues. Without calibration if there are too few pairs.
    """
    inputs = pairs.inputs
    sums = PairSums(inputs.dims["sequence"], inputs.dims["structure"])
    for block in inputs.paired_residues(pairs.positions):
        sums.add_parts(block)
    try:
        stage = sums.stage()
    except InputError:
        return None
    return replace(stage, calibration=_calibration(stage, pairs, generator))


def fit_residues(
    pairs: Pairs,
    validation: Pairs | None,
    seed: int,
    report: Callable[[str], None],
    *,
    with_head: bool,
) -> ResidueStage | None:
    """Fit the residue stage, and its head if it is to have one.

    Of processes that train together rank 0 alone fits it, and the others wait: it reads every
    residue once, so that their number does not count.

    Parameters
    ----------
    pairs, validation : Pairs
        The pairs to train on; the pairs to validate the head on, or None.
    seed : int
        Chooses the pairs of the calibration, and what the head's training draws.
    report : callable
        Receives the lines of the head's training.
    with_head : bool
        Whether to train the head, in minutes.
    """
    ranks = current()
    stage = None
    if ranks.first:
        stage = fit_residue_stage(pairs, np.random.default_rng(seed))
        if stage is not None and with_head:
            stage = replace(stage, head=fit_residue_head(stage, pairs, validation, seed, report))
    if ranks.alone:
        return stage
    facts = json.loads(
        ranks.text_of_first(lambda: json.dumps(None if stage is None else stage.facts()))
    )
    if facts is None:
        return None
    arrays = ranks.arrays_of_first(lambda: {} if stage is None else stage.tensors())
    return ResidueStage.of_tensors(arrays, facts) if stage is None else stage


def _calibration(
    stage: ResidueStage, pairs: Pairs, generator: np.random.Generator
) -> Calibration | None:
    """Align random sequences with random structures, most of which are unrelated."""
    inputs = pairs.inputs
    short = np.ones(len(pairs), dtype=np.bool_)
    for modality in MODALITIES:
        short &= inputs.lengths(modality)[pairs.positions] <= _LONGEST
    choices = np.flatnonzero(short)
    background, kept = _background(stage, pairs, choices, generator)
    choices = np.setdiff1d(choices, kept)
    subset = [np.sort(generator.permutation(choices)[:_CALIBRATED_WITH]) for _ in MODALITIES]
    if min(map(len, subset)) == 0:
        return None
    sequence, structure = (
        _rows(stage, inputs, modality, pairs.positions[indices])
        for modality, indices in zip(MODALITIES, subset, strict=True)
    )
    own = {tuple(pair) for pair in pairs.items.tolist()}
    of_sequences, of_structures = (_own_scores(stage, pairs, each) for each in subset)
    aligned = _Aligned()
    of_background = _Aligned()
    for query, rows, of_query in zip(subset[0], sequence, of_sequences, strict=True):
        chosen = generator.permutation(len(structure))[:_TARGETS_EACH]
        # Equal items are one protein.
        item = pairs.items[query, 0]
        others = np.array([i for i in chosen if (item, pairs.items[subset[1][i], 1]) not in own])
        if not len(others):
            continue
        targets = Ragged.pack([structure[i] for i in others])
        scores = local_scores(rows, targets)[0], local_scores(rows, targets.backward())[0]
        alike = _alike(scores[0] - scores[1], of_query, of_structures[others])
        unrelated = ~alike if alike.mean() > _LARGE else np.ones_like(alike)
        if not unrelated.any():
            continue
        forward, backward = (each[unrelated] for each in scores)
        aligned.add(rows, forward, backward, targets.lengths[unrelated])
        if background is not None:
            of_background.add(rows, *background.scores(rows))
    if not aligned.scores:
        return None
    try:
        calibration = Calibration.fit(*aligned.columns())
        if background is None:
            return calibration
        excess = calibration.excess(*of_background.columns())
        chance = Chance.of(excess.reshape(-1, len(kept)))
        counts = [len(scores) for scores in aligned.scores]
        of_pairs = Chance(np.repeat(chance.location, counts), np.repeat(chance.scale, counts))
        return calibration.with_background(
            background, calibration.excess(*aligned.columns()), of_pairs
        )
    except InputError:
        return None


class _Aligned:
    """Scores of queries with targets, and the lengths of both."""

    def __init__(self) -> None:
        self.scores: list[Float32] = []
        self._columns: list[tuple[Float32, Float32, Int64, Int64]] = []

    def add(self, query: Float32, scores: Float32, by_chance: Float32, lengths: Int64) -> None:
        """Add those of one query."""
        self.scores.append(scores)
        self._columns.append((scores, by_chance, np.full(len(scores), len(query)), lengths))

    def columns(self) -> tuple[Float32, Float32, Int64, Int64]:
        """Return scores, scores with the targets reversed, queries' and targets' lengths."""
        scores, by_chance, queries, targets = zip(*self._columns, strict=True)
        concatenate = np.concatenate
        return (
            concatenate(scores),
            concatenate(by_chance),
            concatenate(queries),
            concatenate(targets),
        )


def _background(
    stage: ResidueStage, pairs: Pairs, choices: Int64, generator: np.random.Generator
) -> tuple[Background | None, Int64]:
    """Draw the background and the pairs that it is of; none if there are too few.

    No large family is in it: what its members have with each other is not chance. The longer half
    of the proteins is left out: it takes most of the room and of the time.
    """
    count = min(PROTEINS, len(choices) // 2)
    if count < FEWEST:
        return None, np.empty(0, dtype=np.int64)
    longest = np.maximum(*(pairs.inputs.lengths(m)[pairs.positions[choices]] for m in MODALITIES))
    shortest = choices[np.argsort(longest, kind="stable")[: max(2 * count, len(choices) // 2)]]
    kept = np.sort(_of_no_family(stage, pairs, generator.permutation(shortest), count))
    if len(kept) < FEWEST:
        return None, np.empty(0, dtype=np.int64)
    rows = {m: _rows(stage, pairs.inputs, m, pairs.positions[kept]) for m in MODALITIES}
    return Background({m: CompactRows.of(m, each) for m, each in rows.items()}), kept


def _of_no_family(stage: ResidueStage, pairs: Pairs, order: Int64, count: int) -> Int64:
    """Return the first ``count`` pairs of ``order`` that are like few before them, or fewer."""
    kept = np.empty(0, dtype=np.int64)
    most = max(1, int(_MEMBERS * count))
    for start in range(0, min(len(order), _TRIED * count), count):
        known = len(kept)
        block = order[start : start + count]
        both = np.concatenate([kept, block])
        sequences, structures = (
            _rows(stage, pairs.inputs, modality, pairs.positions[indices])
            for modality, indices in zip(MODALITIES, (block, both), strict=True)
        )
        forward, backward = pack(structures), pack(structures.backward())
        own = _own_scores(stage, pairs, both)
        chosen = np.arange(len(both)) < known
        for i, rows in enumerate(sequences, known):
            above = local_scores(rows, forward)[0] - local_scores(rows, backward)[0]
            alike = _alike(above, own[i], own)
            chosen[i] = np.count_nonzero(alike & chosen) < most
        kept = both[chosen]
        if len(kept) >= count:
            break
    return kept[:count]


def _own_scores(stage: ResidueStage, pairs: Pairs, indices: Int64) -> Float32:
    """Return the local scores of some pairs' sequences with their own structures, (n,)."""
    rows = (_rows(stage, pairs.inputs, m, pairs.positions[indices]) for m in MODALITIES)
    own = [local_scores(one, Ragged.pack([other]))[0] for one, other in zip(*rows, strict=True)]
    return np.concatenate(own)


def _alike(above: Float32, of_query: np.float32, of_targets: Float32) -> Bool:
    """Return which targets are like a query, by scores above reversed ones and own scores."""
    alike: Bool = above > _ALIKE * np.sqrt(of_query * of_targets)
    return alike


def _rows(stage: ResidueStage, inputs: Inputs, modality: Modality, positions: Int64) -> Ragged:
    """Return the stage's rows of some entries, at least one; few embeddings are held at once."""
    blocks = inputs.blocks(modality, positions, FEW_ELEMENTS)
    values = np.concatenate([stage.rows(modality, block.values) for block in blocks])
    lengths = inputs.lengths(modality)[positions]
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
