"""Attention: torch's own weights, tied to the right residues, and read back out of files."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from torch import nn

from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Chain, Structure
from protalign.estimator.attention_files import write_attention
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.attention import AttentionHead
from protalign.reading.structure_writer import MAX_B_FACTOR, write_backbone
from protalign.stores import EmbeddingStore
from tests.helpers.estimator_stores import build, read, renamed, sequence_only
from tests.helpers.reading_files import read_b_factors


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """A folder with three of the sample's files, two PDB and an mmCIF, and a store of them."""
    folder = tmp_path_factory.mktemp("attention")
    for name in ("107l_A.pdb.gz", "1a2p_A.pdb.gz", "110l_A.cif"):
        shutil.copy(sample / name, folder)
    proteins = [*read(folder), sequence_only("fasta", "MKTAYIAKQR")]
    build(folder / "store.zarr", proteins)
    return folder


def by_torch(head: AttentionHead, rows: np.ndarray) -> np.ndarray:
    """(L, n_heads) of nn.MultiheadAttention with the head's parameters."""
    dim, embed_dim = rows.shape[1], head.embed_dim
    reference = nn.MultiheadAttention(embed_dim, 4, kdim=dim, vdim=dim, batch_first=True)
    if dim == embed_dim:  # torch then keeps the three projections as one
        named = dict(head.attention.state_dict())
        parts = [named.pop(f"{part}_proj_weight") for part in "qkv"]
        reference.load_state_dict({"in_proj_weight": torch.cat(parts), **named})
    else:
        reference.load_state_dict(head.attention.state_dict())
    residues = torch.from_numpy(rows.astype(np.float32))[None]
    _, weights = reference(
        head.query[None, None], residues, residues, need_weights=True, average_attn_weights=False
    )
    return weights[0, :, 0].T.detach().numpy()


def test_weights_are_torch_s(store: EmbeddingStore, fitted: ProtAlignEstimator) -> None:
    """Each head's weights of each residue, for both modalities; they sum to 1; None where none."""
    found = fitted.attention(store)
    for modality in MODALITIES:
        encoder = store.encoder_for(modality).name
        for place, weights in enumerate(found[modality]):
            if weights is None:
                assert (store.ids[place], modality) == ("fasta", "structure")
                continue
            rows = store[[place]].embeddings(encoder)[0]
            assert weights.shape == (len(rows), 4)
            assert weights.dtype == np.float32
            np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
            if place % 10 == 0:
                expected = by_torch(fitted.model_.head(modality), rows)
                np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert found["structure"][0].std() > 1e-4  # they do differ


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("head", [None, 2])
def test_files_say_what_the_heads_look_at(
    files: Path, fitted: ProtAlignEstimator, tmp_path: Path, head: int | None, modality: str
) -> None:
    """Read back: a row's residue has its weight times the rows, every other residue 0."""
    store = EmbeddingStore.open(files / "store.zarr")
    written, failures = write_attention(
        fitted.model_, store, tmp_path / "out", head=head, modality=modality
    )
    assert [failure.id for failure in failures] == ["fasta"]
    assert {file.path.name for file in written} == {"107l_A.pdb", "1a2p_A.pdb", "110l_A.cif"}
    for file in written:
        assert file.all_atoms
        (weights,) = fitted.attention(store[[file.id]])[modality]
        shares = len(weights) * (weights.mean(axis=1) if head is None else weights[:, head])
        residues = store.residue_map(file.id)
        if modality == "sequence":
            shares = shares[residues.sequence_index]
        found = read_b_factors(file.path)
        expected = {
            (chain, int(number), chr(code)): share
            for chain, number, code, share in zip(
                residues.chain_ids,
                residues.residue_numbers,
                residues.insertion_codes,
                shares,
                strict=True,
            )
        }
        assert set(expected) <= set(found)
        for key, value in found.items():
            assert value == pytest.approx(expected.get(key, 0), abs=0.006)
        assert file.highest == pytest.approx(max(expected.values()))


