"""Bound the time of a whole attempt: connecting, sending, headers and body together.

httpx bounds each read and write alone, so a server that sends a byte now and then keeps a request for ever.

How it works: the connections of a client go through a backend that gives each operation of a thread what is left of
that thread's deadline. httpx has no public place for a backend; where a release has another one than the known, its own
limits apply."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OWN = threading.local()
#: Bytes that are written before the deadline is looked at again.
_PIECE = 16_384


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let everything that this thread does over bounded connections end after `seconds`, with httpx's own errors."""
    _OWN.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        _OWN.deadline = None


def bound(client: Any) -> None:
    """Let the connections that an httpx client will open, through proxies too, keep to the deadline of their thread."""
    for transport in (client._transport, *client._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        if hasattr(pool, "_network_backend"):
            pool._network_backend = _Backend(pool._network_backend)


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """Return the seconds for one operation. Raises `late` if none are left."""
    deadline = getattr(_OWN, "deadline", None)
    if deadline is None:
        return timeout
    left: float = deadline - time.monotonic()
    if left <= 0:
        raise late("the time of the attempt is over")
    return left if timeout is None else min(timeout, left)


class _Backend:
    """Opens connections whose every operation keeps to the deadline."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> Any:
        import httpcore

        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, left, local_address, socket_options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Stream:
    """One connection."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        import httpcore

        return self._inner.read(max_bytes, timeout=_left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        import httpcore

        for start in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[start : start + _PIECE], timeout=_left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> Any:
        import httpcore

        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout=left))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
