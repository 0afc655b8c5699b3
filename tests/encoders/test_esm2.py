"""ESM2Encoder against fair-esm's own ESM2, on real sequences."""

from __future__ import annotations

from pathlib import Path

import esm
import numpy as np
import numpy.typing as npt
import pytest
import torch
from esm.model.esm2 import ESM2
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError, ProtAlignError
from protalign.core.protein import SEQUENCE_LETTERS
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.encoders.contract import APROTININ, INSULIN, UBIQUITIN
from protalign.encoders.esm2.encoder import ESM2Encoder
from protalign.encoders.esm2.network import Architecture
from tests.helpers.random_esm2 import TINY, random_esm2, save_tensors

CHAINS = [UBIQUITIN, INSULIN[0], APROTININ, "M", "".join(sorted(SEQUENCE_LETTERS)), UBIQUITIN * 3]


def reference(
    model: ESM2, chains: list[str], layer: int | None = None
) -> list[npt.NDArray[np.float32]]:
    """fair-esm's own representations, through its own tokenizer, in one padded batch."""
    layer = model.num_layers if layer is None else layer
    _, _, tokens = model.alphabet.get_batch_converter()([("", chain) for chain in chains])
    with torch.inference_mode():
        values = model(tokens, repr_layers=[layer])["representations"][layer]
    return [values[i, 1 : len(chain) + 1].numpy() for i, chain in enumerate(chains)]


