"""Texts of many lengths as one array of UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def encode_texts(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return (bytes (B,) uint8, lengths (n,) int32 in bytes) of texts.

    Half of a surrogate pair, which is no character, is written as in Python.
    """
    encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
    lengths = np.fromiter((len(text) for text in encoded), dtype=np.int32, count=len(encoded))
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), lengths


def decode_texts(
    values: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.integer[Any]],
) -> npt.NDArray[np.object_]:
    """Return (n,) object array of str; raise UnicodeDecodeError if the bytes are not UTF-8."""
    data = values.tobytes()
    bounds = zip(start.tolist(), (start + length).tolist(), strict=True)
    texts = np.empty(len(start), dtype=object)
    if data.isascii():  # one decoding for all: a character is a byte
        whole = data.decode("ascii")
        texts[:] = [whole[begin:end] for begin, end in bounds]
    else:
        texts[:] = [data[begin:end].decode("utf-8") for begin, end in bounds]
    return texts


def are_texts(values: npt.NDArray[np.uint8], start: npt.NDArray[np.int64]) -> bool:
    """Return whether bytes are UTF-8, and each text that begins in them begins with a character.

    Examples
    --------
    >>> values = np.frombuffer("aé".encode(), np.uint8)
    >>> are_texts(values, np.array([0, 1, 3])), are_texts(values, np.array([0, 2]))
    (True, False)
    """
    try:
        values.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    begins = values[start[start < len(values)]]
    return not ((begins & 0xC0) == 0x80).any()
