"""The record of an encoder: everything that decides the numbers it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protalign.core.protein import Modality


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


def _formatted(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