def assert_equal(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def encoder(tiny_weights: Path) -> Encoder:
    return load_encoder(EncoderSpec(TINY, str(tiny_weights), device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(6, 320, 20),
        Architecture(3, 480, 20),
        Architecture(2, 640, 20),
        Architecture(2, 1280, 20),
        Architecture(1, 2560, 40),
        Architecture(3, 64, 2),
    ],
    ids=str,
)
def test_equals_fair_esm(architecture: Architecture, tmp_path: Path) -> None:
    """Within 1e-5 of fair-esm's final layer at the widths of five sizes and a small one."""
    chains = CHAINS if architecture.dim < 1000 else CHAINS[:4]  # wide layers take seconds
    model = random_esm2(architecture)
    file = save_tensors(model, tmp_path / "model.safetensors")
    encoder = ESM2Encoder(EncoderSpec("model", device="cpu", dtype="float32"), architecture, file)
    for ours, theirs in zip(
        encoder.encode([(chain,) for chain in chains]), reference(model, chains), strict=True
    ):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("layer", range(7))
def test_equals_fair_esm_at_every_layer(layer: int, tiny_model: ESM2, tiny_weights: Path) -> None:
    """Layers are counted as repr_layers counts them; the norm comes after the final one only."""
    spec = EncoderSpec(TINY, str(tiny_weights), layer=layer, device="cpu", dtype="float32")
    encoder = load_encoder(spec)
    assert encoder.settings == {"layer": layer, "dtype": "float32"}
    assert_equal(encoder.encode([(UBIQUITIN,)])[0], reference(tiny_model, [UBIQUITIN], layer)[0])


def test_equals_fair_esm_with_trained_weights(shared: Path) -> None:
    """Trained weights have outliers that random ones lack: still within 1e-5, alone or batched.

    Of fair-esm in float64, from which its float32 is as far: the two float32 are twice as far apart
    with some numbers of threads.
    """
    file = shared / "weights" / "esm2_t6_8M_hemopi2ft.safetensors"
    encoder = load_encoder(EncoderSpec(TINY, str(file), device="cpu", dtype="float32"))
    from safetensors.torch import load_file

    model = ESM2(6, 320, 20, "ESM-1b").eval()
    model.load_state_dict(load_file(file), strict=False)
    model.double()
    batched = encoder.encode([(chain,) for chain in CHAINS])
    for chain, ours, padded in zip(CHAINS, batched, reference(model, CHAINS), strict=True):
        assert_equal(ours, padded)
        assert_equal(encoder.encode([(chain,)])[0], padded)


def test_genuine_weights_give_the_known_numbers() -> None:
    """The untouched 8M model, where it is in torch hub's cache, begins as it is known to begin."""
    known = {info.model: info for info in ESM2Encoder.known_weights()}[TINY]
    if not known.path:
        pytest.skip("the genuine ESM2 8M is not in torch hub's cache")
    encoder = load_encoder(EncoderSpec(TINY, device="cpu", dtype="float32"))
    assert isinstance(encoder, ESM2Encoder)
    rows = encoder._network(torch.tensor([0, 6, 4, 13, 5, 4, 16, 12, 11, 7, 2]), [11])
    np.testing.assert_allclose(rows[0, :3].numpy(), [0.1444, 0.5413, 0.3248], atol=1e-3)


sequences = st.text(alphabet=sorted(SEQUENCE_LETTERS), min_size=1, max_size=40)


@settings(max_examples=15, deadline=None)
@given(batch=st.lists(st.lists(sequences, min_size=1, max_size=3).map(tuple), max_size=4))
def test_any_batch_equals_fair_esm_chain_by_chain(
    batch: list[tuple[str, ...]], encoder: Encoder, tiny_model: ESM2
) -> None:
    """Every chain is embedded by itself; a protein's rows are its chains' rows in order."""
    outputs = encoder.encode(batch)
    assert len(outputs) == len(batch)
    for item, output in zip(batch, outputs, strict=True):
        alone = [reference(tiny_model, [chain])[0] for chain in item]
        assert_equal(output, np.concatenate(alone))


def test_long_chains_are_not_truncated(tmp_path: Path) -> None:
    """Beyond the 1,022 residues at which fair-esm's extract script cuts, no row is missing."""
    architecture = Architecture(2, 64, 2)
    model = random_esm2(architecture)
    file = save_tensors(model, tmp_path / "model.safetensors")
    encoder = ESM2Encoder(EncoderSpec("model", device="cpu", dtype="float32"), architecture, file)
    chain = (UBIQUITIN + APROTININ) * 9
    assert len(chain) > 1200
    assert_equal(encoder.encode([(chain,)])[0], reference(model, [chain])[0])


def test_bfloat16_is_close_with_trained_weights(shared: Path) -> None:
    """Trained attention is sharp and its biases large: rounding queries and keys costs most."""
    file = str(shared / "weights" / "esm2_t6_8M_hemopi2ft.safetensors")
    single, half = (
        load_encoder(EncoderSpec(TINY, file, device="cpu", dtype=dtype))
        for dtype in ("float32", "bfloat16")
    )
    items = [(chain,) for chain in CHAINS]
    one, other = (np.concatenate(encoder.encode(items)) for encoder in (half, single))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert np.median(cosine) > 0.99993
    assert cosine.min() > 0.999


def test_bfloat16_is_close_and_recorded(encoder: Encoder, tiny_weights: Path) -> None:
    """bfloat16 turns a row by less than 1.2 degrees, gives float32, and is in the settings."""
    half = load_encoder(EncoderSpec(TINY, str(tiny_weights), device="cpu", dtype="bfloat16"))
    assert half.settings == {"layer": 6, "dtype": "bfloat16"}
    items = [(chain,) for chain in CHAINS]
    for one, other in zip(half.encode(items), encoder.encode(items), strict=True):
        assert one.dtype == np.float32
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() > 0.9998


def test_tokens_are_fair_esms(encoder: Encoder) -> None:
    """Letter by letter the same token as fair-esm's converter gives, <cls> and <eos> around."""
    assert isinstance(encoder, ESM2Encoder)
    letters = "".join(sorted(SEQUENCE_LETTERS))
    convert = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()
    np.testing.assert_array_equal(encoder._tokens(letters), convert([("", letters)])[2][0].numpy())


@pytest.mark.parametrize(
    ("sequence", "letter", "position"),
    [("AC DE", " ", 3), ("ACd", "d", 3), ("MK*", "*", 3), ("AJ", "J", 2), ("A<mask>", "<", 2)],
)
def test_a_letter_that_is_no_residue_is_named(
    sequence: str, letter: str, position: int, encoder: Encoder
) -> None:
    """What fair-esm's tokenizer joins, splits or dies of is refused, with letter and place."""
    with pytest.raises(
        InputError, match=f"letter {letter!r} at position {position} ".replace("*", r"\*")
    ):
        encoder.encode([(UBIQUITIN,), (sequence,)])
    with pytest.raises(InputError, match="of chain 2"):
        encoder.encode([("AC", sequence)])


@pytest.mark.parametrize("layer", [-1, 7])
def test_a_layer_that_the_model_lacks_is_refused_before_a_download(layer: int) -> None:
    """The line says which layers there are."""
    with pytest.raises(ProtAlignError, match=r"no layer -?\d; choose 0 .* to 6"):
        load_encoder(EncoderSpec(TINY, layer=layer))


def test_values_beyond_the_dtype_are_reported(tmp_path: Path) -> None:
    """Overflow in float16 is an error with advice, never a row of NaN in a store."""
    architecture = Architecture(1, 64, 2)
    model = random_esm2(architecture)
    with torch.no_grad():
        model.layers[0].fc1.weight *= 1e5
    file = save_tensors(model, tmp_path / "model.safetensors")
    spec = EncoderSpec("model", device="cpu", dtype="float16")
    with pytest.raises(InputError, match="not finite in float16; use dtype float32"):
        ESM2Encoder(spec, architecture, file).encode([(UBIQUITIN,)])


def test_a_batch_too_large_is_halved_and_gives_the_same(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that runs out of memory above 110 tokens still embeds everything, and says so."""
    assert isinstance(encoder, ESM2Encoder)
    lines: list[str] = []
    network = encoder._network

    def small(tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        if len(tokens) > 110:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return network(tokens, lengths)

    items = [(UBIQUITIN,), (INSULIN[0],), (APROTININ,), ("ACDE",)]
    whole = encoder.encode(items)
    monkeypatch.setattr(encoder, "_network", small)
    monkeypatch.setattr(encoder, "_report", lines.append)
    for one, other in zip(encoder.encode(items), whole, strict=True):
        assert_equal(one, other)
    assert lines == ["out of memory with 4 proteins at once: continuing with 2"]
    with pytest.raises(InputError, match="one protein does not fit"):
        encoder.encode([(UBIQUITIN * 2,)])
