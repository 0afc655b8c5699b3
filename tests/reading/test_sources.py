"""Which files a search finds, and under which ids."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.reading import find_sources, read_source
from protalign.reading.sources import of_shard, split_name


def names(paths: list[Path]) -> list[tuple[str, str]]:
    sources, failures = find_sources(paths)
    assert failures == []
    return [(source.id, source.kind) for source in sources]


def reasons(paths: list[Path]) -> list[str]:
    return [failure.reason for failure in find_sources(paths)[1]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1abc.pdb", ("1abc", "pdb")),
        ("pdb1abc.ent.gz", ("1abc", "pdb")),
        ("PDB1ABC.ENT", ("1ABC", "pdb")),
        ("pdb1abc.pdb", ("pdb1abc", "pdb")),
        ("pdbs.ent", ("pdbs", "pdb")),
        ("1ABC.CIF.GZ", ("1ABC", "mmcif")),
        ("a.mmcif", ("a", "mmcif")),
        ("AF-P12345-F1-model_v4.bcif.gz", ("AF-P12345-F1-model_v4", "bcif")),
        ("1abc.ent.pdb", ("1abc", "pdb")),
        ("set.v2.fasta", ("set.v2", "fasta")),
        ("x.fa.gz", ("x", "fasta")),
        ("x.faa", ("x", "fasta")),
        ("x.fas", ("x", "fasta")),
        ("notes.txt", ("notes.txt", None)),
        ("x.gz", ("x", None)),
    ],
)
def test_names_tell_id_and_kind(name: str, expected: tuple[str, str | None]) -> None:
    """The id is the name without its known suffixes, which say the kind in any case of letters."""
    assert split_name(name) == expected


def test_folders_are_searched_and_other_files_passed_over(sample: Path, tmp_path: Path) -> None:
    """Recursively, sorted; hidden files and folders and other kinds say nothing."""
    for place in ("b/deep/er", "a", ".hidden"):
        (tmp_path / place).mkdir(parents=True)
    shutil.copy(sample / "1vqb_A.pdb.gz", tmp_path / "b" / "deep" / "er")
    shutil.copy(sample / "1bpi_A.cif", tmp_path / "a")
    shutil.copy(sample / "1bpi_A.cif", tmp_path / ".hidden" / "secret.cif")
    for name in ("README.md", "table.csv", ".dot.pdb", "ligand.sdf", "x.tar.gz"):
        (tmp_path / name).write_text("something")
    assert names([tmp_path]) == [("1bpi_A", "mmcif"), ("1vqb_A", "pdb")]


def test_pdbbind_layout_gives_one_protein_per_folder(sample: Path, tmp_path: Path) -> None:
    """{id}/{id}_protein.pdb is taken as {id}; pockets, ligands, index and readme are not."""
    for id, file in (("1a30", "1vqb_A.pdb.gz"), ("2xyz", "1vqg_A.cif")):
        folder = tmp_path / "refined-set" / id
        folder.mkdir(parents=True)
        suffix = file.partition(".")[2]
        shutil.copy(sample / file, folder / f"{id}_protein.{suffix}")
        shutil.copy(sample / file, folder / f"{id}_pocket.{suffix}")
        for ligand in ("sdf", "mol2"):
            (folder / f"{id}_ligand.{ligand}").write_text("a ligand")
    for folder_name in ("index", "readme"):
        (tmp_path / "refined-set" / folder_name).mkdir()
        (tmp_path / "refined-set" / folder_name / "INDEX_general_PL.2016").write_text("# index")
    expected = [("1a30", "pdb"), ("2xyz", "mmcif")]
    assert names([tmp_path]) == expected
    assert names([tmp_path / "refined-set" / "1a30"]) == expected[:1]
    assert names([tmp_path / "refined-set" / "1a30" / "1a30_protein.pdb.gz"]) == expected[:1]
    [source], _ = find_sources([tmp_path / "refined-set" / "1a30"])
    assert read_source(source).proteins[0].id == "1a30"


def test_pdbbind_id_from_inside_its_folder(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`protalign embed .` in an entry's folder finds the same id."""
    folder = tmp_path / "1a30"
    folder.mkdir()
    shutil.copy(sample / "1vqb_A.pdb.gz", folder / "1a30_protein.pdb.gz")
    shutil.copy(sample / "1vqb_A.pdb.gz", folder / "1a30_pocket.pdb.gz")
    monkeypatch.chdir(folder)
    assert names([Path()]) == [("1a30", "pdb")]
    assert names([Path("1a30_protein.pdb.gz")]) == [("1a30", "pdb")]


def test_pocket_named_outright_is_read(sample: Path, tmp_path: Path) -> None:
    """Whoever names a file means it."""
    folder = tmp_path / "1a30"
    folder.mkdir()
    for part in ("protein", "pocket"):
        shutil.copy(sample / "1vqb_A.pdb.gz", folder / f"1a30_{part}.pdb.gz")
    assert names([folder / "1a30_pocket.pdb.gz"]) == [("1a30_pocket", "pdb")]


