"""The residue context: coordinates in which a sequence's residue knows its neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from protalign.core.arrays import Float32
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.residues import ResidueStage
from protalign.residues.context import LIMIT, REACH, ResidueContext, limited
from protalign.search.word_index import stage_sha256
from tests.residues.test_head import random_head

D: dict[Modality, int] = {"sequence": 11, "structure": 7}
READ, HIDDEN, K = 5, 6, 4


def a_context(seed: int = 0) -> ResidueContext:
    """One with random parameters."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (D["sequence"],),
        "projection": (D["sequence"], K),
        "read": (D["sequence"], READ),
        "inner": ((2 * REACH + 1) * READ, HIDDEN),
        "inner_bias": (HIDDEN,),
        "middle": (HIDDEN, HIDDEN),
        "middle_bias": (HIDDEN,),
        "outer": (HIDDEN, K),
        "shift": (K,),
    }
    of_structure = {"mean": (D["structure"],), "projection": (D["structure"], K)}

    def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Float32]:
        return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}

    parameters: dict[Modality, dict[str, Float32]] = {
        "sequence": drawn(shapes),
        "structure": drawn(of_structure),
    }
    facts: dict[str, Any] = {"hidden": HIDDEN, "read": READ, "residues": 9, "pairs": 2, "epochs": 1}
    facts |= {"error": 0.5, "without": 0.6}
    return ResidueContext(parameters, np.array([0.9, 0.6, 0.3, 0.1], np.float32), 0.9, facts)


def a_stage(context: ResidueContext | None) -> ResidueStage:
    """One with random maps."""
    rng = np.random.default_rng(1)
    return ResidueStage(
        {m: rng.normal(size=D[m]).astype(np.float32) for m in MODALITIES},
        {m: rng.normal(size=(D[m], K)).astype(np.float32) for m in MODALITIES},
        np.array([0.8, 0.5, 0.2, 0.1], np.float32),
        1000,
        largest=0.9,
        context=context,
    )


