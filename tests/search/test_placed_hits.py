"""Hits superposed on their queries: coordinates, B-factors, scripts, and folders."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import protalign
from protalign import EmbeddingStore, Model
from protalign.core.errors import InputError, WriteError
from protalign.core.paths import file_stem
from protalign.reading import ReadOptions, sources
from protalign.search import Hits, align_files, placed_hits
from protalign.search.placed_hits import DOCUMENT, SCRIPTS
from protalign.search.viewer_scripts import chimerax_script, is_plain, pymol_script
from tests.helpers.commands import run

#: A file's name, and so an id, that would quit PyMOL, run a shell and leave the folder.
HOSTILE = "x;quit,'$(id)'..=y"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, sample: Path, finished: Path) -> Path:
    """A folder with a store of four small structures and a sequence, and their vectors.

    One structure bears a hostile name, and the file of another changes after it was read.
    """
    folder = tmp_path_factory.mktemp("placed")
    files = folder / "files"
    files.mkdir()
    for name in ("1bpi_A.cif", "1bti_A.pdb.gz", "1fan_A.pdb.gz"):
        shutil.copy(sample / name, files)
    shutil.copy(sample / "1bpt_A.pdb.gz", files / f"{HOSTILE}.pdb.gz")
    letters = EmbeddingStore.open(finished / "store.zarr").sequence("1bpi_A")[0]
    (files / "more.fasta").write_text(f">record\n{letters}\n")
    encoder = protalign.Model.load(finished / "model").encoders["sequence"].name
    run("embed", files, "--out", folder / "store.zarr", "--sequence-encoder", encoder)
    run(
        *("export", folder / "store.zarr", "--model", finished / "model"),
        *("--out", folder / "vectors.parquet"),
    )
    changed = files / "1fan_A.pdb.gz"
    changed.write_bytes(gzip.compress(gzip.decompress(changed.read_bytes()) + b"REMARK\n"))
    return folder


@pytest.fixture(scope="module")
def hits(work: Path, finished: Path) -> Hits:
    """Hits of a structure file, by sequences, all of which but one have coordinates."""
    query = work / "files" / "1bpi_A.cif"
    model = Model.load(finished / "model", "cpu")
    return protalign.search(query, work / "vectors.parquet", model=model, k=9, superpose=True)


@pytest.fixture(scope="module")
def placed(hits: Hits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder, and its document's hits by id."""
    folder = tmp_path_factory.mktemp("out") / "placed"
    hits.superpose(folder)
    document = json.loads((folder / DOCUMENT).read_text())
    assert (document["schema"], document["version"]) == ("protalign superposed hits", 1)
    return folder, {hit["target"]: hit for hit in document["hits"]}


def atoms_of(path: Path) -> list[tuple[tuple[str, int, str, str], np.ndarray, float]]:
    """(chain, number, code, atom), coordinates and B-factor of every atom, by gemmi."""
    return [
        (
            (chain.name, residue.seqid.num or 0, residue.seqid.icode, atom.name),
            np.array(atom.pos.tolist()),
            atom.b_iso,
        )
        for chain in gemmi.read_structure(str(path))[0]
        for residue in chain
        for atom in residue
    ]


