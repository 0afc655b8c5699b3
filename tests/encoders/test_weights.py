"""Weights files: every published form is read, nothing in them is run, every damage is named."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.server
import inspect
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import esm.pretrained
import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2

from protalign.core.errors import ProtAlignError, WeightsError
from protalign.encoders import EncoderSpec, load_encoder
from protalign.encoders.contract import UBIQUITIN
from protalign.encoders.esm2 import weights as esm2_weights
from protalign.encoders.esm2.encoder import ESM2Encoder
from protalign.encoders.esm2.network import Architecture
from protalign.encoders.esm2.weights import (
    ARCHITECTURES,
    expected_shapes,
    find_or_download,
    read_esm2,
)
from protalign.encoders.weights import known_weights, load_state_dict, weights_digest
from tests.helpers.random_esm2 import TINY, random_esm2, save_published, save_tensors

CPU = {"device": "cpu", "dtype": "float32"}


def embed(file: Path) -> np.ndarray:
    return load_encoder(EncoderSpec(TINY, str(file), **CPU)).encode([(UBIQUITIN,)])[0]


def test_a_published_file_equals_fair_esms_own_loading(published: Path, tiny_weights: Path) -> None:
    """The .pt with its prefixes and Namespace gives what fair-esm's loader makes of it."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(published, weights_only=True)
    with pytest.warns(UserWarning, match="Regression weights not found"):
        model, alphabet = esm.pretrained.load_model_and_alphabet_core(TINY, content)
    _, _, tokens = alphabet.get_batch_converter()([("", UBIQUITIN)])
    with torch.inference_mode():
        theirs = model.eval()(tokens, repr_layers=[6])["representations"][6][0, 1:-1].numpy()
    np.testing.assert_allclose(embed(published), theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(embed(published), embed(tiny_weights))


def test_half_precision_files_are_computed_in_float32(tiny_model: ESM2, tmp_path: Path) -> None:
    """fair-esm publishes its largest models in float16: they are widened, as fair-esm does."""
    half = save_published(tiny_model, tmp_path / f"{TINY}.pt", torch.float16)
    rounded = random_esm2(ARCHITECTURES[TINY])
    rounded.load_state_dict({k: v.half().float() for k, v in tiny_model.state_dict().items()})
    whole = save_published(rounded, tmp_path / "whole.pt")
    np.testing.assert_array_equal(embed(half), embed(whole))


def test_weights_of_another_size_name_both(tmp_path: Path) -> None:
    """The line has what the file holds and what was asked for."""
    other = save_tensors(
        random_esm2(ARCHITECTURES["esm2_t12_35M_UR50D"]), tmp_path / "w.safetensors"
    )
    with pytest.raises(WeightsError, match=r"12 layers of 480 \(esm2_t12_35M_UR50D\), not " + TINY):
        embed(other)


def test_other_models_are_not_taken_for_esm2(
    tiny_model: ESM2, tmp_path: Path, shared: Path
) -> None:
    """ProteinMPNN's file, ESM-1b's parameters and the Transformers layout are told apart."""
    with pytest.raises(WeightsError, match=r"no embed_tokens\.weight"):
        embed(shared / "weights" / "proteinmpnn_v_48_020.pt")
    state = dict(tiny_model.state_dict())
    torch.save(state | {"embed_positions.weight": torch.zeros(1026, 320)}, tmp_path / "1b.pt")
    with pytest.raises(WeightsError, match="ESM2 does not have its embed_positions"):
        embed(tmp_path / "1b.pt")
    torch.save({f"esm.encoder.{name}": value for name, value in state.items()}, tmp_path / "hf.pt")
    with pytest.raises(WeightsError, match="Transformers"):
        embed(tmp_path / "hf.pt")
    del state["layers.3.fc1.bias"]
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(WeightsError, match=r"has no layers\.3\.fc1\.bias"):
        embed(tmp_path / "short.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "html", "a byte short"])
def test_damaged_files_are_refused(
    suffix: str, damage: str, published: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """Truncated, empty and exchanged files raise one line that names the file."""
    whole = (published if suffix == ".pt" else tiny_weights).read_bytes()
    contents = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "a byte short": whole[:-1],
    }
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(contents[damage])
    with pytest.raises(WeightsError, match=r"weights\.(pt|safetensors): it is damaged") as caught:
        load_state_dict(file)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_any_bytes_are_weights_or_one_line(zipped: bool, tmp_path: Path) -> None:
    """torch ends in many kinds of error, by the byte that is wrong; each becomes one line."""
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(9)}, file, _use_new_zipfile_serialization=zipped)
    whole, random = file.read_bytes(), np.random.default_rng(0)
    tried = (random.integers(min(len(whole), 700)) for _ in range(400))
    for place in tried:
        changed = bytearray(whole)
        changed[place] = random.integers(256)
        file.write_bytes(changed[: None if random.integers(8) else random.integers(len(whole))])
        with contextlib.suppress(WeightsError):
            load_state_dict(file)
    file.write_bytes(b"\x80\x02" + b"(" * 1000 + b".")
    with pytest.raises(WeightsError, match=r"not a weights file \(pop from empty list\)"):
        load_state_dict(file)