def test_loops_of_links_end(sample: Path, tmp_path: Path) -> None:
    """A link to a folder above is followed once."""
    (tmp_path / "a").mkdir()
    shutil.copy(sample / "1bpi_A.cif", tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    assert names([tmp_path]) == [("1bpi_A", "mmcif")]


def test_same_file_twice_counts_once(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given itself, in its folder, and by a relative path."""
    path = sample / "1bpi_A.cif"
    monkeypatch.chdir(sample.parent)
    assert names([path, path, Path("sample") / path.name]) == [("1bpi_A", "mmcif")]
    assert len(names([path, sample, Path("sample")])) == 40


def test_links_to_one_file_under_two_names_are_two_entries(sample: Path, tmp_path: Path) -> None:
    """Data stores keep equal files once and link to them; each name is an entry."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.cif").symlink_to(sample / "1bpi_A.cif")
    assert names([tmp_path]) == [("first", "mmcif"), ("second", "mmcif")]


def test_order_of_the_paths_does_not_matter(sample: Path) -> None:
    """The result is sorted by path."""
    paths = [sample / "1vqb_A.pdb.gz", sample / "1bpi_A.cif", sample]
    assert find_sources(paths) == find_sources(paths[::-1])


def test_paths_that_give_nothing_are_failures(tmp_path: Path) -> None:
    """Missing, of unknown kind, an empty folder, a broken link: each says what it is."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "dangling.pdb").symlink_to(tmp_path / "nowhere.pdb")
    assert reasons([tmp_path / "gone.pdb"]) == ["it does not exist"]
    assert reasons([tmp_path / "notes.txt"]) == ["its suffix is unknown"]
    assert reasons([tmp_path / "empty"]) == ["it holds no protein file"]
    [source], failures = find_sources([tmp_path])
    assert failures == []
    assert "no such file" in read_source(source).failures[0].reason


def test_second_file_with_an_id_fails_and_names_the_first(sample: Path, tmp_path: Path) -> None:
    """1vqb_A.pdb and 1vqb_A.cif in one run: the second in order is a failure."""
    for name in ("x/1vqb_A.pdb.gz", "y/1vqb_A.pdb.gz"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(sample / "1vqb_A.pdb.gz", tmp_path / name)
    sources, [failure] = find_sources([tmp_path])
    assert [source.path.parent.name for source in sources] == ["x"]
    assert failure.id == "1vqb_A"
    assert failure.file.endswith("y/1vqb_A.pdb.gz")
    assert failure.reason == f"the id 1vqb_A is taken by {tmp_path / 'x' / '1vqb_A.pdb.gz'}"


@pytest.mark.parametrize(
    "name", ["my protein.pdb", "tab\there.cif", "line\nend.pdb", "\u202eevil.pdb"]
)
def test_names_that_make_no_id(tmp_path: Path, name: str) -> None:
    """White space and unprintable characters in a name are a failure."""
    (tmp_path / name).write_text("ATOM")
    sources, failures = find_sources([tmp_path])
    assert sources == []
    assert "its name cannot be an id" in failures[0].reason


def test_name_that_is_no_utf8_is_shown_all_the_same(tmp_path: Path) -> None:
    """The failure's text can be printed and stored."""
    path = tmp_path / b"caf\xe9.pdb".decode(errors="surrogateescape")
    path.write_text("ATOM")
    [failure] = find_sources([tmp_path])[1]
    assert failure.file.encode("utf-8")
    assert "caf" in failure.file


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=30), st.integers(1, 7))
def test_each_file_is_in_one_shard(names: list[int], count: int) -> None:
    """Whatever the number of shards is; and in the same one if the folder lies elsewhere."""
    for name in names:
        parts = [
            [
                of_shard(root / "a" / f"{name}.pdb", {root}, number, count)
                for number in range(1, count + 1)
            ]
            for root in (Path("/data"), Path("/mnt/lab/data"))
        ]
        assert parts[0].count(True) == 1
        assert parts[0] == parts[1]


def test_shards_are_of_like_size() -> None:
    """1,000 files in 10 shards: none has more than half as much again as it should."""
    files = [Path(f"/data/{number:04}.pdb") for number in range(1000)]
    sizes = [sum(of_shard(f, {Path("/data")}, n, 10) for f in files) for n in range(1, 11)]
    assert max(sizes) <= 150


def test_archives_are_taken_only_if_they_are_named(tmp_path: Path) -> None:
    """A folder may have what came out of the archive in it."""
    (tmp_path / "all.tar").write_bytes(b"")
    (tmp_path / "1a30.pdb").write_bytes(b"")
    assert [source.kind for source in find_sources([tmp_path])[0]] == ["pdb"]
    assert [source.kind for source in find_sources([tmp_path / "all.tar"])[0]] == ["tar"]


def test_what_was_written_to_be_looked_at_is_no_input(tmp_path: Path) -> None:
    """A folder of superposed hits below the one that is searched; given itself, it is read."""
    placed = tmp_path / "placed"
    placed.mkdir()
    for folder in (tmp_path, placed):
        (folder / "1a30.pdb").write_bytes(b"")
    (placed / "superposed.json").write_text('{"schema": "protalign superposed hits"}')
    assert [source.path.parent for source in find_sources([tmp_path])[0]] == [tmp_path]
    assert [source.path.parent for source in find_sources([placed])[0]] == [placed]
    (placed / "superposed.json").write_text('{"schema": "mine"}')
    assert len(find_sources([tmp_path])[1]) == 1, "another's file of that name says nothing"
