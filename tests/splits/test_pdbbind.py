"""The paper's protocol on PDBbind, and whole sequence clusters on one side."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from protalign.cli.app import app
from protalign.core.errors import InputError
from protalign.splits import by_cluster, by_pdbbind, read_index, read_split
from protalign.splits.clusters import cluster_proteins
from protalign.splits.make import chain_sequences
from protalign.splits.pdbbind import _codes
from protalign.splits.split import PARTS
from protalign.stores import EmbeddingStore
from tests.splits.test_make import make_store

HEAD = """# ==============================================================================
# List of protein-ligand complexes
# PDB code, resolution, release year, -logKd/Ki, Kd/Ki, reference, ligand name
# ==============================================================================
"""


def write_index(folder: Path, name: str, codes: list[str]) -> None:
    """Write a file in PDBbind's form."""
    folder.mkdir(exist_ok=True, parents=True)
    lines = [f"{code}  2.00  2007   4.70  Kd=20uM       // {code}.pdf (MLY)\n" for code in codes]
    (folder / name).write_text(HEAD + "".join(lines))


def protein(number: int) -> str:
    """Return a random sequence, another one for each number."""
    return "".join(np.random.default_rng(number).choice(list("ACDEFGHIKLMNPQRSTVWY"), 80))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddingStore, Path]:
    """Ten complexes: 1aaa and 1bbb of the core set, three refined ones more, five others."""
    folder = tmp_path_factory.mktemp("pdbbind")
    sequences = {"1aaa": 0, "1bbb": 0, "2aaa": 1, "2bbb": 0, "2ccc": 2, "3aaa": 3, "3bbb": 3}
    sequences |= {"3ccc": 1, "3ddd": 4, "3eee": 5, "9zzz": 6}
    store = make_store(folder / "s.zarr", {i: (protein(n),) for i, n in sequences.items()})
    index = folder / "index"
    refined = ["1bbb", "1aaa", "2aaa", "2bbb", "2ccc"]
    others = ["3aaa", "3bbb", "3ccc", "3ddd", "3eee", "4zzz"]
    write_index(index / "v2020", "INDEX_general_PL_data.2020", refined + others)
    write_index(index / "v2020", "INDEX_refined_data.2020", refined)
    write_index(index / "v2013", "INDEX_general_PL_data.2013", ["3aaa"])
    (index / "CoreSet.dat").write_text(
        "#code  resl  year  logKa Ka target\n1AAA 1.9 2010 4 x 1\n1bbb 2\n"
    )
    return store, index