def gelu(x: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """PyTorch's approximation, in float64."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("length", [1, 3, 40])
def test_coordinates_are_those_of_the_formula(length: int) -> None:
    """Each residue by itself, in float64, with zeros beyond the ends."""
    context = a_context()
    p = {n: a.astype(np.float64) for n, a in context.parameters["sequence"].items()}
    z = np.random.default_rng(2).normal(size=(length, D["sequence"]))
    expected = []
    for i in range(length):
        around = []
        for j in range(i - REACH, i + REACH + 1):
            c = np.zeros(READ)
            if 0 <= j < length:
                c = (z[j] - p["mean"]) @ p["read"]
                c *= min(1, LIMIT / np.sqrt((c**2).mean()))
            around.append(c)
        inner = gelu(np.concatenate(around) @ p["inner"] + p["inner_bias"])
        hidden = gelu(inner @ p["middle"] + p["middle_bias"])
        expected.append((z[i] - p["mean"]) @ p["projection"] + hidden @ p["outer"] + p["shift"])
    one = Ragged(z, np.array([0, length]))
    np.testing.assert_allclose(context.coordinates("sequence", one), expected, rtol=1e-4, atol=1e-4)
    q = {n: a.astype(np.float64) for n, a in context.parameters["structure"].items()}
    y = np.random.default_rng(3).normal(size=(length, D["structure"]))
    found = context.coordinates("structure", Ragged(y, np.array([0, length])))
    np.testing.assert_allclose(found, (y - q["mean"]) @ q["projection"], rtol=1e-4, atol=1e-4)


def test_a_chain_knows_nothing_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed or alone, in small parts or at once, its coordinates are the same."""
    context = a_context()
    rng = np.random.default_rng(4)
    chains = Ragged.pack([rng.normal(size=(n, D["sequence"])) for n in (30, 1, 8, 17)])
    together = context.coordinates("sequence", chains)
    alone = [context.coordinates("sequence", Ragged.pack([chain])) for chain in chains]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("protalign.residues.head.ROWS_AT_ONCE", 10)
    parts = context.coordinates("sequence", chains)
    np.testing.assert_allclose(parts, together, rtol=1e-5, atol=1e-5)
    whole = context.coordinates("sequence", Ragged(chains.values, np.array([0, 56])))
    assert np.abs(whole - together).max() > 0.01  # one chain of all would differ


def test_local_rows_are_the_contexts_and_global_ones_the_plain_ones() -> None:
    """By chain; a protein of two chains has the rows of both alone."""
    stage = a_stage(a_context())
    values = np.random.default_rng(5).normal(size=(25, D["sequence"])).astype(np.float32)
    protein = stage.protein_rows("sequence", values, np.array([10, 15]))
    of_chains = [stage.rows("sequence", part) for part in (values[:10], values[10:])]
    np.testing.assert_allclose(protein.local, np.concatenate(of_chains), rtol=1e-5, atol=1e-5)
    plain = stage.plain_rows("sequence", values)
    np.testing.assert_array_equal(protein.diagonal, plain)
    np.testing.assert_array_equal(stage.rows("sequence", values, "global"), plain)
    assert np.abs(protein.local - plain).max() > 0.1
    without = replace(stage, context=None).protein_rows("sequence", values, np.array([10, 15]))
    assert without.local is without.diagonal
    np.testing.assert_array_equal(without.local, plain)


def test_products_of_rows_are_log_likelihood_ratios_of_the_coordinates() -> None:
    """Those of the class's formula, by the context's own correlations and limit."""
    context = a_context()
    stage = a_stage(context)
    rng = np.random.default_rng(6)
    values = {m: rng.normal(size=(9, D[m])).astype(np.float32) for m in MODALITIES}
    x, y = (
        limited(context.coordinates(m, Ragged.pack([values[m]])), 0.9).astype(np.float64)
        for m in MODALITIES
    )
    r = context.correlations.astype(np.float64)
    ratio = x[:, None] * y * r - (x[:, None] ** 2 + y**2) * r**2 / 2
    expected = (ratio / (1 - r**2) - np.log(1 - r**2) / 2).sum(axis=-1)
    rows = [stage.rows(m, values[m]) for m in MODALITIES]
    np.testing.assert_allclose(rows[0] @ rows[1].T, expected, rtol=1e-4, atol=1e-4)


def test_saved_arrays_give_it_again() -> None:
    """As a model holds them; ``n_numbers`` is their number."""
    stage = a_stage(a_context())
    again = ResidueStage.of_tensors(stage.tensors(), stage.facts())
    values = np.random.default_rng(7).normal(size=(12, D["sequence"])).astype(np.float32)
    np.testing.assert_array_equal(again.rows("sequence", values), stage.rows("sequence", values))
    assert again.context is not None
    assert again.facts() == stage.facts()
    n_numbers = sum(array.size for array in again.context.tensors().values())
    assert ResidueContext.n_numbers(D, K, HIDDEN, READ) == n_numbers


def test_half_takes_half_the_room_and_says_nearly_the_same() -> None:
    """Its arrays are float16; it computes in float32."""
    context = a_context()
    half = context.half()
    chains = Ragged.pack([np.random.default_rng(8).normal(size=(20, D["sequence"]))])
    found = half.coordinates("sequence", chains)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, context.coordinates("sequence", chains), atol=0.1)
    assert all(a.dtype == np.float16 for named in half.parameters.values() for a in named.values())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("context.inner.sequence", lambda a: a[:-1]),
        ("context.projection.structure", lambda a: a[:, :-1]),
        ("context.read.sequence", lambda a: a[:, :-1]),
        ("context.correlations", lambda a: a + 1),
        ("context.correlations", lambda a: a[:, None]),
        ("context.outer.sequence", lambda a: a * np.float32(np.nan)),
        ("context.mean.sequence", lambda a: a[:-1]),
        ("context.middle_bias.sequence", None),
    ],
)
def test_damaged_arrays_are_refused(name: str, change: Any) -> None:
    """A wrong shape, a number that is none, a missing array."""
    stage = a_stage(a_context())
    tensors = stage.tensors()
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])
    with pytest.raises((ValueError, KeyError)):
        ResidueStage.of_tensors(tensors, stage.facts())


