"""embed: from files to a store, in one call."""

from __future__ import annotations

from pathlib import Path

import pytest

from protalign.core.errors import InputError, ProtAlignError
from protalign.embedding import EncoderChoice, embed, encoder_to_run
from protalign.encoders import EncoderSpec
from protalign.stores import EmbeddingStore

SMALL, STRUCTURE = "protalign_t6_2M", "proteinmpnn_v_48_020"


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
