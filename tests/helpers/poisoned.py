"""An encoder that one motif brings to grief, in a package of its own."""

from __future__ import annotations

from pathlib import Path

#: A motif of no real protein, which the encoder does not survive.
POISON = "WCWCWC"
PLUGIN = '''
"""An encoder of another package, one-hot, that does not survive a motif."""

import builtins
import os

import numpy as np

from protalign.core.protein import AMINO_ACIDS
from protalign.encoders import Encoder


class PoisonedEncoder(Encoder):
    modality = "sequence"
    name, dim, device, settings = "poisoned", 20, "cpu", {}
    weights_sha256 = "0" * 64
    batch_rows = 200

    @classmethod
    def models(cls):
        return ["poisoned"]

    @classmethod
    def load(cls, spec):
        return cls()

    def encode(self, batch):
        if any("WCWCWC" in chain for item in batch for chain in item):
            if os.environ["POISON"] == "exit":
                os._exit(7)
            names = os.environ["POISON"].split(",")
            raise getattr(builtins, names[len(batch[0][0]) % len(names)])("WCWCWC")
        table = {letter: row for letter, row in zip(AMINO_ACIDS, np.eye(20, dtype=np.float32))}
        return [np.stack([table[letter] for letter in "".join(item)]) for item in batch]

    def memory_bytes(self, longest, batch_rows):
        return 80 * max(longest, batch_rows)
'''


def write_plugin(folder: Path) -> None:
    """Write a package that announces the encoder.

    The environment variable POISON says how it ends: ``exit`` ends the process, all else are names
    of exceptions, of which the length of the batch's first chain chooses one.
    """
    (folder / "poisoned_plugin.py").write_text(PLUGIN)
    facts = folder / "poisoned_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: poisoned-plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[protalign.encoders]\npoisoned = poisoned_plugin:PoisonedEncoder\n"
    )
