"""Scores of residue rows equal plain loops and biotite, whatever else is scored with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from biotite.sequence import Alphabet, GeneralSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching

from protalign.core.errors import InputError
from protalign.core.ragged import Ragged
from protalign.residues.kernels import loops
from protalign.residues.kernels import scores as scoring
from protalign.residues.kernels.packed import LANES, pack
from protalign.residues.kernels.scores import both_scores, diagonal_scores, local_scores
from tests.residues.kernels.loops import best_diagonal, best_local

WIDTH = 5
Rows = npt.NDArray[np.float32]
Both = tuple[tuple[npt.NDArray[Any], ...], tuple[npt.NDArray[Any], ...]]


def whole_rows(rng: np.random.Generator, length: int, width: int = WIDTH) -> Rows:
    """Make (length, width) rows of small whole numbers: their sums are exact, and often equal."""
    return rng.integers(-3, 4, (length, width)).astype(np.float32)


def ragged(rows: Sequence[Rows], width: int = WIDTH) -> Ragged:
    """Pack rows, also if there are none."""
    offsets = np.cumsum([0, *map(len, rows)])
    return Ragged(np.concatenate([np.zeros((0, width), np.float32), *rows]), offsets)


some_lengths = st.lists(st.integers(0, 20), max_size=2 * LANES + 3)
some_seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(some_seeds, st.integers(1, 30), some_lengths, st.sampled_from([None, 0, -2.5]))
def test_best_diagonals_are_those_of_loops(
    seed: int, length: int, lengths: list[int], floor: float | None
) -> None:
    """For all lengths, also of one residue and none, and equal sums."""
    rng = np.random.default_rng(seed)
    query = whole_rows(rng, length)
    targets = [whole_rows(rng, n) for n in lengths]
    scores, offsets = diagonal_scores(query, ragged(targets), floor=floor)
    expected = [best_diagonal(query @ t.T, -np.inf if floor is None else floor) for t in targets]
    assert list(zip(scores.tolist(), offsets.tolist(), strict=True)) == expected
    assert scores.dtype == np.float32
    assert offsets.dtype == np.int64


def test_of_two_equal_diagonals_the_positive_one_counts() -> None:
    """If they are equally far from 0; else the closer one."""
    a, b = np.eye(2, WIDTH, dtype=np.float32)
    _, offsets = diagonal_scores(np.stack([a, b]), ragged([np.stack([b, a])]))
    assert offsets.tolist() == [1]
    far = np.stack([b, 0 * b, a])
    _, offsets = diagonal_scores(np.stack([a, b]), ragged([far]))
    assert offsets.tolist() == [-1]


@settings(max_examples=40)
@given(
    some_seeds,
    st.integers(1, 20),
    some_lengths,
    st.sampled_from([(16, 2), (3, 1), (2, 2), (0, 0), (1, 4)]),
)
def test_best_local_alignments_are_those_of_loops(
    seed: int, length: int, lengths: list[int], gaps: tuple[int, int]
) -> None:
    """For all lengths and costs, also if several alignments are equally good."""
    rng = np.random.default_rng(seed)
    query = whole_rows(rng, length)
    targets = [whole_rows(rng, n) for n in lengths]
    found = local_scores(query, ragged(targets), gap_open=gaps[0], gap_extend=gaps[1])
    expected = [best_local(query @ t.T, *gaps) for t in targets]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


def by_biotite(
    scores: npt.NDArray[np.int32], gap_open: int, gap_extend: int
) -> tuple[int, set[tuple[int, int]]]:
    """Return the score of the best local alignment, and the cells where such alignments end."""
    alphabets = [Alphabet(range(length)) for length in scores.shape]
    sequences = [GeneralSequence(alphabet, range(len(alphabet))) for alphabet in alphabets]
    matrix = SubstitutionMatrix(*alphabets, scores)
    found = align_optimal(*sequences, matrix, (-gap_open, -gap_extend), local=True)
    ends = {tuple(each.trace[-1].tolist()) for each in found if len(each.trace)}
    return found[0].score, ends


@pytest.mark.parametrize("gaps", [(16, 2), (4, 1)])
def test_local_alignments_are_biotites(gaps: tuple[int, int]) -> None:
    """Of related rows, which align with gaps, and unrelated ones."""
    rng = np.random.default_rng(0)
    query = whole_rows(rng, 60)
    cut = [np.delete(query, slice(a, a + n), axis=0) for a, n in ((20, 1), (30, 7), (40, 15))]
    noisy = [rows + rng.integers(-1, 2, rows.shape) for rows in cut]
    targets = [*cut, *noisy, *(whole_rows(rng, n) for n in (1, 8, 50, 90))]
    scores, query_end, target_end = local_scores(
        query, ragged(targets), gap_open=gaps[0], gap_extend=gaps[1]
    )
    for place, target in enumerate(targets):
        score, ends = by_biotite((query @ target.T).astype(np.int32), *gaps)
        assert scores[place] == score
        assert (query_end[place], target_end[place]) in ends


def real_rows(rng: np.random.Generator, lengths: Sequence[int], width: int = 50) -> list[Rows]:
    """Make rows of any numbers, whose sums are rounded."""
    return [rng.standard_normal((n, width), dtype=np.float32) for n in lengths]


def check_close(found: Both, expected: Both) -> None:
    """Scores differ by rounding only, and places not at all."""
    for ours, theirs in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_a_target_alone_has_the_score_that_it_has_among_others() -> None:
    """But for the last bits, in which the matrix library's products of other sizes differ."""
    rng = np.random.default_rng(1)
    query, *targets = real_rows(rng, [57, *rng.integers(1, 200, 50)])
    together = both_scores(query, ragged(targets, 50))
    for place, target in enumerate(targets):
        alone = both_scores(query, ragged([target], 50))
        check_close(alone, tuple(tuple(c[[place]] for c in columns) for columns in together))


