"""Saved models: they come back the same, say what they are, and refuse what does not fit."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import threading
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from protalign.core.errors import ModelError
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.model import Model
from protalign.heads.model_check import verify_model
from protalign.heads.model_files import _digest as digest_of
from protalign.heads.model_files import check_target
from protalign.stores import EmbeddingStore


@pytest.fixture
def saved(fitted: ProtAlignEstimator, tmp_path: Path) -> Path:
    """The fitted model's folder."""
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def test_it_comes_back_the_same(
    store: EmbeddingStore, fitted: ProtAlignEstimator, saved: Path
) -> None:
    """Parameters, fitted attributes and, to the bit, vectors survive."""
    loaded = ProtAlignEstimator.load(saved)
    assert loaded.get_params() == fitted.get_params()
    np.testing.assert_array_equal(loaded.transform(store), fitted.transform(store))
    names = [name for name in dir(type(fitted)) if name.endswith("_") and name[0] != "_"]
    assert "loss_curve_" in names
    for name in names:
        assert getattr(loaded, name) == getattr(fitted, name), name
    assert set(vars(loaded)) == set(vars(fitted))


def test_a_learned_loss_comes_back(tmp_path: Path) -> None:
    """SigLIP's bias and a learned temperature are part of the model; so are column names."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 6)), columns=list("abcdef"))
    model = ProtAlignEstimator(
        loss="siglip", learnable_temperature=True, max_epochs=3, embed_dim=8, device="cpu"
    ).fit(X)
    model.save(tmp_path / "model")
    loaded = ProtAlignEstimator.load(tmp_path / "model")
    assert loaded.bias_ == model.bias_ != -10.0
    assert loaded.temperature_ == model.temperature_
    assert loaded.n_features_in_ == 6
    assert loaded.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))


@pytest.mark.slow
def test_it_loads_without_the_store(saved: Path) -> None:
    """In a new process that has only the folder; and nothing in it is a pickle."""
    code = (
        "import sys; from protalign import ProtAlignEstimator as E; import numpy as np;"
        f"m = E.load({str(saved)!r}).set_params(device='cpu');"
        "print(m.pool('sequence', [np.eye(20)]).shape, m.encoders_['sequence'].model);"
        "from protalign.heads.shipped import shipped_model; E.load(shipped_model());"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"  # seconds, for nothing
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["(1, 128) one_hot", "set()"]
    names = {path.name for path in saved.iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= names
    assert {Path(name).suffix for name in names} == {".json", ".safetensors", ".md"}


def test_config_and_card_say_what_it_is(saved: Path, store: EmbeddingStore) -> None:
    """Encoders with hashes, format, versions, parameters, and where the pairs came from."""
    config = json.loads((saved / "config.json").read_text())
    info = store.encoder_for("structure")
    assert config["format_version"] == "1.2"
    assert config["encoders"]["structure"]["weights_sha256"] == info.weights_sha256
    assert config["encoders"]["sequence"]["settings"] == {"layer": 1}
    assert set(config["versions"]) == {"torch", "numpy", "scikit-learn"}
    card = (saved / "README.md").read_text()
    for expected in (info.weights_sha256, "structure: 41", store.path, "Limits", "Licence"):
        assert expected in card
    assert "- sequence: (L, 20) embeddings of one_hot (layer 1), weights SHA-256 000" in card


def test_the_card_says_how_the_training_went(tmp_path: Path) -> None:
    """Pairs, the epoch that was kept, the last loss, and the best figure of the validation pairs.

    What is not known of arrays is said to be unknown.
    """
    X = np.random.default_rng(0).normal(size=(120, 6))
    settings = {"embed_dim": 8, "device": "cpu", "random_state": 0, "sequence_columns": 3}
    card = tmp_path / "model" / "README.md"
    fitted = ProtAlignEstimator(max_epochs=25, learning_rate=0.03, batch_size=16, **settings).fit(X)
    curve = fitted.validation_curve_
    assert fitted.best_epoch_ < fitted.n_iter_  # else a swap of the two could not be seen
    assert curve[-1] < max(curve)
    fitted.save(card.parent)
    text = card.read_text()
    for line in (
        f"- pairs of sequence and structure: {fitted.n_pairs_}, and {fitted.n_validation_pairs_} "
        "more that chose the best epoch",
        "- source: arrays in memory",
        "batch 16, Adam, learning rate 0.03",
        f"- epochs: {fitted.n_iter_}, best {fitted.best_epoch_}; last training loss "
        f"{fitted.loss_curve_[-1]:.4f}",
        f"- validation: mean reciprocal rank {fitted.best_validation_score_:.4f}, sequence -> "
        f"structure, among {fitted.n_validation_pairs_} pairs",
        "- structure: (L, 3) embeddings; their encoder is not recorded",
    ):
        assert f"{line}\n" in text or f"{line} " in text
    fitted.set_params(early_stopping=False, max_epochs=1).fit(X).save(card.parent)
    assert "- no validation pairs: no figure says how well it does" in card.read_text()


def test_a_model_of_format_1_0_is_read(
    fitted: ProtAlignEstimator, store: EmbeddingStore, saved: Path
) -> None:
    """It knew attention alone, and did not record what chose the epoch."""
    config = json.loads((saved / "config.json").read_text())
    del config["parameters"]["pooling"], config["training"]["validation"]
    del config["config_sha256"], config["card_sha256"]
    (saved / "config.json").write_text(json.dumps({**config, "format_version": "1.0"}))
    old = ProtAlignEstimator.load(saved)
    assert (old.pooling, old.validation_) == ("attention", "not recorded")
    assert verify_model(saved) == []
    np.testing.assert_array_equal(old.transform(store[:3]), fitted.transform(store[:3]))


def test_saving_replaces_a_model_and_nothing_else(
    fitted: ProtAlignEstimator, saved: Path, tmp_path: Path
) -> None:
    """A model is replaced whole; a folder with other things in it is left alone."""
    (saved / "model.safetensors").write_bytes(b"")
    fitted.save(saved)
    ProtAlignEstimator.load(saved)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("words")
    with pytest.raises(ModelError, match="not a saved model"):
        fitted.save(other)
    assert (other / "chapter.tex").read_text() == "words"


def test_a_place_that_cannot_be_is_told_before_the_training(
    fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """A file has the folder's name, or that of a folder above it."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(ModelError, match="name another"):
            check_target(path)
        with pytest.raises(ModelError, match="name another"):
            fitted.save(path)
    assert check_target(tmp_path / "new" / "model") == tmp_path / "new" / "model"


