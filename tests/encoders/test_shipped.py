"""The models inside the package: found by their files, ESM2 in all else."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import save_file

from protalign.core.errors import ProtAlignError, WeightsError
from protalign.encoders import EncoderSpec
from protalign.encoders.contract import UBIQUITIN
from protalign.encoders.esm2 import shipped as embedded
from protalign.encoders.esm2.network import Architecture
from protalign.encoders.esm2.shipped import EmbeddedEncoder
from tests.helpers.random_esm2 import random_esm2

SIZES = {"small": Architecture(2, 64, 4), "large": Architecture(3, 96, 6)}


def ship(folder: Path, name: str, architecture: Architecture) -> ESM2:
    """Write a model as the project ships one: float16, the architecture in the header."""
    model = random_esm2(architecture)
    state = {
        key: value.half() if key.startswith(("embed", "layers", "emb_")) else value
        for key, value in model.state_dict().items()
        if not key.startswith(("lm_head", "contact_head"))
    }
    header = {
        "name": name,
        "num_layers": str(architecture.layers),
        "embed_dim": str(architecture.dim),
        "attention_heads": str(architecture.heads),
    }
    save_file(state, folder / f"protalign_{name}.safetensors", metadata=header)
    model.load_state_dict({**model.state_dict(), **{k: v.float() for k, v in state.items()}})
    return model


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package's data."""
    monkeypatch.setattr(embedded, "files", lambda name: tmp_path)
    return tmp_path


def test_models_are_the_files_in_the_package_smallest_first(package: Path) -> None:
    """Nothing lists them elsewhere; other files beside them do not count."""
    assert EmbeddedEncoder.models() == []
    for name in ("large", "small"):
        ship(package, name, SIZES[name])
    (package / "proteinmpnn_v_48_020.safetensors").write_bytes(b"")
    assert EmbeddedEncoder.models() == ["small", "large"]
    entries = EmbeddedEncoder.known_weights()
    assert [(entry.model, entry.dim, entry.source) for entry in entries] == [
        ("small", 64, "package"),
        ("large", 96, "package"),
    ]


def test_equals_fair_esms_class_with_the_same_weights(package: Path) -> None:
    """float16 in the file is float32 in the computation, and the numbers are ESM2's."""
    model = ship(package, "small", SIZES["small"])
    encoder = EmbeddedEncoder.load(EncoderSpec("small", device="cpu", dtype="float32"))
    _, _, tokens = model.alphabet.get_batch_converter()([("", UBIQUITIN)])
    with torch.inference_mode():
        theirs = model(tokens, repr_layers=[2])["representations"][2][0, 1:-1].numpy()
    ours = encoder.encode([(UBIQUITIN,)])[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_damaged_package_says_to_install_again(package: Path) -> None:
    """A header that cannot be read is not a traceback."""
    (package / "protalign_x.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(WeightsError, match="install ProtAlign again"):
        EmbeddedEncoder.models()


def test_an_unknown_name_is_refused(package: Path) -> None:
    """With the names that ship."""
    ship(package, "small", SIZES["small"])
    with pytest.raises(ProtAlignError, match="did you mean 'small'"):
        EmbeddedEncoder.load(EncoderSpec("smal"))


def test_shipped_models_load_without_a_network() -> None:
    """Every model that really ships gives finite rows of its width."""
    if not EmbeddedEncoder.models():
        pytest.skip("no weights ship with this package yet")
    data = Path(str(files("protalign.encoders.data")))
    for info in EmbeddedEncoder.known_weights():
        assert Path(info.path).parent == data
        rows = EmbeddedEncoder.load(EncoderSpec(info.model, device="cpu")).encode([(UBIQUITIN,)])[0]
        assert rows.shape == (len(UBIQUITIN), info.dim)
        assert np.isfinite(rows).all()
