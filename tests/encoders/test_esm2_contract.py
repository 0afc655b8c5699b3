"""The contract, on ESM2 and on every model that ships inside the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign.encoders import EncoderSpec
from protalign.encoders.contract import EncoderContract
from protalign.encoders.esm2.shipped import EmbeddedEncoder
from tests.helpers.random_esm2 import TINY


class TestESM2(EncoderContract):
    """ESM2 of the smallest size."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _weights(cls, tiny_weights: Path) -> None:
        cls.spec = EncoderSpec(TINY, str(tiny_weights), device="cpu", dtype="float32")


@pytest.mark.skipif(not EmbeddedEncoder.models(), reason="no weights ship with this package yet")
class TestEmbedded(EncoderContract):
    """The smallest model that ships inside the package."""

    spec = EncoderSpec((*EmbeddedEncoder.models(), "")[0], device="cpu", dtype="float32")
