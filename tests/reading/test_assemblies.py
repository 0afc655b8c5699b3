"""Biological assemblies, built with the operators in the files."""

from __future__ import annotations

import gzip
import io
import time
from pathlib import Path

import gemmi
import numpy as np
import pytest
from biotite.structure.io.pdbx import CIFFile, get_assembly

from protalign.core.errors import InputError
from protalign.core.protein import Protein
from protalign.reading import ReadOptions, assemblies
from protalign.reading.structure_writer import write_values
from protalign.search.provenance import read_options
from protalign.stores import AlignedVectors
from tests.helpers.reading_files import (
    DATA,
    assert_same_chain,
    read,
    read_b_factors,
    read_one,
    text_of,
    write,
)

FIRST = ReadOptions(assembly="1")
OPERATORS = "_pdbx_struct_assembly_gen.oper_expression   1,2"


def chains_of(protein: Protein) -> dict[str, np.ndarray]:
    """The coordinates of every chain of a protein's complex."""
    assert protein.structure is not None
    return {c.id: c.backbone.coordinates for c in protein.structure.chains if c.backbone}


def failure_of(path: Path, options: ReadOptions = FIRST) -> str:
    """The one failure of a file, as it is printed."""
    (failure,) = read(path, options).failures
    return f"{failure.reason}; {failure.advice}"


def built_by_gemmi(path: Path) -> list[np.ndarray]:
    """The CA atoms of each protein chain of the first assembly, as gemmi builds it."""
    structure = gemmi.read_structure(str(path))
    how = gemmi.HowToNameCopiedChain.AddNumber
    model = gemmi.make_assembly(structure.assemblies[0], structure[0], how)
    chains = [chain.get_polymer().first_conformer() for chain in model]
    return [np.array([r["CA"][0].pos.tolist() for r in c]) for c in chains if len(list(c))]


@pytest.mark.parametrize(("name", "copies"), [("1a8o", 2), ("3jqh", 24), ("4zhl", 2)])
def test_coordinates_are_gemmis(name: str, copies: int) -> None:
    """A dimer by a crystal axis, 24 chains round a fourfold axis, and a file that is whole."""
    path = DATA / f"{name}.cif.gz"
    found = chains_of(read_one(path, FIRST))
    assert len(found) == copies
    for own, expected in zip(found.values(), built_by_gemmi(path), strict=True):
        np.testing.assert_allclose(own[:, 1], expected, atol=1e-3)
    for chain, coordinates in chains_of(read_one(path)).items():
        np.testing.assert_array_equal(found[chain], coordinates)


def test_formats_agree(tmp_path: Path) -> None:
    """PDB's REMARK 350 gives what mmCIF gives; BinaryCIF too, here 24 chains."""
    cif, pdb = (read_one(DATA / f"1a8o.{kind}.gz", FIRST) for kind in ("cif", "pdb"))
    assert cif.structure is not None
    assert pdb.structure is not None
    for left, right in zip(cif.structure.chains, pdb.structure.chains, strict=True):
        assert left.id == right.id
        np.testing.assert_allclose(
            left.backbone.coordinates,
            right.backbone.coordinates,
            atol=1e-4,  # type: ignore[union-attr]
        )
    binary = tmp_path / "3jqh.bcif"
    binary.write_bytes(gzip.decompress((DATA / "3jqh.bcif.gz").read_bytes()))
    from_cif, from_binary = read_one(DATA / "3jqh.cif.gz", FIRST), read_one(binary, FIRST)
    assert from_cif.structure is not None
    assert from_binary.structure is not None
    assert len(from_cif.structure.chains) == 24
    for left, right in zip(from_cif.structure.chains, from_binary.structure.chains, strict=True):
        assert_same_chain(left, right)


def test_entries_of_an_assembly() -> None:
    """Identical chains count once, all are context; or each chain, also a copy, is an entry."""
    whole = read_one(DATA / "1a8o.cif.gz", FIRST)
    assert [chain.id for chain in whole.chains] == ["A"]
    assert whole.structure is not None
    assert whole.structure.kept == (0,)
    assert whole.structure.context_length == 2 * len(whole.structure)
    options = ReadOptions(per="chain", assembly="1")
    each = read(DATA / "1a8o.cif.gz", options).proteins
    assert [protein.id for protein in each] == ["1a8o_A", "1a8o_A-2"]
    assert each[0].annotation == each[1].annotation == whole.annotation
    unchanged = read(DATA / "4zhl.cif.gz", options).proteins
    assert [protein.id for protein in unchanged] == ["4zhl_U", "4zhl_P"]


def test_a_missing_assembly_is_named_with_those_that_exist(sample: Path) -> None:
    """A file without it is a failure; FASTA has no chains to copy and is read."""
    seventh = ReadOptions(assembly="7")
    words = "it has no assembly 7; choose one that it has: 1"
    assert failure_of(DATA / "1a8o.cif.gz", seventh) == words
    assert failure_of(DATA / "1a8o.pdb.gz", seventh) == words
    words = "it has no assembly 1, and names none; read it without assembly"
    assert failure_of(sample / "1bpi_A.cif") == words
    assert failure_of(DATA / "2beg.pdb.gz") == words


