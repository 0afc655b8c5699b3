"""The server's process: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from uvicorn.protocols.http.h11_impl import H11Protocol

from protalign.core.errors import InputError, ProtAlignError
from protalign.core.printing import one_line, printable
from protalign.serve.access import Gate
from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.settings import Settings, is_loopback

log = logging.getLogger("protalign.serve")

#: Seconds that a client has for the head of a request, and that a connection may lie idle.
HEAD_SECONDS, IDLE_SECONDS = 10.0, 15
#: Connections that the event loop takes at once, and open files of all else: the store, libraries.
_BACKLOG, _FILES = 64, 64
#: Connections that may wait to be taken, as the system permits: above it, each client waits for a
#: second or more until its system asks again.
_WAITING = 4096
#: What a browser sends as the origin of a page.
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]+)?")
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
)
_BODY = (
    b'{"error":{"message":"the server: it has too many connections; try again later",'
    b'"type":"server_error","code":"unavailable","param":null}}'
)
_MALFORMED = (
    b'{"error":{"message":"the request: it is not HTTP; see /docs","type":"invalid_request_error",'
    b'"code":"malformed","param":null}}'
)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    InputError
        The address is taken, not this machine's, or not permitted.
    """
    try:
        facts = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = facts[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(_BACKLOG)
        except OSError:
            bound.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{one_line(host, 100)}:{port}: it cannot be served ({one_line(reason, 100)})",
            "name another --host or --port",
        ) from None
    bound.setblocking(False)
    return bound


def check_exposure(host: str, settings: Settings, *, no_auth: bool) -> None:
    """Raise InputError if other machines would reach a server without a key, or no page can.

    Examples
    --------
    >>> check_exposure("127.0.0.1", Settings(), no_auth=False)
    >>> check_exposure("0.0.0.0", Settings(), no_auth=False)
    Traceback (most recent call last):
    protalign.core.errors.InputError: 0.0.0.0: other machines would reach it without a key; ...
    """
    for origin in settings.origins:
        if not _ORIGIN.fullmatch(origin):
            raise InputError(
                f"--origin {one_line(origin, 100)}: it is not an origin",
                "write its scheme and host, such as https://lab.example",
            )
    if not (is_loopback(host) or settings.key or no_auth):
        raise InputError(
            f"{one_line(host, 100)}: other machines would reach it without a key",
            "give --api-key-file, or write --no-auth",
        )


def connections_that_fit(most: int) -> int:
    """Return how many connections may be open, and raise the limit of open files for them.

    Without room for more files the event loop could not even refuse a connection. Those that it
    refuses are open for a few of its rounds.

    Parameters
    ----------
    most : int
        The answer, at most.
    """
    others = 4 * _BACKLOG + _FILES
    files, permitted = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < most + others:
        wanted = most + others
        if permitted != resource.RLIM_INFINITY:
            wanted = min(wanted, permitted)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, permitted))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = max(1, min(most, files - others))
    return most


class _Protocol(H11Protocol):
    """HTTP with a time limit for a request's head, and a limit of connections."""

    #: Connections at once; ``make_server`` sets it.
    most = 1024
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_TOO_MANY % (len(_BODY), _BODY))
            transport.close()
            return
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def data_received(self, data: bytes) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._timer is None:  # the head of another request begins
            self._wait_for_head()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        head = (
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n"
        )
        self.transport.write(head % len(_MALFORMED) + _MALFORMED)
        self.transport.close()


class _Server(uvicorn.Server):
    """A server that says that it ends, and that takes up a library again when it is asked to."""

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gate.ending = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():  # the event loop has listened with its own, smaller number
            each.listen(_WAITING)
        if threading.current_thread() is threading.main_thread():  # others get no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        self._reloading = asyncio.ensure_future(self._reloaded())

    async def _reloaded(self) -> None:
        try:
            library = await self._gate.service.reload()
            log.warning("reloaded: %s vectors", f"{len(library):,}")
        except ProtAlignError as error:
            log.error("%s", printable(f"{error}; the old vectors are served on"))
        except Exception as error:
            log.error("reload: %s; the old vectors are served on", type(error).__name__)


def make_server(gate: Gate, settings: Settings) -> uvicorn.Server:
    """Return a server of an application, with the limits of the settings.

    Parameters
    ----------
    gate : Gate
        The application.
    settings : Settings
        The limits.
    """
    protocol = type("_LimitedProtocol", (_Protocol,), {"most": settings.limits.connections})
    config = uvicorn.Config(
        gate,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(settings.drain),
    )
    return _Server(config, gate)


def serve(
    open_library: Callable[[], Library],
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    no_auth: bool = False,
    threads: int | None = None,
    ready: Callable[[str, Library], None] | None = None,
) -> None:
    """Serve until a signal ends it: SIGTERM and Ctrl-C finish what is under way.

    Parameters
    ----------
    open_library : callable
        Opens what is served; called at the start, and for each reload (SIGHUP).
    settings : Settings
        Limits, key, origins.
    host, port : str, int
        The address; port 0 is a free one.
    no_auth : bool
        Whether other machines may reach it without a key.
    threads : int, optional
        Threads that compute; default: all cores.
    ready : callable, optional
        Is called with the address and the library once it is open.

    Raises
    ------
    InputError
        The address cannot be used, or needs a key.
    ProtAlignError
        The library cannot be opened.
    """
    check_exposure(host, settings, no_auth=no_auth)
    fitting = connections_that_fit(settings.limits.connections)
    settings = replace(settings, limits=replace(settings.limits, connections=fitting))
    bound = bound_socket(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{bound.getsockname()[1]}"
    failure: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failure.append(error)
        server.should_exit = True

    def started(library: Library) -> None:
        # The server's threads have a core each; a matrix library would take all for each of them.
        threadpool_limits(limits=1, user_api="blas")
        if ready is not None:
            ready(address, library)

    gate = make_app(open_library, settings, threads=threads, started=started, failed=failed)
    server = make_server(gate, settings)
    try:
        server.run(sockets=[bound])
    finally:
        bound.close()
    if failure:
        raise failure[0]


def log_to_stderr(level: int) -> None:
    """Write the server's log, a line for each answer at INFO, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes bodies
    for name in ("protalign.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level if name == "protalign.serve" else max(level, logging.WARNING))