@pytest.mark.parametrize(
    "changed", [{"embed_dim": 64}, {"n_heads": 8}, {"loss": "siglip"}, {"pooling": "mean-mlp"}]
)
def test_parameters_set_since_the_fit_are_not_saved(
    fitted: ProtAlignEstimator, store: EmbeddingStore, tmp_path: Path, changed: dict[str, object]
) -> None:
    """A model whose config does not describe its heads could not be loaded again."""
    model = copy(fitted).set_params(**changed)
    with pytest.raises(ModelError, match="the model was fitted with"):
        model.save(tmp_path / "model")
    with pytest.raises(ModelError, match="the model was fitted with"):
        model.export(store, tmp_path / "vectors.parquet")
    assert not list(tmp_path.iterdir())
    assert len(model.get_feature_names_out()) == model.transform(store[:2]).shape[1] == 128


def test_a_failed_save_leaves_the_old_model(
    fitted: ProtAlignEstimator, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk fills up midway, the model that was there is still there, whole."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*arguments: object, **named: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        fitted.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "not a saved model"),
        (lambda f: (f / "config.json").write_text("{"), "damaged .*config.json: not valid JSON"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (lambda f: flip_a_bit(f / "model.safetensors"), "damaged .*not the file"),
        (lambda f: edit(f, format_version="2.0"), "format 2.0, this version reads 1.2"),
        (lambda f: edit(f, format="other"), "not a model of ProtAlign"),
        (lambda f: edit(f, encoders={}), "damaged .*KeyError"),
        (lambda f: edit(f, parameters={}), "damaged .*KeyError"),
        (lambda f: edit_parameters(f, heads=3), "damaged .*TypeError"),
        (lambda f: edit_parameters(f, embed_dim=64), "damaged .*size mismatch"),
        (lambda f: edit_parameters(f, pooling="other"), "damaged .*KeyError"),
    ],
)
def test_damage_is_told_in_one_line(saved: Path, break_it: object, message: str) -> None:
    """Missing, truncated, altered or newer: a ModelError that says which."""
    break_it(saved)  # type: ignore[operator]
    with pytest.raises(ModelError, match=message) as error:
        ProtAlignEstimator.load(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"n_heads": 4', '"n_heads": 8'),
        ('"temperature": 0.07', '"temperature": 0.7'),
        ('"loss": "clip"', '"loss": "clup"'),
        ('"n_pairs": 41', '"n_pairs": 47'),
        ('"card_sha256"', '"cord_sha256"'),
        ('"config_sha256"', '"confug_sha256"'),
        ('"format_version": "1.2"', '"format_version": "1.3"'),
    ],
)
def test_an_edit_of_the_config_is_noticed(saved: Path, before: str, after: str) -> None:
    """Also one that still describes a model of the same parameters, as another number of heads."""
    config = saved / "config.json"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after, 1))
    with pytest.raises(ModelError, match=r"damaged .config.json was changed since it was saved"):
        ProtAlignEstimator.load(saved)
    assert len(verify_model(saved)) == 1


