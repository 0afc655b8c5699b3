"""The errors that users meet; each message is one line with the problem and what to do."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass

from protalign.core.printing import without_secrets

#: If this variable of the environment is set, errors show where in the code they come from.
DEBUG_VARIABLE = "PROTALIGN_DEBUG"


class ProtAlignError(Exception):
    """The base of every error that ProtAlign raises on purpose; the command line prints it.

    URLs in its text lose user, password and query, whoever wrote the text.

    Examples
    --------
    >>> print(ProtAlignError("ftp://me:secret@host/store.zarr: it is missing"))
    ftp://host/store.zarr: it is missing
    """

    def __init__(self, *args: object) -> None:
        super().__init__(
            *(without_secrets(each) if isinstance(each, str) else each for each in args)
        )


class InputError(ProtAlignError, ValueError):
    """A file, a record in it, or a value given to the API cannot be used.

    Parameters
    ----------
    reason : str
        The problem, ``<thing>: <problem>``. In the failure of a file, without the file's name.
    advice : str
        What to do about it.
    record : str
        Id of the entry inside the file, if only that entry is at fault.

    Examples
    --------
    >>> print(InputError("min_plddt=101: not a pLDDT", "give a number from 0 to 100"))
    min_plddt=101: not a pLDDT; give a number from 0 to 100
    """

    def __init__(self, reason: str, advice: str = "", *, record: str = "") -> None:
        self.reason = without_secrets(reason)
        self.advice = without_secrets(advice)
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


class WriteError(ProtAlignError, OSError):
    """A file or folder cannot be written: no space is left, or it may not be written there.

    Nothing of it is left, and what was there before is unchanged.
    """


class StoreError(ProtAlignError):
    """A store is missing, damaged, locked, of another format, or made with other settings."""


class StoreInUseError(StoreError):
    """Another process writes to a store."""


class ModelError(ProtAlignError, ValueError):
    """A saved model is missing or damaged, or does not fit the store it is used on."""


class LostProcessError(ProtAlignError):
    """Another process that trains the same model ended, or cannot be reached."""


def show_traceback(error: BaseException) -> None:
    """Print where an error comes from to standard error, if ``DEBUG_VARIABLE`` is set."""
    if os.environ.get(DEBUG_VARIABLE):
        print(without_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Failure:
    """One input that could not be embedded; kept in the store and shown at the end of a run.

    Attributes
    ----------
    id : str
        Empty if a whole file failed before any entry in it had a name.
    file : str
        The file's path.
    reason, advice : str
        As for ``InputError``.
    """

    id: str
    file: str
    reason: str
    advice: str