def test_queries_together_are_queries_one_by_one() -> None:
    """(m, n) results: a row for each query, but for the last bits, as above."""
    rng = np.random.default_rng(2)
    queries = ragged(real_rows(rng, [1, 40, 300, 7]), 50)
    targets = pack(ragged(real_rows(rng, rng.integers(1, 90, 30)), 50))
    together = both_scores(queries, targets, floor=-1)
    for place, query in enumerate(queries):
        alone = both_scores(query, targets, floor=-1)
        assert all(several.shape == (4, 30) for several in (*together[0], *together[1]))
        check_close(tuple(tuple(c[place] for c in columns) for columns in together), alone)


def test_both_scores_are_each_of_them() -> None:
    """One product serves two ways to align."""
    rng = np.random.default_rng(3)
    query, *targets = real_rows(rng, [70, 100, 3, 70])
    diagonals, local = both_scores(query, ragged(targets, 50), floor=-2, gap_open=5, gap_extend=1)
    for ours, theirs in zip(
        diagonals, diagonal_scores(query, ragged(targets, 50), floor=-2), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    alone = local_scores(query, ragged(targets, 50), gap_open=5, gap_extend=1)
    for ours, theirs in zip(local, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_threads_and_sizes_of_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and two: the same bits. Large tiles and small ones: the same but for rounding."""
    rng = np.random.default_rng(4)
    query, *targets = real_rows(rng, [90, *rng.integers(1, 150, 40)])
    packed = pack(ragged(targets, 50))
    found = []
    for threads, tile in (("1", 1 << 16), ("2", 1 << 16), ("2", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr(scoring, "TILE", tile)
        monkeypatch.setattr(scoring, "THREAD_PAIRS", 1)
        found.append(both_scores(query, packed))
    for ours, theirs in zip(
        (*found[0][0], *found[0][1]), (*found[1][0], *found[1][1]), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    check_close(found[2], found[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_dtypes_that_float32_holds(dtype: type[np.generic]) -> None:
    """Rows of a store are float16; whole numbers are the same in all of them."""
    rng = np.random.default_rng(5)
    query, target = whole_rows(rng, 20), whole_rows(rng, 30)
    expected = both_scores(query, ragged([target]))
    found = both_scores(query.astype(dtype), Ragged.pack([target.astype(dtype)]))
    assert [c.tolist() for c in (*found[0], *found[1])] == [
        c.tolist() for c in (*expected[0], *expected[1])
    ]


def test_rows_that_are_not_contiguous() -> None:
    """Views of every second row, of transposed arrays, and of arrays that cannot be written."""
    rng = np.random.default_rng(6)
    query, target = whole_rows(rng, 20), whole_rows(rng, 30)
    wide = np.zeros((30, 2 * WIDTH), np.float32)
    wide[:, ::2] = target
    values = wide[:, ::2]
    values.flags.writeable = False
    expected = diagonal_scores(query, ragged([target]))
    found = diagonal_scores(np.asfortranarray(query), Ragged(values, np.array([0, 30])))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_target_is_no_score() -> None:
    """An empty list gives empty results, for one query and for several."""
    rng = np.random.default_rng(7)
    empty = ragged([])
    assert [c.shape for c in diagonal_scores(whole_rows(rng, 4), empty)] == [(0,), (0,)]
    several = ragged([whole_rows(rng, 4), whole_rows(rng, 2)])
    assert [c.shape for c in local_scores(several, empty)] == [(2, 0)] * 3
    assert diagonal_scores(ragged([]), several)[0].shape == (0, 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(wrong: float) -> None:
    """In the query and in the targets, with a line that says which."""
    rows = np.zeros((3, WIDTH), np.float32)
    broken = rows.copy()
    broken[1, 2] = wrong
    with pytest.raises(InputError, match=r"query: .* not finite; "):
        diagonal_scores(broken, ragged([rows]))
    with pytest.raises(InputError, match=r"targets: .* not finite; "):
        local_scores(rows, ragged([rows, broken]))


def test_what_cannot_be_scored_is_refused() -> None:
    """Rows of different models, a query without rows, and costs below 0."""
    rows = np.zeros((3, WIDTH), np.float32)
    with pytest.raises(InputError, match="same model"):
        diagonal_scores(rows[:, :4], ragged([rows]))
    with pytest.raises(InputError, match="no residue rows"):
        diagonal_scores(rows[:0], ragged([rows]))
    with pytest.raises(InputError, match="gap_open"):
        local_scores(rows, ragged([rows]), gap_open=-1)
    with pytest.raises(InputError, match="floor"):
        diagonal_scores(rows, ragged([rows]), floor=1)


def test_settings_of_the_current_folder_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .numba_config.yaml cannot name a folder of compiled loops, which are pickles."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    Path(".numba_config.yaml").write_text(f"cache_dir: {tmp_path}\n")
    numba.core.config.reload_config()  # as before each compilation
    assert numba.config.CACHE_DIR == ""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # as when numba was imported
    loops._ignore_settings_of_current_folder()
    assert numba.config.CACHE_DIR == ""


def test_the_current_folder_chooses_no_instructions(tmp_path: Path) -> None:
    """A .numba_config.yaml cannot name others than the processor's, also as loops are imported."""
    script = (
        "from protalign.residues.kernels import loops, word_loops\n"
        "from numba.core.registry import cpu_target\n"
        "print(cpu_target.target_context.codegen().magic_tuple())"
    )
    environment = {key: value for key, value in os.environ.items() if "NUMBA_CPU" not in key}
    compilers = []
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
        if name == "with":
            text = "cpu_name: generic\ncpu_features: +sse2\n"
            (tmp_path / name / ".numba_config.yaml").write_text(text)
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path / name,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        compilers.append(run.stdout)
    assert compilers[0] == compilers[1]


def test_numba_is_imported_without_the_collector() -> None:
    """It takes half of the time then; whichever file of loops comes first."""
    for first in ("loops", "word_loops"):
        script = (
            "import gc, sys\n"
            "class Watch:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name.split('.')[0] in ('numba', 'llvmlite') and gc.isenabled():\n"
            "            raise SystemExit(f'{name} with the collector')\n"
            "sys.meta_path.insert(0, Watch())\n"
            f"import protalign.residues.kernels.{first}\n"
            "assert 'numba' in sys.modules and gc.isenabled()"
        )
        subprocess.run([sys.executable, "-c", script], check=True)


def test_loops_compile_without_a_folder_to_keep_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the package's folder nor the user's can be written: each process compiles anew."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(abs_of)
    assert loops.compiled(abs_of)(-2) == 2


def abs_of(number: int) -> int:
    return abs(number)
