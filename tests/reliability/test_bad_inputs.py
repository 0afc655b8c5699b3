"""More than 400 files that are no longer what they were: each is read right, or is one line."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from protalign import EmbeddingStore
from tests.helpers.forks import Forks
from tests.helpers.reading_files import DATA
from tests.reliability import times

Record = Callable[[str, object], None]

#: Files of each kind of damage and format.
EACH = times(1, 2)
OTHERS = {
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "json": b'{"error": "no such entry"}',
    "pdf": b"%PDF-1.7\n1 0 obj\n",
    "zip": b"PK\x03\x04" + bytes(200),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "empty": b"",
    "spaces": b" \n" * 500,
    "zeros": bytes(5000),
    "xz": b"\xfd7zXZ\x00" + bytes(100),
    "words": b"ATOM is a word, data_ another; > a third\n" * 20,
    "ones": b"\xff" * 5000,
}
#: Fields of the 40th atom of a PDB file, by columns, and what takes their place.
FIELDS = {
    (0, 6): ["ATOM ?", "atom  ", "\0TOM  ", "HELIX "],
    (12, 16): ["    ", "****", " \xff  ", "CACA"],
    (17, 20): ["   ", "???", "\x01\x02\x03", "***"],
    (21, 22): ["\0", "\xff", "\n"],
    (22, 26): ["****", "nan ", "1e3 ", "    ", "1_00"],
    (30, 38): ["********", "     nan", "    1e30", "        ", "12345678", "   1_2.3", "99999.99"],
    (38, 46): ["     inf", "  0x1.80", "-------.", "   ,.,.,"],
    (54, 60): ["  nan ", "******", " 1e99 "],
    (60, 66): ["******", "   inf"],
}


def originals(sample: Path) -> dict[str, bytes]:
    """Whole files of each format, by the ending of their names."""
    pdb = gzip.decompress((sample / "1vqb_A.pdb.gz").read_bytes())
    cif = gzip.decompress((DATA / "3jqh.cif.gz").read_bytes())
    bcif = gzip.decompress((DATA / "3jqh.bcif.gz").read_bytes())
    fasta = b"".join(b">r%d x\n%s\n" % (n, b"MKVLATGEILRP"[n % 7 :] * 9) for n in range(40))
    plain = {"pdb": pdb, "cif": cif, "bcif": bcif, "fasta": fasta}
    return plain | {f"{end}.gz": gzip.compress(data, 1) for end, data in plain.items()}


def damaged(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Bad files: their names, and their contents."""
    rng = random.Random(0)
    for end, data in whole.items():
        stem = end.replace(".", "-")
        for step in range(8 * EACH):
            yield f"{stem}-cut{step}.{end}", data[: len(data) * (step + 1) // (8 * EACH + 1)]
        for step in range(6 * EACH):
            at, size = rng.randrange(len(data)), rng.choice([1, 10, 100, 1000])
            noise = rng.randbytes(size)
            yield f"{stem}-zero{step}.{end}", data[:at] + bytes(size) + data[at + size :]
            yield f"{stem}-lost{step}.{end}", data[:at] + data[at + size :]
            yield f"{stem}-twice{step}.{end}", data[: at + size] + data[at:]
            yield f"{stem}-noise{step}.{end}", data[:at] + noise + data[at + size :]
            yield f"{stem}-more{step}.{end}", data[:at] + noise + data[at:]
        for name, other in OTHERS.items():
            yield f"{stem}-{name}.{end}", other
        for name, other in whole.items():
            if name != end:
                yield f"{stem}-is-{name.replace('.', '-')}.{end}", other
        yield f"{stem}-utf16.{end}", data.decode("latin-1").encode("utf-16")
        yield f"{stem}-upper.{end}", data.swapcase()
    lines = whole["pdb"].decode().splitlines(keepends=True)
    place = [number for number, line in enumerate(lines) if line.startswith("ATOM")][40]
    for (begin, stop), values in FIELDS.items():
        for number, value in enumerate(values):
            line = lines[place][:begin] + value + lines[place][stop:]
            text = "".join([*lines[:place], line, *lines[place + 1 :]])
            yield f"pdb-column{begin}-{number}.pdb", text.encode("latin-1")


def test_the_others_are_embedded(
    forks: Forks, sample: Path, tmp_path: Path, record_property: Record
) -> None:
    """One line for each that fails, and for each that is read a right sequence, or a note.

    Of a FASTA file nothing tells what is missing: only its records have to be of its letters.
    """
    folder, out = tmp_path / "files", tmp_path / "store.zarr"
    folder.mkdir()
    whole = originals(sample)
    bad = dict(damaged(whole))
    for name, data in [
        *bad.items(),
        *((f"good-{end.replace('.', '-')}.{end}", data) for end, data in whole.items()),
    ]:
        (folder / name).write_bytes(data)
    words = ["--sequence-encoder", "protalign_t6_2M", "--structure-encoder", "none", "--quiet"]
    ended = forks.run("embed", folder, "--out", out, *words)
    assert ended.code == 3
    assert "Traceback" not in ended.stderr
    store = EmbeddingStore.open(out)
    failed = {Path(failure.file).name for failure in store.failures}
    assert all((f.reason + f.advice).isprintable() and f.advice for f in store.failures)
    ids = set(store.ids)
    assert {f"good-{end.replace('.', '-')}" for end in whole if "fasta" not in end} <= ids
    right = noted = 0
    for name in bad:
        id = name.partition(".")[0]
        if "fasta" in name or id not in ids:
            assert name in failed or "fasta" in name, f"{name}: neither read nor refused"
            continue
        assert name not in failed
        ending = name.partition(".")[2]
        if store.sequence(id) == store.sequence(f"good-{ending.replace('.', '-')}"):
            right += 1
        else:
            assert store.notes(id), f"{name}: another sequence without a note"
            noted += 1
    info = store.encoders["protalign_t6_2M"]
    assert info.n_items == info.n_items_total
    record_property("bad files", len(bad))
    record_property("refused in one line", len(failed & bad.keys()))
    record_property("read right", right)
    record_property("read with a note", noted)
    assert len(bad) >= 400
