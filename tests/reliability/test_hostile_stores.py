"""Stores that somebody made to do harm: one line, nothing outside touched, little memory taken."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protalign.core.errors import ProtAlignError, StoreError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.filling.encode import encode_pending
from protalign.stores.format.append import change_state, write_chunks
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.checksums import crc32c
from protalign.stores.format.metadata import json_bytes
from protalign.stores.format.state import _checksum, load_state
from tests.helpers.one_hot import load_one_hot
from tests.helpers.peak_memory import numbers_of
from tests.helpers.stores import (
    ONE_HOT,
    OPTIONS,
    add_all,
    build,
    plan_both,
    read_protein,
    sequence_only,
    tree,
)
from tests.reliability import times

#: Bytes that looking at a hostile store may take.
MEMORY = 100 * 2**20


@pytest.fixture(autouse=True)
def counted(record_property: Callable[[str, object], None]) -> None:
    """Each test is of one kind of harm, or more."""
    record_property("hostile stores", 1)


@pytest.fixture(scope="module")
def proteins(sample: Path) -> list[Protein]:
    """Some of the sample's chains."""
    files = sorted(file for file in sample.iterdir() if file.name.endswith((".pdb.gz", ".cif")))
    return [read_protein(file) for file in files[:9]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, proteins: list[Protein]) -> Path:
    """A store of three proteins. Only to be copied."""
    return build(tmp_path_factory.mktemp("hostile") / "s.zarr", proteins[:3])