def test_all_atoms_lie_where_u_and_t_put_them(
    work: Path, hits: Hits, placed: tuple[Path, dict[str, Any]]
) -> None:
    """Every atom of a source is moved; the query is not; a changed source gives a backbone."""
    folder, by_id = placed
    store = EmbeddingStore.open(work / "store.zarr")
    assert {name: hit["atoms"] for name, hit in by_id.items()} == {
        "1bpi_A": "all",
        "1bti_A": "all",
        "1fan_A": "backbone",
        "record": None,
        HOSTILE: "all",
    }
    assert by_id["record"]["reason"] == "no coordinates"
    for name, hit in by_id.items():
        if hit["file"] is None:
            continue
        source = atoms_of(Path(store.source(name)))
        if hit["atoms"] == "backbone":
            source = [atom for atom in source if atom[0][3] in ("N", "CA", "C", "O")]
        found = atoms_of(folder / hit["file"])
        assert [atom[0] for atom in found] == [atom[0] for atom in source]
        u, t = np.reshape(hit["u"], (3, 3)), np.array(hit["t"])
        moved = np.array([u @ atom[1] + t for atom in source])
        np.testing.assert_allclose([atom[1] for atom in found], moved, atol=2e-3)
    (query,) = folder.glob("*/query.cif")
    for (_, before, _), (_, after, _) in zip(
        atoms_of(work / "files" / "1bpi_A.cif"), atoms_of(query), strict=True
    ):
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_b_factors_are_the_fit(hits: Hits, placed: tuple[Path, dict[str, Any]]) -> None:
    """100 on the query, 50 at d0, 0 for what is not paired; their sum is the TM-score."""
    folder, by_id = placed
    d0 = 1.24 * (58 - 15) ** (1 / 3) - 1.8
    (query,) = folder.glob("*/query.cif")
    traces = [
        [(xyz, b) for (*_, name), xyz, b in atoms_of(path) if name == "CA"]
        for path in (query, *(folder / hit["file"] for hit in by_id.values() if hit["file"]))
    ]
    place = np.array([xyz for xyz, _ in traces[0]])
    for trace, hit in zip(traces[1:], (h for h in by_id.values() if h["file"]), strict=True):
        total = 0.0
        for xyz, b in trace:
            if b == 0:
                continue
            nearest = np.linalg.norm(place - xyz, axis=1).min()
            assert b <= 100 / (1 + (nearest / d0) ** 2) + 0.1
            total += b
        assert total / 100 / 58 == pytest.approx(hit["qtmscore"], abs=2e-3)
    assert min(b for _, b in traces[0]) > 90  # the query is its own hit


def test_scripts_hold_plain_names_only(placed: tuple[Path, dict[str, Any]]) -> None:
    """Every file is opened once, coloured by fit, and no id can act."""
    folder, by_id = placed
    (of_query,) = (path for path in folder.iterdir() if path.is_dir())
    files = {path.name for path in of_query.iterdir()} - set(SCRIPTS)
    assert all(map(is_plain, files))
    assert len(files) == 5
    pml, cxc = ((of_query / name).read_text().splitlines() for name in SCRIPTS[:2])
    assert {line.split()[1].rstrip(",") for line in pml if line.startswith("load")} == files
    assert {line.split()[1] for line in cxc if line.startswith("open")} == files
    for line in (*pml, *cxc):
        assert re.fullmatch(r"[A-Za-z0-9_ .,:*=()>#-]*", line), line
        assert "quit" not in line.split()
    assert "spectrum b, red_white_blue, hit_*, minimum=0, maximum=100" in pml
    assert any(line.startswith("color byattribute bfactor #2-5 ") for line in cxc)
    assert {Path(hit["file"]).parts[0] for hit in by_id.values() if hit["file"]} == {of_query.name}


def test_the_view_of_molstar_is_whole(placed: tuple[Path, dict[str, Any]]) -> None:
    """It holds each file, and colours each residue that has a fit once."""
    folder, _ = placed
    (path,) = folder.glob("*/view.mvsj")
    view = json.loads(path.read_text())
    assert view["root"]["kind"] == "root"
    held = set()
    for download in view["root"]["children"]:
        head, _, data = download["params"]["url"].partition(";base64,")
        assert head in ("data:chemical/x-pdb", "data:chemical/x-cif")
        content = base64.b64decode(data)
        (file,) = (f for f in path.parent.iterdir() if f.read_bytes() == content)
        held.add(file.name)
        (parse,) = download["children"]
        assert parse["params"]["format"] == ("pdb" if file.suffix == ".pdb" else "mmcif")
        node, kinds = parse, []
        while node["kind"] != "representation":
            (node,) = node["children"]
            kinds.append(node["kind"])
        assert kinds == ["structure", "component", "representation"]
        chosen = [
            (each["auth_asym_id"], each["auth_seq_id"])
            for colour in node["children"][1:]
            for each in colour["params"]["selector"]
        ]
        if not file.name.startswith("query"):
            fitted = {key[:2] for key, _, b in atoms_of(file) if b > 0}
            assert len(chosen) == len(set(chosen))
            assert set(chosen) == fitted
    assert held == {f.name for f in path.parent.iterdir()} - set(SCRIPTS)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_any_id_makes_a_plain_name_of_its_own(ids: list[str]) -> None:
    """Whatever is in it, and however many are alike."""
    taken: set[str] = set()
    stems = [file_stem(["1", name], taken, plain=True) for name in ids]
    assert all(is_plain(stem) for stem in stems)
    assert len({stem.lower() for stem in stems}) == len(ids)


