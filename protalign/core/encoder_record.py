"""The record of an encoder: everything that decides the numbers it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protalign.core.protein import MODALITIES, Modality

#: Letters of a word in a record, at most.
_WORD = 1000


@dataclass(frozen=True)
class EncoderRecord:
    """An encoder as a store or a model records it.

    Attributes
    ----------
    model : str
        The model's name, such as "esm2_t6_8M_UR50D".
    modality : "sequence" or "structure"
        The items that it embeds.
    dim : int
        D, the width of a residue's embedding.
    weights_sha256 : str
        Hex digest of its weights.
    settings : mapping
        Layer, compute dtype and so on, as JSON values.
    dtype : str
        "float16" or "float32", of the stored values.
    versions : mapping
        Library versions when the encoder was first used on a store. They are kept, not compared.

    Examples
    --------
    >>> record = EncoderRecord("esm2_t6_8M_UR50D", "sequence", 320, "ab" * 32, {"layer": 6})
    >>> other = EncoderRecord("esm2_t6_8M_UR50D", "sequence", 320, "ab" * 32, {"layer": 5})
    >>> record.differences(other)
    ['layer 6, not 5']
    """

    model: str
    modality: Modality
    dim: int
    weights_sha256: str
    settings: Mapping[str, str | int] = field(default_factory=dict)
    dtype: str = "float16"
    versions: Mapping[str, str] = field(default_factory=dict)

    def differences(self, other: EncoderRecord, *, precision: bool = True) -> list[str]:
        """Return what makes the embeddings of two encoders different; empty if nothing does.

        Parameters
        ----------
        other : EncoderRecord
            The encoder to compare with.
        precision : bool
            Whether the dtypes of computing and of storing count. A model takes either: bfloat16 on
            a GPU and float32 on a CPU give embeddings that agree to a cosine of 0.9999. A store
            does not mix them.
        """
        compared = ["model", "modality", "dim", "weights_sha256", *(["dtype"] if precision else [])]
        pairs = {
            name.replace("_sha256", "").replace("dtype", "stored dtype"): (
                getattr(self, name),
                getattr(other, name),
            )
            for name in compared
        }
        ignored = set() if precision else {"dtype"}
        for key in sorted({*self.settings, *other.settings} - ignored):
            pairs[key] = self.settings.get(key), other.settings.get(key)
        return [
            f"{name} {_formatted(ours)}, not {_formatted(theirs)}"
            for name, (ours, theirs) in pairs.items()
            if ours != theirs
        ]


def check_record(value: Mapping[str, Any]) -> None:
    """Raise ValueError unless the values of a record, as JSON, are of their kinds.

    Parameters
    ----------
    value : mapping
        The record's attributes by name, out of a file that anybody may have made.

    Examples
    --------
    >>> record = EncoderRecord("esm2_t6_8M_UR50D", "sequence", 320, "ab" * 32, {"layer": 6})
    >>> from dataclasses import asdict
    >>> check_record(asdict(record))
    >>> check_record({**asdict(record), "dim": "320"})
    Traceback (most recent call last):
    ValueError: an encoder's dim is not a count
    """
    for key in ("model", "weights_sha256", "modality", "dtype"):
        _require(is_word(value[key]), f"an encoder's {key} is not a word")
    _require(value["modality"] in MODALITIES, "an encoder's modality is unknown")
    _require(value["dtype"] in ("float16", "float32"), "an encoder's dtype is unknown")
    _require(is_count(value["dim"], 1), "an encoder's dim is not a count")
    for key in ("settings", "versions"):
        _require(are_settings(value[key]), f"an encoder's {key} are not words and numbers")


def is_count(value: object, least: int = 0) -> bool:
    """Return whether a JSON value is a whole number of at least ``least``."""
    return type(value) is int and value >= least


def is_word(value: object) -> bool:
    """Return whether a JSON value is a printable text of a sensible length."""
    return isinstance(value, str) and len(value) <= _WORD and value.isprintable()


def are_settings(value: object) -> bool:
    """Return whether a JSON value is an object of words, numbers, true, false and null."""
    return isinstance(value, dict) and all(
        is_word(key) and (each is None or isinstance(each, (bool, int, float)) or is_word(each))
        for key, each in value.items()
    )


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)


def _formatted(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