@pytest.fixture
def store(tmp_path: Path, built: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "store.zarr"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the root's attributes, and give them a checksum that fits."""
    root = json.loads((path / "zarr.json").read_text())
    value = root["attributes"]["protalign"]
    change(value)
    root["attributes"]["protalign_crc32c"] = _checksum(value)
    (path / "zarr.json").write_bytes(json_bytes(root))


def refuses(action: Callable[[], object]) -> str:
    """The one line in which an action ends."""
    with pytest.raises(StoreError) as error:
        action()
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


def every_way(path: Path) -> list[str]:
    """The lines in which opening, verifying and adding to a store end."""
    return [
        refuses(lambda: EmbeddingStore.open(path)),
        refuses(lambda: EmbeddingStore.open(f"file://{path}")),
        refuses(lambda: verify(path)),
        refuses(lambda: StoreWriter(path, OPTIONS)),
    ]


def _encoder(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["encoders"]["one_hot"].update({key: value})


def _renamed(name: str) -> Callable[[dict[str, Any]], object]:
    def change(state: dict[str, Any]) -> None:
        state["encoders"][name] = state["encoders"].pop("one_hot")
        for array in [a for a in state["committed"] if a.startswith("encoders/one_hot/")]:
            state["committed"][array.replace("one_hot", name, 1)] = state["committed"].pop(array)

    return change


def _set(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.update({key: value})


def _count(array: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["committed"].update({array: value})


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "encoder outside": _renamed("../../victim.zarr/encoders/one_hot"),
    "encoder above": _renamed(".."),
    "absolute encoder": _renamed("/tmp/x"),
    "encoder with a line break": _renamed("one\nhot"),
    "no encoder name": _renamed(""),
    "long encoder name": _renamed("x" * 1000),
    "chunk_rows 0": _encoder("chunk_rows", 0),
    "chunk_rows negative": _encoder("chunk_rows", -256),
    "chunk_rows large": _encoder("chunk_rows", 10**12),
    "chunk_rows text": _encoder("chunk_rows", "256"),
    "chunk_rows true": _encoder("chunk_rows", True),
    "dim 0": _encoder("dim", 0),
    "dim large": _encoder("dim", 10**9),
    "dim float": _encoder("dim", 20.0),
    "dtype object": _encoder("dtype", "object"),
    "dtype list": _encoder("dtype", ["float16"]),
    "dtype int": _encoder("dtype", "int8"),
    "modality": _encoder("modality", "../sequence"),
    "modality list": _encoder("modality", []),
    "model": _encoder("model", 5),
    "model with a line break": _encoder("model", "a\nb: fine"),
    "settings list": _encoder("settings", []),
    "settings nested": _encoder("settings", {"layer": {"a": 1}}),
    "versions none": _encoder("versions", None),
    "tasks_done negative": _encoder("tasks_done", -1),
    "tasks_done too many": _encoder("tasks_done", 10**6),
    "failed not rows": _encoder("failed", [1, 2]),
    "failed of short rows": _encoder("failed", [[0, "a"]]),
    "failed negative": _encoder("failed", [[-1, "a", "b"]]),
    "failed unplanned": _encoder("failed", [[10**6, "a", "b"]]),
    "failed descending": _encoder("failed", [[1, "a", "b"], [0, "a", "b"]]),
    "failed an object": _encoder("failed", {"0": "a"}),
    "another key": _encoder("__class__", "x"),
    "encoder not an object": _set("encoders", {"one_hot": 3}),
    "encoders a list": _set("encoders", []),
    "options a list": _set("options", []),
    "options nested": _set("options", {"per": ["protein"]}),
    "committed a list": _set("committed", []),
    "committed none": _set("committed", None),
    "last_chunks a list": _set("last_chunks", []),
    "last_chunks gone": lambda state: state.pop("last_chunks"),
    "last_chunks empty": _set("last_chunks", {}),
    "open_sources text": _set("open_sources", "abc"),
    "open_sources outside": _set("open_sources", [10**9]),
    "open_sources negative": _set("open_sources", [-1]),
    "negative count": _count("entries/source", -1),
    "count a float": _count("entries/source", 3.0),
    "count true": _count("entries/source", True),
    "count none": _count("entries/source", None),
    "count too many": _count("entries/source", 10**12),
    "count beyond 64 bits": _count("sequences/letters/values", 10**30),
    "unknown array": _count("../x", 1),
    "uneven table": _count("entries/sequence_item", 2),
    "format a number": _set("format", 1.1),
    "format long": _set("format", "1." + "1" * 5000),
    "format a list": _set("format", ["1.1"]),
}


@pytest.mark.parametrize("name", STATES)
def test_states_that_no_store_has(name: str, store: Path) -> None:
    """Wrong types, missing keys, impossible counts, and names that lead out: refused, unchanged."""
    rewrite(store, STATES[name])
    before = tree(store)
    every_way(store)
    before.setdefault(".lock", b"")
    assert tree(store) == before


DOCUMENTS = {
    "deep": b"[" * 1_000_000,
    "deep objects": b'{"attributes":' * 100_000,
    "deep within": b'{"attributes": {"protalign": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    "a list": b"[]",
    "a number": b"1",
    "attributes a list": b'{"attributes": []}',
    "empty": b"",
    "not UTF-8": b'{"attributes": "\xff"}',
    "half a pair": b'{"attributes": {"protalign": {"format": "\\ud800"}}}',
    "a long number": b'{"attributes": {"protalign": {"format": ' + b"9" * 10_000 + b"}}}",
    "twice": b'{"attributes": {}, "attributes": {}}',
    "NaN": b'{"attributes": {"protalign": {"format": NaN}}}',
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_roots_that_are_no_json(name: str, scheme: str, store: Path) -> None:
    """Nested deeply, of other types, or no JSON at all: one line."""
    (store / "zarr.json").write_bytes(DOCUMENTS[name])
    refuses(lambda: EmbeddingStore.open(f"{scheme}{store}"))
    refuses(lambda: verify(store))
    refuses(lambda: StoreWriter(store, OPTIONS))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_arrays_that_are_no_json(name: str, store: Path) -> None:
    """An array's or a group's description: read as damage, found, and mended by the next writer."""
    expected = tree(store)
    for place in ("entries/id/values", "failures/id/values", "entries", "encoders"):
        (store / place / "zarr.json").write_bytes(DOCUMENTS[name])
    assert "entries/id/values is damaged" in refuses(lambda: EmbeddingStore.open(store))
    remote = refuses(lambda: EmbeddingStore.open(f"file://{store}"))
    assert "entries" in remote
    found = {(damage.array, damage.chunk) for damage in verify(store).damages}
    assert found == {
        (place, "zarr.json")
        for place in ("entries/id/values", "failures/id/values", "entries", "encoders")
    }
    with StoreWriter(store, OPTIONS):
        pass
    assert tree(store) == expected
    assert verify(store).ok


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _linked_to(target: Path) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()
        file.symlink_to(target)

    return change


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _huge(file: Path) -> None:
    os.truncate(file, 10**13)  # a hole: it takes no disk


PLACES = ("entries/id/values/c.0", "encoders/one_hot/values/c.1.0", "entries/source/zarr.json")
THINGS: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a device": _linked_to(Path("/dev/zero")),
    "a link": _linked_to(Path("/etc/hostname")),
    "a loop": lambda file: _linked_to(Path(file.name))(file),
    "a folder": _folder,
    "a huge file": _huge,
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("place", PLACES)
def test_things_in_place_of_files(place: str, thing: str, store: Path) -> None:
    """A pipe, a device, a link or a folder is not opened, a huge file not read; verify names it."""
    THINGS[thing](store / place)

    def read() -> None:
        EmbeddingStore.open(store).embeddings("one_hot")

    array, _, chunk = place.rpartition("/")
    assert array in refuses(read)
    assert (array, chunk) in {(damage.array, damage.chunk) for damage in verify(store).damages}


@pytest.mark.parametrize("thing", ["a pipe", "a device", "a link", "a loop", "a folder"])
def test_things_in_place_of_the_root(thing: str, store: Path) -> None:
    """The root's description is a regular file inside the store, or it is no store."""
    THINGS[thing](store / "zarr.json")
    refuses(lambda: EmbeddingStore.open(store))
    refuses(lambda: verify(store))
    refuses(lambda: StoreWriter(store, OPTIONS))


@pytest.mark.parametrize(
    "place", ["encoders", "encoders/one_hot", "encoders/one_hot/values", "entries"]
)
def test_linked_folders(place: str, store: Path, tmp_path: Path, built: Path) -> None:
    """Reading, verifying and writing stay inside: nothing of the victim is read or changed."""
    victim = Path(shutil.copytree(built, tmp_path / "victim.zarr"))
    before = tree(victim)
    _linked_to(victim / place)(store / place)
    assert "not a folder inside" in refuses(
        lambda: EmbeddingStore.open(store).embeddings("one_hot")
    )
    report = verify(store)
    assert any(damage.array == place for damage in report.damages)
    refuses(lambda: StoreWriter(store, OPTIONS))
    assert tree(victim) == before


@pytest.mark.parametrize("name", [".lock", ".commit.partial", "entries/source/crc32c"])
def test_linked_files_are_not_written_through(name: str, store: Path, tmp_path: Path) -> None:
    """A link in place of a file that writers write leaves its target alone."""
    victim = tmp_path / "precious"
    victim.write_text("precious")
    (store / name).unlink(missing_ok=True)
    (store / name).symlink_to(victim)
    try:
        with StoreWriter(store, OPTIONS) as writer:
            plan_both(writer)
    except StoreError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert victim.read_text() == "precious"


PROGRAM = """
import sys
from protalign.core.errors import ProtAlignError
from protalign.stores import EmbeddingStore, verify
from tests.helpers.peak_memory import peak_memory
def read(store):
    store.embeddings("one_hot"), store.structure(store.ids[0])
before, lines = peak_memory(), []
for action in (lambda path: not verify(path).ok, lambda path: read(EmbeddingStore.open(path))):
    try:
        lines.append(action(sys.argv[1]))
    except ProtAlignError as error:
        lines.append("\\n" not in str(error))
print(*map(int, lines), peak_memory() - before)
"""

COUNTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "the entries": lambda state: [
        _count(array, 10**12)(state)
        for array in state["committed"]
        if array.startswith("entries/") and not array.endswith("/values")
    ],
    "the residues": lambda state: [
        _count(array, 10**12)(state) for array in state["committed"] if "residues/" in array
    ],
    "the values": lambda state: _count("encoders/one_hot/values", 256 * 10**10)(state),
    "the tasks": lambda state: [
        _count(f"encoders/one_hot/{column}", 10**12)(state)
        for column in ("done", "plan/row", "plan/task")
    ],
    "the texts": lambda state: _count("entries/id/values", 10**12)(state),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_a_million_million(name: str, store: Path) -> None:
    """Rows that do not exist take neither memory nor time."""

    def change(state: dict[str, Any]) -> None:
        COUNTS[name](state)
        state["last_chunks"] = {
            array: state["last_chunks"].get(array, 0)
            for array, rows in state["committed"].items()
            if not array.endswith(("one_hot/values", "from_centre/values", "/done"))
            and rows % _chunk_rows(array)
        }

    rewrite(store, change)
    *found, taken = numbers_of(PROGRAM, store)
    assert found == [1, 1]
    assert taken < MEMORY


def _chunk_rows(array: str) -> int:
    from protalign.stores.format.layout import ARRAYS

    return ARRAYS[array].chunk_rows if array in ARRAYS else 8192


def put_rows(path: Path, name: str, rows: npt.NDArray[Any]) -> None:
    """Replace the rows of an array of one chunk, with all its checksums."""
    spec = load_state(path).arrays()[name]
    write_chunks(path, name, spec, 0, rows)
    crc = crc32c(np.ascontiguousarray(rows))
    change_state(path, lambda state: replace(state, last_chunks={**state.last_chunks, name: crc}))


def index_arrays(path: Path) -> list[str]:
    """Arrays of numbers that lead into others, and of texts."""
    state = load_state(path)
    return sorted(
        name
        for name, rows in state.committed.items()
        if rows and name in state.last_chunks and not name.endswith(("/hash", "backbone"))
    )


#: Rows of an array that contradict others: of its dtype and number.
WRONG: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "negative": lambda rows: np.full_like(rows, -7 if rows.dtype.kind == "i" else 255),
    "large": lambda rows: np.full_like(rows, _largest(rows.dtype)),
    "one large": lambda rows: np.concatenate([rows[:-1], [_largest(rows.dtype)]]),
    "reversed": lambda rows: rows[::-1].copy(),
    "zeros": np.zeros_like,
}


def _largest(dtype: np.dtype[Any]) -> int:
    return 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)


def test_contents_that_contradict_others(built: Path, tmp_path: Path) -> None:
    """Whole chunks of made-up numbers: each way of use gives a result, or one line."""
    rng = random.Random(0)
    cases = [(name, wrong) for name in index_arrays(built) for wrong in WRONG]
    for name, wrong in rng.sample(cases, min(len(cases), times(8, 120))):
        path = Path(shutil.copytree(built, tmp_path / "store.zarr"))
        before = LocalArrays(path).read(name)
        put_rows(path, name, WRONG[wrong](before).astype(before.dtype))
        for use in (verify, _read, _write):
            try:
                use(path)
            except ProtAlignError as error:
                assert "\n" not in str(error), (name, wrong)  # noqa: PT017
            except Exception as error:
                raise AssertionError((name, wrong, use)) from error
        shutil.rmtree(path)


def _read(path: Path) -> None:
    store = EmbeddingStore.open(path)
    store.info()
    store[store.has_sequence].embeddings("one_hot")
    for name in store.ids:
        for give in (store.sequence, store.structure, store.residue_map, store.notes, store.source):
            with suppress(ProtAlignError):
                give(name)


def _write(path: Path) -> None:
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, [sequence_only("new", "ACDEF")])
        plan_both(writer)
    encode_pending(path, "one_hot", load_one_hot)


def test_a_folder_that_looks_unfinished_stops_nothing(store: Path, proteins: list[Protein]) -> None:
    """``x.partial`` is a user's own folder: verify names it, embed leaves it and goes on."""
    (store / "entries" / "x.partial").mkdir()
    (store / "entries" / "x.partial" / "precious").touch()
    (store / "c.0.0.abc.partial").touch()
    assert [d.array for d in verify(store).damages] == ["entries/x.partial"]
    build(store, proteins[:5])
    assert (store / "entries" / "x.partial" / "precious").exists()
    assert not (store / "c.0.0.abc.partial").exists()
    assert len(EmbeddingStore.open(store)) >= 5


def test_a_root_of_an_older_commit_loses_nothing(store: Path, proteins: list[Protein]) -> None:
    """Embedding over it would cut what was added since, so it is refused."""
    older = (store / "zarr.json").read_bytes()
    build(store, proteins[5:9])
    newer = (store / "zarr.json").read_bytes()
    (store / "zarr.json").write_bytes(older)
    assert "older commit" in refuses(lambda: StoreWriter(store, OPTIONS))
    refuses(lambda: EmbeddingStore.open(store))
    assert not verify(store).ok
    (store / "zarr.json").write_bytes(newer)
    assert verify(store).ok


NO_LOCK = """
#define _GNU_SOURCE
#include <errno.h>
int flock(int fd, int op) { errno = CODE; return -1; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("code", ["ENOTSUP", "ENOLCK", "ENOSYS", "EINVAL"])
def test_a_file_system_without_locks(code: str, store: Path, tmp_path: Path) -> None:
    """It says so, and how to go on; with the variable set it goes on."""
    source, library = tmp_path / "nolock.c", tmp_path / "nolock.so"
    source.write_text(NO_LOCK)
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DCODE={code}", str(source), "-o", str(library)], check=True
    )
    script = (
        "import sys\nfrom protalign.core.errors import StoreError\n"
        "from protalign.stores import StoreWriter\n"
        "try:\n    with StoreWriter(sys.argv[1], {OPTIONS}):\n        print('written')\n"
        "except StoreError as error:\n    print(error)\n"
    ).replace("{OPTIONS}", repr(OPTIONS))

    def write(**more: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-c", script, str(store)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "LD_PRELOAD": str(library), **more},
        )
        return ran.stdout

    line = write()
    assert "file locks do not work" in line
    assert "set PROTALIGN_LOCKS=off" in line
    assert write(PROTALIGN_LOCKS="off") == "written\n"


def test_without_locks_one_process_still_has_one_writer(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable takes away the lock between processes, not the one within."""
    monkeypatch.setenv("PROTALIGN_LOCKS", "off")
    with StoreWriter(store, OPTIONS):
        assert "being written to" in refuses(lambda: StoreWriter(store, OPTIONS))


def test_encoder_names_given_by_users_are_checked_alike(store: Path) -> None:
    """What a record may not say, a caller may not either."""
    with StoreWriter(store, OPTIONS) as writer:
        assert "cannot be an encoder's name" in refuses(
            lambda: writer.plan("../../victim", ONE_HOT, 100)
        )