@pytest.mark.parametrize("largest", [0.0, -1.0, float("inf"), float("nan")])
def test_a_damaged_limit_is_refused(largest: float) -> None:
    """It is a number above 0, or None."""
    stage = a_stage(a_context())
    facts = stage.facts()
    facts["context"] = {**facts["context"], "largest": largest}
    with pytest.raises(ValueError, match="limit"):
        ResidueStage.of_tensors(stage.tensors(), facts)


@pytest.mark.parametrize(
    ("name", "value"),
    [("residues", "many"), ("pairs", None), ("error", float("nan")), ("without", "abc")],
)
def test_a_damaged_record_is_refused(name: str, value: object) -> None:
    """The card says what is in it."""
    stage = a_stage(a_context())
    facts = stage.facts()
    facts["context"] = {**facts["context"], name: value}
    with pytest.raises((ValueError, TypeError)):
        ResidueStage.of_tensors(stage.tensors(), facts)
    del facts["context"][name]
    with pytest.raises(KeyError):
        ResidueStage.of_tensors(stage.tensors(), facts)


@pytest.mark.filterwarnings("error")
def test_huge_numbers_give_no_warning() -> None:
    """Who asked for rows looks for those that are not finite, and names them."""
    context = a_context()
    values = np.full((5000, D["sequence"]), 3e38, np.float32)
    values[0] = np.inf
    chains = Ragged(values, np.arange(0, 5001, 100))
    assert not np.isfinite(context.coordinates("sequence", chains)).all()


@pytest.mark.parametrize("with_head", [False, True])
def test_words_are_of_rows_without_it(with_head: bool) -> None:
    """A protein's rows for words are neither the context's nor the head's, in either form.

    Without a context or a head they are the local ones. The digest of an index's stage is also the
    same with and without.
    """
    rows, chains = np.random.default_rng(0).normal(size=(9, D["sequence"])), np.array([4, 5])
    both = Ragged(np.concatenate([rows, rows[:6]]), np.array([0, 9, 15]))
    plain = a_stage(None)
    head = random_head(2, D, K) if with_head else None
    stage = replace(a_stage(a_context()), head=head)
    assert stage_sha256(stage) == stage_sha256(plain)
    want = plain.plain_rows("sequence", rows)
    protein = stage.protein_rows("sequence", rows, chains)
    packed = stage.packed_rows("sequence", both, [chains, np.array([6])], words=True)
    for found in (protein, next(iter(packed))):
        np.testing.assert_allclose(found.plain, want, atol=1e-5)
        assert not np.allclose(found.local, want, atol=1e-3)
        assert np.allclose(found.diagonal, want, atol=1e-5) != with_head
    assert stage.packed_rows("sequence", both, [chains, np.array([6])]).plain is None
    alone = plain.protein_rows("sequence", rows, chains)
    assert alone.plain is alone.local is alone.diagonal


def test_rows_beyond_the_limit_are_scaled_down_to_it() -> None:
    """Others stay as they are."""
    rows = np.array([[3.0, 4.0], [0.1, 0.2], [0.0, 0.0]], np.float32)
    found = limited(rows, 1.0)
    np.testing.assert_allclose(np.sqrt((found[0] ** 2).mean()), 1, rtol=1e-6)
    np.testing.assert_array_equal(found[1:], rows[1:])


def test_threads_change_nothing() -> None:
    """Chains are shared among them."""
    context = a_context()
    rng = np.random.default_rng(9)
    chains = Ragged.pack([rng.normal(size=(900, D["sequence"])) for _ in range(12)])
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(context.coordinates("sequence", chains))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-6)
