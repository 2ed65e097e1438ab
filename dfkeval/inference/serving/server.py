"""Serve the application on a socket, by uvicorn.

uvicorn waits without end for the head of a request, so a caller that sends little and holds on would take a
place for ever.

Guarantees:
- A connection whose request head is not complete within `Limits.upload` seconds, counted anew for each
  request, is closed, also one that sends nothing.
- A connection that is answered and idle closes after `IDLE` seconds."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

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
    return uvicorn.Config(
        app, http=_protocol(limits.upload), access_log=False, server_header=False,
        limit_concurrency=4 * limits.queue + 64, timeout_keep_alive=IDLE, **options,
    )  # fmt: skip


def _protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol with a time limit on the head of a request."""

    class Timed(H11Protocol):
        due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
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
                self.due = self.loop.call_later(seconds, self.transport.close)

        def _forget(self) -> None:
            if self.due is not None:
                self.due.cancel()
            self.due = None

    return Timed
