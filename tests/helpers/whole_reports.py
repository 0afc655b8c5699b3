"""Whether a report's files are whole, whenever they were written."""

from __future__ import annotations

import json

#: What differs between two reports of the same data.
CHANGING = ("seconds", "sha256", "written")


def check_report(files: dict[str, bytes], alone: dict[str, bytes]) -> None:
    """Every file that has its name is whole: it says what that of an undisturbed run says.

    But for what depends on the time.
    """
    for name, data in files.items():
        if ".partial" not in name:
            assert name in alone, name
            assert meaning(name, data) == meaning(name, alone[name]), name


def meaning(name: str, data: bytes) -> object:
    """What a report's file says, without times; of its page only that it has its end."""
    if name.endswith(".json"):
        return without_times(json.loads(data))
    return data.rstrip().endswith(b"</html>") if name.endswith(".html") else data


def without_times(value: object) -> object:
    """Leave out when a report was made, how long it took, and the digests that depend on it."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in CHANGING}
    return list(map(without_times, value)) if isinstance(value, list) else value
