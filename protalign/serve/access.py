"""The outermost layer: keys, limits of bodies and requests, headers, logs, and the last net."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from protalign.core.errors import InputError, show_traceback
from protalign.core.printing import one_line
from protalign.core.untrusted import read_bytes
from protalign.serve.errors import ApiError, queue_full, shutting_down
from protalign.serve.metrics import Metrics
from protalign.serve.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("protalign.serve")

#: Paths that need no key: they say nothing of what is served.
OPEN = ("/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico")
#: What a page of this server may load: files of its own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_PORT = re.compile(r":\d*$")
#: Seconds that a client has to read a part of its answer.
_SEND_SECONDS = 60
#: The shortest key.
_SHORTEST_KEY = 16


def read_key(path: Path) -> str:
    """Return the key in a file: its first line.

    Raises
    ------
    InputError
        The file cannot be read, or it has no key of 16 printable characters and more.
    """
    advice = "write one line of at least 16 characters, such as `openssl rand -hex 32` prints"
    data = read_bytes(path, advice, most=10_000)
    key = data.split(b"\n")[0].strip()
    if len(key) < _SHORTEST_KEY or not all(33 <= byte < 127 for byte in key):
        raise InputError(f"{path}: it has no key", advice)
    return key.decode()


class Gate:
    """An ASGI application around the server's own; every answer goes through it.

    Parameters
    ----------
    app : ASGI application
        The server's own.
    settings : Settings
        Key, limits, origins, hosts.
    metrics : Metrics
        Counts and times.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._key = _digest(settings.key)
        self._running = 0
        self.ending = False
        self.service: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        origin = _header(scope["headers"], b"origin")
        only_head = scope["method"] == "HEAD"
        if only_head:  # wherever GET is; the body is left out below
            scope = {**scope, "method": "GET"}

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name.lower() for name, _ in message.get("headers", ())}
                more = [each for each in HEADERS if each[0] not in names]
                if b"cache-control" not in names:
                    more.append((b"cache-control", b"no-store"))
                # Refusals of this gate too: a page could not read them otherwise.
                if origin in self._settings.origins and b"access-control-allow-origin" not in names:
                    more.append((b"access-control-allow-origin", origin.encode("latin-1")))
                    more.append((b"access-control-expose-headers", b"Retry-After"))
                    more.append((b"vary", b"Origin"))
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            elif only_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            async with asyncio.timeout(_SEND_SECONDS):  # it may never read
                await send(message)

        self._running += 1
        self._metrics.running.set(self._running)
        try:
            try:
                self._check(scope)
                await self._app(scope, self._bounded(scope, receive), send_more)
            except ApiError as error:
                if not status:
                    await send_error(error, send_more)
        except asyncio.CancelledError:  # its time to end is over
            if not self.ending or status:
                raise
            await send_error(shutting_down(), send_more)
        except Exception as error:  # the server goes on, whatever one request did
            show_traceback(error)
            log.error("%s %s: %s", _method(scope), _route(scope), type(error).__name__)
            if not status:
                await send_error(internal_error(), send_more)
        finally:
            self._running -= 1
            self._metrics.running.set(self._running)
            seconds, route = time.perf_counter() - start, _route(scope)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.latency.labels(route).observe(seconds)
            log.info("%s %s %d %.0f ms", _method(scope), route, status, 1000 * seconds)

    def _check(self, scope: Scope) -> None:
        """Raise the ApiError of a request that may not go on."""
        path, headers = scope["path"], scope["headers"]
        if path == "/health":
            return
        if self.ending:
            raise shutting_down()
        if path == "/ready":
            return
        if self._running > self._settings.limits.requests:
            raise queue_full()
        if self._settings.hosts:
            host = _PORT.sub("", _header(headers, b"host"))
            if host.lower() not in self._settings.hosts:
                raise ApiError(
                    400,
                    f"Host: this server is not called {one_line(host, 60)!r}",
                    "use the address that it printed, or start it with an --api-key-file",
                )
        origin = _header(headers, b"origin")
        if origin and not self._may_ask(origin, headers):
            raise ApiError(
                403,
                f"Origin: pages of {one_line(origin, 100)!r} may not ask this server",
                "start it with --origin, if they may",
            )
        # A browser asks before it sends a key to another origin, and cannot give the key yet.
        asks_first = scope["method"] == "OPTIONS" and self._settings.origins
        is_open = path in OPEN or path.startswith("/static/") or asks_first
        if self._settings.key and not is_open and not self._has_key(headers):
            raise ApiError(
                401,
                "the key: it is missing or wrong",
                "send the server's key as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = _header(headers, b"content-length")
        if length.isdigit() and int(length) > self._settings.limits.body_bytes:
            raise self._too_large()

    def _may_ask(self, origin: str, headers: list[tuple[bytes, bytes]]) -> bool:
        """Return whether a page's requests are answered: the server's own, and of named origins.

        A browser asks for other pages as well, and hides only the answer from them.
        """
        if origin in self._settings.origins:
            return True
        if _header(headers, b"sec-fetch-site").strip() in ("same-origin", "none"):
            return True
        return origin.partition("://")[2].lower() == _header(headers, b"host").lower()

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        scheme, _, given = _header(headers, b"authorization").partition(" ")
        if scheme.lower() != "bearer":
            given = _header(headers, b"x-api-key")
        # Digests have one length, and comparing them takes one time.
        return hmac.compare_digest(_digest(given.strip()), self._key)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Return a ``receive`` that refuses what comes after the limit, however it is sent."""
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._settings.limits.body_bytes:
                    raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> ApiError:
        most = self._settings.limits.body_bytes
        return ApiError(
            413,
            f"the body: it has more than {most:,} bytes",
            "send fewer or smaller queries",
            headers={"Connection": "close"},
        )


def internal_error() -> ApiError:
    """Return the answer to a request that met a defect of the server."""
    return ApiError(
        500, "the server: it met an error that nobody foresaw", "report it with the server's log"
    )


async def send_error(error: ApiError, send: Send) -> None:
    """Send an error as an answer."""
    from protalign.serve.answers import json_response

    response = json_response(error.document(), error.status, error.headers)
    await send(
        {"type": "http.response.start", "status": error.status, "headers": response.raw_headers}
    )
    await send({"type": "http.response.body", "body": response.body})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _header(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def _route(scope: Scope) -> str:
    """Return the route of a request, without what the client wrote into it."""
    route = getattr(scope.get("route"), "path_format", None)
    if isinstance(route, str):
        return route
    return str(scope["path"]) if scope["path"] in OPEN else "(other)"


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return str(scope["method"]) if scope["method"] in known else "(other)"
