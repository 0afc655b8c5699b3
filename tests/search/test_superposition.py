"""TM-scores of real structures: what they must be, and what TM-align's program gives."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from protalign.reading import find_sources, read_sources
from protalign.search.superposition import backbone_of, superimpose, tm_score


@pytest.fixture(scope="module")
def backbones(sample: Path) -> dict[str, np.ndarray]:
    """The sample's chains."""
    sources, _ = find_sources([sample])
    found = [p for result in read_sources(sources, processes=1) for p in result.proteins]
    return {protein.id: backbone_of(protein.chains) for protein in found}


def test_a_moved_copy_scores_one(backbones: dict[str, np.ndarray]) -> None:
    """Rotation and translation change nothing; half a protein scores about half of its length."""
    backbone = max(backbones.values(), key=len)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    moved = (backbone @ rotation + 30).astype(np.float32)
    assert tm_score(backbone, moved) == pytest.approx(1, abs=1e-4)
    half = moved[: len(moved) // 2]
    assert tm_score(half, backbone) == pytest.approx(1, abs=0.01)  # the query's length counts
    assert tm_score(backbone, half) == pytest.approx(0.5, abs=0.02)


def test_mutants_score_high_and_others_low(backbones: dict[str, np.ndarray]) -> None:
    """Chains of one family have one fold, above 0.5; most of the others are below it."""
    ids = sorted(backbones)
    scores = np.array([[tm_score(backbones[a], backbones[b]) for b in ids[:8]] for a in ids[:8]])
    assert (np.diag(scores) > 0.999).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_pair_that_never_settles_ends(backbones: dict[str, np.ndarray]) -> None:
    """The matchings of barnase and a nuclease alternate for ever; the score is that of no fold."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError("it has taken a minute")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        found = superimpose(backbones["1ban_A"], backbones["1ey4_A"])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert found is not None
    assert 0.1 < found.score < 0.3
    assert len(np.unique(found.query_rows)) == len(found.distances) > 20


def test_too_few_residues_have_no_score(backbones: dict[str, np.ndarray]) -> None:
    """NaN for a peptide of four, and for nothing."""
    backbone = next(iter(backbones.values()))
    assert np.isnan(tm_score(backbone[:4], backbone))
    assert np.isnan(tm_score(backbone, backbone[:0]))


def test_equals_tm_align_on_related_chains(backbones: dict[str, np.ndarray]) -> None:
    """Within 0.02 of TM-align's own, where the two chains are alike."""
    tmtools = pytest.importorskip("tmtools", reason="tmtools (GPL-3), the reference, is not here")
    ids = sorted(backbones)
    compared = 0
    for first, second in pairwise(ids):
        x, y = backbones[first], backbones[second]
        reference = tmtools.tm_align(
            x[:, 1].astype(float), y[:, 1].astype(float), "A" * len(x), "A" * len(y)
        ).tm_norm_chain1
        if reference > 0.5:
            assert tm_score(x, y) == pytest.approx(reference, abs=0.02)
            compared += 1
    assert compared >= 5
