"""Files to hits in one call: what is found, what is kept, what is refused."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import protalign
from protalign.core.errors import InputError
from protalign.core.words import Rerank
from protalign.heads.model import Model
from protalign.searching import STORE, VECTORS, easy_search
from protalign.stores import EmbeddingStore
from protalign.stores.filling.encode import Progress

TARGETS = ("1bpi_A.cif", "1bti_A.pdb.gz", "1b5m_A.pdb.gz")


class Reporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.encoders: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def scanned(self, done: int, total: int) -> None:
        pass

    def encoded(self, encoder: str, progress: Progress) -> None:
        self.encoders.append(encoder)


@pytest.fixture(scope="module")
def model(finished: Path) -> Model:
    """The model of the sample. Only to be used."""
    return Model.load(finished / "model")


@pytest.fixture
def targets(tmp_path: Path, sample: Path) -> Path:
    """A folder of three structures, two of them nearly the same."""
    folder = tmp_path / "targets"
    folder.mkdir()
    for name in TARGETS:
        shutil.copy(sample / name, folder)
    return folder


@pytest.fixture
def fasta(tmp_path: Path, finished: Path) -> Path:
    """A FASTA file of the first target's sequence."""
    [sequence] = EmbeddingStore.open(finished / "store.zarr").sequence("1bpi_A")
    path = tmp_path / "query.fasta"
    path.write_text(f">query\n{sequence}\n")
    return path


def test_a_sequence_finds_its_structure_and_nothing_is_embedded_twice(
    targets: Path, fasta: Path, model: Model, tmp_path: Path
) -> None:
    """The best hit is its own structure; the second call gives the same and encodes nothing."""
    first, second = Reporter(), Reporter()
    hits = easy_search(fasta, targets, model=model, cache=tmp_path / "cache", reporter=first)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    frame = hits.to_pandas("query,target,fident")
    assert frame["target"].tolist() == [hit.id for hit in hits]
    assert frame["fident"][0] == 1
    assert "1bpi_A" in (hits._repr_html_() or "")
    assert (hits[0].query, hits[0].id, hits[0].against) == ("query", "1bpi_A", "structure")
    assert {hit.id for hit in hits[:2]} == {"1bpi_A", "1bti_A"}
    assert first.encoders
    assert "trained on 20 pairs" in first.lines[0]
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.parquet")}
    assert len(made) == 2
    again = easy_search(fasta, targets, model=model, cache=tmp_path / "cache", reporter=second)
    assert again.hits == hits.hits
    assert second.encoders == []
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.parametrize("rerank", [10, "all"])
def test_it_gives_what_the_steps_by_hand_give(
    finished: Path, sample: Path, model: Model, tmp_path: Path, rerank: Rerank
) -> None:
    """A search of exported vectors by a file: the same hits, scores and E-values."""
    query = sample / "107l_A.pdb.gz"
    store = finished / "store.zarr"
    hits = easy_search(query, store, model=model, cache=tmp_path, k=4, rerank=rerank)
    by_hand = protalign.search(
        str(query), finished / "vectors.parquet", model=finished / "model", k=4, rerank=rerank
    )
    assert [hit.id for hit in hits] == [hit.id for hit in by_hand]
    for one, other in zip(hits, by_hand, strict=True):
        assert one.against == "sequence"
        assert one.local_score == pytest.approx(other.local_score, rel=1e-3)
        assert one.cosine == pytest.approx(other.cosine, abs=1e-3)


def test_a_structure_finds_its_sequence(
    sample: Path, fasta: Path, model: Model, tmp_path: Path
) -> None:
    """Which sequence fits this backbone: targets need no structures."""
    with fasta.open("a") as file:
        file.write(">other\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ\n")
    hits = easy_search(sample / "1bpi_A.cif", fasta, model=model, cache=tmp_path / "cache")
    assert [(hit.query, hit.id, hit.against) for hit in hits] == [
        ("1bpi_A", "query", "sequence"),
        ("1bpi_A", "other", "sequence"),
    ]


def test_targets_that_change(
    targets: Path, fasta: Path, model: Model, sample: Path, tmp_path: Path
) -> None:
    """A file that is gone is no hit any more; a new one is; one that is replaced is read again."""

    def found() -> set[str]:
        return {hit.id for hit in easy_search(fasta, targets, model=model, cache=tmp_path / "c")}

    assert found() == {"1bpi_A", "1bti_A", "1b5m_A"}
    (targets / "1bti_A.pdb.gz").unlink()
    assert found() == {"1bpi_A", "1b5m_A"}
    shutil.copy(sample / "1bti_A.pdb.gz", targets / "new.pdb.gz")
    assert found() == {"1bpi_A", "1b5m_A", "new"}
    shutil.copy(sample / "107l_A.pdb.gz", targets / "new.pdb.gz")
    hits = easy_search(fasta, targets, model=model, cache=tmp_path / "c")
    assert {hit.id: hit.length for hit in hits}["new"] == 162


