"""Two steps by words: what hits choose is scored as it would be among all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from protalign.core.arrays import Words
from protalign.core.errors import InputError
from protalign.residues.kernels.word_scores import without_length, word_scores
from protalign.residues.word_lists import ListedWords, most_hits
from protalign.residues.word_scan import WordScan
from protalign.residues.words import ResidueWords

K = 200
COUNT = 3000


@pytest.fixture(scope="module")
def words() -> ResidueWords:
    """Words whose centroids are apart."""
    rng = np.random.default_rng(0)
    return ResidueWords({"structure": rng.normal(scale=0.6, size=(K, 250)).astype(np.float32)})


@pytest.fixture(scope="module")
def targets() -> tuple[Words, npt.NDArray[np.int64]]:
    """3,000 targets by chance, one of them without residues."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 90, COUNT)
    lengths[7] = 0
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rng.integers(0, K, offsets[-1]).astype(np.uint16), offsets


def listed(words: ResidueWords, of: tuple[Words, npt.NDArray[np.int64]]) -> ListedWords:
    """Targets with their inverted lists."""
    return words.listed("structure", *of)


def queries(words: ResidueWords, of: list[Words]) -> list[npt.NDArray[np.float32]]:
    """Rows that fit some words well, and others badly."""
    centroids = words.centroids["structure"]
    inverse = np.linalg.pinv(centroids.T)
    wanted = [np.where(each[:, None] == np.arange(K), 5.0, -3.0) for each in of]
    return [(each @ inverse).astype(np.float32) for each in wanted]


def test_the_best_are_those_of_all(
    words: ResidueWords, targets: tuple[Words, npt.NDArray[np.int64]]
) -> None:
    """Of many targets a few are scored, among them the one that the query fits; exactly."""
    target_words, offsets = targets
    wanted = [11, 2999, 1500]
    given = queries(words, [target_words[offsets[i] : offsets[i + 1]] for i in wanted])
    scan = WordScan(words, "structure", given)
    for query, own, (found, scores) in zip(
        given, wanted, scan.scores(listed(words, targets), 2), strict=True
    ):
        profile = words.profile("structure", query)
        every = without_length(word_scores(profile, target_words, offsets), np.diff(offsets))
        assert COUNT // 32 <= len(found) < COUNT // 3
        assert (np.diff(found) > 0).all()
        assert own in found
        assert every.argmax() in found
        assert scores.tolist() == every[found].tolist()


def test_other_queries_change_nothing(
    words: ResidueWords, targets: tuple[Words, npt.NDArray[np.int64]]
) -> None:
    """A query alone and among others finds the same."""
    target_words = targets[0]
    given = queries(words, [target_words[:300], target_words[500:520], target_words[:1]])
    together = WordScan(words, "structure", given).scores(listed(words, targets), 2)
    for query, (found, scores) in zip(given, together, strict=True):
        [(alone, same)] = WordScan(words, "structure", [query]).scores(listed(words, targets), 2)
        assert (alone.tolist(), same.tolist()) == (found.tolist(), scores.tolist())


def test_only_wanted_targets_are_found(
    words: ResidueWords, targets: tuple[Words, npt.NDArray[np.int64]]
) -> None:
    """Others do not take their places: what is found is what is found among these alone."""
    target_words, offsets = targets
    inside = np.zeros(COUNT, dtype=bool)
    inside[5:2000:3] = True
    [query] = queries(words, [target_words[offsets[6] : offsets[7]]])
    for k in (2, 500):  # some are chosen; all are scored
        [(found, _)] = WordScan(words, "structure", [query]).scores(
            listed(words, targets), k, inside
        )
        assert inside[found].all()
        assert len(found) >= min(8 * k, inside.sum())
        assert (len(found) == inside.sum()) == (k == 500)
        alone = [target_words[offsets[i] : offsets[i + 1]] for i in np.flatnonzero(inside)]
        ends = np.cumsum([0, *(len(each) for each in alone)])
        [(same, _)] = WordScan(words, "structure", [query]).scores(
            listed(words, (np.concatenate(alone), ends)), k
        )
        assert found.tolist() == np.flatnonzero(inside)[same].tolist()


@pytest.mark.parametrize(("k", "kept"), [(2, 100), (25, 200)])
def test_hits_keep_a_share_of_the_targets(words: ResidueWords, k: int, kept: int) -> None:
    """One in 32, and eight at least for each that is wanted: those that fit the query best."""
    own = np.repeat(np.random.default_rng(2).integers(0, K - 1, 30), 8)
    fitting = np.repeat(np.arange(29, 5, -1), 25)  # blocks of eight residues
    parts = [np.r_[own[: 8 * n], np.full(240 - 8 * n, K - 1)] for n in fitting]
    parts += [np.full(8, K - 1)] * 2600
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    scan = WordScan(words, "structure", queries(words, [own.astype(np.uint16)]))
    targets = np.concatenate(parts).astype(np.uint16), offsets
    [(found, _)] = scan.scores(listed(words, targets), k)
    assert found.tolist() == list(range(kept))


def test_what_equals_the_last_is_kept_too(
    words: ResidueWords, targets: tuple[Words, npt.NDArray[np.int64]]
) -> None:
    """A place among the targets never decides."""
    target_words = targets[0]
    given = queries(words, [target_words[:60], target_words[900:1000]])
    hits = most_hits(words.profiles("structure", given)[1], listed(words, targets))
    scan = WordScan(words, "structure", given)
    for scores, (found, _) in zip(hits, scan.scores(listed(words, targets), 2), strict=True):
        assert found.tolist() == np.flatnonzero(scores >= np.sort(scores)[-94]).tolist()
        assert len(found) > 94


def test_equal_targets_are_all_kept(words: ResidueWords) -> None:
    """Of targets that are the same none is left out for its place."""
    target_words, offsets = np.tile(np.arange(60, dtype=np.uint16), 500), 60 * np.arange(501)
    given = [*queries(words, [target_words[:60]]), np.zeros((9, 250), dtype=np.float32)]
    for found, _ in WordScan(words, "structure", given).scores(
        listed(words, (target_words, offsets)), 1
    ):
        assert found.tolist() == list(range(500))


def test_few_targets_are_all_scored(
    words: ResidueWords, targets: tuple[Words, npt.NDArray[np.int64]]
) -> None:
    """Also those without residues, which have no score."""
    target_words, offsets = targets
    [query] = queries(words, [target_words[:50]])
    [(found, scores)] = WordScan(words, "structure", [query]).scores(
        listed(words, (target_words, offsets[:31])), 10
    )
    assert found.tolist() == list(range(30))
    assert scores[7] == 0


def test_a_query_has_residues(words: ResidueWords) -> None:
    """A query without any is an error in one line."""
    with pytest.raises(InputError, match="no residue rows"):
        WordScan(words, "structure", [np.empty((0, 250), np.float32)])
