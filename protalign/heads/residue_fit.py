"""Fit of the residue stage: one pass over the paired residues, a context, a calibration."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.heads.distributed import current
from protalign.heads.inputs import FEW_ELEMENTS, Inputs
from protalign.heads.pairs import Pairs
from protalign.heads.residue_context import fit_residue_context
from protalign.heads.residue_head import fit_residue_head
from protalign.residues import PairSums, ResidueStage
from protalign.residues.background import FEWEST, PROTEINS, Background, CompactRows
from protalign.residues.calibration import Calibration, Chance
from protalign.residues.kernels.packed import PackedTargets, pack
from protalign.residues.kernels.scores import local_scores

#: Proteins that the calibration aligns, and about as many structures for each sequence. Many
#: proteins count more than many pairs: a few that fit everything would decide the tail.
_CALIBRATED_WITH, _TARGETS_EACH = 300, 75
#: Residues of such a protein, at most: longer ones take long and teach the same.
_LONGEST = 600
#: Two proteins are alike if the score of one's sequence with the other's structure, less that with
#: the reversed structure, is above this part of the geometric mean of their own pairs' scores: so
#: are 0.7 % of the pairs of domains, one of each superfamily or fold, and 6 % of those of two sets
#: full of families (chains of the PDB, CASF-2016; ESM2-8M, fine-tuned on another task). What
#: relatives have is not chance: with them 22 and 35 of 100 own structures of these two sets had an
#: E-value above 1, without them none or one. With 0.4 too much of the first set's families was
#: left.
_ALIKE = 0.35
#: Members of a family in the background, at most, as a part of it.
_MEMBERS = 0.02
#: Proteins that are looked at for each one of the background.
_TRIED = 4
#: Warnings of ``fit_residue_stage`` name the line that called ``ProtAlignEstimator.fit``.
_CALL_OF_FIT = 4


def fit_residue_stage(
    pairs: Pairs,
    generator: np.random.Generator,
    report: Callable[[str], None] = lambda line: None,
    *,
    with_context: bool = True,
) -> ResidueStage | None:
    """Fit the residue stage on pairs of sequence and structure.

    The correlations take one pass over the residues. A context, if the pairs have enough of them,
    and the calibration take a bounded number.

    Parameters
    ----------
    pairs : Pairs
        The pairs to train on. Their residues must be paired (``Inputs.paired_residues``).
    generator : numpy.random.Generator
        Chooses the pairs of the calibration, and what the context is trained on.
    report : callable
        Receives the lines of the context's training.
    with_context : bool
        Whether to train a context.

    Returns
    -------
    ResidueStage or None
        None if there are too few paired residues. Without calibration if there are too few pairs.
        A warning says so, unless there are no residues at all.
    """
    inputs = pairs.inputs
    sums = PairSums(inputs.dims["sequence"], inputs.dims["structure"])
    for block in inputs.paired_residues(pairs.positions):
        sums.add_parts(block)
    try:
        stage = sums.stage()
    except InputError as error:
        residues = [inputs.lengths(modality)[pairs.positions] > 1 for modality in MODALITIES]
        if sums.n:
            reason, advice = error.reason, error.advice
        elif np.logical_and(*residues).any():
            reason = "the residue stage: no protein has as many residues of both modalities"
            advice = "give embeddings of the same residues"
        else:  # vectors of whole proteins
            return None
        message = f"{reason}, so nothing is compared by residues; {advice}"
        warnings.warn(message, stacklevel=_CALL_OF_FIT)
        return None
    if with_context:
        k = len(stage.correlations)
        stage = replace(stage, context=fit_residue_context(sums, pairs, k, generator, report))
    calibration = _calibration(stage, pairs, generator)
    if calibration is None:
        warnings.warn(
            f"the residue stage: the pairs of at most {_LONGEST} residues are too few, or too "
            "alike, to show what chance gives, so there are no E-values; fit on more proteins of "
            "different families",
            stacklevel=_CALL_OF_FIT,
        )
    return replace(stage, calibration=calibration)


def fit_residues(
    pairs: Pairs,
    validation: Pairs | None,
    seed: int,
    report: Callable[[str], None],
    *,
    with_context: bool,
    with_head: bool,
) -> ResidueStage | None:
    """Fit the residue stage, with its context and its head if it is to have them.

    Of processes that train together rank 0 alone fits it, and the others wait: it reads every
    residue once, and some again, so that the number of processes does not count.

    Parameters
    ----------
    pairs, validation : Pairs
        The pairs to train on; the pairs to validate the head on, or None.
    seed : int
        Chooses the pairs of the calibration, and what the head's training draws.
    report : callable
        Receives the lines of the trainings.
    with_context : bool
        Whether to train the context.
    with_head : bool
        Whether to train the head, in minutes.
    """
    ranks = current()
    stage = None
    if ranks.first:
        generator = np.random.default_rng(seed)
        stage = fit_residue_stage(pairs, generator, report, with_context=with_context)
        if stage is None and with_head:
            message = "the residue head: none was trained, since there is no residue stage"
            warnings.warn(message, stacklevel=_CALL_OF_FIT - 1)
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


@dataclass(frozen=True, eq=False)
class _Proteins:
    """Some pairs: their indices (n,), rows by modality, and the scores of each with itself (n,)."""

    indices: Int64
    rows: dict[Modality, Ragged]
    own: Float32

    @classmethod
    def read(cls, stage: ResidueStage, pairs: Pairs, indices: Int64) -> Self:
        """Read those of ``indices``, at least one."""
        positions = pairs.positions[indices]
        rows = {m: _rows(stage, pairs.inputs, m, positions) for m in MODALITIES}
        both = zip(rows["sequence"], rows["structure"], strict=True)
        own = [local_scores(sequence, Ragged.pack([structure]))[0] for sequence, structure in both]
        return cls(indices, rows, np.concatenate(own))

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, places: Int64) -> _Proteins:
        """Return some, at least one, in their order."""
        rows = {m: each.take(places) for m, each in self.rows.items()}
        return _Proteins(self.indices[places], rows, self.own[places])

    def followed_by(self, more: _Proteins) -> _Proteins:
        """Return these and more."""
        rows = {m: Ragged.pack([*each, *more.rows[m]]) for m, each in self.rows.items()}
        return _Proteins(
            np.concatenate([self.indices, more.indices]), rows, np.concatenate([self.own, more.own])
        )


@dataclass(frozen=True, eq=False)
class _Targets:
    """Structures that many sequences are aligned with, forwards and backwards."""

    proteins: _Proteins
    forward: PackedTargets
    backward: PackedTargets

    @classmethod
    def of(cls, proteins: _Proteins) -> Self:
        """Pack those of some proteins."""
        structures = proteins.rows["structure"]
        return cls(proteins, pack(structures), pack(structures.backward()))

    def scores(self, query: Float32, own: np.float32) -> tuple[Float32, Float32, Bool]:
        """Align a query; return scores, those with the reversed targets, and which are alike."""
        forward = local_scores(query, self.forward)[0]
        backward = local_scores(query, self.backward)[0]
        alike: Bool = forward - backward > _ALIKE * np.sqrt(own * self.proteins.own)
        return forward, backward, alike


def _calibration(
    stage: ResidueStage, pairs: Pairs, generator: np.random.Generator
) -> Calibration | None:
    """Align random sequences with random structures, most of which are unrelated."""
    short = np.ones(len(pairs), dtype=np.bool_)
    for modality in MODALITIES:
        short &= pairs.inputs.lengths(modality)[pairs.positions] <= _LONGEST
    choices = np.flatnonzero(short)
    kept = _background(stage, pairs, choices, generator)
    if kept is not None:
        choices = np.setdiff1d(choices, kept.indices)
    if not len(choices):
        return None
    chosen = np.sort(generator.permutation(choices)[:_CALIBRATED_WITH])
    proteins = _Proteins.read(stage, pairs, chosen)
    aligned, of_query = _unrelated(pairs, proteins, generator)
    if not len(of_query):
        return None
    try:
        calibration = Calibration.fit(*aligned.columns())
        if kept is None:
            return calibration
        background = Background({m: CompactRows.of(m, rows) for m, rows in kept.rows.items()})
        queries, places = np.unique(of_query, return_inverse=True)
        of_background = _Aligned()
        for query in proteins.rows["sequence"].take(queries):
            of_background.add(query, *background.scores(query))
        excess = calibration.excess(*of_background.columns())
        shown = Chance.of(excess.reshape(len(queries), -1))
        of_pairs = Chance(shown.location[places], shown.scale[places])
        columns = aligned.columns()
        return calibration.with_background(
            background, calibration.excess(*columns), of_pairs, columns[2]
        )
    except InputError:
        return None


def _unrelated(
    pairs: Pairs, proteins: _Proteins, generator: np.random.Generator
) -> tuple[_Aligned, Int64]:
    """Align each sequence with some of the structures, and leave out those that are alike.

    Returns
    -------
    aligned : _Aligned
        The scores of the others.
    of_query : (n,) int64
        The place of their sequence among the proteins.
    """
    # Equal items are one protein.
    own = {tuple(pair) for pair in pairs.items.tolist()}
    items = pairs.items[proteins.indices]
    n_groups = max(1, len(proteins) // _TARGETS_EACH)
    groups = np.array_split(generator.permutation(len(proteins)), n_groups)
    packed = [(group, _Targets.of(proteins.take(group))) for group in groups]
    aligned, of_query = _Aligned(), [np.empty(0, dtype=np.int64)]
    for query, rows in enumerate(proteins.rows["sequence"]):
        group, targets = packed[generator.integers(n_groups)]
        forward, backward, alike = targets.scores(rows, proteins.own[query])
        of_others = [(items[query, 0], structure) not in own for structure in items[group, 1]]
        some = np.array(of_others) & ~alike
        if some.any():
            lengths = targets.proteins.rows["structure"].lengths[some]
            aligned.add(rows, forward[some], backward[some], lengths)
            of_query.append(np.full(len(lengths), query))
    return aligned, np.concatenate(of_query)


class _Aligned:
    """Scores of queries with targets, and the lengths of both."""

    def __init__(self) -> None:
        self._columns: list[tuple[Float32, Float32, Int64, Int64]] = []

    def add(self, query: Float32, scores: Float32, by_chance: Float32, lengths: Int64) -> None:
        """Add those of one query."""
        self._columns.append((scores, by_chance, np.full(len(scores), len(query)), lengths))

    def columns(self) -> tuple[Float32, Float32, Int64, Int64]:
        """Return scores, scores with the targets reversed, queries' and targets' lengths."""
        scores, by_chance, queries, targets = map(np.concatenate, zip(*self._columns, strict=True))
        return scores, by_chance, queries, targets


def _background(
    stage: ResidueStage, pairs: Pairs, choices: Int64, generator: np.random.Generator
) -> _Proteins | None:
    """Draw the proteins of the background; none if there are too few.

    No large family is in it: what its members have with each other is not chance. The longer half
    of the proteins is left out: it takes most of the room and of the time.
    """
    count = min(PROTEINS, len(choices) // 2)
    if count < FEWEST:
        return None
    longest = np.maximum(*(pairs.inputs.lengths(m)[pairs.positions[choices]] for m in MODALITIES))
    shortest = choices[np.argsort(longest, kind="stable")[: max(2 * count, len(choices) // 2)]]
    kept = _of_no_family(stage, pairs, generator.permutation(shortest), count)
    return kept if len(kept) >= FEWEST else None


def _of_no_family(stage: ResidueStage, pairs: Pairs, order: Int64, count: int) -> _Proteins:
    """Return the first ``count`` pairs of ``order`` that are like few before them, or fewer."""
    kept = None
    most = max(1, int(_MEMBERS * count))
    for start in range(0, min(len(order), _TRIED * count), count):
        proteins = _Proteins.read(stage, pairs, order[start : start + count])
        known = 0 if kept is None else len(kept)
        if kept is not None:
            proteins = kept.followed_by(proteins)
        targets = _Targets.of(proteins)
        chosen = np.arange(len(proteins)) < known
        for i in range(known, len(proteins)):
            alike = targets.scores(proteins.rows["sequence"][i], proteins.own[i])[2]
            chosen[i] = np.count_nonzero(alike & chosen) < most
        kept = proteins.take(np.flatnonzero(chosen)[:count])
        if len(kept) == count:
            break
    assert kept is not None  # ``order`` is not empty, and the first is like none before it
    return kept


def _rows(stage: ResidueStage, inputs: Inputs, modality: Modality, positions: Int64) -> Ragged:
    """Return the stage's rows of some entries, at least one; few embeddings are held at once.

    A protein counts as one chain: inputs know no chains, and eight residues at a border differ.
    """
    blocks = inputs.blocks(modality, positions, FEW_ELEMENTS)
    values = np.concatenate([stage.chain_rows(modality, block) for block in blocks])
    lengths = inputs.lengths(modality)[positions]
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
