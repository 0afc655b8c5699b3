"""The one form of the server's errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protalign.core.errors import InputError
from protalign.core.printing import one_line

#: Letters of a message, at most.
_MOST = 500
#: Status -> the type and the code of its error.
KINDS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "malformed"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden_origin"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    406: ("invalid_request_error", "not_acceptable"),
    413: ("invalid_request_error", "too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    422: ("invalid_request_error", "unprocessable"),
    429: ("rate_limit_error", "queue_full"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
    504: ("server_error", "timeout"),
}


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error.

    Attributes
    ----------
    status : int
        The HTTP status.
    reason, advice : str
        ``<thing>: <problem>`` and what to do.
    param : str or None
        The field or the record at fault.
    headers : dict
        Headers of the answer.

    Examples
    --------
    >>> ApiError(404, "1abc: not an entry", "choose an id").document()["error"]["message"]
    '1abc: not an entry; choose an id'
    """

    status: int
    reason: str
    advice: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: InputError, param: str | None = None) -> ApiError:
        """Return the answer to a request that something is wrong with."""
        return cls(422, error.reason, error.advice, param or error.record or None)

    @classmethod
    def of_field(cls, name: str, message: str) -> ApiError:
        """Return the answer to a field with a wrong value, of pydantic's message.

        Examples
        --------
        >>> ApiError.of_field("k", "Input should be a valid integer").reason
        'k: it must be a valid integer'
        """
        problem = message[:1].lower() + message[1:]
        problem = problem.replace("input should be", "it must be")
        return cls(422, f"{name}: {problem}", "see /docs for its values", name)

    def document(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind, code = KINDS.get(self.status, KINDS[500 if self.status >= 500 else 400])
        message = f"{self.reason}; {self.advice}" if self.advice else self.reason
        return {
            "error": {
                "message": one_line(message, _MOST),
                "type": kind,
                "code": code,
                "param": None if self.param is None else one_line(self.param, 100),
            }
        }


def queue_full() -> ApiError:
    """Return the answer of a server that has enough to do."""
    return ApiError(
        429, "the server: its queue is full", "try again later", headers={"Retry-After": "2"}
    )


def shutting_down() -> ApiError:
    """Return the answer of a server that ends."""
    return ApiError(
        503, "the server: it is shutting down", "try again later", headers={"Retry-After": "5"}
    )


def unusable() -> ApiError:
    """Return the answer of a server whose store or model is damaged or gone.

    The server's log names it: its paths are nothing for clients.
    """
    return ApiError(500, "the server: it cannot read what it serves", "tell who runs it")
