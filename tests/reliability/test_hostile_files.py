"""Models, weights, archives and tables that somebody made to do harm, given to the commands."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import run
from tests.helpers.forks import Forks

Record = Callable[[str, object], None]

#: Bytes that a command may take more than for a harmless file.
MEMORY = 1 << 30
DEEP = "[" * 200_000 + "]" * 200_000


class Payload:
    """A pickle of it makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._file),)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of tensors whose header says anything."""
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def with_config(change: Callable[[dict[str, object]], object]) -> Callable[[Path, Path], None]:
    """Change a model's config, as its text."""

    def damage(model: Path, canary: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        config.pop("config_sha256", None)
        change(config)
        (model / "config.json").write_text(json.dumps(config))

    return damage


def with_file(name: str, data: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
    """Put a file in place of one of a model's."""
    return lambda model, canary: (model / name).write_bytes(data(canary)) and None


def linked(name: str, target: str) -> Callable[[Path, Path], None]:
    """Put a link, or a pipe, in place of one of a model's files."""

    def damage(model: Path, canary: Path) -> None:
        (model / name).unlink()
        (model / name).symlink_to(target) if target else os.mkfifo(model / name)

    return damage


LARGE = {"x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
MODELS: dict[str, Callable[[Path, Path], None]] = {
    "deep config": with_file("config.json", lambda _: DEEP.encode()),
    "config of spaces": with_file("config.json", lambda _: b" " * (300 << 20)),
    "config a list": with_file("config.json", lambda _: b"[1]"),
    "wide": with_config(lambda c: c.update(embed_dim=10**9)),
    "many heads": with_config(lambda c: c.update(n_heads=10**9)),
    "negative": with_config(lambda c: c.update(embed_dim=-5)),
    "dims of text": with_config(lambda c: c.update(dims={"sequence": "320", "structure": []})),
    "path as encoder": with_config(lambda c: c.update(encoders={"../../x": 1})),
    "pickle": with_file("model.safetensors", lambda canary: pickle.dumps(Payload(canary))),
    "pickle as residues": with_file("residues.safetensors", lambda c: pickle.dumps(Payload(c))),
    "long header": with_file("model.safetensors", lambda _: safetensors({}, length=2**40)),
    "large tensor": with_file("model.safetensors", lambda _: safetensors(LARGE, bytes(8))),
    "large residues": with_file("residues.safetensors", lambda _: safetensors(LARGE, bytes(8))),
    "deep header": with_file("model.safetensors", lambda _: safetensors(DEEP.encode())),
    "device": linked("model.safetensors", "/dev/zero"),
    "pipe": linked("config.json", ""),
}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, made: Path, store_path: Path) -> Path:
    """Vectors to search. Only to be copied."""
    out = tmp_path_factory.mktemp("vectors") / "v.parquet"
    run("export", store_path, "--model", made / "model", "--out", out)
    return out


def check(forks: Forks, words: Sequence[object], harmless: int, canary: Path) -> int:
    """The command ends in one line, with little memory, and ran nothing; return the memory."""
    ended = forks.run(*words)
    assert ended.code in (2, 3), ended
    assert "Traceback" not in ended.stderr, ended
    lines = [line for line in ended.stderr.splitlines() if not line.endswith("failed:")]
    assert len(lines) == 1, ended
    assert lines[0].isprintable()
    assert not canary.exists(), "it was run"
    taken = ended.peak - harmless
    assert taken < MEMORY, f"{taken:,} bytes"
    return max(taken, 0)


def test_models(
    forks: Forks, made: Path, store_path: Path, tmp_path: Path, record_property: Record
) -> None:
    """A model is parameters and words: nothing in it is run, and what it claims is checked."""
    canary, out = tmp_path / "canary", tmp_path / "v.parquet"
    words = ["export", store_path, "--out", out, "--model"]
    harmless = forks.run(*words, made / "model").peak
    out.unlink()
    taken = []
    for name, damage in MODELS.items():
        model = Path(shutil.copytree(made / "model", tmp_path / "model"))
        damage(model, canary)
        if name in ("pickle as residues", "large residues"):
            search = ["align", "1a2p_A", "1bpi_A", "--store", store_path, "--model", model]
            taken.append(check(forks, search, harmless, canary))
        else:
            taken.append(check(forks, [*words, model], harmless, canary))
        assert not out.exists()
        shutil.rmtree(model)
    record_property("hostile files", len(taken))
    record_property("most memory (MB)", max(taken) // 2**20)


def parquet(table: pa.Table, **options: object) -> bytes:
    """A Parquet file of a table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def many_rows(vectors: bytes) -> bytes:
    """A few kilobytes that say the same id 60 million times."""
    one = pa.array(["a"]).dictionary_encode()
    ids = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 60_000_000), ["a"])
    assert one.type == ids.type
    numbers = pa.repeat(pa.scalar(1, pa.int32()), 60_000_000)
    return parquet(pa.table({"id": ids, "length": numbers, "sequence_vector": numbers}))


def with_metadata(text: str) -> Callable[[bytes], bytes]:
    """Other words in the place of the provenance."""

    def change(data: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(data))
        return parquet(table.replace_schema_metadata({"protalign": text}))

    return change


TABLES: dict[str, Callable[[bytes], bytes]] = {
    "deep metadata": with_metadata(DEEP),
    "metadata a list": with_metadata("[1, 2]"),
    "NaN in the metadata": with_metadata('{"dim": NaN}'),
    "many rows": many_rows,
    "half": lambda data: data[: len(data) // 2],
    "footer of 4 GB": lambda data: data[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1",
    "only words": lambda data: b"PAR1PAR1",
    "another table": lambda data: parquet(pa.table({"id": ["a"], "x": [1]})),
}


def test_tables(
    forks: Forks,
    made: Path,
    vectors: Path,
    store_path: Path,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """Parquet files to search, and CSV files of a split."""
    canary, file = tmp_path / "canary", tmp_path / "table.parquet"
    data = vectors.read_bytes()
    file.write_bytes(data)
    words = ["search", "1a2p_A", "--model", made / "model", "--vectors", file]
    harmless = forks.run(*words).peak
    taken = []
    for change in [*TABLES.values(), lambda _: pickle.dumps(Payload(canary))]:
        file.write_bytes(change(data))
        taken.append(check(forks, words, harmless, canary))
    split = tmp_path / "split.csv"
    words = ["fit", store_path, "--max-epochs", 1, "--out", tmp_path / "m", "--split", split]
    for content in (b"\0" * 10**6, b"id,part\n" + b"x" * (50 << 20), b"id,part\n" + b'"' * 10**6):
        split.write_bytes(content)
        taken.append(check(forks, words, harmless, canary))
    split.unlink()
    split.symlink_to("/dev/zero")
    taken.append(check(forks, words, harmless, canary))
    record_property("hostile files", len(taken))
    record_property("most memory (MB)", max(taken) // 2**20)


def archives(canary: Path) -> dict[str, bytes]:
    """Compressed files, by their names."""
    zeros, spaces = (gzip.compress(byte * (64 << 20), 9) for byte in (b"\0", b" "))
    letters = gzip.compress(b">a\n" + b"A" * (64 << 20), 9)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../outside.pdb"))
    return {
        "zeros.pdb.gz": zeros * 60,
        "zeros.cif.gz": zeros * 60,
        "zeros.bcif.gz": zeros * 60,
        "spaces.cif.gz": spaces * 60,
        "letters.fasta.gz": letters + gzip.compress(b"A" * (64 << 20), 9) * 60,
        "members.pdb.gz": gzip.compress(b"\n", 1) * 300_000,
        "tar.pdb.gz": tar.getvalue(),
        "deep.bcif": b"\x91" * 10**6,
        "long.bcif": b"\x83\xa7encoder\xdb\xff\xff\xff\xff",
    }


def test_archives_and_weights(
    forks: Forks, sample: Path, tmp_path: Path, record_property: Record
) -> None:
    """Gigabytes packed in kilobytes, and weights that are programs."""
    canary = tmp_path / "canary"
    options = ["--structure-encoder", "none", "--quiet", "--sequence-encoder", "protalign_t6_2M"]
    words = ["embed", "--out", tmp_path / "s.zarr", *options]
    harmless = forks.run(*words, sample / "1bpi_A.cif").peak
    taken = []
    for name, data in archives(canary).items():
        file = tmp_path / name
        file.write_bytes(data)
        taken.append(check(forks, [*words, file], harmless, canary))
    assert not list(tmp_path.parent.glob("outside*"))
    weights = tmp_path / "esm2_t6_8M_UR50D.pt"
    words = ["embed", sample, "--structure-encoder", "none", "--out", tmp_path / "w.zarr"]
    for data in (pickle.dumps(Payload(canary)), pickle.dumps({"model": Payload(canary)}), b"PK"):
        weights.write_bytes(data)
        taken.append(check(forks, [*words, "--sequence-weights", weights], harmless, canary))
    record_property("hostile files", len(taken))
    record_property("most memory (MB)", max(taken) // 2**20)
