"""embed: from files to a store, in one call."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from distributed import LocalCluster

from protalign.core.errors import InputError, ProtAlignError, StoreError, WeightsError
from protalign.embedding import BASELINE_BYTES, EncoderChoice, _loaded, embed, encoder_to_run
from protalign.encoders import EncoderSpec, load_encoder
from protalign.encoders.esm2.weights import ARCHITECTURES
from protalign.reading import ReadOptions
from protalign.stores import EmbeddingStore, StoreWriter
from tests.helpers.random_esm2 import TINY, random_esm2, save_published

SMALL, STRUCTURE, LARGE = "protalign_t6_2M", "proteinmpnn_v_48_020", "esm2_t33_650M_UR50D"


def test_one_path_and_names_of_models(tmp_path: Path, sample: Path) -> None:
    """One path needs no list, a model no more than its name; again, nothing is left to do."""
    out = tmp_path / "store.zarr"
    report = embed(str(sample / "1bpi_A.cif"), out, [SMALL, STRUCTURE])
    assert (report.files, report.files_read, report.entries) == (1, 1, 1)
    assert set(report.encoded) == {SMALL, STRUCTURE}
    store = EmbeddingStore.open(out)
    for name in (SMALL, STRUCTURE):
        assert len(store.embeddings(name).values) == 58
    again = embed(sample / "1bpi_A.cif", out)  # by the store's own encoders
    assert (again.files_read, again.encoded) == (0, {})


def test_names_in_the_store(tmp_path: Path, sample: Path) -> None:
    """One model can be in a store under two names; one name twice is refused."""
    path, out = sample / "1bpi_A.cif", tmp_path / "store.zarr"
    twice = [EncoderChoice(EncoderSpec(STRUCTURE), name) for name in ("a", "b")]
    embed([path], out, twice)
    assert set(EmbeddingStore.open(out).encoders) == {"a", "b"}
    with pytest.raises(InputError, match="it has 2 structure encoders: a, b; name one"):
        encoder_to_run("structure", EncoderSpec(""), "", out)
    with pytest.raises(ProtAlignError, match="the same name"):
        embed([path], out, twice[:1] * 2)


def test_a_store_is_opened_with_open(tmp_path: Path) -> None:
    """The class itself takes no path, and says which function does."""
    with pytest.raises(TypeError, match=r"EmbeddingStore\.open\('s\.zarr'\)"):
        EmbeddingStore("s.zarr")  # type: ignore[arg-type]


@pytest.fixture
def no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a network that must not be asked."""

    def download(*_: object, **__: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)


@pytest.mark.usefixtures("no_download")
def test_what_can_be_wrong_at_once_is_found_before_a_download(tmp_path: Path, sample: Path) -> None:
    """Paths, options, the device, the place of the store: all before 2.6 GB are fetched."""
    out, file = tmp_path / "store.zarr", sample / "1bpi_A.cif"
    with pytest.raises(InputError, match=r"missing\.pdb: it does not exist"):
        embed(tmp_path / "missing.pdb", out)
    for spec, problem in (
        (EncoderSpec(LARGE, device="tpu"), "unknown name"),
        (EncoderSpec(LARGE, dtype="float64"), "unknown name"),
        (EncoderSpec(LARGE, layer=99), "no layer 99"),
    ):
        with pytest.raises(ProtAlignError, match=problem):
            embed(file, out, [EncoderChoice(spec)])
    with pytest.raises(StoreError, match="it exists and is not a store"):
        embed(file, tmp_path.parent)
    with pytest.raises(StoreError, match="a URL cannot be written to"):
        embed(file, "memory://store.zarr")
    assert not out.exists()
    embed(file, out, [STRUCTURE])
    with pytest.raises(StoreError, match="made with other options"):
        embed(file, out, options=ReadOptions(per="chain"))
    with StoreWriter(out, asdict(ReadOptions())), pytest.raises(StoreError, match="written to by"):
        embed(file, out)


def test_the_size_of_a_download_is_told_before_it_begins(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the model, its size and the place, before the first byte."""

    def download(*_: object, **__: object) -> None:
        assert re.search(rf"{LARGE}: downloading its weights, 2\.6 GB, to {tmp_path}", caplog.text)
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    with pytest.raises(WeightsError, match=r"the download failed \(no network\)"):
        embed(sample / "1bpi_A.cif", tmp_path / "store.zarr")
    assert not (tmp_path / "store.zarr").exists()


@pytest.mark.slow
def test_what_does_not_fit_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain whose predicted memory is more than there is: one line, and the rest is embedded."""
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text(f">long\n{'MKVLATGE' * 500}\n>short\nMKVLATGE\n>two\n{'MKVLATGE' * 100}\n")
    small = load_encoder(EncoderSpec(SMALL, device="cpu"))
    room = BASELINE_BYTES + small.memory_bytes(3000, 3000)
    monkeypatch.setattr("protalign.embedding.usable_memory", lambda: float(room))
    out = tmp_path / "store.zarr"
    report = embed(fasta, out, [EncoderChoice(EncoderSpec(SMALL, device="cpu"))])
    assert [failure.id for failure in report.failures] == ["long"]
    assert re.match(
        r"it does not fit in memory: its 4,000 residues take up to [\d.]+ GB, and this process may "
        r"use [\d.]+ GB",
        report.failures[0].reason,
    )
    assert report.encoded[SMALL]["items"] == 2
    monkeypatch.undo()
    assert embed(fasta, out).failures == []  # on a machine with more memory


@pytest.mark.slow
def test_workers_with_other_weights_are_refused(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's worker that loads other weights under the same name stops the run: no row."""
    for seed, machine in enumerate(("client", "worker")):
        folder = tmp_path / machine / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        save_published(random_esm2(ARCHITECTURES[TINY], seed), folder / f"{TINY}.pt")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "client"))
    out = tmp_path / "store.zarr"
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        env={"TORCH_HOME": str(tmp_path / "worker")},
    ) as cluster:
        problem = rf"its encoder {TINY} is not the one of this run \(weights \w+…, not \w+…\)"
        with pytest.raises(StoreError, match=problem):
            embed(sample / "1bpi_A.cif", out, [TINY], scheduler=cluster.scheduler_address)
    assert (EmbeddingStore.open(out).rows(TINY)[0] == -1).all()
    assert embed(sample / "1bpi_A.cif", out).encoded[TINY]["items"] == 1


def test_an_encoder_is_loaded_once() -> None:
    """Planning asks for "auto" and encoding for the device that it stands for: one encoder."""
    encoder = _loaded(EncoderSpec(SMALL, device="auto", dtype="float32"))
    assert _loaded(EncoderSpec(SMALL, device=encoder.device, dtype="float32")) is encoder
