"""A run keeps to the memory that it predicted; what does not fit fails alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pytest

from tests.helpers.peak_memory import numbers_of
from tests.reliability import FACTOR

SEQUENCE, STRUCTURE = "protalign_t6_2M", "proteinmpnn_v_48_020"
#: Sizes by default, and those of the largest proteins known and of a laptop's FASTA file.
FULL = FACTOR >= 10
LENGTHS = (10_000, 35_000) if FULL else (4_000,)
COMPLEX, SHORT = (15_000, 200_000) if FULL else (1_500, 5_000)

PROGRAM = """
import re, sys
from protalign.embedding import embed
from protalign.encoders import EncoderSpec
from protalign.embedding import EncoderChoice
from tests.helpers.peak_memory import peak_memory

class Reporter:
    predicted = 0
    def say(self, line):
        found = re.search(r"up to ([0-9.]+) GB of memory", line)
        if found:
            self.predicted = max(self.predicted, float(found[1]))
    def scanned(self, done, total): pass
    def encoded(self, encoder, progress): pass

reporter = Reporter()
choices = [EncoderChoice(EncoderSpec(name, device="cpu")) for name in sys.argv[3].split(",")]
report = embed(sys.argv[1], sys.argv[2], choices, reporter=reporter)
items = sum(done["items"] for done in report.encoded.values())
print(items, len(report.failures), int(reporter.predicted * 1e6), peak_memory() // 1000)
"""


def random_sequence(length: int, seed: int) -> str:
    """A sequence of random residues."""
    letters = np.random.default_rng(seed).choice(list("ACDEFGHIKLMNPQRSTVWY"), length)
    return "".join(letters)


@dataclass
class Run:
    """Embeds, and records what was predicted and what was held."""

    record: Callable[[str, object], None]

    def embed(self, source: Path, out: Path, encoders: str) -> tuple[int, int]:
        """Embed in a process of its own; check its memory; return items and failures."""
        items, failures, predicted, peak = numbers_of(PROGRAM, source, out, encoders)
        self.record("MB at the peak", peak // 1000)
        self.record("MB predicted", predicted // 1000)
        assert peak <= predicted + 50_000, f"{peak:,} kB held, {predicted:,} kB predicted"
        return items, failures


@pytest.fixture
def run(record_property: Callable[[str, object], None]) -> Run:
    return Run(record_property)


@pytest.mark.parametrize("length", LENGTHS)
def test_one_long_chain(length: int, run: Run, tmp_path: Path) -> None:
    """Titin has 35,000 residues; memory grows with the length, not with its square."""
    fasta = tmp_path / "long.fasta"
    fasta.write_text(f">long\n{random_sequence(length, 0)}\n>short\nMKVLATGE\n")
    assert run.embed(fasta, tmp_path / "store.zarr", SEQUENCE) == (2, 0)


def test_a_large_complex(run: Run, tmp_path: Path, sample: Path) -> None:
    """Copies of one chain beside each other, as in a capsid: one graph, and many chains."""
    structure = gemmi.read_structure(str(sample / "1bpi_A.cif"))
    chain = structure[0][0]
    rng = np.random.default_rng(0)
    model = gemmi.Model(1)
    for number in range(-(-COMPLEX // 58)):
        copy = chain.clone()
        copy.name = f"{number}"
        shift = 30.0 * np.array([number % 8, number // 8 % 8, number // 64])
        for residue in copy:
            for atom in residue:
                atom.pos = gemmi.Position(*(atom.pos.tolist() + shift + rng.normal(0, 0.01, 3)))
        model.add_chain(copy)
    large = gemmi.Structure()
    large.add_model(model)
    large.setup_entities()
    file = tmp_path / "capsid.cif"
    large.make_mmcif_document().write_file(str(file))
    assert run.embed(file, tmp_path / "store.zarr", f"{SEQUENCE},{STRUCTURE}") == (2, 0)


def test_many_short_sequences(run: Run, tmp_path: Path) -> None:
    """What is kept for each entry is counted too."""
    fasta = tmp_path / "many.fasta"
    letters = random_sequence(SHORT + 30, 0)
    fasta.write_text("".join(f">s{n}\n{letters[n : n + 12]}\n" for n in range(SHORT)))
    items, failures = run.embed(fasta, tmp_path / "store.zarr", SEQUENCE)
    assert failures == 0
    assert items == len({letters[n : n + 12] for n in range(SHORT)})
