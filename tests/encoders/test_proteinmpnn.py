"""ProteinMPNNEncoder against the reference implementation, on real structures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.protein import Chain, Structure
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.contract import EncoderContract
from protalign.encoders.proteinmpnn.graph import build_graph, chain_index, nearest, nodes_of
from tests.helpers.reference_proteinmpnn import (
    VANILLA,
    Reference,
    keep_all,
    moved,
    read_complex,
    take,
    with_coordinates,
)

SPEC = EncoderSpec("proteinmpnn_v_48_020", device="cpu", dtype="float32")
SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sample"
#: Complexes of CASF-2016 with two or three chains, all with gaps in their numbering but one.
COMPLEXES = ["1bcu", "1mq6", "3bv9", "4kzq", "4w9l"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(SPEC)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def aprotinin(sample: Path) -> Chain:
    """58 residues, complete, numbered 1 to 58."""
    return read_complex(sample / "1bpi_A.cif").chains[0]


@pytest.fixture(scope="module")
def dimer(aprotinin: Chain) -> Structure:
    """Two aprotinins side by side, 116 residues."""
    return keep_all([aprotinin, moved(aprotinin, (14.0, 3.5, -6.25))])


@pytest.fixture(scope="module")
def dimer_rows(encoder: Encoder, dimer: Structure) -> npt.NDArray[np.float32]:
    """The embedding of the dimer, (116, 128)."""
    return embed(encoder, dimer)


def embed(encoder: Encoder, structure: Structure) -> npt.NDArray[np.float32]:
    (rows,) = encoder.encode([structure])
    return rows


def assert_equal(
    ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], atol: float = 1e-5
) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


class TestContract(EncoderContract):
    """The suite that every encoder passes."""

    spec = SPEC

    def items(self) -> Sequence[Structure]:
        return [read_complex(SAMPLE / name) for name in ("1bpi_A.cif", "1acb_I.pdb.gz")]


@pytest.mark.parametrize(
    "name", ["1acb_I.pdb.gz", "1bpi_A.cif", "1b5m_A.pdb.gz", "1c9o_A.pdb.gz", "1gay_A.cif.gz"]
)
def test_equals_reference_on_the_sample(
    name: str, sample: Path, encoder: Encoder, reference: Reference, tmp_path: Path
) -> None:
    """Single chains out of PDB and mmCIF files have the reference's h_V within 1e-5."""
    structure = read_complex(sample / name)
    assert_equal(embed(encoder, structure), reference(structure, tmp_path))


@pytest.mark.parametrize("name", COMPLEXES)
def test_equals_reference_on_complexes(
    name: str, shared: Path, encoder: Encoder, reference: Reference, tmp_path: Path
) -> None:
    """Complexes with several chains, insertion codes and gaps have the reference's h_V."""
    path = shared / "data" / "casf2016" / name / f"{name}_protein.pdb.gz"
    structure = read_complex(path)
    assert len(structure.chains) > 1
    assert_equal(embed(encoder, structure), reference(structure, tmp_path))


def test_equals_reference_on_a_damaged_complex(
    sample: Path, encoder: Encoder, reference: Reference, tmp_path: Path
) -> None:
    """Missing residues and atoms: masked in the reference, left out here, same rows."""
    rng = np.random.default_rng(7)
    whole = read_complex(sample / "1c2r_A.pdb.gz").chains[0]
    chains = []
    for chain in (whole, moved(whole, (20.0, -8.0, 4.125))):
        chain = take(chain, np.flatnonzero(rng.random(len(chain)) > 0.15))
        assert chain.backbone is not None
        coordinates = chain.backbone.coordinates.copy()
        coordinates[rng.random(coordinates.shape[:2]) < 0.05] = np.nan
        chains.append(with_coordinates(chain, coordinates))
    structure = keep_all(chains)
    rows = embed(encoder, structure)
    assert 48 < len(rows) < sum(map(len, chains)) < 2 * len(whole)
    assert_equal(rows, reference(structure, tmp_path))


