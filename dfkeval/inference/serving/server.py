"""Serve the application on a socket, by uvicorn.

uvicorn waits without end for the head of a request, so a caller that sends little and holds on would take a
place for ever.

Guarantees:
- A connection whose request head is not complete within `Limits.upload` seconds, counted anew for each
  request, is closed, also one that sends nothing.
- A connection that is answered and idle closes after `IDLE` seconds.
- At most `Limits.connections` are open; one more is closed at once.
- A server that is told to end takes no more connections, and answers what it has taken within `timeout` seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from dfkdata.common.console import say
from dfkdata.common.errors import ConfigError
from dfkeval.inference.serving.limits import Limits

#: Seconds until an answered connection without a further request is closed.
IDLE = 5


def config(app: Starlette, limits: Limits, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for one process.

    Args:
        app: The application.
        limits: Its limits.
        **options: Options of uvicorn, such as host and port.
    """
    bounds = {"seconds": limits.upload, "most": limits.connections}
    return uvicorn.Config(
        app, http=type("Bounded", (_Bounded,), bounds), access_log=False, server_header=False,
        timeout_keep_alive=IDLE, **({"timeout_graceful_shutdown": ceil(limits.timeout) + 5} | options),
    )  # fmt: skip


def run(
    app: Starlette,
    limits: Limits,
    host: str,
    port: int,
    *,
    ready: Callable[[int], None] = lambda _: None,
    is_stuck: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until a signal comes: SIGINT and SIGTERM by uvicorn, SIGHUP alike.

    Args:
        app: The application.
        limits: Its limits.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        ready: Called with the port when it is listened on.
        is_stuck: Whether a thread of the application still runs at the end, which Python would wait for.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    listening = _listening(host, port, limits.connections)
    server = uvicorn.Server(config(app, limits, log_level="warning"))
    ready(listening.getsockname()[1])
    try:
        with listening, _ended_by_hangup(server):
            server.run(sockets=[listening])
    finally:
        if is_stuck():
            say("the engine is stuck; it is left as it is")
            os._exit(1)


def _listening(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening socket; it names its protocol, without which asyncio would send answers in pieces that wait
    for one another (40 ms)."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: no address of this machine ({error.strerror or error})") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(backlog)
    except OSError as error:
        made.close()
        raise ConfigError(f"{host}:{port}: cannot be listened on ({error.strerror or error})") from error
    return made


@contextmanager
def _ended_by_hangup(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGHUP end the server as SIGTERM does, and raise it again when it has ended."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) is signal.SIG_IGN:
        yield
        return
    came: list[int] = []

    def end(sent: int, _: object) -> None:
        came.append(sent)
        server.should_exit = True

    before = signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, before)
    if came:
        signal.raise_signal(number)


class _Bounded(H11Protocol):
    """uvicorn's protocol with a time limit on the head of a request, for so many connections.

    Attributes:
        seconds: Seconds for a head.
        most: Connections at once.
    """

    seconds: float
    most: int
    due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.close()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the clock run between requests and not within one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self.due is None:
            self.due = self.loop.call_later(self.seconds, self.transport.close)

    def _forget(self) -> None:
        if self.due is not None:
            self.due.cancel()
        self.due = None
