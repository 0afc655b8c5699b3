"""Fit of the residue stage: one pass over the paired residues, then a calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.heads.inputs import Inputs
from protalign.heads.pairs import Pairs
from protalign.residues import PairSums, ResidueStage
from protalign.residues.calibration import Calibration
from protalign.residues.kernels.scores import local_scores

#: Proteins of each modality that the calibration aligns, and structures for each sequence. Many
#: proteins count more than many pairs: a few that fit everything would decide the tail.
_CALIBRATED_WITH, _TARGETS_EACH = 400, 50
#: Residues of such a protein, at most: longer ones take long and teach the same.
_LONGEST = 600


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
    for sequence, structure in inputs.paired_residues(pairs.positions):
        sums.add(sequence.values, structure.values)
    try:
        stage = sums.stage()
    except InputError:
        return None
    return replace(stage, calibration=_calibration(stage, pairs, generator))


def _calibration(
    stage: ResidueStage, pairs: Pairs, generator: np.random.Generator
) -> Calibration | None:
    """Align random sequences with random structures, most of which are unrelated."""
    inputs = pairs.inputs
    short = np.ones(len(pairs), dtype=np.bool_)
    for modality in MODALITIES:
        short &= inputs.lengths(modality)[pairs.positions] <= _LONGEST
    choices = np.flatnonzero(short)
    subset = [np.sort(generator.permutation(choices)[:_CALIBRATED_WITH]) for _ in MODALITIES]
    if min(map(len, subset)) == 0:
        return None
    sequence, structure = (
        _rows(stage, inputs, modality, pairs.positions[indices])
        for modality, indices in zip(MODALITIES, subset, strict=True)
    )
    own = {tuple(pair) for pair in pairs.items.tolist()}
    scores, by_chance, lengths = [], [], []
    for query, rows in zip(subset[0], sequence, strict=True):
        chosen = generator.permutation(len(structure))[:_TARGETS_EACH]
        # Equal items are one protein.
        item = pairs.items[query, 0]
        unrelated = [i for i in chosen if (item, pairs.items[subset[1][i], 1]) not in own]
        if not unrelated:
            continue
        targets = [structure[i] for i in unrelated]
        scores.append(local_scores(rows, Ragged.pack(targets))[0])
        by_chance.append(local_scores(rows, Ragged.pack([t[::-1] for t in targets]))[0])
        lengths.append(np.array([(len(rows), len(target)) for target in targets]).T)
    if not scores:
        return None
    try:
        return Calibration.fit(
            np.concatenate(scores), np.concatenate(by_chance), *np.concatenate(lengths, axis=1)
        )
    except InputError:
        return None


def _rows(stage: ResidueStage, inputs: Inputs, modality: Modality, positions: Int64) -> Ragged:
    embeddings = inputs.rows(modality, positions)
    return Ragged(stage.rows(modality, embeddings.values), embeddings.offsets)