@st.composite
def numberings(draw: st.DrawFn) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Distinct numbers and insertion codes for 58 residues, with gaps, in any order."""
    runs = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 26]), min_size=58, max_size=58))
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 30]), min_size=58, max_size=58))
    starts = np.cumsum(gaps) + draw(st.integers(-20, 20))
    numbers = np.repeat(starts, runs)[:58]
    inserted = np.concatenate([np.arange(run) for run in runs])[:58]
    codes = np.frombuffer(b" ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)[inserted]
    order = np.arange(58)
    if draw(st.booleans()):
        first = draw(st.integers(1, 57))
        order = np.roll(order, first)
    return numbers[order].astype(np.int32), codes[order].astype(np.uint8)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(numberings(), st.booleans())
def test_equals_reference_under_any_numbering(
    encoder: Encoder,
    reference: Reference,
    dimer: Structure,
    tmp_path: Path,
    numbering: tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]],
    reverse: bool,
) -> None:
    """Gaps, insertion codes, negative numbers and numbers out of order count as there."""
    numbers, codes = numbering
    first = replace(dimer.chains[0], residue_numbers=numbers, insertion_codes=codes)
    chains = [first, take(dimer.chains[1], slice(12))]
    structure = keep_all(chains[::-1] if reverse else chains)
    assert_equal(embed(encoder, structure), reference(structure, tmp_path))


@pytest.mark.parametrize("length", [1, 2, 5, 47, 48, 49])
def test_equals_reference_on_tiny_chains(
    length: int, encoder: Encoder, reference: Reference, aprotinin: Chain, tmp_path: Path
) -> None:
    """Chains with fewer residues than neighbours are graphs of all their residues."""
    structure = keep_all([take(aprotinin, slice(length))])
    rows = embed(encoder, structure)
    assert rows.shape == (length, 128)
    assert_equal(rows, reference(structure, tmp_path))


@pytest.mark.parametrize("noise", ["002", "010", "030"])
def test_other_noise_levels_load_from_upstreams_files(
    noise: str, aprotinin: Chain, encoder: Encoder, tmp_path: Path
) -> None:
    """Upstream's .pt of another noise level gives the reference's h_V, not the shipped one's."""
    structure = keep_all([aprotinin])
    path = VANILLA / f"v_48_{noise}.pt"
    other = load_encoder(replace(SPEC, model=f"proteinmpnn_v_48_{noise}", weights=str(path)))
    rows = embed(other, structure)
    assert_equal(rows, Reference(path)(structure, tmp_path))
    assert np.abs(rows - embed(encoder, structure)).max() > 0.1
    assert other.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_order_of_chains_does_not_matter(sample: Path, encoder: Encoder) -> None:
    """Permuting the chains permutes the rows, and changes nothing else."""
    names = ["1bpi_A.cif", "1acb_I.pdb.gz", "1c9o_A.pdb.gz"]
    chains = [read_complex(sample / name).chains[0] for name in names]
    centred = [
        moved(chain, np.array([12.0 * i, 0, 0]) - centre(chain)) for i, chain in enumerate(chains)
    ]
    rows = np.split(
        embed(encoder, keep_all(centred)), np.cumsum([len(c.structure_rows) for c in centred])[:-1]
    )
    order = [2, 0, 1]
    permuted = embed(encoder, keep_all([centred[i] for i in order]))
    assert_equal(permuted, np.concatenate([rows[i] for i in order]))