@pytest.mark.parametrize("name", ["a b.pdb", "a\nquit", "a=b.pdb", "-x", "a;b", "$(a)", "", "ä"])
def test_scripts_refuse_other_names(name: str) -> None:
    """No name that could be a command or an option gets into a script."""
    for script in (pymol_script, chimerax_script):
        with pytest.raises(ValueError, match="not a plain name"):
            script("query.pdb", [name])


def test_only_its_own_folder_is_replaced(hits: Hits, tmp_path: Path) -> None:
    """A folder of something else, and a file, stay as they are; nothing is left of a failure."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    file = tmp_path / "file"
    file.touch()
    for path in (kept, file):
        with pytest.raises(WriteError, match="not a folder of superposed hits"):
            hits.superpose(path)
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]
    hits.superpose(tmp_path / "placed")
    (tmp_path / "placed" / "more.txt").touch()
    hits.superpose(tmp_path / "placed")
    assert not (tmp_path / "placed" / "more.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept", "placed"]


def test_what_cannot_be_superposed_is_a_line(work: Path, tmp_path: Path) -> None:
    """A search that did not open the store, and hits of which none has coordinates."""
    vectors = work / "vectors.parquet"
    with pytest.raises(InputError, match="search with superpose=True"):
        protalign.search("1bpi_A", vectors).superpose(tmp_path / "placed")
    # The record is found alone if it asks among sequences that are its own.
    hits = protalign.search("1bpi_A", vectors, against="sequence", k=9, superpose=True)
    only = tuple(place for place, hit in enumerate(hits) if hit.id == "record")
    alone = Hits(tuple(hits[place] for place in only), (), hits.comparison, (0,) * len(only))
    assert len(alone) == 1
    with pytest.raises(InputError, match=r"nothing can be superposed \(no coordinates\)"):
        alone.superpose(tmp_path / "placed")
    assert not (tmp_path / "placed").exists()


def test_the_chain_of_an_assembly_lies_where_the_assembly_has_it(
    sample: Path, finished: Path, tmp_path: Path
) -> None:
    """An operator that moves every chain: the backbone is placed, not the atoms of the file."""
    operator = (
        b"REMARK 350 BIOMOLECULE: 1\nREMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"
        b"REMARK 350   BIOMT1   1 -1.000000  0.000000  0.000000      100.00000\n"
        b"REMARK 350   BIOMT2   1  0.000000 -1.000000  0.000000        0.00000\n"
        b"REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000\n"
    )
    source = sample / "1bpt_A.pdb.gz"
    (tmp_path / "moved.pdb").write_bytes(operator + gzip.decompress(source.read_bytes()))
    store = tmp_path / "store.zarr"
    model = Model.load(finished / "model", "cpu")
    encoders = [record.model for record in model.encoders.values()]
    protalign.embed(tmp_path / "moved.pdb", store, encoders, options=ReadOptions(assembly="1"))
    hits = protalign.easy_search(source, store, model=model, cache=tmp_path, superpose=True)
    folder = hits.superpose(tmp_path / "placed").folder
    places = {
        name: [place for (*_, atom), place, _ in atoms_of(folder / "1bpt_A" / name) if atom == "CA"]
        for name in ("1_moved.pdb", "query.pdb")
    }
    assert np.allclose(places["1_moved.pdb"], places["query.pdb"], atol=0.01)


def test_readers_know_what_is_written_to_be_looked_at() -> None:
    """Folders of superposed hits and of alignments are known by their documents."""
    assert sources._WRITTEN == {
        placed_hits.DOCUMENT: placed_hits.SCHEMA,
        align_files.JSON: align_files.SCHEMA,
    }
