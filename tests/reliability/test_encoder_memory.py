"""Encoders keep to the memory that they predict."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign.encoders import EncoderSpec
from protalign.encoders.contract import UBIQUITIN
from protalign.encoders.esm2.weights import ARCHITECTURES
from tests.helpers.peak_memory import numbers_of
from tests.helpers.random_esm2 import TINY, random_esm2, save_tensors

PROTEINMPNN = EncoderSpec("proteinmpnn_v_48_020", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smallest ESM2 in safetensors."""
    return save_tensors(
        random_esm2(ARCHITECTURES[TINY]), tmp_path_factory.mktemp("esm2") / "tiny.safetensors"
    )


@pytest.mark.parametrize(
    ("dtype", "length", "total"),
    [("float32", 100, 10_000), ("bfloat16", 1_000, 4_000), ("float32", 5_000, 10_000)],
)
def test_esm2_stays_within_the_prediction(
    tiny_weights: Path, dtype: str, length: int, total: int
) -> None:
    """10,000 residues take no more than was predicted, and never 2 GB, even as long chains.

    The first layer is run: the others use the same memory again. (fair-esm's own attention would
    need 20 heads x 5,000 x 5,000 floats, 2 GB, for one chain.)
    """
    code = (
        "import sys\n"
        "from tests.helpers.peak_memory import peak_memory\n"
        "from protalign.encoders import EncoderSpec, load_encoder\n"
        f"spec = EncoderSpec({TINY!r}, sys.argv[1], layer=1, device='cpu', dtype={dtype!r})\n"
        "encoder = load_encoder(spec)\n"
        f"chain = ({(UBIQUITIN * 132)[:length]!r},)\n"
        "encoder.encode([('MKT',)])\n"
        "before = peak_memory()\n"
        f"rows = encoder.encode([chain] * {total // length})\n"
        f"print(sum(map(len, rows)), encoder.memory_bytes({length}, {total}))\n"
        "print(before, peak_memory())\n"
    )
    rows, predicted, before, peak = numbers_of(code, tiny_weights)
    assert rows == total
    assert predicted / 2 < peak - before < predicted
    assert peak < 2e9


def test_proteinmpnn_stays_within_the_prediction(sample: Path) -> None:
    """3,000 residues take less than was predicted, and far less than a table of all pairs."""
    code = (
        "import sys, numpy as np\n"
        "from tests.helpers.peak_memory import peak_memory\n"
        "from tests.helpers.reference_proteinmpnn import keep_all, moved, read_complex\n"
        "from protalign.encoders import EncoderSpec, load_encoder\n"
        f"encoder = load_encoder({PROTEINMPNN!r})\n"
        "chain = read_complex(__import__('pathlib').Path(sys.argv[1])).chains[0]\n"
        "grid = np.stack(np.meshgrid(*[range(6)] * 3), -1).reshape(-1, 3)[:52] * 30.0\n"
        "structure = keep_all([moved(chain, shift) for shift in grid])\n"
        "encoder.encode([keep_all([chain])])\n"
        "before = peak_memory()\n"
        "(rows,) = encoder.encode([structure])\n"
        "after = peak_memory()\n"
        "print(len(rows), after - before, encoder.memory_bytes(len(rows), len(rows)))\n"
    )
    rows, grown, predicted = numbers_of(code, sample / "1bpi_A.cif")
    assert rows == 52 * 58
    assert 0 < grown < predicted < 3000 * 3000 * 20
