"""Speed of reading structure files: ProtAlign against Biopython and biotite, on one core.

    python benchmarks/speed/reading.py [FOLDER] [--files 60] [--rounds 5] [--json OUT.json]
    python benchmarks/speed/reading.py --files 2 --rounds 1      # a quick check that it runs

Each reader turns the same files into sequences and backbone coordinates. The readers take turns,
file by file, so that other work on the machine slows all of them alike. The time is the median over
rounds of the processor time summed over files. Needs `pip install 'protalign[bench]'`.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBParser import PDBParser
from Bio.PDB.Polypeptide import is_aa
from biotite.structure import filter_amino_acids, filter_peptide_backbone
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFFile, get_structure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.measuring import SAMPLE, Summary, write
from protalign.reading import ReadOptions, SourceFile, find_sources, read_source

BACKBONE = ("N", "CA", "C", "O")


def open_text(source: SourceFile):  # type: ignore[no-untyped-def]
    """Open the file as text, decompressed."""
    opened = gzip.open if source.path.suffix == ".gz" else open
    return opened(source.path, "rt")


def with_protalign(source: SourceFile) -> int:
    """Return the number of residues that ProtAlign reads."""
    return sum(len(chain) for p in read_source(source, PER_CHAIN).proteins for chain in p.chains)


def with_biopython(source: SourceFile) -> int:
    """Read the first model's backbone with Biopython; return its number of residues."""
    parser = PDBParser(QUIET=True) if source.kind == "pdb" else MMCIFParser(QUIET=True)
    with open_text(source) as handle:
        model = next(iter(parser.get_structure(source.id, handle)))
    count = 0
    for residue in model.get_residues():
        if is_aa(residue):
            np.array([residue[name].coord for name in BACKBONE if name in residue])
            count += 1
    return count


def with_biotite(source: SourceFile) -> int:
    """Read the first model's backbone with biotite; return its number of residues."""
    with open_text(source) as handle:
        if source.kind == "pdb":
            atoms = PDBFile.read(handle).get_structure(model=1)
        else:
            atoms = get_structure(CIFFile.read(handle), model=1)
    atoms = atoms[filter_amino_acids(atoms)]
    backbone = atoms[filter_peptide_backbone(atoms)]
    return int(np.count_nonzero(backbone.atom_name == "CA"))


PER_CHAIN = ReadOptions(per="chain")
READERS: dict[str, Callable[[SourceFile], int]] = {
    "protalign": with_protalign,
    "biotite": with_biotite,
    "biopython": with_biopython,
}


TARGETS = {"biopython": 10.0, "biotite": None}


def measure(sources: list[SourceFile], rounds: int) -> dict[str, dict[str, float]]:
    """Return the files per second of each reader, and the number of residues that it read."""
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    residues = dict.fromkeys(READERS, 0)
    for source in sources[:2]:
        for reader in READERS.values():
            reader(source)
    for _ in range(rounds):
        spent = dict.fromkeys(READERS, 0.0)
        residues = dict.fromkeys(READERS, 0)
        for source in sources:
            for name, reader in READERS.items():
                start = time.process_time()
                residues[name] += reader(source)
                spent[name] += time.process_time() - start
        for name, value in spent.items():
            seconds[name].append(value)
    return {
        name: {
            "files_per_second": len(sources) / statistics.median(values),
            "seconds": statistics.median(values),
            "spread": (max(values) - min(values)) / statistics.median(values),
            "residues": residues[name],
        }
        for name, values in seconds.items()
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--files", type=int, default=60, help="files, spread over the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sources, _ = find_sources([options.folder])
    sources = sources[:: max(1, len(sources) // options.files)][: options.files]
    results = measure(sources, options.rounds)
    ours = results["protalign"]["files_per_second"]
    print(f"{len(sources)} files of {options.folder}, {options.rounds} rounds")
    print(f"{'reader':<12}{'files/s':>10}{'spread':>9}{'residues':>11}{'protalign is':>15}")
    for name, row in results.items():
        rate = row["files_per_second"]
        line = f"{name:<12}{rate:>10.1f}{row['spread']:>9.0%}{row['residues']:>11,}"
        print(line + f"{ours / rate:>12.1f} x")
    rows = [{"reader": name, **row} for name, row in results.items()]
    lines = [summary(results, peer, target) for peer, target in TARGETS.items()]
    write(options, "reading", rows, lines, ["gemmi", "biotite", "biopython"])


def summary(results: dict[str, dict[str, float]], peer: str, target: float | None) -> Summary:
    ours, theirs = results["protalign"], results[peer]
    return {
        "part": "structure files to sequences and backbones",
        "peer": peer.capitalize(),
        "ratio": ours["files_per_second"] / theirs["files_per_second"],
        "target": target,
        "figure": f"{ours['files_per_second']:,.0f} files/s",
        "limit": "",
        "equal": f"{ours['residues']:,} residues, {peer} {theirs['residues']:,}",
    }


if __name__ == "__main__":
    main()