def centre(chain: Chain) -> npt.NDArray[np.float32]:
    assert chain.backbone is not None
    middle: npt.NDArray[np.float32] = np.nanmean(chain.backbone.coordinates, axis=(0, 1))
    return middle


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_turning_and_moving_a_complex_changes_nothing(
    encoder: Encoder, dimer: Structure, dimer_rows: npt.NDArray[np.float32], seed: int
) -> None:
    """A rotation and a shift by up to 100 Å change h_V by less than 1e-3; a mirror image more."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    shift = rng.uniform(-100, 100, size=3)
    turned = embed(encoder, transformed(dimer, rotation, shift))
    assert_equal(turned, dimer_rows, atol=1e-3)
    mirrored = embed(encoder, transformed(dimer, -rotation, shift))
    assert np.abs(mirrored - dimer_rows).max() > 0.1


def transformed(
    structure: Structure, rotation: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]
) -> Structure:
    chains = []
    for chain in structure.chains:
        assert chain.backbone is not None
        chains.append(with_coordinates(chain, chain.backbone.coordinates @ rotation + shift))
    return Structure(tuple(chains), structure.kept)


@pytest.mark.parametrize("kept", [(0,), (1,), (0, 1)])
def test_kept_chains_have_the_rows_they_have_in_the_whole(
    kept: tuple[int, ...], dimer: Structure, encoder: Encoder
) -> None:
    """Keeping some chains selects their rows; the others stay their context."""
    rows = np.split(embed(encoder, dimer), 2)
    selected = embed(encoder, Structure(dimer.chains, kept))
    assert_equal(selected, np.concatenate([rows[i] for i in kept]))
    alone = embed(encoder, keep_all([dimer.chains[0]]))
    assert np.abs(alone - rows[0]).max() > 0.1


def test_only_what_kept_rows_depend_on_is_computed(aprotinin: Chain, encoder: Encoder) -> None:
    """Of a long row of chains, those out of reach of the kept one take part in no layer."""
    chains = [moved(aprotinin, (0, 0, 25.0 * i)) for i in range(12)]
    structure = Structure(tuple(chains), (0,))
    nodes, wanted = nodes_of(structure, torch.device("cpu"))
    graph = build_graph(nodes, wanted, k=48, block=16)
    first, second, third = graph.needed
    assert third == 58
    assert third <= second <= first < 4 * 58
    assert_equal(embed(encoder, structure), embed(encoder, keep_all(chains))[:58])


def test_unobserved_residues_change_nothing(aprotinin: Chain, encoder: Encoder) -> None:
    """A deposited sequence's residues without coordinates, numbered 0, are not counted."""
    assert aprotinin.backbone is not None
    padded = Chain(
        id=aprotinin.id,
        sequence="GG" + aprotinin.sequence + "G",
        residue_numbers=np.pad(aprotinin.residue_numbers, (2, 1)),
        insertion_codes=np.pad(aprotinin.insertion_codes, (2, 1), constant_values=ord(" ")),
        observed=np.pad(aprotinin.observed, (2, 1)),
        backbone=None,
    )
    holes = ((2, 1), (0, 0), (0, 0))
    padded = with_coordinates(
        padded, np.pad(aprotinin.backbone.coordinates, holes, constant_values=np.nan)
    )
    np.testing.assert_array_equal(
        embed(encoder, keep_all([padded])), embed(encoder, keep_all([aprotinin]))
    )


def test_a_structure_without_a_complete_residue_is_refused(
    aprotinin: Chain, dimer: Structure, encoder: Encoder
) -> None:
    """No complete residue among the kept chains is an InputError, whatever the others hold."""
    assert aprotinin.backbone is not None
    broken = aprotinin.backbone.coordinates.copy()
    broken[:, 3] = np.nan
    chains = (with_coordinates(aprotinin, broken), dimer.chains[1])
    for structure in (Structure(chains, (0,)), Structure(chains[:1], (0,)), Structure((), ())):
        with pytest.raises(InputError, match="no residue has all of N, CA, C and O"):
            encoder.encode([structure])
    assert embed(encoder, Structure(chains, (0, 1))).shape == (58, 128)


def test_bfloat16_stays_close(sample: Path, encoder: Encoder) -> None:
    """In bfloat16 every residue's row keeps a cosine of 0.9999 with its float32 row."""
    low = load_encoder(replace(SPEC, dtype="bfloat16"))
    assert low.settings == {"dtype": "bfloat16", "neighbours": 48}
    for name in ("1c9o_A.pdb.gz", "1gay_A.cif.gz"):
        structure = read_complex(sample / name)
        a, b = embed(encoder, structure), embed(low, structure)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > 0.9999


def test_of_equally_far_residues_the_earlier_are_neighbours() -> None:
    """On a lattice, where most distances are ties, the choice is the first by place."""
    points = torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    found = nearest(points, torch.arange(len(points)), k=10)
    squared = ((points[:, None] - points) ** 2).sum(-1)
    assert torch.equal(found, torch.argsort(squared, stable=True)[:, :10])


def test_index_counts_numbers_and_inserted_residues(aprotinin: Chain) -> None:
    """Numbers 9, 10, 10A, 10B, 13 take the places 0, 1, 2, 3 and 6."""
    chain = replace(
        take(aprotinin, slice(5)),
        residue_numbers=np.array([9, 10, 10, 10, 13], dtype=np.int32),
        insertion_codes=np.frombuffer(b"  AB ", dtype=np.uint8),
    )
    assert chain_index(chain).tolist() == [0, 1, 2, 3, 6]


def test_nodes_of_one_number_share_a_place(aprotinin: Chain, encoder: Encoder) -> None:
    """A number that a file gives twice (some prepared files do) shifts none of the others."""
    numbers = aprotinin.residue_numbers.copy()
    numbers[-1] = numbers[20]
    chain = replace(aprotinin, residue_numbers=numbers)
    assert chain_index(chain).tolist() == [*range(57), 20]
    assert np.isfinite(embed(encoder, keep_all([chain]))).all()