def test_one_flipped_bit_in_a_pt_file_is_found(published: Path, tmp_path: Path) -> None:
    """torch.load would give a wrong number in silence; the file's own CRC-32 tells."""
    content = bytearray(published.read_bytes())
    content[len(content) // 2] ^= 1
    file = tmp_path / "weights.pt"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged, or not a weights file \(bad CRC-32"):
        load_state_dict(file)


def test_missing_and_pointless_files_are_refused(tmp_path: Path) -> None:
    """A path that is not there, a folder, and a file with no tensors each say so."""
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(WeightsError, match="no weights file"):
            load_state_dict(path)
        with pytest.raises(WeightsError):
            weights_digest(path / "none.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(WeightsError, match="holds no tensors"):
        load_state_dict(tmp_path / "epoch.pt")


class _Attack:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickled_code_is_run(zipped: bool, tmp_path: Path) -> None:
    """A .pt that carries a call is refused, in both of torch's formats, and the call not made."""
    target = tmp_path / "made"
    file = tmp_path / "weights.pt"
    torch.save(
        {"model": {"x": torch.zeros(1)}, "cfg": _Attack(target)},
        file,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_state_dict(file)
    assert not target.exists()


def test_sha256_is_the_files(tmp_path: Path) -> None:
    """The digest is that of the bytes, and follows them when the file changes."""
    file = tmp_path / "file"
    for content in (b"", b"protein" * 1000):
        file.write_bytes(content)
        assert weights_digest(file) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("model", "architecture"), ARCHITECTURES.items())
def test_architectures_are_those_of_their_names(model: str, architecture: Architecture) -> None:
    """Layers and parameters agree with fair-esm's names, and with its class to the last one."""
    _, layers, size, _ = model.split("_")
    assert layers == f"t{architecture.layers}"
    unit = {"M": 1e6, "B": 1e9}[size[-1]]
    assert architecture.parameters() / unit == pytest.approx(float(size[:-1]), rel=0.1)
    shapes = expected_shapes(architecture)
    counted = sum(math.prod(shape) for name, shape in shapes.items() if "inv_freq" not in name)
    assert architecture.parameters() == counted


def test_the_url_is_fair_esms() -> None:
    """fair-esm writes its address inside a function: ours is the same."""
    source = inspect.getsource(esm.pretrained._download_model_and_regression_data)
    assert esm2_weights.url("{model_name}") in source


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server on this machine: its folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as it:
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{it.server_port}"
        it.shutdown()
        thread.join()


def test_missing_weights_are_downloaded_into_torch_hubs_cache(
    server: tuple[Path, str],
    published: Path,
    torch_hub: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Fetched once, with progress on stderr only, then found; nothing else is left in the cache."""
    folder, address = server
    (folder / f"{TINY}.pt").write_bytes(published.read_bytes())
    monkeypatch.setattr(esm2_weights, "url", lambda model: f"{address}/{model}.pt")
    path = find_or_download(TINY)
    out, err = capfd.readouterr()
    assert out == ""
    assert "100" in err
    assert path == torch_hub() / f"{TINY}.pt"
    assert [file.name for file in torch_hub().iterdir()] == [path.name]
    (folder / f"{TINY}.pt").unlink()
    assert find_or_download(TINY) == path
    info = {entry.model: entry for entry in ESM2Encoder.known_weights()}[TINY]
    assert (info.source, info.path, info.size) == ("cache", str(path), path.stat().st_size)
    assert info.sha256 == hashlib.sha256(published.read_bytes()).hexdigest()


@pytest.mark.parametrize("served", ["nothing", "half", "html"])
def test_a_failed_download_says_what_to_do_and_leaves_nothing(
    served: str,
    server: tuple[Path, str],
    published: Path,
    torch_hub: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which file, from where, to where, by which option; no broken file enters the cache."""
    folder, address = server
    whole = published.read_bytes()
    contents = {"half": whole[: len(whole) // 2], "html": b"<html>please log in</html>"}
    if served in contents:
        (folder / f"{TINY}.pt").write_bytes(contents[served])
    monkeypatch.setattr(esm2_weights, "url", lambda model: f"{address}/{model}.pt")
    with pytest.raises(WeightsError) as caught:
        load_encoder(EncoderSpec(TINY))
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        f"{address}/{TINY}.pt",
        str(torch_hub() / f"{TINY}.pt"),
        "--sequence-weights FILE",
    ):
        assert part in line
    assert list(torch_hub().iterdir()) == []


def test_without_a_network_the_line_is_the_same(
    torch_hub: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection ends in the same advice, not in a traceback."""
    monkeypatch.setattr(esm2_weights, "url", lambda model: f"http://127.0.0.1:9/{model}.pt")
    with pytest.raises(WeightsError, match=r"the download failed .* --sequence-weights FILE"):
        load_encoder(EncoderSpec(TINY))


def test_another_package_named_esm_is_told_apart(tmp_path: Path, tiny_weights: Path) -> None:
    """EvolutionaryScale's esm has the same import name: one line says which to install."""
    (tmp_path / "esm").mkdir()
    (tmp_path / "esm" / "__init__.py").write_text('__version__ = "3.2.0"\n')
    (tmp_path / "esm" / "pretrained.py").write_text("def ESM3_sm_open_v0(): ...\n")
    code = (
        "import sys; from protalign.encoders import EncoderSpec, load_encoder\n"
        f"load_encoder(EncoderSpec({TINY!r}, sys.argv[1], device='cpu'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_weights)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("protalign.core.errors.ProtAlignError")
    assert "is not fair-esm" in last
    assert "fair-esm==2.0.0" in last


def test_every_model_is_listed_with_its_size() -> None:
    """The list has all six ESM2 and needs no network."""
    listed = {info.model: info for info in known_weights()}
    assert listed.keys() >= ARCHITECTURES.keys()
    largest = listed["esm2_t48_15B_UR50D"]
    assert (largest.dim, largest.layers, largest.licence) == (5120, 48, "MIT")
    assert largest.url.endswith("esm2_t48_15B_UR50D.pt")


def test_an_unknown_model_is_refused_by_the_class_too() -> None:
    """Calling the class without the registry gives the same hint, no KeyError."""
    with pytest.raises(ProtAlignError, match="did you mean 'esm2_t6_8M_UR50D'"):
        ESM2Encoder.load(EncoderSpec("esm2_t6_8M_UR50"))


def test_unused_parts_of_a_file_are_left_out(published: Path) -> None:
    """Neither lm_head nor contact regression comes back, and neither is needed."""
    state = read_esm2(published, TINY, ARCHITECTURES[TINY])
    assert not [name for name in state if name.startswith(("lm_head", "contact_head"))]


@pytest.mark.parametrize("model", ["esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D"])
def test_shapes_expected_are_fair_esms(model: str) -> None:
    """Every name and shape that a file is checked for is that of fair-esm's own model."""
    size = ARCHITECTURES[model]
    with torch.device("meta"):
        theirs = ESM2(size.layers, size.dim, size.heads, "ESM-1b").state_dict()
    needed = {
        name: tuple(tensor.shape)
        for name, tensor in theirs.items()
        if not name.startswith(("lm_head.", "contact_head."))
    }
    assert expected_shapes(size) == needed
