"""``protalign embed`` with lists and addresses: resumed, repaired, dealt out."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec

from protalign import EmbeddingStore
from tests.helpers.commands import contents, run


def test_lists_and_addresses_are_embedded_once(
    few: Path, sample: Path, tmp_path: Path, encoder: str
) -> None:
    """Bad lines are failures of the run, and what cannot be fetched is tried at the next one."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/lab/1bpi_A.cif", (sample / "1bpi_A.cif").read_bytes())
    names = sorted(path.name for path in few.iterdir())
    text = f"{few.name}/{names[0]}\n# no more\ngopher://h/y\nmemory://lab/1bao_B.cif\n"
    (tmp_path / "paths.txt").write_text(text)
    store = tmp_path / "store.zarr"
    command = (
        *("embed", "memory://lab/1bpi_A.cif", "--list", tmp_path / "paths.txt"),
        *("--out", store, "--sequence-encoder", encoder, "--structure-encoder", "none", "--json"),
    )
    first = json.loads(run(*command, code=3).stdout)
    assert (first["files"], first["files_read"], first["entries"]) == (3, 3, 2)
    assert {failure["file"]: failure["reason"] for failure in first["failures"]} == {
        str(tmp_path / "paths.txt"): "line 3: an address with gopher://: not read",
        "memory://lab/1bao_B.cif": "it does not exist there",
    }
    memory.pipe("/lab/1bao_B.cif", (sample / "1bao_B.cif").read_bytes())
    (tmp_path / "paths.txt").write_text(text.replace("gopher://h/y", ""))
    second = json.loads(run(*command).stdout)
    assert (second["files_read"], second["entries"], second["failures"]) == (1, 3, [])
    before = contents(store)
    assert json.loads(run(*command).stdout)["files_read"] == 0
    assert contents(store) == before
    opened = EmbeddingStore.open(store)
    assert opened.failures == []
    assert opened.source("1bpi_A") == "memory://lab/1bpi_A.cif"
    memory.rm("/lab", recursive=True)


def test_nothing_to_read_is_a_mistake(tmp_path: Path, sample: Path) -> None:
    """No path; a list that is missing; an address that is not read. Nothing is made."""
    out = ("--out", tmp_path / "store.zarr")
    assert "name files, folders, addresses or --list" in run("embed", *out, code=2).stderr
    done = run("embed", "--list", tmp_path / "none.txt", *out, code=2)
    assert done.stderr.count("\n") == 1
    done = run("embed", sample, "git://me:secret@h/x.cif", *out, code=2)
    assert done.stderr.startswith("protalign: an address with git://: not read; readable are")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_names_the_address(tmp_path: Path, encoder: str) -> None:
    """As it can be given again."""
    words = ("embed", "memory://lab/none.cif", "--out", tmp_path / "store.zarr")
    done = run(*words, "--sequence-encoder", encoder, "--structure-encoder", "none", code=3)
    assert "memory://lab/none.cif (none): it does not exist there; check" in done.stderr
