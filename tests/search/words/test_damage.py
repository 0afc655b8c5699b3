"""Damaged and forged indexes are refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protalign import EmbeddingStore, Model
from protalign.core.digests import sealed
from protalign.core.errors import InputError
from protalign.core.files import json_text
from protalign.core.protein import MODALITIES
from protalign.search import WordIndex, index_store, word_parts
from protalign.search.word_files import (
    IndexManifest,
    ids_digest,
    read_manifest,
)
from protalign.search.word_index import verify_index
from protalign.search.word_parts import PartReader
from tests.search.words import MADE_WITH, everything


def test_damage_is_found(changed: Path, model: Model, store: EmbeddingStore) -> None:
    """A changed byte, a shorter or missing file, a link or a pipe, in any file: one line."""
    files = [path for path in sorted(changed.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert len(files) == 13
    for file in files:
        before = file.read_bytes()
        flipped = bytearray(before)
        flipped[len(flipped) // 2] ^= 1
        other = file.with_name("other")
        other.write_bytes(before)

        def link(file: Path = file, other: Path = other) -> None:
            file.symlink_to(other)

        for damage in (
            lambda file=file, flipped=flipped: file.write_bytes(flipped),
            lambda file=file, before=before: file.write_bytes(before[:-2]),
            lambda file=file, before=before: file.write_bytes(before + b"  "),
            lambda: None,
            link,
            lambda file=file: os.mkfifo(file),
        ):
            file.unlink()
            damage()
            (problem,) = verify_index(changed)
            assert "\n" not in problem
            if "the spaces in its" not in problem:
                with pytest.raises(InputError):
                    everything(changed, model, store)
            file.unlink(missing_ok=True)
            file.write_bytes(before)
        other.unlink()
    assert verify_index(changed) == []


def forged(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Change a manifest, with its digest; return what ``verify_index`` says."""
    before = (path / "index.json").read_text()
    value = json.loads(before)
    del value["sha256"]
    change(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    value["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "index.json").write_text(json_text(value))
    (problem, *_) = verify_index(path)
    (path / "index.json").write_text(before)
    return problem


@pytest.mark.parametrize("number", [7, -1, 2**70, 1.5, "7", None, True, [], 10**12])
@pytest.mark.parametrize(
    "key", ["entries", "residues", "rows", "offsets", "words", "starts", "places"]
)
def test_a_forged_number_is_refused(changed: Path, key: str, number: object) -> None:
    """Counts and checksums of any size take no memory, and end in one line."""

    def change(value: dict[str, Any]) -> None:
        value["segments"]["segment-0"]["structure"][key] = number

    assert "damaged" in forged(changed, change)


@pytest.mark.parametrize("keys", [("words",), ("starts", "places"), ("places",)])
def test_a_checksum_too_many_is_refused(changed: Path, keys: tuple[str, ...]) -> None:
    """All others are right."""

    def change(value: dict[str, Any]) -> None:
        for key in keys:
            value["segments"]["segment-0"]["structure"][key].append(0)

    assert "damaged" in forged(changed, change)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("format", "another"),
        ("format_version", "1.0"),
        ("segments", {"../segment-0": {}}),
        ("segments", {"segment-0": {"shape": {}}}),
        ("segments", []),
        ("centroids", {"structure": [2**40, 50, 0]}),
        ("centroids", {"structure": [0, 50, 0]}),
        ("centroids", {"structure": [1024, 50, 0]}),
        ("centroids", {}),
        ("centroids", None),
        ("provenance", {}),
        ("provenance", {**MADE_WITH, "stage_sha256": 1}),
        ("provenance", {**MADE_WITH, "seed": "0"}),
        ("provenance", {**MADE_WITH, "n_words": None}),
    ],
)
def test_a_forged_manifest_is_refused(changed: Path, place: str, value: object) -> None:
    """Names, versions and shapes."""
    assert ";" in forged(changed, lambda manifest: manifest.update({place: value}))


def test_a_later_minor_version_is_read(changed: Path) -> None:
    """It only has more than this version knows of."""
    manifest = changed / "index.json"
    value = json.loads(manifest.read_text())
    del value["sha256"]
    manifest.write_text(json_text(sealed({**value, "format_version": "2.9"})))
    assert WordIndex(changed).modalities == MODALITIES


def test_a_manifest_without_words_ends_in_one_line(
    changed: Path, model: Model, store: EmbeddingStore
) -> None:
    """It is whole by its digest, but nothing can be searched."""
    manifest = IndexManifest(read_manifest(changed).provenance, {}, {})
    (changed / "index.json").write_text(manifest.text())
    with pytest.raises(InputError, match="it has no words of a structure"):
        everything(changed, model, store)


