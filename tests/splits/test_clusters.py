"""Similar sequences fall together, whatever the others are; unrelated ones do not."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.protein import AMINO_ACIDS
from protalign.splits.clusters import best_identity, cluster, cluster_proteins
from protalign.splits.mmseqs import HomologyError, find_mmseqs, mmseqs_pairs

needs_mmseqs = pytest.mark.skipif(find_mmseqs() is None, reason="MMseqs2 is missing")
METHODS = [pytest.param("mmseqs", marks=needs_mmseqs), "kmer"]

SEQUENCES = st.lists(st.text(AMINO_ACIDS, max_size=120), min_size=1, max_size=12)


def random_sequence(length: int, seed: int) -> str:
    """Return a random sequence."""
    return "".join(np.random.default_rng(seed).choice(list(AMINO_ACIDS), length))


def mutated(sequence: str, every: int) -> str:
    """Replace each ``every``-th residue by another one."""
    letters = list(sequence)
    for place in range(every - 1, len(letters), every):
        letters[place] = "W" if letters[place] != "W" else "G"
    return "".join(letters)


@pytest.fixture(scope="module")
def manifest(shared: Path) -> list[dict[str, str]]:
    """A sixth of the families of the development data's table, whole."""
    with (shared / "data" / "manifest.csv").open() as file:
        return [row for row in csv.DictReader(file) if int(row["c30"]) % 6 == 0]


@pytest.mark.parametrize("method", METHODS)
def test_mutants_fall_together_and_others_do_not(method: str) -> None:
    """Ten mutants of each of five proteins make five clusters, numbered as they come."""
    parents = [random_sequence(100 + 30 * seed, seed) for seed in range(5)]
    sequences = [mutated(parent, every) for every in range(15, 25) for parent in parents]
    found = cluster(sequences, 0.8, method=method)
    assert found.labels.tolist() == list(range(5)) * 10
    assert len(found) == 5
    assert found.labels.dtype == np.int64
    assert ("MMseqs2" in found.method) == (method == "mmseqs")
    assert ("fallback" in found.method) == (method == "kmer")


@pytest.mark.parametrize("method", METHODS)
def test_a_domain_is_with_the_longer_protein_that_holds_it(method: str) -> None:
    """An alignment that covers the shorter one links the two; one that covers neither does not."""
    domain, other, third = (random_sequence(150, seed) for seed in (7, 8, 9))
    fusion, partial = domain + other, domain[:60] + third
    labels = cluster([domain, fusion, partial], 0.9, method=method).labels
    assert labels[0] == labels[1]
    if method == "mmseqs":
        assert labels[2] != labels[0]


@pytest.mark.parametrize("method", METHODS)
def test_proteins_are_linked_by_any_chain(method: str) -> None:
    """Complexes that share a chain are together, and so are those that are linked through one."""
    a, b, c, d = (random_sequence(120, seed) for seed in range(20, 24))
    found = cluster_proteins([(a, b), (mutated(b, 20), c), (d,), (c,), ()], 0.9, method=method)
    assert found.labels.tolist() == [0, 0, 1, 0, 2]