def test_all_atoms_are_those_of_the_source(
    files: Path, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """Side chains and all, where they were; each atom of a residue has the residue's number."""
    store = EmbeddingStore.open(files / "store.zarr")
    write_attention(fitted.model_, store[["107l_A", "110l_A"]], tmp_path)
    for written, source in (
        (tmp_path / "107l_A.pdb", files / "107l_A.pdb.gz"),
        (tmp_path / "110l_A.cif", files / "110l_A.cif"),
    ):
        ours, theirs = (gemmi.read_structure(str(path)) for path in (written, source))
        atoms = [
            [(a.residue.seqid.num, a.atom.name, *a.atom.pos.tolist()) for a in s[0].all()]
            for s in (ours, theirs)
        ]
        assert atoms[0] == atoms[1]
        for residue in ours[0][0]:
            assert len({atom.b_iso for atom in residue}) == 1


def test_the_store_s_backbone_where_the_source_is_another(
    files: Path, fitted: ProtAlignEstimator, tmp_path: Path, sample: Path
) -> None:
    """A source that has changed, or is gone, is not used: the coordinates are the store's."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("107l_A.pdb.gz", "110l_A.cif"):
        shutil.copy(sample / name, folder)
    store = EmbeddingStore.open(build(folder / "store.zarr", read(folder)))
    text = gzip.decompress((folder / "107l_A.pdb.gz").read_bytes())
    (folder / "107l_A.pdb.gz").write_bytes(gzip.compress(text + b"REMARK\n"))
    (folder / "110l_A.cif").unlink()
    written, _ = write_attention(fitted.model_, store, tmp_path / "out")
    whole, _ = write_attention(
        fitted.model_, EmbeddingStore.open(files / "store.zarr")[["107l_A"]], tmp_path / "whole"
    )
    for file in written:
        assert not file.all_atoms
        residues = gemmi.read_structure(str(file.path))[0][0]
        assert [atom.name for atom in residues[0]] == ["N", "CA", "C", "O"]
        (chain,) = store.structure(file.id).chains
        first = residues[0][1].pos
        np.testing.assert_allclose(first.tolist(), chain.backbone.coordinates[0, 1], atol=1e-3)
    assert read_b_factors(written[0].path) == pytest.approx(
        {k: v for k, v in read_b_factors(whole[0].path).items() if v > 0}, abs=0.006
    )


def test_what_a_pdb_file_cannot_hold(sample: Path, tmp_path: Path) -> None:
    """Long chain names go to mmCIF; numbers above the column's most are its most."""
    (chain,) = read(sample)[0].chains
    long = Chain(
        "AXP",
        chain.sequence,
        chain.residue_numbers,
        chain.insertion_codes,
        chain.observed,
        chain.backbone,
    )
    number = int(chain.residue_numbers[0])
    path = write_backbone(
        Structure((long,), (0,)), {("AXP", number, " "): 5000.0}, tmp_path / "long"
    )
    assert path.suffix == ".cif"
    assert read_b_factors(path)["AXP", number, " "] == pytest.approx(MAX_B_FACTOR)


def test_no_such_head(files: Path, fitted: ProtAlignEstimator, tmp_path: Path) -> None:
    """It is told in a line, and nothing is written."""
    store = EmbeddingStore.open(files / "store.zarr")
    with pytest.raises(InputError, match="give 0 to 3"):
        write_attention(fitted.model_, store, tmp_path / "out", head=4)
    assert not (tmp_path / "out").exists()


def test_an_id_that_no_file_can_have_stops_nothing(
    files: Path, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """Of a store that somebody else made: hidden, with control characters, or too long."""
    [protein] = [each for each in read(files) if each.id == "107l_A"]
    odd = ["..", "\x1b[2J", "a\nb", "x" * 245]
    store = EmbeddingStore.open(
        build(tmp_path / "s.zarr", [renamed(protein, i) for i in [*odd, "a/../b"]])
    )
    written, failures = write_attention(fitted.model_, store, tmp_path / "out")
    assert [file.path for file in written] == [tmp_path / "out" / "a_.._b.pdb"]
    assert [failure.id for failure in failures] == odd
    assert {failure.reason for failure in failures} == {"its id cannot be the name of a file"}
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_no_source_is_lost(fitted: ProtAlignEstimator, tmp_path: Path, sample: Path) -> None:
    """A file that is there stays, unless it is to be replaced; a source stays in any case."""
    for name in ("107l_A.pdb.gz", "110l_A.cif"):
        shutil.copy(sample / name, tmp_path)
    store = EmbeddingStore.open(build(tmp_path / "store.zarr", read(tmp_path)))
    source = (tmp_path / "110l_A.cif").read_bytes()

    def written(head: int, overwrite: bool) -> list[str]:
        files, failures = write_attention(
            fitted.model_, store, tmp_path, head=head, overwrite=overwrite
        )
        assert {failure.reason for failure in failures} == {"it exists"}
        assert len(files) + len(failures) == 2
        return [file.id for file in files]

    assert written(0, False) == ["107l_A"]
    first = (tmp_path / "107l_A.pdb").read_bytes()
    assert written(1, False) == []
    assert (tmp_path / "107l_A.pdb").read_bytes() == first
    assert written(1, True) == ["107l_A"]
    assert (tmp_path / "107l_A.pdb").read_bytes() != first
    assert (tmp_path / "110l_A.cif").read_bytes() == source