def test_what_was_made_before_can_be_searched(
    targets: Path, fasta: Path, model: Model, tmp_path: Path
) -> None:
    """A database that was built once, its store and its vectors give the same hits as the files."""
    cache, database = tmp_path / "cache", tmp_path / "database"
    hits = easy_search(fasta, targets, model=model, cache=cache, db=database).hits
    assert sorted(path.name for path in database.iterdir()) == [STORE, VECTORS]
    assert len(list(cache.iterdir())) == 1  # the query
    for made in (database, database / STORE, database / VECTORS):
        reporter = Reporter()
        again = easy_search(fasta, made, model=model, cache=cache, reporter=reporter)
        assert again.hits == hits
        assert reporter.encoders == []


def test_a_bad_file_stops_nothing(targets: Path, fasta: Path, model: Model, tmp_path: Path) -> None:
    """It is a failure, as is a query that cannot be read; the others are compared."""
    (targets / "cut.pdb.gz").write_bytes(gzip.compress(b"ATOM")[:-3])
    bad = tmp_path / "bad.fasta"
    bad.write_text(">x\n12345\n")
    hits = easy_search([fasta, bad], targets, model=model, cache=tmp_path / "cache")
    assert len(hits) == 3
    assert {Path(failure.file).name for failure in hits.failures} == {"cut.pdb.gz", "bad.fasta"}


def test_of_files_without_any_entry_the_first_problem_is_told(
    fasta: Path, sample: Path, model: Model, tmp_path: Path
) -> None:
    """An empty folder, until it is filled; a folder whose files all fail."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder: it holds no protein file; readable are"):
        easy_search(fasta, folder, model=model, cache=tmp_path / "cache")
    shutil.copy(sample / TARGETS[0], folder)
    assert easy_search(fasta, folder, model=model, cache=tmp_path / "cache").failures == ()
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.pdb").write_text("junk")
    (folder / "b.fasta").write_text(">x\n12345\n")
    words = r"a\.pdb: it has no ATOM records, and 1 more could not be read; give a file with"
    with pytest.raises(InputError, match=words):
        easy_search(fasta, folder, model=model, cache=tmp_path / "cache")


def test_what_is_made_is_not_taken_for_files(
    targets: Path, fasta: Path, model: Model, finished: Path, tmp_path: Path
) -> None:
    """A store among files would be left out without a word, and ``db`` made of it be empty."""
    store, cache = finished / "store.zarr", tmp_path / "cache"
    with pytest.raises(InputError, match=r"store\.zarr: what is made already .*; give it alone"):
        easy_search(fasta, [targets, store], model=model, cache=cache)
    with pytest.raises(InputError, match=r"^db: .*store\.zarr is a store, .*; leave db out$"):
        easy_search(fasta, store, model=model, cache=cache, db=tmp_path / "db")
    assert not cache.exists()


def test_two_searches_share_a_cache(
    targets: Path, fasta: Path, model: Model, tmp_path: Path
) -> None:
    """A search waits, and says so, while another process fills the folder that it needs."""
    cache = tmp_path / "cache"
    hits = easy_search(fasta, targets, model=model, cache=cache).hits
    [store] = cache.glob(f"targets-*/{STORE}")
    hold = (
        "import sys, pathlib; from protalign.stores.format.lock import StoreLock\n"
        "with StoreLock(pathlib.Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        ends = other.stdin.close

        class Waiting(Reporter):
            def say(self, line: str) -> None:
                super().say(line)
                if "waiting for another search" in line:
                    ends()

        reporter = Waiting()
        again = easy_search(fasta, targets, model=model, cache=cache, reporter=reporter)
    assert again.hits == hits
    assert len([line for line in reporter.lines if "waiting" in line]) == 1


@pytest.mark.parametrize(
    ("queries", "targets", "words"),
    [
        ("query.fasta", "query.fasta", "no structures"),
        ("missing.fasta", "targets", r"missing\.fasta: it does not exist"),
        ("query.fasta", "missing", "missing: it does not exist"),
    ],
)
@pytest.mark.usefixtures("targets", "fasta")
def test_what_cannot_be_searched_is_refused_in_a_line(
    queries: str, targets: str, words: str, model: Model, tmp_path: Path
) -> None:
    """Two sides of sequences; a path that is missing, before the other side is embedded."""
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=words) as caught:
        easy_search(tmp_path / queries, tmp_path / targets, model=model, cache=cache)
    assert "\n" not in str(caught.value)
    assert "missing" not in words or not cache.exists()


@pytest.mark.parametrize(
    "wanted", [{"superpose": True}, {"min_tm": 0.5}, {"columns": "query,rmsd"}], ids=str
)
def test_coordinates_of_sequences_are_refused_before_anything_is_embedded(
    wanted: dict[str, object], fasta: Path, targets: Path, model: Model, tmp_path: Path
) -> None:
    """FASTA has no coordinates: one line, and no cache is made."""
    with pytest.raises(InputError, match="the queries have no coordinates"):
        easy_search(fasta, targets, model=model, cache=tmp_path / "cache", **wanted)  # type: ignore[arg-type]
    assert not (tmp_path / "cache").exists()
