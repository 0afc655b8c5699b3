"""The document of one opened hit: letters, pairs, superposition and backbones agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

import protalign
from protalign import Model
from protalign.core.protein import Backbone, Chain, Protein, Structure
from protalign.search import Hits
from protalign.search.hit_columns import COLUMNS
from protalign.search.hit_view import _structures, hit_view
from tests.helpers.estimator_stores import read


@pytest.fixture(scope="module")
def hits(finished: Path, sample: Path) -> Hits:
    """A structure file, a sequence and an id, which is searched by its stored sequence."""
    model = Model.load(finished / "model", "cpu")
    queries = [sample / "1b5m_A.pdb.gz", "1a2p_A", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"]
    return protalign.search(queries, finished / "vectors.parquet", model=model, rerank=5, k=2)


def atoms_of(text: str, kind: str) -> gemmi.Structure:
    """The structure of a text."""
    if kind == "pdb":
        return gemmi.read_pdb_string(text)
    return gemmi.make_structure_from_block(gemmi.cif.read_string(text).sole_block())


def test_a_view_says_what_the_columns_say(hits: Hits) -> None:
    """Letters, pairs and scores are those of the columns; it is JSON without NaN."""
    uncalibrated = ("evalue", "backing", "prob", "bits")
    given = [name for name in COLUMNS if name not in uncalibrated]
    for index, row in enumerate(hits.table(given).rows):
        view = hits.view(index)
        assert json.loads(json.dumps(view, allow_nan=False)) == view
        assert view["hit"] == row | dict.fromkeys(uncalibrated)
        query, target = (
            "".join(c["letters"] for c in view[s]["chains"]) for s in ("query", "target")
        )
        assert (len(query), len(target)) == (row["qlen"], row["tlen"])
        assert (view["query"]["length"], view["target"]["length"]) == (row["qlen"], row["tlen"])
        assert len(view["pairs"]) == sum(
            "-" not in column for column in zip(row["qaln"], row["taln"], strict=True)
        )
        assert view["pairs"][0][:2] == [row["qstart"] - 1, row["tstart"] - 1]
        assert view["pairs"][-1][:2] == [row["qend"] - 1, row["tend"] - 1]
        same = sum(query[q] == target[t] != "X" for q, t, _ in view["pairs"])
        assert same / row["alnlen"] == pytest.approx(row["fident"])
        fit = {t: score for t, score in enumerate(view["fit"]) if score is not None}
        assert fit == {t: score for _, t, score in view["pairs"]}


def test_the_backbones_lie_on_one_another(hits: Hits) -> None:
    """The target's CA atoms, moved, give the view's RMSD with the fit as B-factors."""
    view = hits.view(0)
    placed = view["superposition"]
    assert view["query"]["modality"] == "structure"
    assert placed["qtmscore"] == view["hit"]["qtmscore"]
    assert len(placed["fit"]) == view["target"]["length"]
    kind = view["structures"]["format"]
    structures = {s: atoms_of(view["structures"][s], kind) for s in ("query", "target")}
    for side, structure in structures.items():
        numbers = [n for chain in view[side]["chains"] for n in chain["numbers"] if n is not None]
        kept = [r.seqid.num for chain in structure[0] for r in chain]
        assert kept == numbers
        assert {a.name for chain in structure[0] for r in chain for a in r} == {"N", "CA", "C", "O"}
    fit = [value for value in placed["fit"] if value is not None]
    b = [a.b_iso for chain in structures["target"][0] for r in chain for a in r if a.name == "CA"]
    assert [value for value in b if value > 0] == pytest.approx(fit, abs=0.01)
    rotation = np.reshape(placed["rotation"], (3, 3))
    ca = {
        side: np.array([a.pos.tolist() for c in s[0] for r in c for a in r if a.name == "CA"])
        for side, s in structures.items()
    }
    moved = ca["target"] @ rotation.T + placed["translation"]
    nearest = np.linalg.norm(ca["query"][:, None] - moved[None], axis=-1).min(axis=0)
    paired = np.array([value is not None for value in placed["fit"]])
    assert np.sqrt((nearest[paired] ** 2).mean()) <= placed["rmsd"] + 0.01


def test_a_sequence_is_on_a_structure(hits: Hits) -> None:
    """It has no backbone and no superposition; the target has its backbone, and fits."""
    view = hits.view(2)
    assert view["query"]["id"] == "query_1"
    assert view["superposition"] is None
    assert view["structures"]["query"] is None
    assert "ATOM" in view["structures"]["target"]
    assert view["target"]["modality"] == "structure"
    assert len(view["fit"]) == view["target"]["length"]


def test_a_search_of_vectors_alone_gives_what_it_knows(finished: Path) -> None:
    """Without a store the chains are empty and the rest is null, and nothing fails."""
    hits = protalign.search("1a2p_A", finished / "vectors.parquet", k=1)
    view = hits.view(0)
    assert view["target"]["chains"] == view["pairs"] == view["fit"] == []
    assert view["superposition"] is view["structures"]["target"] is None
    assert view["hit"]["cosine"] == hits[0].cosine
    assert view["target"]["length"] == hits[0].length


@pytest.mark.parametrize("change", ["name", "number", "far"])
def test_both_backbones_have_the_form_that_holds_both(change: str, sample: Path) -> None:
    """A long chain name, a large number or a far coordinate makes both mmCIF."""
    [one, *_] = read(sample)
    (chain,) = one.chains
    assert chain.backbone is not None
    numbers, coordinates = chain.residue_numbers, chain.backbone.coordinates
    odd = Chain(
        "AXP" if change == "name" else chain.id,
        chain.sequence,
        numbers + (20_000 if change == "number" else 0),
        chain.insertion_codes,
        chain.observed,
        Backbone(coordinates + np.float32(9990 if change == "far" else 0)),
    )
    other = Protein("odd", "", (odd,), Structure((odd,), (0,)))
    assert _structures(one, one, [None] * len(one))["format"] == "pdb"
    texts: dict[str, Any] = _structures(one, other, [None] * len(one))
    assert texts["format"] == "mmcif"
    read_again = atoms_of(texts["target"], "mmcif")
    assert read_again[0][0].name == odd.id
    first = next(a for r in read_again[0][0] for a in r if a.name == "CA")
    assert odd.backbone is not None
    seen = odd.backbone.coordinates[np.isfinite(odd.backbone.coordinates[:, 1, 0]).argmax(), 1]
    np.testing.assert_allclose(first.pos.tolist(), seen, atol=1e-2)


def test_view_is_that_of_the_module(hits: Hits) -> None:
    """``Hits.view`` is ``hit_view`` of the hit's own query."""
    assert hits.comparison is not None
    assert hits.view(5) == hit_view(hits.comparison, hits.places[5], hits[5])
    assert hits.view(5)["query"]["id"] == "1a2p_A"
