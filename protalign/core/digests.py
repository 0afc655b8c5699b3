"""Digests of JSON values: a file that holds its own shows every change that means something."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from protalign.core.files import json_text

#: The key under which a sealed object has its digest.
SEAL = "sha256"


def json_digest(value: Mapping[str, Any]) -> str:
    """Return the hex digest of an object; the order of its keys does not matter.

    Examples
    --------
    >>> json_digest({"a": 1, "b": [0.5]}) == json_digest({"b": [0.5], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as JSON values, with its digest.

    Examples
    --------
    >>> unsealed(sealed({"mrr": 0.5}))
    {'mrr': 0.5}
    """
    plain = json.loads(json_text(value))
    return {**plain, SEAL: json_digest(plain)}


def unsealed(value: Any) -> dict[str, Any] | None:
    """Return the object that ``sealed`` was given; None if it was changed since, or never sealed.

    Examples
    --------
    >>> unsealed({**sealed({"mrr": 0.5}), "mrr": 0.75}) is None
    True
    """
    if not isinstance(value, dict):
        return None
    others = {key: each for key, each in value.items() if key != SEAL}
    return others if value.get(SEAL) == json_digest(others) else None