@pytest.mark.slow
@needs_mmseqs
def test_few_sequences_lose_nothing_that_the_prefilter_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All pairs of few sequences are aligned, with the identities of those that are seeded."""
    parents = [random_sequence(120, seed) for seed in range(40, 44)]
    sequences = [*parents, *(mutated(p, every) for p in parents for every in (3, 5, 9)), "GIVEQ"]
    program = find_mmseqs()
    assert program
    every = mmseqs_pairs(program, sequences, sequences, 0.3)
    monkeypatch.setattr("protalign.splits.mmseqs._ALL_ALIGNED", 0)
    seeded = mmseqs_pairs(program, sequences, sequences, 0.3)
    found, expected = ({(q, t): i for q, t, i in zip(*p, strict=True)} for p in (every, seeded))
    assert len(expected) > len(sequences)
    assert found.items() >= expected.items()


@needs_mmseqs
@pytest.mark.parametrize(("identity", "column"), [(0.95, "c95"), (0.3, "c30")])
def test_known_clusters_of_real_chains(
    manifest: list[dict[str, str]], identity: float, column: str
) -> None:
    """Chains that the development data put together are together here, but for 1 in 100.

    Those few have no alignment that covers 80 % of either: the data's own clusters ask for less.
    """
    rows = [row for row in manifest if int(row[column]) % 2 == 0]  # half of the clusters, whole
    found = cluster([row["sequence"] for row in rows], identity)
    members = defaultdict(list)
    for row, label in zip(rows, found.labels.tolist(), strict=True):
        members[row[column]].append(label)
    strays = sum(len(labels) - np.bincount(labels).max() for labels in members.values())
    assert strays <= 0.01 * len(rows)
    assert len(found) > 0.9 * len(members)


@needs_mmseqs
def test_no_two_clusters_hold_similar_chains(manifest: list[dict[str, str]]) -> None:
    """A search of one half of the clusters among the other half finds nothing similar."""
    sequences = sorted({row["sequence"] for row in manifest})[::5]
    odd = cluster(sequences, 0.5).labels % 2 == 1
    one, other = ([s for s, own in zip(sequences, odd, strict=True) if own == k] for k in (0, 1))
    assert best_identity(one, other).max() < 0.5


@settings(max_examples=40)
@given(SEQUENCES, st.randoms())
def test_the_fallback_depends_on_no_order(sequences: list[str], random: object) -> None:
    """Equal sequences are together, shuffled input gives the same partition."""
    labels = cluster(sequences, 0.6, method="kmer").labels
    order = np.random.default_rng(len(sequences)).permutation(len(sequences))
    shuffled = cluster([sequences[i] for i in order], 0.6, method="kmer").labels
    same = labels[order][:, None] == labels[order][None]
    np.testing.assert_array_equal(same, shuffled[:, None] == shuffled[None])
    for text in sequences:
        assert len({label for s, label in zip(sequences, labels, strict=True) if s == text}) == 1


@settings(max_examples=40)
@given(st.integers(60, 300), st.integers(12, 40), st.integers(0, 10**6))
def test_the_fallback_never_parts_a_mutant_from_its_parent(
    length: int, every: int, seed: int
) -> None:
    """Substitutions at less than 9 % of the residues, at an identity of 0.8, among strangers."""
    parent = random_sequence(length, seed)
    others = [random_sequence(200, seed + 1 + n) for n in range(3)]
    labels = cluster([parent, *others, mutated(parent, every)], 0.8, method="kmer").labels
    assert labels.tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("method", METHODS)
def test_best_identity(method: str) -> None:
    """1 for an equal target, about 0.9 for a mutant, 0 for a stranger, in the queries' order."""
    parents = [random_sequence(200, seed) for seed in (30, 31)]
    queries = [mutated(parents[1], 10), random_sequence(200, 32), parents[0], parents[0]]
    identity = best_identity(queries, [*parents, parents[0]], method=method)
    np.testing.assert_allclose(identity, [0.9, 0, 1, 1], atol=0.01 if method == "mmseqs" else 0.05)
    assert identity.dtype == np.float32
    assert best_identity([], parents, method=method).shape == (0,)
    assert best_identity(parents, [], method=method).tolist() == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_few_short_or_unknown_residues(method: str) -> None:
    """Peptides, an empty sequence and X are no error; equal ones are still together."""
    sequences = ["", "GIVEQ", "XXXX", "GIVEQ", "", "M", "X" * 40, "MK" + "X" * 40]
    labels = cluster(sequences, 0.3, method=method).labels
    assert labels.tolist() == [0, 1, 2, 1, 0, 3, 4, 5]
    assert cluster([], 0.3, method=method).labels.shape == (0,)


def test_wrong_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong identities and methods, and MMseqs2 by name if it is missing."""
    with pytest.raises(InputError, match="identity=30"):
        cluster(["MKV"], 30)
    with pytest.raises(InputError, match="method='blast'"):
        cluster(["MKV"], 0.3, method="blast")
    monkeypatch.setattr("protalign.splits.clusters.find_mmseqs", lambda: None)
    with pytest.raises(HomologyError, match=r"pip install \"protalign\[cluster\]\""):
        cluster(["MKV"], 0.3, method="mmseqs")
    assert "fallback" in cluster(["MKV"], 0.3).method


def test_a_program_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the last line that MMseqs2 printed, and its exit code."""
    program = tmp_path / "mmseqs"
    program.write_text("#!/bin/sh\necho first >&2\necho 'No space left' >&2\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setattr("protalign.splits.clusters.find_mmseqs", lambda: program)
    with pytest.raises(HomologyError) as caught:
        cluster(["MKVLAAG"], 0.3)
    assert str(caught.value) == "`mmseqs createdb` failed (7): No space left"
