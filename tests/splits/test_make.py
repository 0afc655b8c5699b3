"""Splits: disjoint parts of ids, the file that holds them, and the ways to make one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.protein import Chain, Protein
from protalign.splits import Split, by_column, read_split, write_split
from protalign.splits.split import PARTS
from protalign.stores import EmbeddingStore, StoreWriter

IDS = st.lists(st.text("abcXYZ019_-. ,\"'é|", min_size=1).map(str.strip), unique=True).map(
    lambda ids: [i for i in ids if i]
)


def make_store(path: Path, proteins: dict[str, tuple[str, ...]]) -> EmbeddingStore:
    """A store of sequences, nothing embedded: a split needs no more."""
    with StoreWriter(path, {"per": "protein", "sequence": "observed", "min_plddt": None}) as writer:
        found = [
            Protein(name, "all.fasta", tuple(Chain.from_sequence(s) for s in sequences))
            for name, sequences in proteins.items()
        ]
        writer.add("all.fasta", b"0" * 32, found)
        writer.commit()
    return EmbeddingStore.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """Four entries, a to d."""
    folder = tmp_path_factory.mktemp("splits")
    return make_store(folder / "s.zarr", {name: ("MKV" + name.upper() * 9,) for name in "acde"})


@given(IDS, st.data())
def test_a_written_split_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], data: st.DataObject
) -> None:
    """Ids, parts, order and how come back, whatever characters ids hold."""
    if not ids:
        return
    parts = data.draw(st.lists(st.sampled_from(PARTS), min_size=len(ids), max_size=len(ids)))
    split = Split.from_parts(dict(zip(ids, parts, strict=True)), "by hand, in\ntwo lines")
    path = tmp_path_factory.mktemp("split") / "split.csv"
    write_split(split, path)
    assert read_split(path) == split
    frame = pd.read_csv(path, keep_default_na=False, dtype=str)  # other programs' first line
    assert frame.columns.tolist() == ["id", "part", "how"]
    assert frame["how"].tolist() == ["by hand, in two lines", *[""] * (len(ids) - 1)]


def test_a_split_of_version_0_1_0_is_read(tmp_path: Path) -> None:
    """How it was made is behind a # in its first line."""
    (tmp_path / "split.csv").write_text("# by hand, once\nid,part\na,train\nb,test\n")
    assert read_split(tmp_path / "split.csv") == Split(("a",), (), ("b",), "by hand, once")


def test_an_id_is_in_one_part() -> None:
    """An id in two parts, or twice in one, is named."""
    with pytest.raises(InputError, match="'1a30' is in train and in test"):
        Split(("1a30",), (), ("1a30",))
    with pytest.raises(InputError, match="'1a30' is twice in test"):
        Split((), (), ("1a30", "1a30"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,part\na,train\nb,tset\n", "line 3: 'tset' is not a part"),
        ("# how\nid,part\na,train\na,test\n", "line 4: 'a' is named twice"),
        ("name,part\na,train\n", "has no columns id and part"),
        ("id,part\na\n", "line 2: 1 cells under 2 names"),
        ("id,part\n", "contains no ids"),
        ("", "is empty"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """An error names the file, the line and the problem."""
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_split(path)
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read"):
        read_split(tmp_path / "absent.csv")


def test_parts_are_views_of_a_store(store: EmbeddingStore) -> None:
    """``of`` gives each part's entries in order, and names ids that are not there."""
    parts = Split(("d", "a"), (), ("c",)).of(store)
    assert parts["train"].ids.tolist() == ["d", "a"]
    assert len(parts["validation"]) == 0
    assert parts["test"].ids.tolist() == ["c"]
    with pytest.raises(InputError, match=r"2 of its ids are missing in the store \(x, y\)"):
        Split(("a",), ("x",), ("y",)).of(store)


def test_a_users_column_is_read(tmp_path: Path, store: EmbeddingStore) -> None:
    """Usual names of columns and parts are found; nothing is left out uncounted."""
    path = tmp_path / "table.csv"
    path.write_text("Set;length;ID\nTraining;3;a\nval;3;c\ntest_dup;3;d\ntest;3;zzz\n")
    split = by_column(store, path)
    assert split == Split(
        ("a",),
        ("c",),
        (),
        "by column Set of table.csv; left out: 1 row of other values (test_dup); "
        "1 id missing in the store; 2 entries of the store in no part",
    )
    path.write_text("who\twhere\na\ttest\ne\tVALID\n")
    assert by_column(store, path, "who", "where").ids("validation") == ("e",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,split\na,train\nc,test\na,test\n", "line 4: 'a' is in train and in test"),
        ("id,group\na,train\n", r"no column of parts .* the columns are id, group"),
        ("id,split\nx,train\n", r"no entry of the store .* \(1 id missing in the store\)"),
    ],
)
def test_a_column_that_gives_no_split(
    tmp_path: Path, store: EmbeddingStore, text: str, message: str
) -> None:
    """An id in two parts is named; a table without parts or without the store's ids is refused."""
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        by_column(store, path)
    with pytest.raises(InputError, match="did you mean 'id'"):
        by_column(store, path, id_column="idd")


def test_tables_as_people_have_them(tmp_path: Path, store: EmbeddingStore) -> None:
    """A byte order mark, Windows' line ends, blank lines and spaces; a line end within quotes."""
    path = tmp_path / "table.csv"
    path.write_bytes(
        "# by hand\r\n\r\n id ; part \r\n a ; train \r\n  \r\nc;test\r\n".encode("utf-8-sig")
    )
    assert read_split(path) == Split(("a",), (), ("c",), "by hand")
    path.write_bytes(b'note,id,split\n"two\nlines",a,train\nx,c,test\nx,a,test\n')
    with pytest.raises(InputError, match="line 5: 'a' is in train and in test"):
        by_column(store, path)
    path.write_text('id,split\n"a' + "x" * 200_000 + ",train\n")
    with pytest.raises(InputError, match=r"table\.csv, line 2: field larger"):
        by_column(store, path)