def test_every_changed_byte_is_found(saved: Path) -> None:
    """In the weights, the config and the card: one changed byte, or a missing end, is a problem."""
    rng = np.random.default_rng(0)
    assert verify_model(saved) == []
    for path in saved.iterdir():
        data = path.read_bytes()
        for place in rng.integers(len(data), size=12):
            changed = bytearray(data)
            changed[place] ^= rng.integers(1, 256)
            path.write_bytes(changed)
            assert len(verify_model(saved)) == 1, (path.name, place)
        path.write_bytes(data[: len(data) // 2])
        assert len(verify_model(saved)) == 1
        path.unlink()
        assert len(verify_model(saved)) == 1
        path.write_bytes(data)
    assert verify_model(saved) == []


@pytest.mark.parametrize(
    "changes",
    [
        *({"embed_dim": value} for value in (10**9, 10**30, 0, -1, 1.5, True, None, "128", [128])),
        *({"n_heads": value} for value in (0, 3, 10**9, "4")),
        *({"temperature": value} for value in (0, -1, "x", None)),
        {"pooling": ["attention"]},
        {"loss": {}},
    ],
)
def test_absurd_configs_take_no_memory(saved: Path, changes: dict[str, object]) -> None:
    """Sizes and types that no model has: refused in one line, before a parameter is made."""
    edit_parameters(saved, **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=r"damaged|more than fits into memory") as error:
        Model.load(saved)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": ' * 100_000, "[]", "5", "null", '{"a": 1, "a": 2}', "\x00"]
)
def test_configs_that_are_none(saved: Path, text: str) -> None:
    """Nested without end, or JSON of another kind."""
    (saved / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"damaged|not a model of ProtAlign"):
        ProtAlignEstimator.load(saved)


@pytest.mark.parametrize("key", ["encoders", "parameters", "training", "array_input"])
@pytest.mark.parametrize("value", [None, 5, "x", [], {}])
def test_parts_of_another_type(saved: Path, key: str, value: object) -> None:
    """A part of the config that is missing or something else is damage, not a fault of ours."""
    edit(saved, **{key: value})
    with pytest.raises(ModelError, match="damaged"):
        ProtAlignEstimator.load(saved)


@pytest.mark.parametrize(
    ("place", "values"),
    [
        (("encoders", "sequence", "settings"), [5, "x", [], None, {"layer": []}]),
        (("encoders", "structure", "modality"), ["sequence", "x", None]),
        (("encoders", "structure", "dim"), ["5", 5.0, True, None]),
        (("encoders", "sequence", "name"), ["a\nb", 5, None]),
        (("training", "loss_curve"), [10**9, "x", None, ["x"]]),
        (("training", "n_pairs"), [-1, "x", 1.5, None]),
        (("array_input", "n_features_in"), [0, "x", 1.5]),
        (("array_input", "feature_names_in"), [5, [5], [None]]),
    ],
)
def test_values_of_another_kind(saved: Path, place: tuple[str, ...], values: list[object]) -> None:
    """Deep in a config whose digest fits: found when it is read, not where the value is used."""
    first, *rest = place
    for value in values:
        part = deepcopy(json.loads((saved / "config.json").read_text())[first])
        holder = part
        for key in rest[:-1]:
            holder = holder[key]
        kept, holder[rest[-1]] = holder[rest[-1]], value
        edit(saved, **{first: part})
        with pytest.raises(ModelError, match="damaged"):
            Model.load(saved)
        holder[rest[-1]] = kept
        edit(saved, **{first: part})
    Model.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_regular_files_are_opened(saved: Path, name: str, kind: str) -> None:
    """A link, a pipe, a folder or a device in place of a file is refused, and nothing waits."""
    path = saved / name
    if kind == "link":
        path.rename(saved.parent / name)
        path.symlink_to(saved.parent / name)
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    if kind == "device":
        path.symlink_to("/dev/zero")
    assert len(verify_model(saved)) == 1
    if name != "README.md":
        with pytest.raises(ModelError):
            ProtAlignEstimator.load(saved)


def test_weights_of_another_size_are_not_read(saved: Path) -> None:
    """A file of a terabyte of zeros, and headers that promise more than the file has."""
    weights = saved / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="no such file has"):
        ProtAlignEstimator.load(saved)
    tensor = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    for header in (b"", b"{", b"[" * 1000, json.dumps({"query": tensor}).encode()):
        data = struct.pack("<Q", len(header)) + header
        weights.write_bytes(data)
        edit(saved, weights_sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(ModelError, match="damaged"):
            ProtAlignEstimator.load(saved)
    weights.write_bytes(data := struct.pack("<Q", 1 << 60))
    edit(saved, weights_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ModelError, match="damaged"):
        ProtAlignEstimator.load(saved)


def test_a_reader_sees_one_model_while_others_are_saved(
    fitted: ProtAlignEstimator, saved: Path
) -> None:
    """Its config and its weights are of the same one, however often another is put there."""
    other = copy(fitted)
    other.model_ = deepcopy(fitted.model_)
    with torch.no_grad():
        other.model_.sequence.norm.bias.add_(1)
    known = {fitted.model_.weights_sha256, other.model_.weights_sha256}
    assert len(known) == 2
    done = threading.Event()

    def save() -> None:
        while not done.is_set():
            for model in (fitted, other):
                model.save(saved)

    writer = threading.Thread(target=save)
    writer.start()
    try:
        for _ in range(30):
            assert ProtAlignEstimator.load(saved).model_.weights_sha256 in known
    finally:
        done.set()
        writer.join()


def flip_a_bit(path: Path) -> None:
    """Damage that no length tells."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(folder: Path, **changes: object) -> None:
    """Change a config's entries, and its digest with them, as only another program would."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**config, "config_sha256": digest_of(config)}))


def edit_parameters(folder: Path, **changes: object) -> None:
    """Change some of a config's parameters."""
    config = json.loads((folder / "config.json").read_text())
    edit(folder, parameters={**config["parameters"], **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "5" * 64}, "weights 555555555555…, not 000000000000…"),
        ({"settings": {"layer": 2}}, "layer 2, not 1"),
        ({"model": "other"}, "model other, not one_hot"),
        ({"dim": 320}, "dim 320, not 20"),
    ],
)
def test_stores_of_other_encoders_are_refused(
    store: EmbeddingStore, saved: Path, change: dict[str, object], message: str
) -> None:
    """Fitted on other weights, another layer, model or width: refused, and the difference told."""
    loaded = refitted(saved, change)
    for use in (loaded.transform, loaded.score, loaded.retrieval_set):
        with pytest.raises(ModelError, match=message):
            use(store)
    with pytest.raises(ModelError, match=message):
        loaded.set_params(warm_start=True).fit(store)


def test_the_other_modality_does_not_matter(store: EmbeddingStore, saved: Path) -> None:
    """Structure vectors need the structure encoder alone to be the same."""
    loaded = refitted(saved, {"weights_sha256": "5" * 64})
    loaded.set_params(output="structure")
    assert loaded.transform(store[:2]).shape == (2, 128)


def test_compute_precision_is_no_other_encoder(store: EmbeddingStore, saved: Path) -> None:
    """A model fitted on embeddings computed in bfloat16 on a GPU takes a CPU's float32 ones."""
    loaded = refitted(saved, {"settings": {"layer": 1, "dtype": "bfloat16"}})
    assert loaded.transform(store[:2]).shape == (2, 128)


def refitted(saved: Path, change: dict[str, object]) -> ProtAlignEstimator:
    """The saved model as if it had been fitted on another sequence encoder's embeddings."""
    loaded = ProtAlignEstimator.load(saved).set_params(device="cpu")
    loaded.encoders_["sequence"] = replace(loaded.encoders_["sequence"], **change)  # type: ignore[arg-type]
    return loaded