def test_a_forged_array_is_refused(changed: Path) -> None:
    """Numbers that are whole by their checksums, but mean nothing."""
    import google_crc32c

    def forge(name: str, key: str, data: bytes) -> str:
        file = changed / "segment-0" / f"structure.{name}"
        before = file.read_bytes()
        assert len(data) == len(before)
        file.write_bytes(data)
        checksum = google_crc32c.value(data)

        def change(value: dict[str, Any]) -> None:
            number = [checksum] if key == "words" else checksum
            value["segments"]["segment-0"]["structure"][key] = number

        problem = forged(changed, change)
        file.write_bytes(before)
        return problem

    def forge_lists(starts: npt.NDArray[Any], places: npt.NDArray[Any]) -> str:
        before = [part.with_suffix(f".{kind}").read_bytes() for kind in ("starts", "places")]
        after = starts.tobytes(), places.tobytes()
        part.with_suffix(".starts").write_bytes(after[0])
        part.with_suffix(".places").write_bytes(after[1])

        def change(value: dict[str, Any]) -> None:
            part = value["segments"]["segment-0"]["structure"]
            part["starts"], part["places"] = ([google_crc32c.value(each)] for each in after)

        problem = forged(changed, change)
        part.with_suffix(".starts").write_bytes(before[0])
        part.with_suffix(".places").write_bytes(before[1])
        return problem

    part = changed / "segment-0" / "structure"
    rows = np.frombuffer(part.with_suffix(".rows").read_bytes(), "<i8").copy()
    rows[0] = rows[1]
    assert "names an entry twice" in forge("rows", "rows", rows.tobytes())
    rows[0] = -1
    assert "names an entry twice" in forge("rows", "rows", rows.tobytes())
    offsets = np.frombuffer(part.with_suffix(".offsets").read_bytes(), "<i8").copy()
    offsets[3] = 10**9
    assert "does not ascend" in forge("offsets", "offsets", offsets.tobytes())
    offsets = np.frombuffer(part.with_suffix(".offsets").read_bytes(), "<i8").copy()
    offsets[3:5] = 2**63 - 1, -2  # their differences leave 64 bits, and look like rising ones
    assert "does not ascend" in forge("offsets", "offsets", offsets.tobytes())
    words = np.frombuffer(part.with_suffix(".words").read_bytes(), "<u2").copy()
    for unknown in (65_535, len(WordIndex(changed).words.centroids["structure"])):
        words[7] = unknown
        assert "words that the index has not" in forge("words", "words", words.tobytes())
        with pytest.MonkeyPatch.context() as patch:  # it is not in the last piece that is looked at
            patch.setattr(word_parts, "_IN_CACHE", 8)
            assert "words that the index has not" in forge("words", "words", words.tobytes())
    starts = np.frombuffer(part.with_suffix(".starts").read_bytes(), "<u4")
    places = np.frombuffer(part.with_suffix(".places").read_bytes(), "<u2")
    for place, number in ((0, 1), (5, 2**32 - 1), (len(starts) - 1, len(places) + 1)):
        other = starts.copy()
        other[place] = number
        assert "starts does not ascend to its places" in forge_lists(other, places)
    for number in (int(places.max()) + 1, 2**16 - 1):
        other = places.copy()
        other[3] = number
        assert "places leads out of a block" in forge_lists(starts, other)
    assert "block 0 of segment-0/structure are not of its words" in forge_lists(
        starts, places[::-1]
    )


@pytest.mark.parametrize("number", [np.nan, -np.inf, 3e38], ids=str)
def test_forged_centroids_are_refused(changed: Path, number: float) -> None:
    """Scores with them would be no numbers."""
    import google_crc32c

    manifest, file = read_manifest(changed), changed / "structure.centroids"
    values = np.frombuffer(file.read_bytes(), "<f4").copy()
    values[5] = number
    file.write_bytes(values.tobytes())
    *shape, _ = manifest.centroids["structure"]
    checksum = google_crc32c.value(values.tobytes())
    centroids = {**manifest.centroids, "structure": (*shape, checksum)}
    written = replace(manifest, centroids=centroids)
    (changed / "index.json").write_text(written.text())
    with pytest.raises(InputError, match=r"structure\.centroids has numbers that are not finite"):
        WordIndex(changed)


def test_an_entry_in_two_segments_is_refused(
    changed: Path, model: Model, store: EmbeddingStore
) -> None:
    """Each segment is whole, but their entries would be hits twice."""
    shutil.copytree(changed / "segment-0", changed / "segment-1")
    manifest = read_manifest(changed)
    twice = manifest.with_segment("segment-1", manifest.segments["segment-0"])
    (changed / "index.json").write_text(twice.text())
    problem = "damaged \\(two segments have words of the same sequence\\); remove the folder"
    with pytest.raises(InputError, match=problem):
        everything(changed, model, store)
    with pytest.raises(InputError, match=problem):
        index_store(model, store, changed)
    assert len(verify_index(changed, store)) == 1


def test_rows_beyond_the_store_are_refused(
    changed: Path, model: Model, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index may name entries that its store never had, one after its last or far behind."""
    real = PartReader.rows.fget
    assert real is not None
    for behind in (0, 10**6):
        shift = len(store.log) + behind - WordIndex(changed).entry_rows("sequence").max()
        with monkeypatch.context() as patch:
            patch.setattr(PartReader, "rows", property(lambda self, by=shift: real(self) + by))
            with pytest.raises(InputError, match="entries are not those of"):
                everything(changed, model, store)


@pytest.mark.parametrize("count", [0, 1, 2, 1 << 16, (1 << 16) + 1, 200_000])
def test_a_digest_of_ids_does_not_show_how_they_were_read(count: int) -> None:
    """Some ids at a time, out of any iterable: the digest is that of all in one text."""
    ids = [f"é{number}" for number in range(count)]
    assert ids_digest(iter(ids)) == hashlib.sha256("\n".join(ids).encode()).hexdigest()
