"""The errors a user can meet; each message is one line that says what is wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class ProtAlignError(Exception):
    """Base of every error that ProtAlign raises on purpose: the command line prints it, bare."""


class InputError(ProtAlignError, ValueError):
    """A file, a record in it, or a value given to the API cannot be used.

    Parameters
    ----------
    reason : what is wrong, without the file's name.
    advice : what to do about it.
    record : id of the entry inside the file, where only that entry is at fault.
    """

    def __init__(self, reason: str, advice: str = "", *, record: str = "") -> None:
        self.reason = reason
        self.advice = advice
        self.record = record
        super().__init__(f"{reason}; {advice}" if advice else reason)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_input_error, (type(self), self.reason, self.advice, self.record)


def _rebuild_input_error(
    cls: type[InputError], reason: str, advice: str, record: str
) -> InputError:
    return cls(reason, advice, record=record)


class WeightsError(ProtAlignError):
    """An encoder's weights are missing, are damaged, or do not fit the encoder."""


class StoreError(ProtAlignError):
    """A store is missing, damaged, locked, of another format, or made with other settings."""


class ModelError(ProtAlignError, ValueError):
    """A saved model is missing or damaged, or does not fit the store it is used on."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that could not be embedded; kept in the store and shown at the end of a run.

    ``id`` is empty where a whole file failed before any entry in it had a name.
    """

    id: str
    file: str
    reason: str
    advice: str