def test_an_index_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    """A compressed file of a kilobyte for each megabyte of memory, and one that is a pipe."""
    name = "INDEX_general_PL_data.2020.gz"
    (tmp_path / name).write_bytes(gzip.compress(bytes(16 << 20)) * 5)
    with pytest.raises(InputError, match=rf"{name}: more than 67,108,864 bytes decompressed"):
        _codes(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.gz")
    with pytest.raises(InputError, match="not a regular file"):
        _codes(tmp_path / "pipe.gz")


def test_the_newest_index_and_the_core_set(small: tuple[EmbeddingStore, Path]) -> None:
    """The newest year is read; the core set comes from CASF's own file if no year has one."""
    index = read_index(small[1])
    assert index.core == ("1aaa", "1bbb")
    assert len(index.general) == 11
    assert index.files == (
        *("INDEX_general_PL_data.2020", "INDEX_refined_data.2020"),
        "CoreSet.dat",
    )
    assert read_index(small[1], 2013).general == ("3aaa",)
    with pytest.raises(InputError, match="no general set of 2016"):
        read_index(small[1], 2016)


def test_duplicates_go_core_set_first(small: tuple[EmbeddingStore, Path]) -> None:
    """A sequence is in one part: the core set's, else the general, else the refined set's."""
    store, folder = small
    split = by_pdbbind(store, read_index(folder))
    assert split.test == ("1aaa",)
    assert split.train == ("3aaa", "3ccc", "3ddd", "3eee")
    assert split.validation == ("2ccc",)
    for words in (
        "validation: refined set; left out: 1 complex missing in the store",
        "4 entries with an earlier one's sequences, 1 entry of the store in no set",
    ):
        assert words in split.how


@pytest.mark.parametrize("validation", ["random", "cluster"])
def test_other_validation_parts(small: tuple[EmbeddingStore, Path], validation: str) -> None:
    """A quarter of what is left, the same for the same seed; ``how`` says which it was."""
    store, folder = small
    index = read_index(folder)
    split = by_pdbbind(store, index, validation=validation, random_state=3, method="kmer")
    assert split == by_pdbbind(store, index, validation=validation, random_state=3, method="kmer")
    assert split.counts == {"train": 4, "validation": 1, "test": 1}
    assert f"validation: {'random' if validation == 'random' else 'whole clusters'}" in split.how
    with pytest.raises(InputError, match="did you mean 'cluster'"):
        by_pdbbind(store, index, validation="clusters")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("INDEX_general_PL_data.2020", "1abc 2.0\n<html>\n", "line 2: '<html>' is not a PDB code"),
        ("INDEX_general_PL_data.2020", "# nothing\n", "contains no complexes"),
        ("INDEX_general_PL_data.2020", "1abc 2.0\n", "has no core set"),
        ("readme", "", "has no INDEX_general_PL_data file"),
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    """The error says in one line what is missing or wrong."""
    (tmp_path / name).write_text(text)
    if "core" not in message and "no INDEX" not in message:
        write_index(tmp_path, "INDEX_core_data.2016", ["1abc"])
    with pytest.raises(InputError, match=message):
        read_index(tmp_path)


def test_the_whole_of_pdbbind(shared: Path, tmp_path: Path) -> None:
    """13,196 complexes of v2016: every sequence is in one part, every complex accounted for."""
    with gzip.open(shared / "data" / "pdbbind2016_sequences.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    make_store(tmp_path / "s.zarr", {row["id"]: (row["seq"],) for row in rows})
    ids = [row["id"] for row in rows]
    core = [row["id"] for row in rows if row["deepdtaf_split"] == "test"]
    write_index(tmp_path / "index", "INDEX_general_PL_data.2016", ids)
    write_index(tmp_path / "index", "INDEX_refined_data.2016", core + ids[::4])
    write_index(tmp_path / "index", "INDEX_core_data.2016", core)
    out = tmp_path / "split.csv"
    words = ["split", tmp_path / "s.zarr", "--by", "pdbbind", "--index", tmp_path / "index"]
    words += ["--validation", "random", "--out", out, "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    split = read_split(out)
    assert printed["counts"] == split.counts
    assert printed["paper"] == {"train": 10071, "validation": 3387, "test": 215}
    sequence = {row["id"]: row["seq"] for row in rows}
    used = [sequence[i] for part in PARTS for i in split.ids(part)]
    assert len(used) == len(set(used)) == len(set(sequence.values()))
    assert len(split.test) == len({sequence[i] for i in core})
    share = len(split.validation) / (len(split.train) + len(split.validation))
    assert share == pytest.approx(3387 / 13458, abs=0.001)


def test_clusters_stay_whole(shared: Path, tmp_path: Path) -> None:
    """No cluster is in two parts, parts have their sizes, another seed deals otherwise."""
    with (shared / "data" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test_dup"][::2]
    store = make_store(tmp_path / "s.zarr", {row["id"]: (row["sequence"],) for row in rows})
    split = by_cluster(store, 0.5, (0.7, 0.2, 0.1), method="kmer")
    labels = dict(
        zip(
            store.ids,
            cluster_proteins(chain_sequences(store), 0.5, method="kmer").labels.tolist(),
            strict=True,
        )
    )
    clusters = [{labels[i] for i in split.ids(part)} for part in PARTS]
    assert not clusters[0] & clusters[1]
    assert not (clusters[0] | clusters[1]) & clusters[2]
    sizes = np.array(list(split.counts.values())) / len(store)
    np.testing.assert_allclose(sizes, [0.7, 0.2, 0.1], atol=0.02)
    assert "k-mer fallback" in split.how
    assert by_cluster(store, 0.5, (0.7, 0.2, 0.1), method="kmer") == split
    assert by_cluster(store, 0.5, random_state=1, method="kmer").test != split.test
    with pytest.raises(InputError, match="sum 1"):
        by_cluster(store, 0.5, (0.7, 0.2, 0.2))
    for wrong in ((float("nan"), 0.5, 0.5), (0.5, 0.5)):
        with pytest.raises(InputError, match="sum 1"):
            by_cluster(store, 0.5, wrong, method="kmer")
    with pytest.raises(InputError, match="random_state=-1"):
        by_cluster(store[:3], 0.5, random_state=-1, method="kmer")
    with pytest.raises(InputError, match="has no entries"):
        by_cluster(store[:0], 0.5, method="kmer")


def test_an_index_may_be_compressed_or_from_windows(tmp_path: Path) -> None:
    """Compressed, with a byte order mark and Windows' line ends, beside a PDF of the same name."""
    core = gzip.compress(b"#code resl\n2abc 1.0\n")
    (tmp_path / "CoreSet.dat.gz").write_bytes(core)
    general = "# PDB code\r\n1ABC 2.0\r\n2abc 1.0\r\n".encode("utf-8-sig")
    (tmp_path / "INDEX_general_PL_data.2020").write_bytes(general)
    (tmp_path / "INDEX_general_PL_data.2021.pdf").write_bytes(b"%PDF-1.4")
    index = read_index(tmp_path)
    assert (index.general, index.core) == (("1abc", "2abc"), ("2abc",))
    (tmp_path / "CoreSet.dat.gz").write_bytes(core[:20])
    with pytest.raises(InputError, match="cannot be read"):
        read_index(tmp_path)
