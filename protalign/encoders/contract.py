"""The suite of tests that every encoder must pass; pytest collects it from a subclass."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from protalign.core.errors import InputError, ProtAlignError
from protalign.core.protein import Structure
from protalign.core.threads import torch_pool
from protalign.encoders.base import Encoder, EncoderSpec, encoder_classes, load_encoder

#: Real sequences: human ubiquitin (UniProt P0CG48), chains A and B of human insulin (P01308),
#: bovine pancreatic trypsin inhibitor (P00974).
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
INSULIN = ("GIVEQCCTSICSLYQLENYCN", "FVNQHLCGSHLVEALYLVCGERGFFYTPKT")
APROTININ = "RPDFCLEPPYTGPCKARIIRYFYNAKAGLCQTFVYGGCRAKRNNFKSAEDCMRTCGGA"


class EncoderContract:
    """The tests of an encoder: subclass it in a test module and name the encoder.

    ::

        class TestMyEncoder(EncoderContract):
            spec = EncoderSpec("my_encoder", device="cpu", dtype="float32")

    Attributes
    ----------
    spec : EncoderSpec
        The encoder under test, by name; it must compute in float32.
    tolerance : float
        The largest difference, absolute and relative, between an item embedded alone and in a
        batch.
    """

    spec: ClassVar[EncoderSpec]
    tolerance: ClassVar[float] = 1e-5

    def items(self) -> Sequence[Any]:
        """Return two or more items of different lengths; override it for a structure encoder."""
        return [(UBIQUITIN,), INSULIN, (APROTININ,)]

    def encoder(self) -> Encoder:
        """Return the encoder under test, loaded once for the class."""
        loaded: Encoder | None = type(self).__dict__.get("_loaded")
        if loaded is None:
            loaded = load_encoder(self.spec)
            type(self)._loaded = loaded  # type: ignore[attr-defined]
        return loaded

    def test_is_registered_and_loads_by_name(self) -> None:
        """The registry knows the name, and loading gives the class that announced it."""
        cls = encoder_classes().get(self.spec.model)
        assert cls is not None, f"{self.spec.model!r} is not in the entry points"
        encoder = self.encoder()
        assert isinstance(encoder, cls), f"load gave {type(encoder).__name__}"
        assert encoder.name == self.spec.model, f"its name is {encoder.name!r}"

    def test_metadata_is_complete(self) -> None:
        """Everything that a store records exists, has the right type, and fits in JSON."""
        encoder = self.encoder()
        assert encoder.modality in ("sequence", "structure"), encoder.modality
        assert isinstance(encoder.dim, int), type(encoder.dim)
        assert encoder.dim > 0, encoder.dim
        assert re.fullmatch(r"[0-9a-f]{64}", encoder.weights_sha256), encoder.weights_sha256
        assert isinstance(encoder.device, str), type(encoder.device)
        settings = dict(encoder.settings)
        assert json.loads(json.dumps(settings)) == settings, settings
        assert isinstance(encoder.batch_rows, int), type(encoder.batch_rows)
        assert encoder.batch_rows > 0, encoder.batch_rows

    def test_weights_are_listed(self) -> None:
        """Each model has one entry in the list of weights, of the class's modality."""
        cls = type(self.encoder())
        entries = cls.known_weights()
        assert [entry.model for entry in entries] == list(cls.models())
        assert {entry.modality for entry in entries} == {cls.modality}

    def test_gives_one_array_per_item_with_one_row_per_residue(self) -> None:
        """Arrays come in the batch's order, (L, D) float32, finite."""
        encoder, items = self.encoder(), self.items()
        outputs = encoder.encode(items)
        assert isinstance(outputs, list), type(outputs)
        assert len(outputs) == len(items), len(outputs)
        for item, output in zip(items, outputs, strict=True):
            assert output.shape == (_rows(item), encoder.dim), output.shape
            assert output.dtype == np.float32, output.dtype
            assert np.isfinite(output).all(), "some values are not finite"

    def test_order_follows_the_batch(self) -> None:
        """Reversing a batch reverses the outputs, and changes nothing else."""
        encoder, items = self.encoder(), list(self.items())
        assert len({_rows(item) for item in items}) > 1, "items() must differ in length"
        for there, back in zip(
            encoder.encode(items), reversed(encoder.encode(items[::-1])), strict=True
        ):
            self._assert_close(there, back)

    def test_an_item_is_embedded_alike_alone_and_in_a_batch(self) -> None:
        """An embedding depends on the rest of its batch by rounding only."""
        encoder, items = self.encoder(), self.items()
        for item, batched in zip(items, encoder.encode(items), strict=True):
            self._assert_close(encoder.encode([item])[0], batched)

    def test_residues_differ(self) -> None:
        """An embedding depends on its residue: rows are not all the same."""
        for output in self.encoder().encode(self.items()):
            assert np.ptp(output, axis=0).max() > 0, "all rows are equal"

    def test_is_deterministic(self) -> None:
        """The same batch gives the same bytes twice, also from an encoder loaded again."""
        items = self.items()
        first = self.encoder().encode(items)
        for again in (self.encoder().encode(items), load_encoder(self.spec).encode(items)):
            for one, other in zip(first, again, strict=True):
                np.testing.assert_array_equal(one, other)

    def test_batches_encoded_at_once_are_the_same(self) -> None:
        """As many calls at once as the encoder allows give what one after another does."""
        encoder, items = self.encoder(), self.items()
        assert encoder.batches_at_once >= 1, encoder.batches_at_once
        batches = [[item] for item in items] * 4
        with torch_pool(encoder.batches_at_once) as pool:
            at_once = list(pool.map(encoder.encode, batches))
        for batch, found in zip(batches, at_once, strict=True):
            self._assert_close(encoder.encode(batch)[0], found[0])

    def test_outputs_may_be_changed_by_the_caller(self) -> None:
        """Writing into an output changes no later one: nothing inside the encoder is shared."""
        encoder, items = self.encoder(), self.items()
        first = encoder.encode(items)
        kept = [output.copy() for output in first]
        for output in first:
            output[:] = 0
        for one, other in zip(kept, encoder.encode(items), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_an_empty_batch_gives_an_empty_list(self) -> None:
        """No items, no outputs, no error."""
        assert self.encoder().encode([]) == []

    def test_items_of_another_type_are_refused(self) -> None:
        """Anything but this modality's items raises TypeError, never a wrong embedding."""
        encoder = self.encoder()
        wrong: list[Any] = [None, 7, UBIQUITIN, [UBIQUITIN]]
        wrong.append((UBIQUITIN,) if encoder.modality == "structure" else _no_structure())
        for item in wrong:
            _assert_raises(TypeError, encoder, item)

    def test_sequences_that_cannot_be_embedded_are_refused(self) -> None:
        """A sequence encoder raises InputError for letters of no residue and for empty chains."""
        if self.encoder().modality != "sequence":
            return
        for item in [("ACDE*",), ("acde",), ("AC DE",), ("A<mask>C",), ("ACJ",), ("AC", ""), ()]:
            _assert_raises(InputError, self.encoder(), item)

    def test_a_layer_that_does_not_exist_is_refused(self) -> None:
        """A layer beyond the last is a clear error, not the last layer in silence."""
        from dataclasses import replace

        try:
            load_encoder(replace(self.spec, layer=10_000))
        except ProtAlignError:
            return
        raise AssertionError("layer 10000 was accepted")

    def test_memory_is_predicted(self) -> None:
        """The prediction is positive, and no smaller for a longer item or a larger batch."""
        encoder = self.encoder()
        small, long, wide = (
            encoder.memory_bytes(longest, rows)
            for longest, rows in [(100, 1000), (10_000, 10_000), (100, 100_000)]
        )
        assert 0 < small <= long, (small, long)
        assert small <= wide, (small, wide)

    def _assert_close(self, one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> None:
        np.testing.assert_allclose(one, other, rtol=self.tolerance, atol=self.tolerance)


def _rows(item: Any) -> int:
    """Return the number of residues of an item."""
    return len(item) if isinstance(item, Structure) else sum(map(len, item))


def _no_structure() -> Structure:
    return Structure(chains=(), kept=())


def _assert_raises(expected: type[Exception], encoder: Encoder, item: Any) -> None:
    try:
        encoder.encode([item])
    except expected:
        return
    raise AssertionError(f"{item!r} was accepted")
