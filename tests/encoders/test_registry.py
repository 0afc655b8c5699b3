"""Another team's encoder: a small class in its own package, found by its entry point."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from protalign.core.errors import ProtAlignError
from protalign.encoders import EncoderSpec, encoder_classes, load_encoder
from protalign.encoders.contract import EncoderContract
from protalign.encoders.esm2.weights import ARCHITECTURES
from protalign.encoders.weights import known_weights

#: A whole encoder: the letter of a residue and of its two neighbours.
THIRD_PARTY = """
import hashlib

import numpy as np

from protalign.encoders import Encoder
from protalign.encoders.base import sequence_items
from protalign.core.errors import InputError

LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXYZ"


class NeighbourEncoder(Encoder):
    modality = "sequence"
    name = "neighbours"
    dim = 3 * len(LETTERS)
    weights_sha256 = hashlib.sha256(LETTERS.encode()).hexdigest()
    settings = {"window": 3}
    device = "cpu"

    @classmethod
    def models(cls):
        return ["neighbours"]

    @classmethod
    def load(cls, spec):
        if spec.layer not in (None, 0):
            raise InputError("neighbours has one layer", "leave the layer out")
        return cls()

    def encode(self, batch):
        return [
            np.concatenate([self._chain(chain) for chain in item]) for item in sequence_items(batch)
        ]

    def _chain(self, chain):
        codes = np.array([LETTERS.index(letter) for letter in chain])
        one = np.eye(len(LETTERS), dtype=np.float32)[codes]
        before = np.vstack([0 * one[:1], one[:-1]])
        after = np.vstack([one[1:], 0 * one[:1]])
        return np.hstack([before, one, after])

    def memory_bytes(self, longest, batch_rows):
        return 4 * self.dim * max(longest, batch_rows)
"""


def install(folder: Path, module: str, source: str, points: str) -> None:
    """What pip leaves behind: a module, and metadata that names its entry points."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[protalign.encoders]\n{points}\n")


@pytest.fixture(scope="class")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package above, installed."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "neighbour_encoder", THIRD_PARTY, "n = neighbour_encoder:NeighbourEncoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.mark.usefixtures("third_party")
class TestThirdPartyEncoder(EncoderContract):
    """A package that knows nothing but protalign.encoders passes the contract."""

    spec = EncoderSpec("neighbours")

    def test_is_listed_beside_ours(self) -> None:
        """It is in the list of models and of weights, and ours are too."""
        assert encoder_classes().keys() >= {"neighbours", *ARCHITECTURES}
        assert "neighbours" in [info.model for info in known_weights()]


BROKEN = {
    "raises": (
        "raise OSError('no licence\\nsecond line')",
        "x = broken_raises:Encoder",
        "no licence",
    ),
    "absent": ("", "x = broken_absent:Encoder", "AttributeError"),
    "foreign": ("class Encoder: ...", "x = broken_foreign:Encoder", "not a subclass"),
    "models": (
        "from protalign.encoders import Encoder as E\n"
        "class Encoder(E):\n    @classmethod\n    def models(cls): return 1 / 0",
        "x = broken_models:Encoder",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_package_does_not_break_ours(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out with one warning of one line that names it, however often the list is made."""
    source, points, reason = BROKEN[kind]
    install(tmp_path, f"broken_{kind}", source, points)
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="protalign"):
        assert encoder_classes().keys() >= ARCHITECTURES.keys()
        encoder_classes()
    lines = [record.message for record in caplog.records if f"broken_{kind}" in record.message]
    assert len(lines) == 1
    assert reason in lines[0]
    assert "\n" not in lines[0]


def test_a_package_cannot_take_one_of_our_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two classes with one model name ours is loaded: weights' hashes keep their meaning."""
    source = THIRD_PARTY.replace('["neighbours"]', '["esm2_t6_8M_UR50D"]')
    install(tmp_path, "impostor", source, "a = impostor:NeighbourEncoder")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert encoder_classes()["esm2_t6_8M_UR50D"].__module__ == "protalign.encoders.esm2.encoder"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("esm2_t33_650M", "did you mean 'esm2_t33_650M_UR50D'"), ("bert", "known: .*esm2_t6_8M")],
)
def test_an_unknown_name_gets_a_hint(name: str, hint: str) -> None:
    """The nearest name, or all of them."""
    with pytest.raises(ProtAlignError, match=hint):
        load_encoder(EncoderSpec(name))
