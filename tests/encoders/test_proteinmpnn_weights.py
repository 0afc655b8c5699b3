"""ProteinMPNN's weights files: the shipped one, and those that are refused."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from protalign.core.errors import ProtAlignError, WeightsError
from protalign.encoders import EncoderSpec, load_encoder
from protalign.encoders.proteinmpnn.weights import encoder_shapes, shipped_weights
from tests.helpers.reference_proteinmpnn import VANILLA, WEIGHTS

SPEC = EncoderSpec("proteinmpnn_v_48_020", device="cpu", dtype="float32")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "data" / "cut_proteinmpnn_encoder.py"


def test_shipped_tensors_are_upstreams() -> None:
    """The file in the package holds the encoder's tensors of v_48_020, byte for byte."""
    upstream = torch.load(VANILLA / "v_48_020.pt", weights_only=True)["model_state_dict"]
    shipped = load_file(shipped_weights())
    assert shipped.keys() == encoder_shapes().keys()
    encoder_keys = {
        key for key in upstream if not key.startswith(("decoder_layers.", "W_s.", "W_out."))
    }
    assert shipped.keys() == encoder_keys
    for key, tensor in shipped.items():
        assert tensor.dtype == upstream[key].dtype
        assert tensor.numpy().tobytes() == upstream[key].numpy().tobytes(), key


def test_shipped_file_says_where_it_is_from() -> None:
    """Its header has source, SHA-256, licence, neighbours and noise; the licence lies beside it."""
    with safe_open(shipped_weights(), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["source_sha256"].startswith("c9cb4a67")
    assert metadata["source"].endswith("/v_48_020.pt")
    assert metadata["num_edges"] == "48"
    assert float(metadata["noise_level"]) == 0.2
    assert metadata["licence"].startswith("MIT")
    licence = shipped_weights().with_name("LICENSE.ProteinMPNN").read_text()
    assert "MIT License" in licence
    assert "Justas Dauparas" in licence


def test_script_cuts_the_shipped_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script makes the very bytes in the package, and refuses any other file."""
    if not SCRIPT.is_file():
        pytest.skip("the scripts are not here: this runs over an installed wheel")
    out = tmp_path / "encoder.safetensors"

    def run(source: Path) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(out), str(source)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    run(VANILLA / "v_48_020.pt")
    assert out.read_bytes() == shipped_weights().read_bytes()
    with pytest.raises(SystemExit, match="not upstream's"):
        run(VANILLA / "v_48_030.pt")


def test_upstreams_file_and_the_shipped_one_are_one_model() -> None:
    """--structure-weights with upstream's .pt, decoder and all, gives the shipped model."""
    named = load_encoder(replace(SPEC, weights=str(VANILLA / "v_48_020.pt")))
    shipped = load_encoder(SPEC)
    assert named.name == shipped.name
    assert named.settings == shipped.settings == {"dtype": "float32", "neighbours": 48}


def test_soluble_models_are_taken() -> None:
    """Upstream's soluble models have the same parts."""
    weights = str(WEIGHTS / "soluble_model_weights" / "v_48_020.pt")
    assert load_encoder(replace(SPEC, weights=weights)).dim == 128


def test_ca_only_models_are_refused() -> None:
    """Upstream's CA-only models are recognised, and the error says which to take."""
    weights = str(WEIGHTS / "ca_model_weights" / "v_48_020.pt")
    with pytest.raises(WeightsError, match=r"CA-only ProteinMPNN.*vanilla_model_weights"):
        load_encoder(replace(SPEC, weights=weights))


def test_another_noise_level_is_refused_by_name() -> None:
    """A file that is another model than the one named is not mislabelled."""
    weights = str(VANILLA / "v_48_010.pt")
    with pytest.raises(WeightsError, match="ask for proteinmpnn_v_48_010"):
        load_encoder(replace(SPEC, weights=weights))


def test_a_model_that_does_not_ship_says_what_to_fetch() -> None:
    """The others need a file: the error names it and the option."""
    with pytest.raises(WeightsError, match=r"v_48_030\.pt.*--structure-weights"):
        load_encoder(replace(SPEC, model="proteinmpnn_v_48_030"))


def test_files_that_are_no_proteinmpnn_are_refused(tmp_path: Path) -> None:
    """Missing, truncated, other and incomplete files are each one clear error."""
    truncated = tmp_path / "v_48_020.pt"
    truncated.write_bytes((VANILLA / "v_48_020.pt").read_bytes()[:-5000])
    tensors = load_file(shipped_weights())
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    incomplete = tmp_path / "incomplete.safetensors"
    save_file({k: v for k, v in tensors.items() if k != "W_e.bias"}, incomplete)
    narrow = tmp_path / "narrow.safetensors"
    save_file({**tensors, "W_e.bias": torch.zeros(64)}, narrow)
    for path, message in [
        (tmp_path / "none.pt", "no weights file"),
        (truncated, "damaged"),
        (other, "not a ProteinMPNN, as features.edge_embedding.weight is missing"),
        (incomplete, "not a ProteinMPNN, as W_e.bias is missing"),
        (narrow, r"not a ProteinMPNN, as W_e.bias is \(64,\), not \(128,\)"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load_encoder(replace(SPEC, weights=str(path)))


def test_unknown_models_and_layers_are_refused() -> None:
    """A name nearly right is corrected; there is no choice of layer."""
    with pytest.raises(ProtAlignError, match="did you mean 'proteinmpnn_v_48_020'"):
        load_encoder(replace(SPEC, model="proteinmpnn_v_48_02"))
    with pytest.raises(ProtAlignError, match="no choice of layer"):
        load_encoder(replace(SPEC, layer=2))
