"""The residue head's rows: of chains that are packed, as of each chain alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.arrays import Float32
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.residues import PairSums, ResidueStage, head
from protalign.residues.head import REACH, ResidueHead, head_rows, neighbours_of

DIMS: dict[Modality, int] = {"sequence": 6, "structure": 7}
COMPONENTS, HIDDEN = 3, 5


def random_head(
    seed: int, dims: Mapping[Modality, int] = DIMS, components: int = COMPONENTS
) -> ResidueHead:
    """A head in which a residue's neighbours count as much as the residue."""
    rng = np.random.default_rng(seed)
    parameters: dict[Modality, dict[str, Float32]] = {}
    for modality, dim in dims.items():
        shapes = {
            "mean": (dim,),
            "projection": (dim, components),
            "inner": (dim, HIDDEN),
            "bias": (HIDDEN,),
            "outer": ((2 * REACH + 1) * HIDDEN, components + 1),
            "weight": (components,),
        }
        parameters[modality] = {
            name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
        }
    return ResidueHead(parameters, 1.5, {})


def chains_of(lengths: list[int], modality: Modality, seed: int) -> Ragged:
    """Embeddings of chains."""
    values = np.random.default_rng(seed).normal(size=(sum(lengths), DIMS[modality]))
    return Ragged(values.astype(np.float16), np.cumsum([0, *lengths]))


several = st.lists(st.integers(1, 12), min_size=1, max_size=9)


@given(several, st.sampled_from(MODALITIES), st.integers(0, 1000), st.integers(1, 30))
def test_chains_that_are_packed_have_the_rows_of_each_alone(
    lengths: list[int], modality: Modality, seed: int, at_once: int
) -> None:
    """No residue sees one of the chain before or after its own, however the chains are cut."""
    made, chains = random_head(seed), chains_of(lengths, modality, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "ROWS_AT_ONCE", at_once)
        found = made.packed_rows(modality, chains)
    expected = np.concatenate([made.rows(modality, chain) for chain in chains])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_head_of_half_precision_has_nearly_the_same_rows(modality: Modality) -> None:
    """Half the bytes; it computes in float32, so that its rows are those of the rounded numbers."""
    made, chains = random_head(0), chains_of([7, 12], modality, 0)
    half = made.half()
    arrays = half.tensors()
    for name, array in made.tensors().items():
        if name != "constant":
            assert 2 * arrays[name].nbytes == array.nbytes
    found, expected = half.packed_rows(modality, chains), made.packed_rows(modality, chains)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    whole = {name: array.astype(np.float32) for name, array in arrays.items()}
    read = ResidueHead.of_tensors(whole, {"hidden": HIDDEN}, COMPONENTS)
    np.testing.assert_array_equal(read.packed_rows(modality, chains), found)


@given(several, st.integers(0, 1000))
def test_proteins_that_are_trained_on_together_have_the_rows_of_each_alone(
    lengths: list[int], seed: int
) -> None:
    """The network sees the neighbours in a residue's own protein only, and all of them."""
    arrays = random_head(seed).parameters["sequence"]
    parameters = {name: torch.from_numpy(array) for name, array in arrays.items()}
    proteins = [
        torch.from_numpy(rows.astype(np.float32)) for rows in chains_of(lengths, "sequence", seed)
    ]
    together = head_rows(torch.cat(proteins), parameters, neighbours_of(lengths))
    alone = [head_rows(rows, parameters, neighbours_of([len(rows)])) for rows in proteins]
    for found, expected in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-4)


def test_a_residue_sees_two_on_each_side() -> None:
    """R stands for one beyond a protein's ends."""
    none = 6
    assert neighbours_of([4, 2]).tolist() == [
        [none, none, 0, 1, 2],
        [none, 0, 1, 2, 3],
        [0, 1, 2, 3, none],
        [1, 2, 3, none, none],
        [none, none, 4, 5, none],
        [none, 4, 5, none, none],
    ]


def test_many_chains_are_a_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many residues at once as stay in the cache; a longer chain is made by itself."""
    lengths = [30] * 200 + [3000]
    sizes: list[int] = []

    def counted(embeddings: torch.Tensor, *given: Any) -> Any:
        sizes.append(len(embeddings))
        return head_rows(embeddings, *given)

    monkeypatch.setattr(head, "head_rows", counted)
    rows = random_head(0).packed_rows("structure", chains_of(lengths, "structure", 0))
    assert np.isfinite(rows).all()
    assert sum(sizes) == sum(lengths)
    assert sorted(sizes)[-2] <= head.ROWS_AT_ONCE
    assert sorted(sizes)[-1] == 3000
    assert len(sizes) == 4


def test_the_rows_of_complexes_are_those_of_their_chains() -> None:
    """A stage gives them to the global mode, chain after chain; local rows know no chains."""
    rng = np.random.default_rng(0)
    sums = PairSums(DIMS["sequence"], DIMS["structure"])
    hidden = rng.normal(size=(200, 3))
    sums.add(*(hidden @ rng.normal(size=(3, dim)) for dim in DIMS.values()))
    fitted = sums.stage(components=COMPONENTS)
    stage = ResidueStage(
        fitted.means, fitted.projections, fitted.correlations, 200, head=random_head(0)
    )
    chains = [np.array([4, 9]), np.array([3]), np.array([1, 5, 2])]
    by_chain = chains_of([4, 9, 3, 1, 5, 2], "structure", 0)
    proteins = Ragged(by_chain.values, np.array([0, 13, 16, 24]))
    packed = stage.packed_rows("structure", proteins, chains)
    expected = np.concatenate([stage.rows("structure", rows, "global") for rows in by_chain])
    np.testing.assert_allclose(packed.diagonal.values, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(packed.local.values, stage.rows("structure", by_chain.values))
    assert packed.chains.tolist() == [4, 9, 3, 1, 5, 2]