def test_fasta_is_read_as_it_is(tmp_path: Path) -> None:
    """Its records have no chains to copy."""
    assert read_one(write(tmp_path / "a.fasta", ">a\nMKV\n"), FIRST).sequences == ("MKV",)


def test_operators_are_combined(tmp_path: Path) -> None:
    """(1)(1-2): the last one is applied first, as biotite does; the other order differs."""
    identity = "1_555 x,y,z            1.0000000000 0.0000000000  0.0000000000 "
    text = text_of("1a8o.cif.gz")
    assert text.count(identity + "0.0") == 1
    text = text.replace(identity + "0.0", identity + "9.0")  # the first one is a shift now
    builds = []
    for expression in ("(1)(1-2)", "(1-2)(1)"):
        changed = text.replace(OPERATORS, OPERATORS.replace("1,2", expression))
        found = chains_of(read_one(write(tmp_path / "a.cif", changed), FIRST))
        first = np.array([coordinates[0, 1] for coordinates in found.values()])
        atoms = get_assembly(CIFFile.read(io.StringIO(changed)), "1", 1)
        alpha = atoms[(atoms.atom_name == "CA") & (atoms.res_id == atoms.res_id[0])]
        assert len(first) == len(alpha) == 2
        np.testing.assert_allclose(ordered(first), ordered(alpha.coord), atol=2e-3)
        builds.append(ordered(first))
    assert not np.allclose(*builds, atol=1)


def ordered(points: np.ndarray) -> np.ndarray:
    """Points by x, y and z."""
    return points[np.lexsort(points.round(1).T)]


@pytest.mark.parametrize(
    "expression", ["1-999999999", "(1-99999)(1-99999)", "1," * 30_000 + "1", "(5-1)(1-999999999)"]
)
def test_an_assembly_without_bounds_is_refused_before_it_is_built(
    expression: str, tmp_path: Path
) -> None:
    """A few letters can stand for any number of chains. Without assembly the file is read."""
    text = text_of("1a8o.cif.gz").replace(OPERATORS, OPERATORS.replace("1,2", f"'{expression}'"))
    path = write(tmp_path / "a.cif", text)
    begin = time.perf_counter()
    assert "chains, more than the 20,000 that are read" in failure_of(path)
    assert len(read_one(path)) == 70
    assert time.perf_counter() - begin < 5


def test_an_assembly_must_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before its copies are made; what a later machine may read has no hash."""
    monkeypatch.setattr(assemblies, "free_memory", lambda: 30_000.0)
    assert len(read_one(DATA / "1a8o.cif.gz")) == 70
    result = read(DATA / "1a8o.cif.gz", FIRST)
    assert result.failures[0].reason == "too large for this machine's memory"
    assert result.sha256 == b""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("matrix[3][3] ", "matrix[4][4] ", "the file lacks one of its operators"),
        ("-z+1/2 0.0000000000 -1", "-z+1/2 0.0000000000 1", "not a rotation and a shift"),
        ("41.9800000000", "1e30", "not a rotation and a shift"),
        ("41.9800000000", "?", "not a rotation and a shift"),
        ("asym_id_list      A,B", "asym_id_list B", "assembly 1 has no protein chain"),
    ],
)
def test_what_cannot_be_built_is_a_failure(old: str, new: str, words: str, tmp_path: Path) -> None:
    """Operators that are missing, mirror, or throw the chains away; ligands alone."""
    text = text_of("1a8o.cif.gz")
    assert old in text
    path = write(tmp_path / "a.cif", text.replace(old, new))
    assert words in failure_of(path)
    assert read(path).failures == []


def test_names_of_copies_are_unique() -> None:
    """A copy never has a name that a chain of the file has."""
    assert assemblies._copy_names(["A", "A-2", "A"], ["A", "A-2"]) == ["A", "A-2", "A-3"]


@pytest.mark.parametrize("name", ["", "a b", "x" * 21, "\x1b", 1.5, True])
def test_names_of_assemblies_are_checked(name: object) -> None:
    """A number is a name; what no file has is refused at once."""
    with pytest.raises(InputError, match="not the name of an assembly"):
        ReadOptions(assembly=name)  # type: ignore[arg-type]
    assert ReadOptions(assembly=2).assembly == "2"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_numbers_of_a_copy_are_written_to_the_built_complex(kind: str, tmp_path: Path) -> None:
    """The source lacks the copy, so its atoms cannot carry the numbers: the backbone does."""
    source = DATA / f"1a8o.{kind}.gz"
    result = read(source, FIRST)
    structure = result.proteins[0].structure
    assert structure is not None
    for chain, all_atoms in (("A", True), ("A-2", False)):
        values = {(chain, 160, " "): 7.0}
        path, whole = write_values(source, result.sha256, structure, values, tmp_path / chain)
        assert whole == all_atoms
        assert read_b_factors(path)[chain, 160, " "] == 7.0


def test_queries_are_read_as_they_are() -> None:
    """A query need not have the assembly that the searched files had."""
    options = {"assembly": "1", "per": "chain"}
    eye, every = np.eye(1, dtype=np.float32), np.ones(1, dtype=np.bool_)
    ids = np.array(["a"], dtype=object)
    vectors = AlignedVectors(ids, eye, eye, every, every, {"store": {"options": options}})
    assert read_options(vectors) == ReadOptions(per="chain")
